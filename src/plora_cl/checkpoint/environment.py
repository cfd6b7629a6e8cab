"""What a run is computed with: the same state goes on bitwise equally only in the same place."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "numpy")


def environment(*, device: str, precision: str) -> dict[str, Any]:
    """Return everything known to change the last bits of a result, as plain JSON.

    Args:
        device: Where tensors live, for instance ``cpu`` or ``cuda:0``.
        precision: ``fp32``, ``bf16`` or ``fp16``.
    """
    is_cuda = torch.device(device).type == "cuda"
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{library: _version(library) for library in _LIBRARIES},
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkl": torch.backends.mkl.is_available(),
        "onednn": torch.backends.mkldnn.is_available(),
        "device": torch.cuda.get_device_name(device) if is_cuda else torch.device(device).type,
        "precision": precision,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


def difference(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Return one line for each thing that changed; none means that bitwise equality holds."""
    return [
        f"{name}: saved with {saved.get(name)}, now {current.get(name)}"
        for name in sorted({*saved, *current})
        if saved.get(name) != current.get(name)
    ]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
