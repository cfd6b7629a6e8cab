"""The adapted encoder, lateral connections and heads as one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from plora_cl.errors import ModelError
from plora_cl.model.adapted_encoder import AdaptedEncoder
from plora_cl.model.adapters import AdapterBank
from plora_cl.model.evaluation_mode import evaluation_mode
from plora_cl.model.lateral import LateralConnection
from plora_cl.model.settings import Composition, Pooling
from plora_cl.pretrained.configuration_digest import configuration_digest
from plora_cl.state import SeedFor, TensorPart, derived_seed

_HEAD_STD = 0.02  # the initializer_range of BERT


class ContinualClassifier(nn.Module):
    """One encoder with a LoRA adapter and a linear head per task.

    The composition decides which adapters contribute: ``isolated`` uses the adapter of the task;
    ``cumulative`` uses the sum of all adapters learned so far, for every task (O-LoRA).

    With lateral connections every task except the first also reads the features of earlier tasks,
    see `represent`.

    Args:
        encoder: Returns ``last_hidden_state [batch, tokens, hidden]``; owned by the model.
        pooling: ``cls`` takes the first token, ``mean`` averages over the tokens of the text.
        composition: ``isolated`` or ``cumulative``.
        shared: Parameters that every task may change: those of the encoder, see `shared_names`,
            or, for ``lora``, those of one more adapter, which acts for every task.
        task_adapters: Each task has its own adapter; if False, only its own head.
        joint: All tasks are learned together: nothing freezes before the end.
        lora_r: Rank of each adapter.
        lora_alpha: Adapter scale; contributions are multiplied by ``lora_alpha / lora_r``.
        lora_dropout: Dropout in front of the trainable adapter, in [0, 1).
        lora_target_modules: Suffixes of layer names to adapt; None for the attention projections.
        lateral_rank: Inner size of the lateral connection of each task except the first; None
            disables lateral connections.
        seed: Decides, with the index of a task, the initial values of what the task adds.

    Raises:
        ModelError: The encoder has no layer to adapt or no parameter to share, or lateral
            connections are on without task adapters.
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
                "lateral connections require task adapters: set task_adapters: true, or "
                "use_lateral: false"
            )
        self.composition: Composition = composition
        self.task_adapters, self.joint = task_adapters, joint
        self._seed, self._lateral_rank = seed, lateral_rank
        self.encoder = encoder
        self.adapted = AdaptedEncoder(
            encoder,
            pooling=pooling,
            shared=shared,
            task_adapters=task_adapters,
            lora_r=lora_r,
            lora_alpha=lora_alpha,
            lora_dropout=lora_dropout,
            lora_target_modules=lora_target_modules,
            seed=seed,
        )
        self.heads = nn.ModuleList()
        self.laterals = nn.ModuleDict()  # by the number of their task
        self._parts: dict[str, TensorPart] = {}

    @property
    def adapters(self) -> AdapterBank:
        """The adapters of all tasks."""
        return self.adapted.adapters

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
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
        """Tasks in training; the parameters of other tasks are frozen."""
        return range(0 if self.joint else max(self.tasks - 1, 0), self.tasks)

    def grow(self, classes: int) -> None:
        """Add the parts of the next task, see `parts_of`, and freeze those of earlier tasks.

        Deterministic: depends on the seed and the index of the task. The process-wide random
        generators keep their state.
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
        """Return the head ``[classes, hidden]`` that ``task`` starts with."""
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
        """Return the input of the head of ``task``, ``[batch, hidden]``.

        Without a lateral connection that is ``h_k``: `AdaptedEncoder.features` under
        `adapters_for` the task. A lateral connection returns ``h_k + g * f([h_k ; mean_j<k h_j])``.
        Here ``h_j`` are the features under adapter ``j`` (``isolated``) or adapters ``0..j``
        (``cumulative``): those of task ``j`` when it had just been learned, except that shared
        parameters have their present values. They are computed without dropout and, as in the
        source, without gradient. Task ``k`` takes ``k`` more forward passes.

        Args:
            input_ids: Token ids ``[batch, tokens]``.
            attention_mask: 1 for text, 0 for padding; None where nothing is padded.
            task: Index of the task; a task that was not added yet has no lateral connection.
        """
        # First: older PyTorch reuses casts under autocast, even those made without gradient
        own = self.adapted.features(input_ids, attention_mask, self.adapters_for(task))
        if str(task) not in self.laterals:
            return own
        with evaluation_mode(self.encoder):
            earlier = [
                self.adapted.features(input_ids, attention_mask, self._adapters_then(j))
                for j in range(task)
            ]
        represented: Tensor = self.laterals[str(task)](own, torch.stack(earlier).mean(0))
        return represented

    def adapters_for(self, task: int) -> list[int]:
        """Return the tasks whose adapters contribute to predictions of ``task``.

        A task that was not added yet has no adapter: ``isolated`` then uses none.
        """
        if self.composition == "cumulative":
            return list(range(len(self.adapters)))
        return [task] if task < len(self.adapters) else []

    def _adapters_then(self, task: int) -> list[int]:
        """Return `adapters_for` an earlier task at the time when it had just been learned."""
        return list(range(task + 1)) if self.composition == "cumulative" else [task]

    def dependencies(self, task: int) -> list[str]:
        """Return the names of the parts that `represent` reads, except the base."""
        adapters = self.adapters_for(task)
        if str(task) not in self.laterals:
            return ["shared", *(f"adapter-{k}" for k in adapters)]
        read = sorted({*adapters, *range(task)})
        return ["shared", *(f"adapter-{k}" for k in read), f"lateral-{task}"]

    def computation(self) -> dict[str, str | float]:
        """Return the configuration that `represent` depends on."""
        return {
            "encoder": configuration_digest(self.encoder),
            "pooling": self.adapted.pooling,
            "composition": self.composition,
            "adapter_scale": self.adapters.scale,
        }

    def train(self, mode: bool = True) -> Self:
        """Switch dropout on or off; frozen adapters never apply it."""
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

        Encoder parameters keep their names; those of the shared adapter are named
        ``shared_lora.<layer>.lora_A`` and ``.lora_B``.
        """
        return dict(self.adapted.shared)

    def parts(self) -> Mapping[str, TensorPart]:
        """Return every group of tensors that freezes or changes as a unit; see `part`."""
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

        ``base`` never changes. ``shared`` changes with every task. ``adapter-k``, ``head-k`` and
        ``lateral-k`` change only while task ``k`` is learned.

        Raises:
            KeyError: There is no such group.
        """
        if name == "base":
            return TensorPart(self.adapted.base())
        if name not in self._parts:
            self._parts[name] = TensorPart(self._parameters_of(name))
        return self._parts[name]

    def _parameters_of(self, name: str) -> Mapping[str, nn.Parameter]:
        kind, _, number = name.partition("-")
        if name == "shared":
            return self.adapted.shared
        if number not in map(str, range(self.tasks)) or kind not in self._kinds(int(number)):
            raise KeyError(name)
        if kind == "adapter":
            return self.adapters.parameters(int(number))
        module = self.heads[int(number)] if kind == "head" else self.laterals[number]
        return dict(module.named_parameters())
