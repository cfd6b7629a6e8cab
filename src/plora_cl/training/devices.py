"""Where a run computes, in which precision, and how batches get there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Final

import torch
from torch import Tensor

from plora_cl.data.batches import Batch
from plora_cl.errors import ModelError

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Accelerator:
    """A device and a precision to compute in.

    All of it belongs to the object, nothing to the process: several may be in use by turns.

    Args:
        device: Where tensors live.
        autocast: Precision of the operations that allow for it; None leaves all in float32.
        scaler: Keeps gradients in fp16 from vanishing, for instance `torch.amp.GradScaler`.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        autocast: torch.dtype | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.device: Final = device
        self.scaler: Final = scaler
        self._autocast = autocast

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context in which forward passes run in the precision."""
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._autocast)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss``, scaled if there is a scaler."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()


def make_accelerator(*, device: str, precision: str) -> Accelerator:
    """Return the accelerator that places tensors and runs mixed precision.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        ModelError: The device is not there, or does not support the precision.
    """
    chosen = _chosen(device)
    if precision == "fp16" and chosen.type == "cpu":
        raise ModelError("precision: fp16 needs a GPU; use bf16 or fp32 on the CPU")
    if precision == "bf16" and chosen.type == "cuda" and not torch.cuda.is_bf16_supported():
        name = torch.cuda.get_device_name(chosen)
        raise ModelError(f"precision: bf16 is not supported by {name}; use fp16 or fp32")
    return Accelerator(
        chosen,
        autocast=_AUTOCAST[precision],
        scaler=torch.amp.GradScaler(chosen.type) if precision == "fp16" else None,
    )


def _chosen(device: str) -> torch.device:
    """Return the device that is meant.

    Raises:
        ModelError: It is not there.
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
    return torch.device(kind, int(index) if index else torch.cuda.current_device())


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Return ``batch`` with its tensors on ``device``."""
    return batch._replace(
        input_ids=batch.input_ids.to(device, non_blocking=True),
        attention_mask=batch.attention_mask.to(device, non_blocking=True),
        labels=batch.labels.to(device, non_blocking=True),
    )
