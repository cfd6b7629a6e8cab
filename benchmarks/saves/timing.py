"""Samples become figures, and files become durable."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Sample:
    """One save.

    Attributes:
        stall: Seconds that the training thread waited.
        durable: Seconds from the call until the save would survive a power cut; None where the
            next save began before.
        written: Bytes of the files of this save.
    """

    stall: float
    durable: float | None
    written: int


def milliseconds(seconds: Sequence[float]) -> float | None:
    """Return the median of ``seconds`` in milliseconds; None where there are none."""
    return statistics.median(seconds) * 1e3 if seconds else None


def nearest_rank(values: Sequence[float], quantile: float) -> float:
    """Return the smallest value that at least ``quantile`` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(quantile * 1000) * len(ordered) // 1000) - 1)]


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the first and the third quartile of ``values``."""
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def row(name: str, samples: Sequence[Sample], **more: Any) -> dict[str, Any]:
    """Return one line of the table; ``more`` are further columns."""
    stalls = [sample.stall * 1e3 for sample in samples]
    return {
        "name": name,
        "stall_ms_p50": statistics.median(stalls),
        "stall_ms_p99": nearest_rank(stalls, 0.99),
        "durable_ms_p50": milliseconds([s.durable for s in samples if s.durable is not None]),
        "bytes_written": samples[-1].written,
        "samples": len(samples),
        **more,
    }


def sync(path: Path) -> None:
    """Flush one file, or the names in one folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder from ``folder`` down, then the name of ``folder`` itself."""
    for inner, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(inner, name))
        sync(Path(inner))
    sync(folder.parent)


def tree_bytes(folder: Path) -> int:
    """Return the bytes of every file below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def machine() -> str:
    """Return what the figures depend on most."""
    model = platform.machine()
    if (information := Path("/proc/cpuinfo")).exists():
        lines = information.read_text(encoding="utf-8").splitlines()
        model = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), model)
    return (
        f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )
