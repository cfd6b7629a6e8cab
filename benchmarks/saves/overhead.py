"""How much longer training takes if every step is saved."""

from __future__ import annotations

import shutil
import statistics
import time
from itertools import pairwise
from typing import Any

from plora_cl.config.schema import Settings
from plora_cl.training.reporting import Reporter, StepReport
from plora_cl.training.trainer import CLTrainer
from saves.timing import spread
from saves.workplace import Workplace

TASKS = 2
BATCH = Settings.model_fields["batch_size"].default


class _Steps(Reporter):
    """Notes when each step was done."""

    def __init__(self) -> None:
        self.at: dict[int, list[float]] = {}

    def step(self, report: StepReport, /) -> None:
        """Note the instant."""
        self.at.setdefault(report.task, []).append(time.perf_counter())

    def intervals(self) -> list[float]:
        """Return the seconds from each step of a task to the next."""
        return [after - before for at in self.at.values() for before, after in pairwise(at)]


def measure(place: Workplace, pairs: int, steps: int) -> dict[str, Any]:
    """Train with ``checkpoint_every`` 0 and 1 in turn; return the ratios of training time.

    The time is that of the phase ``train`` and of every save, as the run itself counts it, with the
    batch size that is the default: what a save costs does not depend on it, what a step takes does.
    The first save of a run writes the base weights too, which weighs the more the shorter the run.

    Args:
        place: Where everything is.
        pairs: How often, after one run of each that is not counted.
        steps: Optimizer steps of each of the two tasks of a run.
    """
    _run(place, 1, min(steps, 5))
    found = [(_run(place, 0, steps), _run(place, 1, steps)) for _ in range(pairs)]
    percent = [100 * (after[0] / before[0] - 1) for before, after in found]
    by_step = [100 * (after[1] / before[1] - 1) for before, after in found]
    first, third = spread(percent)
    return {
        "overhead_every_step_percent": statistics.median(percent),
        "overhead_quartiles_percent": [first, third],
        "overhead_of_median_step_percent": statistics.median(by_step),
        "overhead_pairs_seconds": [[before[0], after[0]] for before, after in found],
        "overhead_step_ms": statistics.median(before[1] for before, _ in found) * 1e3,
        "overhead_steps": TASKS * steps,
    }


def _run(place: Workplace, every: int, steps: int) -> tuple[float, float]:
    """Return seconds of training and of the median step of one run."""
    reporter = _Steps()
    tasks = place.tasks([steps * BATCH] * TASKS)
    settings = place.settings("overhead", place.distilbert(), tasks)
    trainer = CLTrainer(
        reporter=reporter, **{**settings, "batch_size": BATCH, "checkpoint_every": every}
    )
    trainer.train_sequence()
    seconds = trainer.run.components.costs.summary()["seconds"].values()
    shutil.rmtree(trainer.folder)
    training = sum(by["train"] + by.get("checkpoint", 0.0) for by in seconds)
    return training, statistics.median(reporter.intervals())
