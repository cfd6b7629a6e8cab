"""Where a run computes, and how batches get there."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from plora_cl.data.batches import Batch
from plora_cl.errors import ModelError


def make_accelerator(*, device: str, precision: str) -> Accelerator:
    """Return the accelerator that places tensors and runs mixed precision.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        ModelError: The device is not there, or does not support the precision.
    """
    if device.startswith("cuda"):
        index = int(device.partition(":")[2] or 0)
        if index >= torch.cuda.device_count():
            raise ModelError(
                f"device: {device!r} is not available, {torch.cuda.device_count()} CUDA devices "
                "are visible; use --device auto"
            )
        torch.cuda.set_device(index)
    if device == "mps" and not torch.backends.mps.is_available():
        raise ModelError("device: 'mps' is not available on this machine; use --device auto")
    AcceleratorState._reset_state(reset_partial_state=True)  # a process may hold several runs
    accelerator = Accelerator(
        cpu=device == "cpu", mixed_precision={"fp32": "no"}.get(precision, precision)
    )
    if precision == "fp16" and accelerator.device.type == "cpu":
        raise ModelError("precision: fp16 needs a GPU; use bf16 or fp32 on the CPU")
    return accelerator


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Return ``batch`` with its tensors on ``device``."""
    return batch._replace(
        input_ids=batch.input_ids.to(device, non_blocking=True),
        attention_mask=batch.attention_mask.to(device, non_blocking=True),
        labels=batch.labels.to(device, non_blocking=True),
    )
