"""What a save costs, against other ways to save and against the limits of the machine.

All is measured in one process, one way after the other in each round, on DistilBERT-base shapes
with LoRA r=8 on q, k, v and out, five tasks and the Fisher information of the shared layer norms::

    uv run python benchmarks/checkpointing.py --rounds 50 --json checkpointing.json

The parts: ``rows`` compares ways to save, ``overhead`` trains with a save after each step and
without any, ``tasks`` saves at task 50 and at task 1, ``resume`` goes on from a checkpoint, and
``full`` trains the whole encoder.

The stall is the time that the thread that trains spends in a save, with all that it has to wait
for before it may change what is saved. Libraries that do not flush what they write are made durable
here: every file and folder is flushed, within the time to durable. Files are read while they are in
the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the libraries are imported: nothing is downloaded

from saves import full, overhead, report, resume, rows, tasks
from saves.timing import machine
from saves.workplace import Workplace

PARTS = ("rows", "overhead", "tasks", "resume", "full")
COLUMNS = (
    "name",
    "stall_ms_p50",
    "stall_ms_p99",
    "durable_ms_p50",
    "bytes_written",
    "bytes_kept_65",
    "load_ms",
    "note",
)


def measure(arguments: argparse.Namespace, place: Workplace) -> dict[str, Any]:
    """Return the figures of the parts asked for."""
    rounds: int = arguments.rounds
    few = max(1, rounds // 5)
    result: dict[str, Any] = {
        "rows": [],
        "overhead_every_step_percent": None,
        "machine": machine(),
        "rounds": rounds,
    }
    if "rows" in arguments.only:
        result |= rows.measure(place, rounds)
    if "tasks" in arguments.only:
        result["tasks"] = tasks.measure(place, rounds)
    if "resume" in arguments.only:
        result |= resume.measure(place, few)
    if "full" in arguments.only:
        result["full"] = full.measure(place, few)
    if "overhead" in arguments.only:
        result |= overhead.measure(place, arguments.pairs, arguments.steps)
    return result


def show(result: dict[str, Any]) -> None:
    """Print tables, and a line for each target."""
    if result["rows"]:
        print(report.table(result["rows"], COLUMNS), "\n")
        print(f"load with the base from the store: {result['load_with_base_ms']:.1f} ms\n")
    for part in ("tasks", "full"):
        if part in result:
            print(report.table(result[part]["rows"], COLUMNS[:5]), "\n")
    for batch, stages in result.get("resume_ms", {}).items():
        text = ", ".join(f"{stage} {value:.0f}" for stage, value in stages.items())
        print(f"resume at batch {batch}, ms: {text}\n")
    print("\n".join(report.targets(result)))
    print(result["machine"])


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        raise argparse.ArgumentTypeError(f"unknown {unknown}; choose from {', '.join(PARTS)}")
    return parts


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number of at least 1")
    return int(text)


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=_positive, default=50, help="saves of each kind")
    parser.add_argument("--pairs", type=_positive, default=5, help="of training runs")
    parser.add_argument("--steps", type=_positive, default=12, help="of a task of a training run")
    parser.add_argument("--only", type=_parts, default=list(PARTS), help=",".join(PARTS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        result = measure(arguments, Workplace(folder))
    finally:
        shutil.rmtree(folder)
    show(result)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
