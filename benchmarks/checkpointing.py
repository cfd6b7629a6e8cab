"""What a save costs, against the naive design and against the limits of the machine.

All are measured in one process, one after the other in each round, on DistilBERT-base shapes with
LoRA r=8 on q, k, v and out, five tasks and the Fisher information of the shared layer norms::

    uv run python benchmarks/checkpointing.py --rounds 50 --json checkpointing.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import DistilBertConfig, DistilBertModel, get_linear_schedule_with_warmup

from plora_cl.checkpoint.resume import load
from plora_cl.checkpoint.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.writer import BackgroundWriter, InPlaceWriter, Writer
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import Cursor, RandomState, TensorPart
from plora_cl.training.checkpointer import Checkpointer
from plora_cl.training.reporting import SilentReporter

TASKS = 5
CLASSES = 5
SAVES = 65


class Announcements(SilentReporter):
    """Notes when a checkpoint was announced as durable."""

    def __init__(self) -> None:
        self.at = 0.0

    def message(self, text: str, /) -> None:
        """Note the instant; anything but an announcement is an error."""
        if not text.startswith("Checkpoint saved: "):
            raise RuntimeError(text)
        self.at = time.perf_counter()


class Subject:
    """A model in the middle of its fifth task, with everything that a checkpoint holds."""

    def __init__(self) -> None:
        self.random = RandomState.seeded(0)
        self.model = ContinualClassifier(DistilBertModel(DistilBertConfig()), shared="layernorm")
        for _ in range(TASKS):
            self.model.grow(CLASSES)
        self.parameters = list(self.model.trainable().values())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4)
        self.scheduler = get_linear_schedule_with_warmup(self.optimizer, 0, 10**6)
        shared = self.model.shared_parameters()
        self.memory = {
            **{f"fisher.{name}": torch.rand_like(p).detach() for name, p in shared.items()},
            **{f"anchor.{name}": p.detach().clone() for name, p in shared.items()},
        }
        self.cursor = Cursor(task=TASKS - 1)
        self.step()

    def step(self) -> None:
        """Change everything that changes from step to step."""
        for parameter in self.parameters:
            parameter.grad = torch.randn_like(parameter)
        self.optimizer.step()
        self.scheduler.step()
        self.cursor.batch += 1
        self.cursor.step += 1

    def live(self) -> dict[str, Any]:
        """Return what changes from step to step."""
        parts, k = self.model.parts(), TASKS - 1
        return {
            "model/shared": parts["shared"],
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "cursor": self.cursor,
            f"model/adapter-{k}": parts[f"adapter-{k}"],
            f"model/head-{k}": parts[f"head-{k}"],
            "random": self.random,
        }

    def constant(self) -> dict[str, TensorPart]:
        """Return what stays while the task lasts."""
        parts = self.model.parts()
        done = [f"{kind}-{k}" for k in range(TASKS - 1) for kind in ("adapter", "head")]
        return {
            **{f"model/{name}": parts[name] for name in ("base", *done)},
            "memory/ewc/running": TensorPart(self.memory),
        }

    def everything(self) -> dict[str, Any]:
        """Return what the naive design saves each time."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "ewc": self.memory,
            "random": self.random.state_dict(),
        }


class Ours:
    """This library, with one of its writers."""

    def __init__(self, subject: Subject, folder: Path, writer: Writer) -> None:
        self._subject = subject
        self.store = CheckpointStore(folder / "checkpoints")
        self._said = Announcements()
        self._checkpointer = Checkpointer(
            self.store,
            writer=writer,
            every=1,
            keep_last=3,
            disk_budget=None,
            base=subject.model.parts()["base"],
            settings={"seed": 0},
            identity={},
            environment={},
            before_commit=lambda: None,
            reporter=self._said,
        )

    def save(self) -> tuple[float, float, int]:
        """Return seconds the caller waited, seconds until durable, and bytes of the file."""
        subject = self._subject
        begun = time.perf_counter()
        path = self._checkpointer.save(
            subject.cursor,
            (0, subject.cursor.batch),
            subject.live(),
            subject.constant,
            loss=0.5,
            trained_tasks=["a", "b", "c", "d"],
        )
        stall = time.perf_counter() - begun
        self._checkpointer.flush()
        return stall, self._said.at - begun, path.stat().st_size

    def load(self) -> float:
        """Return seconds to read and verify the newest checkpoint and its objects."""
        entry = self.store.entries()[-1]
        begun = time.perf_counter()
        load(
            CheckpointStore(self.store.directory),
            CheckpointEntry.at(entry.path),
            known={self._checkpointer.base_digest},
        )
        return time.perf_counter() - begun

    def object_bytes(self) -> int:
        """Return the bytes of all objects."""
        return sum(path.stat().st_size for path in self.store.objects.directory.iterdir())


def naive(subject: Subject, folder: Path) -> tuple[float, float, int]:
    """Save everything with one `torch.save`, flushed as it would have to be."""
    path = folder / "naive.pt"
    begun = time.perf_counter()
    torch.save(subject.everything(), path)
    stall = time.perf_counter() - begun
    _fsync(path)
    _fsync(folder)
    return stall, time.perf_counter() - begun, path.stat().st_size


def load_naive(folder: Path) -> float:
    """Return seconds to load the naive file."""
    begun = time.perf_counter()
    torch.load(folder / "naive.pt", weights_only=True)
    return time.perf_counter() - begun


def limit(changing: int, folder: Path) -> Callable[[], tuple[float, float, int]]:
    """Return a save of as many bytes as change: a copy in memory, then write, flush, rename."""
    source, target = torch.rand(changing // 4), torch.zeros(changing // 4)
    path = folder / "limit"

    def save() -> tuple[float, float, int]:
        begun = time.perf_counter()
        target.copy_(source)
        stall = time.perf_counter() - begun
        with path.with_suffix(".partial").open("wb") as file:
            file.write(target.numpy().data)
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".partial").replace(path)
        _fsync(folder)
        return stall, time.perf_counter() - begun, changing

    return save


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _row(
    name: str, runs: list[tuple[float, float, int]], kept: int | None, loads: list[float]
) -> dict[str, Any]:
    stalls = sorted(run[0] * 1e3 for run in runs)
    return {
        "name": name,
        "stall_ms_p50": statistics.median(stalls),
        "stall_ms_p99": stalls[min(len(stalls) - 1, round(0.99 * (len(stalls) - 1)))],
        "durable_ms_p50": statistics.median(run[1] * 1e3 for run in runs),
        "bytes_written": runs[-1][2],
        "bytes_kept_65": kept,
        "load_ms": statistics.median(loads) * 1e3 if loads else None,
    }


def measure(rounds: int, folder: Path) -> dict[str, Any]:
    """Return one row for each way to save."""
    subject = Subject()
    trainable = sum(p.numel() for p in subject.parameters)
    asynchronous = Ours(subject, folder / "asynchronous", BackgroundWriter())
    in_place = Ours(subject, folder / "in_place", InPlaceWriter())
    ways: dict[str, Callable[[], tuple[float, float, int]]] = {
        "plora_cl, asynchronous": asynchronous.save,
        "plora_cl, in place": in_place.save,
        "naive torch.save of everything": lambda: naive(subject, folder),
        "limit: copy, write + fsync + rename": limit(12 * trainable, folder),
    }
    runs: dict[str, list[tuple[float, float, int]]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, save in ways.items():
            subject.step()
            figures = save()
            if round_:  # the first one writes the objects and allocates the memory
                runs[name].append(figures)
    loads: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(5):
        loads["plora_cl, asynchronous"].append(asynchronous.load())
        loads["plora_cl, in place"].append(in_place.load())
        loads["naive torch.save of everything"].append(load_naive(folder))
    rows = []
    for name, figures_of in runs.items():
        objects = asynchronous.object_bytes() if name.startswith("plora_cl") else 0
        rows.append(_row(name, figures_of, SAVES * figures_of[-1][2] + objects, loads[name]))
    return {
        "rows": rows,
        "trainable_parameters": trainable,
        "changing_bytes": 12 * trainable,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }


def main() -> None:
    """Measure, print a table, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        result = measure(arguments.rounds, folder)
    finally:
        shutil.rmtree(folder)
    columns = list(result["rows"][0])
    print(" | ".join(columns))
    for row in result["rows"]:
        shown = (f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values())
        print(" | ".join(shown))
    ours, everything = result["rows"][0], result["rows"][2]
    ratio = everything["stall_ms_p50"] / ours["stall_ms_p50"]
    overhead = ours["bytes_written"] - 1.05 * result["changing_bytes"]
    print(f"stall: {ratio:.0f} times less than the naive save")
    print(f"bytes beyond 1.05 x 12 x trainable: {overhead:.0f}")
    print(result["machine"])
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
