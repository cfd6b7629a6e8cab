"""The device and the precision of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor

from plora_cl.compute.determinism import (
    DETERMINISTIC,
    configure_cublas,
    recorded_variables,
    switched,
)
from plora_cl.compute.environment import environment
from plora_cl.errors import ModelError

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Accelerator:
    """A device and a precision to compute in.

    Several may be used in turn: only `in_effect` changes the process.

    Args:
        device: Where tensors live.
        autocast: Precision of the operations that support it; None leaves all in float32.
        scaler: Keeps gradients in fp16 from vanishing; by default one that is disabled.
        deterministic: Compute the same bits each time on CUDA, too.

    Attributes:
        device: Where tensors live.
        scaler: Scales losses and unscales gradients; does nothing if it is disabled.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        autocast: torch.dtype | None = None,
        scaler: torch.amp.GradScaler | None = None,
        deterministic: bool = True,
    ) -> None:
        self.device: Final = device
        self.scaler: Final = scaler or torch.amp.GradScaler(device.type, enabled=False)
        self._autocast = autocast
        self._switches = DETERMINISTIC if deterministic and device.type == "cuda" else None

    @property
    def dtype(self) -> torch.dtype:
        """The type of numbers that forward passes compute in, where it is safe."""
        return self._autocast or torch.float32

    @contextmanager
    def in_effect(self) -> Iterator[None]:
        """Put the device and its switches in effect for the ``with`` block."""
        is_cuda = self.device.type == "cuda"
        device = torch.cuda.device(self.device) if is_cuda else nullcontext()
        with switched(self._switches), device:
            yield

    def environment(self) -> dict[str, Any]:
        """Return the fingerprint of machine, libraries and switches."""
        with self.in_effect():
            return environment(device=str(self.device), variables=recorded_variables(self.device))

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context in which forward passes run in the precision."""
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._autocast)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss``, scaled by the scaler."""
        self.scaler.scale(loss).backward()


def make_accelerator(*, device: str, precision: str, deterministic: bool = True) -> Accelerator:
    """Return the accelerator that places tensors and runs mixed precision.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        deterministic: Compute the same bits each time on CUDA, too.

    Raises:
        ModelError: The device is missing, does not support the precision, or can no longer be
            deterministic.
    """
    chosen = _chosen(device, deterministic=deterministic)
    if precision == "fp16" and chosen.type == "cpu":
        raise ModelError("precision: fp16 needs a GPU; use bf16 or fp32 on the CPU")
    if precision == "bf16" and chosen.type == "cuda" and not torch.cuda.is_bf16_supported():
        name = torch.cuda.get_device_name(chosen)
        raise ModelError(f"precision: bf16 is not supported by {name}; use fp16 or fp32")
    return Accelerator(
        chosen,
        autocast=_AUTOCAST[precision],
        scaler=torch.amp.GradScaler(chosen.type, enabled=precision == "fp16"),
        deterministic=deterministic,
    )


def _chosen(device: str, *, deterministic: bool) -> torch.device:
    """Return the device for a name.

    Raises:
        ModelError: It is missing, or can no longer be deterministic.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        device = "mps" if device == "cpu" and torch.backends.mps.is_available() else device
    if device == "mps" and not torch.backends.mps.is_available():
        raise ModelError("device: 'mps' is not available on this machine; use --device auto")
    if not device.startswith("cuda"):
        return torch.device(device)
    kind, _, index = device.partition(":")
    if int(index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"device: {device!r} is not available, {torch.cuda.device_count()} CUDA devices "
            "are visible; use --device auto"
        )
    if deterministic:
        configure_cublas()  # before CUDA is initialised
    return torch.device(kind, int(index) if index else torch.cuda.current_device())
