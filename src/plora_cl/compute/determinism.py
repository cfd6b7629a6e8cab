"""Process-wide switches of PyTorch that decide whether CUDA computes the same bits twice.

They are set while a run works and restored after it, so that each of several runs in one process
has its own. On the CPU the same operations give the same bits anyway: nothing is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch

from plora_cl.errors import ModelError

CUBLAS_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"

_DETERMINISTIC_CUBLAS = (":4096:8", ":16:8")


@dataclass(frozen=True, slots=True)
class Switches:
    """Which implementations PyTorch may choose.

    Attributes:
        algorithms: Deterministic ones only: an operation that has none raises `RuntimeError`.
        warn_only: It warns instead; then memory-efficient attention is not deterministic either.
        cudnn_deterministic: Deterministic algorithms of cuDNN only.
        cudnn_benchmark: cuDNN may measure which algorithm is fastest, and choose another each time.
        cudnn_attention: Attention may use cuDNN, whose backward pass is not deterministic.
    """

    algorithms: bool
    warn_only: bool
    cudnn_deterministic: bool
    cudnn_benchmark: bool
    cudnn_attention: bool

    @classmethod
    def current(cls) -> Self:
        """Return what is in effect."""
        return cls(
            algorithms=torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
            cudnn_deterministic=torch.backends.cudnn.deterministic,
            cudnn_benchmark=torch.backends.cudnn.benchmark,
            cudnn_attention=torch.backends.cuda.cudnn_sdp_enabled(),
        )

    def put_in_effect(self) -> None:
        """Set those that differ."""
        now = Switches.current()
        if (self.algorithms, self.warn_only) != (now.algorithms, now.warn_only):
            torch.use_deterministic_algorithms(self.algorithms, warn_only=self.warn_only)
        torch.backends.cudnn.deterministic = self.cudnn_deterministic
        torch.backends.cudnn.benchmark = self.cudnn_benchmark
        if self.cudnn_attention != now.cudnn_attention:
            torch.backends.cuda.enable_cudnn_sdp(self.cudnn_attention)


DETERMINISTIC = Switches(
    algorithms=True,
    warn_only=False,
    cudnn_deterministic=True,
    cudnn_benchmark=False,
    cudnn_attention=False,
)
"""The same bits each time. Flash and memory-efficient attention comply with ``algorithms``."""

_outside: Switches | None = None
_configured_here = False


@contextmanager
def switched(wanted: Switches | None) -> Iterator[None]:
    """Put ``wanted`` in effect for the ``with`` block.

    Args:
        wanted: None for the switches outside of all such blocks, even inside a block of another
            run.
    """
    global _outside
    before, outside = Switches.current(), _outside
    _outside = outside or before
    try:
        (wanted or _outside).put_in_effect()
        yield
    finally:
        before.put_in_effect()
        _outside = outside


def configure_cublas() -> None:
    """Let cuBLAS use workspaces of a fixed size, without which its results vary.

    It reads the variable once in a process, at its first use.

    Raises:
        ModelError: cuBLAS is in use already, or the variable has another value.
    """
    global _configured_here
    chosen = os.environ.get(CUBLAS_VARIABLE)
    if chosen in _DETERMINISTIC_CUBLAS:
        return
    what = f"{CUBLAS_VARIABLE} is {chosen!r}"
    if chosen is None:
        if not torch.cuda.is_initialized():
            os.environ[CUBLAS_VARIABLE] = _DETERMINISTIC_CUBLAS[0]
            _configured_here = True
            return
        what = f"CUDA was used in this process before {CUBLAS_VARIABLE} was set"
    raise ModelError(
        f"deterministic: {what}, so the same run may come to other results; set "
        f"{CUBLAS_VARIABLE}=:4096:8 before the process starts, or use deterministic: false, which "
        "makes no promise that a resumed run is the same to the bit"
    )


def recorded_variables(device: torch.device) -> dict[str, str]:
    """Return the environment of the process, without what `configure_cublas` set for CUDA alone."""
    variables = dict(os.environ)
    if _configured_here and device.type != "cuda":
        del variables[CUBLAS_VARIABLE]
    return variables
