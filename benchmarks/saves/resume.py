"""How long a resumed run takes from the base in memory to its first step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from plora_cl.training import build
from plora_cl.training.reporting import Reporter
from plora_cl.training.trainer import CLTrainer
from saves.subject import Subject
from saves.workplace import BATCH, Workplace

BATCHES = (1, 1000)
TASKS = 5

_STAGES = ("load_encoder", "load_tokenizer", "load_tasks", "ContinualClassifier", "Checkpointer")


class _ReadyError(Exception):
    """Ends a run where its first step would begin."""


class _Ready(Reporter):
    def task_started(self, *_: object) -> None:
        raise _ReadyError


def measure(place: Workplace, repetitions: int) -> dict[str, Any]:
    """Resume from a save at an early and at a late batch of an epoch, in turn.

    Each time all of `CLTrainer.train_sequence` up to the first batch of the first step is timed,
    in a process that has imported everything; what loading the encoder takes is subtracted. What
    remains: tokenizer, cached tasks, adapters, the digest of the base, reading, verifying and
    applying the checkpoint, and the batch.
    """
    sizes = [BATCH] * (TASKS - 1) + [BATCH * (BATCHES[-1] + 8)]
    settings = {}
    for batch in BATCHES:
        subject = Subject(place, f"batch-{batch}", tasks=TASKS, at=TASKS - 1, sizes=sizes)
        subject.parts.cursor.batch = batch - 1
        subject.step()
        subject.save()
        subject.settle()
        subject.checkpointer.flush()
        settings[batch] = subject.settings
        del subject
    found: dict[int, list[dict[str, float]]] = {batch: [] for batch in BATCHES}
    for repetition in range(repetitions + 1):
        for batch in BATCHES:
            stages = _resume(settings[batch], batch)
            if repetition:
                found[batch].append(stages)
    return {
        "resume_ms": {
            str(batch): {
                stage: statistics.median(run[stage] for run in runs) * 1e3 for stage in runs[0]
            }
            for batch, runs in found.items()
        }
    }


def _resume(settings: dict[str, Any], batch: int) -> dict[str, float]:
    stages = dict.fromkeys(_STAGES, 0.0)
    trainer = CLTrainer(reporter=_Ready(), **settings)
    begun = time.perf_counter()
    with _timed_stages(stages):
        try:
            trainer.train_sequence(resume=True)
        except _ReadyError:
            pass
        else:
            raise RuntimeError("the run ended without a step")
    parts = trainer.run.components
    assert parts.cursor.batch == batch
    parts.stream.at(parts.cursor.epoch, parts.cursor.batch)
    whole = time.perf_counter() - begun
    beyond = whole - stages["load_encoder"]
    rest = whole - sum(stages.values())
    return {"to_first_step": beyond, **stages, "checkpoint_and_rest": rest}


@contextmanager
def _timed_stages(seconds: dict[str, float]) -> Iterator[None]:
    """Time the calls that `plora_cl.training.build` makes, by their name in it."""
    originals = {name: getattr(build, name) for name in seconds}

    def timed(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            built = originals[name](*arguments, **options)
            if name == "load_encoder":  # it maps the file; now it is in memory
                sum(float(parameter.sum()) for parameter in built.parameters())
            seconds[name] += time.perf_counter() - begun
            return built

        return call

    try:
        for name in seconds:
            setattr(build, name, timed(name))
        yield
    finally:
        for name, original in originals.items():
            setattr(build, name, original)
