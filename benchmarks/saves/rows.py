"""Every way to save, one after the other in each round, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from saves.libraries import AccelerateState, Distributed, DistributedAsync, HuggingFaceTrainer
from saves.subject import Subject
from saves.timing import Sample, milliseconds, row
from saves.ways import Limit, Naive, NaiveChanges, Ours, Way
from saves.workplace import Workplace

TASKS = 5
SAVES = 65
LOADS = 5
ATTEMPTS = 4
OURS = "plora_cl, asynchronous"


class _Asynchronous(Way, Protocol):
    @property
    def under_way(self) -> bool: ...


def measure(place: Workplace, rounds: int) -> dict[str, Any]:
    """Return a row for each way to save, and one more for each situation that matters."""
    subject = Subject(place, "asynchronous", tasks=TASKS, at=TASKS - 1)
    in_place = Subject(place, "in-place", tasks=TASKS, at=TASKS - 1, async_checkpoint=False)
    ours = Ours(subject, OURS, "the copy waited for at once; finished weights are stored once")
    folders = place.folder / "others"
    later = DistributedAsync(subject, folders / "async_save")
    ways: list[Way] = [
        ours,
        Ours(in_place, "plora_cl, in place", "finished weights are stored once"),
        Naive(subject, folders / "naive"),
        NaiveChanges(subject, folders / "changes"),
        AccelerateState(subject, folders / "accelerate"),
        Distributed(subject, folders / "distributed"),
        later,
        HuggingFaceTrainer(subject, folders / "trainer", encoder=place.distilbert(), tasks=TASKS),
        Limit(12 * subject.trainable, folders / "limit"),
    ]
    samples = _interleaved(ways, rounds)
    situations = [
        _row(ours, _in_training(ours, rounds), ", in training", "a real batch hides the copy"),
        *(_while_another_is_written(way, rounds) for way in (ours, later)),
    ]
    loads = {way.name: [_timed(way.load) for _ in range(LOADS)] for way in ways}
    rows = [_row(way, samples[way.name], load_ms=milliseconds(loads[way.name])) for way in ways]
    return {
        "rows": [*rows[:1], *situations[:2], *rows[1:7], *situations[2:], *rows[7:]],
        "trainable_parameters": subject.trainable,
        "changing_bytes": 12 * subject.trainable,
        "bytes_allowed": round(subject.bytes_allowed),
        "load_with_base_ms": milliseconds(
            [_timed(lambda: ours.load_with(set())) for _ in range(LOADS)]
        ),
    }


def _interleaved(ways: list[Way], rounds: int) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {way.name: [] for way in ways}
    for round_ in range(rounds + 1):
        for way in ways:
            way.step()
            begun = time.perf_counter()
            way.save()
            stall = time.perf_counter() - begun
            durable = way.finish() - begun
            if round_:  # the first one writes what stays and allocates memory
                samples[way.name].append(Sample(stall, durable, way.written()))
    return samples


def _in_training(ours: Ours, rounds: int) -> list[Sample]:
    """Save each step of real training, one batch after the other, and never wait for the disk."""
    subject = ours.subject
    stalls: list[float] = []
    for _ in range(rounds + 1):
        subject.backward()
        settle = _timed(subject.settle)
        if stalls:
            stalls[-1] += settle
        subject.apply()
        stalls.append(_timed(ours.begin))
    subject.settle()
    ours.finish()
    return [Sample(stall, None, ours.written()) for stall in stalls[:-1]]


def _while_another_is_written(way: _Asynchronous, rounds: int) -> dict[str, Any]:
    """Save, change what changes, and save again before the first save is durable.

    Where the first one is durable by then, the attempt counts only if none does better.
    """
    overlapping: list[Sample] = []
    others: list[Sample] = []
    for _ in range(ATTEMPTS * rounds):
        way.step()
        way.save()
        way.step()
        kind = overlapping if way.under_way else others
        stall = _timed(way.save)
        way.finish()
        kind.append(Sample(stall, None, way.written()))
        if len(overlapping) == rounds:
            break
    return _row(
        way,
        overlapping or others,
        ", previous save under way",
        f"overlapping in {len(overlapping)} of {len(overlapping) + len(others)} attempts",
        overlapping=len(overlapping),
    )


def _row(
    way: Way, samples: list[Sample], situation: str = "", note: str = "", **more: Any
) -> dict[str, Any]:
    return row(
        way.name + situation,
        samples,
        bytes_kept_65=way.kept(SAVES),
        note=note or way.note,
        **{"load_ms": None, **more},
    )


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
