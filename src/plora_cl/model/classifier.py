"""The encoder, its adapters and its heads as one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from plora_cl.errors import ModelError
from plora_cl.model.adapters import AdapterBank
from plora_cl.model.encoder import adapter_targets, shared_names
from plora_cl.model.lateral import LateralConnection, as_at_test_time
from plora_cl.model.pooling import middle_layers, token_mean
from plora_cl.state import SeedFor, TensorPart, derived_seed

Pooling: TypeAlias = Literal["cls", "mean"]
Composition: TypeAlias = Literal["isolated", "cumulative"]

_HEAD_STD = 0.02  # the initializer_range of BERT


class ContinualClassifier(nn.Module):
    """One encoder with a LoRA adapter and a linear head per task.

    Which adapters contribute is the composition: ``isolated`` uses the adapter of the task asked
    for; ``cumulative`` uses the sum of all adapters learned so far, whatever the task (O-LoRA).

    With lateral connections every task but the first one also reads the features of the tasks
    before it, see `represent`.

    Args:
        encoder: Returns ``last_hidden_state [batch, tokens, hidden]``; owned by the model.
        pooling: ``cls`` takes the first token, ``mean`` averages over the tokens of the text.
        composition: ``isolated`` or ``cumulative``.
        shared: What every task may change: encoder parameters, see `shared_names`, or, for
            ``lora``, one more adapter, which acts whatever the task.
        task_adapters: Each task has an adapter of its own; without, a head alone.
        joint: All tasks are learned together: nothing freezes before the end.
        lora_r: Rank of each adapter.
        lora_alpha: Adapter scale; contributions are multiplied by ``lora_alpha / lora_r``.
        lora_dropout: Dropout in front of the trainable adapter, in [0, 1).
        lora_target_modules: Endings of layer names to adapt; None for the attention projections.
        lateral_rank: Inner size of the lateral connection of each task but the first; None for
            none.
        seed: What a task adds starts from values that depend on this and the task alone.

    Raises:
        ModelError: The encoder lacks what is to be adapted or shared, or lateral connections are
            to read adapters that there are not.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        pooling: Pooling = "cls",
        composition: Composition = "isolated",
        shared: str = "none",
        task_adapters: bool = True,
        joint: bool = False,
        lora_r: int = 8,
        lora_alpha: int = 16,
        lora_dropout: float = 0.05,
        lora_target_modules: Sequence[str] | None = None,
        lateral_rank: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if lateral_rank is not None and not task_adapters:
            raise ModelError(
                "lateral connections read what earlier adapters see, and tasks have none: set "
                "task_adapters: true, or use_lateral: false"
            )
        self.pooling: Pooling = pooling
        self.composition: Composition = composition
        self.task_adapters, self.joint = task_adapters, joint
        self._seed, self._lateral_rank = seed, lateral_rank
        encoder.requires_grad_(False)
        names = shared_names(encoder, shared)
        adapted = task_adapters or shared == "lora"
        targets = adapter_targets(encoder, lora_target_modules) if adapted else []
        tensors = dict(encoder.named_parameters())
        self._shared = {name: tensors.pop(name) for name in names}
        self._frozen = tensors
        self._buffers_of_base = [name for name, b in encoder.named_buffers() if b.numel()]
        self.encoder = encoder
        self.adapters = AdapterBank(
            encoder, targets=targets, r=lora_r, alpha=lora_alpha, dropout=lora_dropout
        )
        if shared == "lora":
            first = torch.Generator().manual_seed(derived_seed(seed, 0, SeedFor.SHARED_ADAPTER))
            self.adapters.add_shared(first)
            self._shared = self.adapters.shared_parameters()
        self.heads = nn.ModuleList()
        self.laterals = nn.ModuleDict()  # by the number of their task
        self._parts: dict[str, TensorPart] = {}

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.encoder.parameters()).device

    @property
    def _hidden(self) -> int:
        hidden: int = self.encoder.config.hidden_size  # type: ignore[assignment, union-attr]
        return hidden

    @property
    def tasks(self) -> int:
        """Number of tasks that have a head."""
        return len(self.heads)

    @property
    def learning(self) -> range:
        """The tasks that are being learned; what the others own is frozen."""
        return range(0 if self.joint else max(self.tasks - 1, 0), self.tasks)

    def grow(self, classes: int) -> None:
        """Add what the next task owns, see `parts_of`, and freeze all that is not `learning`.

        Deterministic: depends on the seed and the number of the task, and leaves the process-wide
        random generators as they were.
        """
        task = self.tasks
        seed = derived_seed(self._seed, task, SeedFor.ADAPTER)
        if self.task_adapters:
            self.adapters.add(torch.Generator().manual_seed(seed))
        if "lateral" in self._kinds(task):
            self.laterals[str(task)] = self._closed_lateral(task)
        self.heads.append(self.untrained_head(task, classes))
        self.requires_grad_(False)  # PEFT leaves every adapter trainable
        for parameter in self.trainable().values():
            parameter.requires_grad_(True)
        self.train(self.training)

    def untrained_head(self, task: int, classes: int) -> nn.Linear:
        """Return the head ``[classes, hidden]`` with which ``task`` starts, or would start."""
        generator = torch.Generator().manual_seed(derived_seed(self._seed, task, SeedFor.HEAD))
        head = nn.utils.skip_init(nn.Linear, self._hidden, classes)
        assert isinstance(head, nn.Linear)
        nn.init.normal_(head.weight, std=_HEAD_STD, generator=generator)
        nn.init.zeros_(head.bias)
        return head.to(self.device)

    def _closed_lateral(self, task: int) -> LateralConnection:
        assert self._lateral_rank is not None
        generator = torch.Generator().manual_seed(derived_seed(self._seed, task, SeedFor.LATERAL))
        lateral = LateralConnection(self._hidden, self._lateral_rank, generator)
        return lateral.to(self.device)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, task: int) -> Tensor:
        """Return the logits ``[batch, classes of task]``."""
        logits: Tensor = self.heads[task](self.represent(input_ids, attention_mask, task))
        return logits

    def represent(self, input_ids: Tensor, attention_mask: Tensor | None, task: int) -> Tensor:
        """Return what the head of ``task`` reads, ``[batch, hidden]``.

        That is `features` under `adapters_for` the task, ``h_k``. A lateral connection makes it
        ``h_k + g * f([h_k ; mean_j<k h_j])``, where ``h_j`` is what task ``j`` saw when it had
        just been learned, but for what is shared: features under adapter ``j`` (``isolated``), or
        under adapters ``0..j`` (``cumulative``). They come without dropout and, as in the source,
        without gradient: what is shared learns through ``h_k``. For task ``k`` this takes ``k``
        forward passes more.

        Args:
            input_ids: Token ids ``[batch, tokens]``.
            attention_mask: 1 for text, 0 for padding; None where nothing is padded.
            task: Which task; one that is not learned yet has no lateral connection.
        """
        # First: older PyTorch reuses casts under autocast, also those made without gradient
        own = self.features(input_ids, attention_mask, self.adapters_for(task))
        if str(task) not in self.laterals:
            return own
        with as_at_test_time(self.encoder):
            earlier = [
                self.features(input_ids, attention_mask, self._adapters_then(j))
                for j in range(task)
            ]
        represented: Tensor = self.laterals[str(task)](own, torch.stack(earlier).mean(0))
        return represented

    def adapters_for(self, task: int) -> list[int]:
        """Return the tasks whose adapters contribute to predictions of ``task``.

        A task that has not been learned yet has no adapter: ``isolated`` then uses none.
        """
        if self.composition == "cumulative":
            return list(range(len(self.adapters)))
        return [task] if task < len(self.adapters) else []

    def _adapters_then(self, task: int) -> list[int]:
        """Return `adapters_for` an earlier task as it was when that had just been learned."""
        return list(range(task + 1)) if self.composition == "cumulative" else [task]

    def dependencies(self, task: int) -> list[str]:
        """Return the names of the parts, beside base and head, that `represent` depends on."""
        adapters = self.adapters_for(task)
        if str(task) not in self.laterals:
            return ["shared", *(f"adapter-{k}" for k in adapters)]
        read = sorted({*adapters, *range(task)})
        return ["shared", *(f"adapter-{k}" for k in read), f"lateral-{task}"]

    def features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        adapters: Sequence[int],
        *,
        shared: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Encode token ids ``[batch, tokens]`` into ``[batch, hidden]``.

        Args:
            input_ids: Token ids.
            attention_mask: 1 for text, 0 for padding; None where nothing is padded.
            adapters: Tasks whose adapters contribute.
            shared: Values to use in place of the shared parameters, by name.
        """
        hidden: Tensor = self._encoded(input_ids, attention_mask, adapters, shared)[-1]
        return hidden[:, 0] if self.pooling == "cls" else token_mean(hidden, attention_mask)

    def plain_layers(
        self, input_ids: Tensor, attention_mask: Tensor | None, *, shared: Mapping[str, Tensor]
    ) -> Tensor:
        """Encode texts at two depths without adapters, ``[batch, layers, hidden]``.

        The layers are those at a half and at five sixths of the depth, see `middle_layers`;
        averaged over the tokens of the text whatever `pooling` is.

        Args:
            input_ids: Token ids ``[batch, tokens]``.
            attention_mask: 1 for text, 0 for padding; None where nothing is padded.
            shared: Values to use in place of the shared parameters, by name.
        """
        states = self._encoded(input_ids, attention_mask, (), shared, every_layer=True)
        chosen = middle_layers(len(states) - 1)
        return torch.stack([token_mean(states[layer], attention_mask) for layer in chosen], 1)

    def _encoded(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        adapters: Sequence[int],
        shared: Mapping[str, Tensor] | None,
        *,
        every_layer: bool = False,
    ) -> Sequence[Tensor]:
        """Return the last hidden states, or embeddings and the states after every layer."""
        self.adapters.select(adapters)
        texts: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if every_layer:
            texts["output_hidden_states"] = True
        if shared:
            # Never written into the parameters: a checkpoint may be reading them meanwhile
            output = functional_call(self.encoder, self._by_present_name(shared), (), texts)
        else:
            output = self.encoder(**texts)
        every: Sequence[Tensor] | None = output.hidden_states if every_layer else None
        return (output.last_hidden_state,) if every is None else every

    def train(self, mode: bool = True) -> Self:
        """Switch dropout on or off; frozen adapters never drop anything."""
        super().train(mode)
        if mode:
            frozen = range(min(self.learning.start, len(self.adapters)))
            self.adapters.silence_dropout(frozen)
        return self

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters that the tasks in `learning` may change, in a stable order."""
        groups = ["shared", *(name for task in self.learning for name in self.parts_of(task))]
        return {
            f"{group}.{name}": parameter
            for group in groups
            for name, parameter in self._parameters_of(group).items()
        }

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that all tasks share and change.

        They go by their name in the encoder; those of the shared adapter by ``shared_lora``, the
        name of the layer and ``lora_A`` or ``lora_B``.
        """
        return dict(self._shared)

    def parts(self) -> Mapping[str, TensorPart]:
        """Return every group of tensors that freezes or changes as a unit, see `part`."""
        own = [name for task in range(self.tasks) for name in self.parts_of(task)]
        return {name: self.part(name) for name in ("base", "shared", *own)}

    def parts_of(self, task: int) -> list[str]:
        """Return the names of the parts that change only while ``task`` is learned."""
        return [f"{kind}-{task}" for kind in self._kinds(task)]

    def _kinds(self, task: int) -> list[str]:
        lateral = self._lateral_rank is not None and task > 0
        return [
            *(["adapter"] if self.task_adapters else []),
            "head",
            *(["lateral"] if lateral else []),
        ]

    def part(self, name: str) -> TensorPart:
        """Return one group of tensors that freezes or changes as a unit, by its stable name.

        ``base`` never changes, ``shared`` changes with every task, ``adapter-k``, ``head-k`` and
        ``lateral-k`` only while task ``k`` is learned.

        Raises:
            KeyError: There is no such group.
        """
        if name == "base":
            # Unlike parameters, buffers become other tensors when a module moves to a device
            buffers = {name: self.encoder.get_buffer(name) for name in self._buffers_of_base}
            return TensorPart({**self._frozen, **buffers})
        if name not in self._parts:
            self._parts[name] = TensorPart(self._parameters_of(name))
        return self._parts[name]

    def _by_present_name(self, shared: Mapping[str, Tensor]) -> dict[str, Tensor]:
        present = {id(p): name for name, p in self.encoder.named_parameters()}  # adapters rename
        return {present[id(self._shared[name])]: value for name, value in shared.items()}

    def _parameters_of(self, name: str) -> Mapping[str, nn.Parameter]:
        kind, _, number = name.partition("-")
        if name == "shared":
            return self._shared
        if number not in map(str, range(self.tasks)) or kind not in self._kinds(int(number)):
            raise KeyError(name)
        if kind == "adapter":
            return self.adapters.parameters(int(number))
        module = self.heads[int(number)] if kind == "head" else self.laterals[number]
        return dict(module.named_parameters())
