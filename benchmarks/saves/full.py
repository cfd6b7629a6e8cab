"""What a save costs where the whole encoder is trained, against a copy in memory."""

from __future__ import annotations

import statistics
import time
from typing import Any

from saves.subject import Subject
from saves.timing import Sample, row
from saves.ways import Limit, Ours
from saves.workplace import Workplace


def measure(place: Workplace, rounds: int) -> dict[str, Any]:
    """Return rows for a save with nothing to hide behind, one in training, and the limit."""
    subject = Subject(place, "everything", tasks=1, at=0, shared=".")
    ours = Ours(subject, "plora_cl, everything trainable", "")
    limit = Limit(12 * subject.trainable, place.folder / "full-limit")
    at_once: list[Sample] = []
    copies: list[Sample] = []
    trained: list[Sample] = []
    for round_ in range(rounds + 1):
        limit.step()
        begun = time.perf_counter()
        limit.save()
        copies.append(Sample(time.perf_counter() - begun, None, limit.written()))
        ours.step()
        begun = time.perf_counter()
        ours.save()
        stall = time.perf_counter() - begun
        at_once.append(Sample(stall, ours.finish() - begun, ours.written()))
        ours.step()
        begun = time.perf_counter()
        ours.begin()
        stall = time.perf_counter() - begun
        subject.backward()
        begun = time.perf_counter()
        subject.settle()
        stall += time.perf_counter() - begun
        ours.finish()
        subject.apply()
        trained.append(Sample(stall, None, ours.written()))
        if not round_:  # the first one allocates memory
            at_once, copies, trained = [], [], []
    ratios = [s.stall / c.stall for s, c in zip(at_once, copies, strict=True)]
    return {
        "rows": [
            row(ours.name, at_once),
            row(f"{ours.name}, in training", trained),
            row("limit: memcpy of what changes", copies),
        ],
        "trainable_parameters": subject.trainable,
        "ratio_to_memcpy": statistics.median(ratios),
        "bytes_allowed": round(subject.bytes_allowed),
    }
