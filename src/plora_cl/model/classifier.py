"""The encoder, its adapters and its heads as one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self, TypeAlias

import torch
from torch import Tensor, nn

from plora_cl.model.adapters import AdapterBank
from plora_cl.model.encoder import adapter_targets, shared_names
from plora_cl.state import TensorPart, derived_seed

Pooling: TypeAlias = Literal["cls", "mean"]
Composition: TypeAlias = Literal["isolated", "cumulative"]

_HEAD_STD = 0.02  # the initializer_range of BERT


class ContinualClassifier(nn.Module):
    """One frozen encoder with a LoRA adapter and a linear head per task.

    Which adapters contribute is the composition: ``isolated`` uses the adapter of the task asked
    for; ``cumulative`` uses the sum of all adapters learned so far, whatever the task (O-LoRA).

    Args:
        encoder: Returns ``last_hidden_state [batch, tokens, hidden]``; owned by the model.
        pooling: ``cls`` takes the first token, ``mean`` averages over the tokens of the text.
        composition: ``isolated`` or ``cumulative``.
        shared: Encoder parameters that every task may change; see `shared_names`.
        lora_r: Rank of each adapter.
        lora_alpha: Adapter scale; contributions are multiplied by ``lora_alpha / lora_r``.
        lora_dropout: Dropout in front of the trainable adapter, in [0, 1).
        lora_target_modules: Endings of layer names to adapt; None for the attention projections.
        seed: Adapters and heads start from values that depend on this and their task alone.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        pooling: Pooling = "cls",
        composition: Composition = "isolated",
        shared: str = "none",
        lora_r: int = 8,
        lora_alpha: int = 16,
        lora_dropout: float = 0.05,
        lora_target_modules: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        self.composition: Composition = composition
        self._seed = seed
        encoder.requires_grad_(False)
        names = shared_names(encoder, shared)
        targets = adapter_targets(encoder, lora_target_modules)
        tensors = dict(encoder.named_parameters())
        self._shared = {name: tensors.pop(name) for name in names}
        self._frozen = tensors
        self._buffers_of_base = [name for name, b in encoder.named_buffers() if b.numel()]
        self.encoder = encoder
        self.adapters = AdapterBank(
            encoder, targets=targets, r=lora_r, alpha=lora_alpha, dropout=lora_dropout
        )
        self.heads = nn.ModuleList()
        self._parts: dict[str, TensorPart] = {}

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.encoder.parameters()).device

    @property
    def tasks(self) -> int:
        """Number of tasks that have an adapter and a head."""
        return len(self.heads)

    def grow(self, classes: int) -> None:
        """Add the adapter and the head of the next task and freeze those of earlier ones.

        Deterministic: depends on the seed and the number of the task, and leaves the process-wide
        random generators as they were.
        """
        task = self.tasks
        generator = torch.Generator().manual_seed(derived_seed(self._seed, task, 1))
        self.adapters.add(generator)
        self.heads.append(self.untrained_head(task, classes))
        self.requires_grad_(False)  # PEFT leaves every adapter trainable
        for parameter in self.trainable().values():
            parameter.requires_grad_(True)
        self.train(self.training)

    def untrained_head(self, task: int, classes: int) -> nn.Linear:
        """Return the head ``[classes, hidden]`` with which ``task`` starts, or would start."""
        generator = torch.Generator().manual_seed(derived_seed(self._seed, task, 0))
        hidden: int = self.encoder.config.hidden_size  # type: ignore[assignment, union-attr]
        head = nn.utils.skip_init(nn.Linear, hidden, classes)
        assert isinstance(head, nn.Linear)
        nn.init.normal_(head.weight, std=_HEAD_STD, generator=generator)
        nn.init.zeros_(head.bias)
        return head.to(self.device)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, task: int) -> Tensor:
        """Return the logits ``[batch, classes of task]``."""
        features = self.features(input_ids, attention_mask, self.adapters_for(task))
        logits: Tensor = self.heads[task](features)
        return logits

    def adapters_for(self, task: int) -> list[int]:
        """Return the tasks whose adapters contribute to predictions of ``task``.

        A task that has not been learned yet has no adapter: ``isolated`` then uses none.
        """
        if self.composition == "cumulative":
            return list(range(self.tasks))
        return [task] if task < self.tasks else []

    def features(
        self, input_ids: Tensor, attention_mask: Tensor | None, adapters: Sequence[int]
    ) -> Tensor:
        """Encode token ids ``[batch, tokens]`` into ``[batch, hidden]``.

        Args:
            input_ids: Token ids.
            attention_mask: 1 for text, 0 for padding; None where nothing is padded.
            adapters: Tasks whose adapters contribute.
        """
        self.adapters.select(adapters)
        hidden: Tensor = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state
        if self.pooling == "cls":
            return hidden[:, 0]
        if attention_mask is None:
            return hidden.mean(1)
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1)

    def train(self, mode: bool = True) -> Self:
        """Switch dropout on or off; frozen adapters never drop anything."""
        super().train(mode)
        if mode and self.tasks > 1:
            self.adapters.silence_dropout(range(self.tasks - 1))
        return self

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters that the current task may change, in a stable order."""
        task = self.tasks - 1
        own = {**self._adapter_and_head(task)} if task >= 0 else {}
        return {**{f"shared.{name}": p for name, p in self._shared.items()}, **own}

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that all tasks share and change, by their name in the encoder."""
        return dict(self._shared)

    def parts(self) -> Mapping[str, TensorPart]:
        """Return every group of tensors that freezes or changes as a unit, see `part`."""
        tasks = range(self.tasks)
        own = [f"{kind}-{task}" for task in tasks for kind in ("adapter", "head")]
        return {name: self.part(name) for name in ("base", "shared", *own)}

    def part(self, name: str) -> TensorPart:
        """Return one group of tensors that freezes or changes as a unit, by its stable name.

        ``base`` never changes, ``shared`` changes with every task, ``adapter-k`` and ``head-k``
        only while task ``k`` is learned.

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

    def _parameters_of(self, name: str) -> Mapping[str, nn.Parameter]:
        kind, _, number = name.partition("-")
        if name == "shared":
            return self._shared
        if number not in map(str, range(self.tasks)) or kind not in ("adapter", "head"):
            raise KeyError(name)
        if kind == "adapter":
            return self.adapters.parameters(int(number))
        return dict(self.heads[int(number)].named_parameters())

    def _adapter_and_head(self, task: int) -> dict[str, nn.Parameter]:
        adapter = self.adapters.parameters(task)
        head = self.heads[task].named_parameters()
        return {
            **{f"adapter-{task}.{name}": p for name, p in adapter.items()},
            **{f"head-{task}.{name}": p for name, p in head},
        }
