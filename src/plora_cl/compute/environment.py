"""The machine and the libraries of a run: results are bitwise equal only if they are the same."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from plora_cl.impact import Impact

_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "numpy", "tokenizers")
_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_MAX_CPU_ISA",
)
"""Environment variables by which numerical libraries choose how to compute."""

IMPACTS: Mapping[str, Impact] = dict.fromkeys(
    # The state of the random generator of a device moves along with its index
    ("host", "device_index", "device_count"),
    Impact.HARMLESS,
)
"""The facts of `environment` whose change is harmless; that of any other changes the trajectory."""


def environment(*, device: str, variables: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return all that is known to change the last bits of a result, as plain JSON.

    Args:
        device: Where tensors live, for instance ``cpu`` or ``cuda:0``.
        variables: The environment of the process.
    """
    kind = torch.device(device)
    is_cuda = kind.type == "cuda"
    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{library: _version(library) for library in _LIBRARIES},
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "isa": _instruction_sets(),
        "mkl": torch.backends.mkl.is_available(),
        "onednn": torch.backends.mkldnn.is_available(),
        "device": torch.cuda.get_device_name(device) if is_cuda else kind.type,
        "device_index": _index(device) if is_cuda else 0,
        "device_count": torch.cuda.device_count() if is_cuda else 0,
        "cuda": torch.version.cuda if is_cuda else None,
        "cudnn": torch.backends.cudnn.version() if is_cuda else None,
        "variables": {name: variables[name] for name in _VARIABLES if name in variables},
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        **({"attention": _attention()} if is_cuda else {}),
    }


def deciding(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return those facts of an `environment` that can change a result."""
    return {name: fact for name, fact in facts.items() if name not in IMPACTS}


def _attention() -> list[str]:
    """Return the kinds of attention that CUDA may choose from."""
    kinds = {
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "memory_efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "cudnn": torch.backends.cuda.cudnn_sdp_enabled(),
        "math": torch.backends.cuda.math_sdp_enabled(),
    }
    return [kind for kind, enabled in kinds.items() if enabled]


def instruction_sets(cpuinfo: str) -> str:
    """Return the maker of a processor and the vector instructions it has.

    Numerical libraries choose their kernels by both.

    Args:
        cpuinfo: Text of ``/proc/cpuinfo``.
    """
    maker = re.search(r"^(?:vendor_id|CPU implementer)\s*:\s*(\S+)", cpuinfo, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    wanted = re.compile(r"sse4|avx|amx|fma$|f16c$|asimd|sve|sme|bf16$|i8mm$")
    found = sorted(flag for flag in (flags.group(1).split() if flags else ()) if wanted.match(flag))
    return " ".join([maker.group(1) if maker else "unknown", *found])


def _instruction_sets() -> str:
    try:
        return instruction_sets(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        return platform.processor()


def _index(device: str) -> int:
    return torch.device(device).index if ":" in device else torch.cuda.current_device()


@cache
def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
