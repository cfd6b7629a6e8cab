"""LoRA adapters of one encoder, through the multi-adapter API of PEFT.

Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer, LoraModel
from torch import Tensor, nn

from plora_cl.pretrained.lora_matrices import A, draw_a, lora_layers, lora_matrices

_SHARED = "shared"


class AdapterBank:
    """The LoRA adapters of an encoder: one per task, and optionally a shared one.

    PEFT stores the active adapters in every layer. `select` sets them before each forward pass, so
    that no result depends on earlier calls.

    Args:
        encoder: The encoder to adapt; its linear layers are wrapped in place.
        targets: Qualified names of the linear layers to adapt.
        r: Rank of each adapter.
        alpha: Scale; an adapter contributes ``alpha / r * B A x``.
        dropout: Probability of dropping an input feature of the trainable adapter, in [0, 1).

    Attributes:
        scale: ``alpha / r``.
    """

    def __init__(
        self, encoder: nn.Module, *, targets: Sequence[str], r: int, alpha: int, dropout: float
    ) -> None:
        self._encoder = encoder
        self.scale = alpha / r
        self._config = LoraConfig(
            r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets)
        )
        self._tuner: LoraModel | None = None
        self._layers: dict[str, LoraLayer] = {}
        self._always: list[str] = []
        self._names: list[str] = []

    def __len__(self) -> int:
        """Return the number of tasks that have an adapter."""
        return len(self._names)

    def add(self, generator: torch.Generator) -> None:
        """Add the adapter of the next task: A random, B zero, so that it has no effect yet."""
        name = f"task{len(self._names)}"
        self._inject(name, generator)
        self._names.append(name)

    def add_shared(self, generator: torch.Generator) -> None:
        """Add the shared adapter, which always contributes; it is initialised like the others."""
        self._inject(_SHARED, generator)
        self._always.append(_SHARED)

    def _inject(self, name: str, generator: torch.Generator) -> None:
        device = next(self._encoder.parameters()).device
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(cuda):  # PEFT initialises from the global generators
            if self._tuner is None:
                self._tuner = LoraModel(self._encoder, {name: self._config}, name)
            else:
                self._tuner.peft_config[name] = self._config
                self._tuner.inject_adapter(self._encoder, name)
        self._layers = lora_layers(self._encoder)
        draw_a(self._matrices(name), generator)

    def select(self, tasks: Sequence[int]) -> None:
        """Let the adapters of ``tasks`` and the shared one contribute to the next forward pass."""
        names = [*self._always, *(self._names[task] for task in tasks)]
        for layer in self._layers.values():
            # set_adapter() would also change requires_grad, which the model sets
            layer._active_adapter = names

    @property
    def has_shared(self) -> bool:
        """Whether one more adapter contributes to every forward pass."""
        return bool(self._always)

    @contextmanager
    def select_each(self, tasks: Sequence[int]) -> Iterator[None]:
        """Let the adapter of ``tasks[i]`` alone contribute to example ``i`` of a batch.

        Holds for the forward passes inside the ``with`` block, in evaluation mode, without a
        shared adapter. PEFT computes the frozen layers once for the whole batch and each adapter
        for its examples; its own hooks would visit every module of every adapter at each call.
        """
        if self._always:
            raise ValueError("a shared adapter contributes to every example: use select")
        names = [self._names[task] for task in tasks]

        def with_names(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
            return args, {**kwargs, "adapter_names": names}

        layers = [layer for layer in self._layers.values() if isinstance(layer, nn.Module)]
        hooks = [layer.register_forward_pre_hook(with_names, with_kwargs=True) for layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def parameters(self, task: int) -> dict[str, nn.Parameter]:
        """Return the A ``[r, in]`` and B ``[out, r]`` matrices of a task's adapter, by layer."""
        return self._matrices(self._names[task])

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """Return the A and B matrices of the shared adapter, by layer; empty without one."""
        return {
            f"shared_lora.{layer}": matrix
            for name in self._always
            for layer, matrix in self._matrices(name).items()
        }

    def _matrices(self, name: str) -> dict[str, nn.Parameter]:
        return lora_matrices(self._layers, name)

    def a_matrices(self, task: int) -> dict[str, Tensor]:
        """Return the A matrices ``[r, in]`` of a task's adapter, by layer."""
        matrices = self.parameters(task).items()
        return {n.removesuffix(f".{A}"): matrix for n, matrix in matrices if n.endswith(A)}

    def silence_dropout(self, tasks: Sequence[int]) -> None:
        """Switch off the dropout of the adapters of ``tasks``, which are frozen."""
        for layer in self._layers.values():
            for task in tasks:
                layer.lora_dropout[self._names[task]].eval()
