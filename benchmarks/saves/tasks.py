"""What a save costs at task 50, against task 1."""

from __future__ import annotations

import time
from typing import Any

from saves.subject import Subject
from saves.timing import Sample, row
from saves.ways import Ours
from saves.workplace import Workplace

TASKS = 50


def measure(place: Workplace, rounds: int) -> dict[str, Any]:
    """Return a row for a model that has grown 50 tasks and one for a model with a single one."""
    subjects = [Subject(place, f"task-{task}", tasks=TASKS, at=task - 1) for task in (1, TASKS)]
    ways = [
        Ours(subject, f"plora_cl, task {task}", "")
        for subject, task in zip(subjects, (1, TASKS), strict=True)
    ]
    samples: list[list[Sample]] = [[] for _ in ways]
    for round_ in range(rounds + 1):
        for way, found in zip(ways, samples, strict=True):
            way.step()
            begun = time.perf_counter()
            way.save()
            stall = time.perf_counter() - begun
            durable = way.finish() - begun
            if round_:
                found.append(Sample(stall, durable, way.written()))
    first, last = (row(way.name, found) for way, found in zip(ways, samples, strict=True))
    growth = last["bytes_written"] - first["bytes_written"]
    return {
        "rows": [first, last],
        "growth_bytes": growth,
        "growth_percent": 100 * growth / first["bytes_written"],
        "bytes_allowed": round(subjects[1].bytes_allowed),
    }
