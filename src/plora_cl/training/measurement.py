"""Scores of a model on its tasks, and where they are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from plora_cl.data.task import Task
from plora_cl.evaluation.costs import Costs
from plora_cl.evaluation.matrix import ScoreMatrix
from plora_cl.evaluation.metrics import scores
from plora_cl.evaluation.runlog import RunLog
from plora_cl.state import Cursor
from plora_cl.training.scoring import Scorer


class Measurement:
    """Measures on validation and test splits; what cannot have changed is not measured again.

    Args:
        scorer: Predicts.
        matrix: Takes the test scores.
        costs: Takes the time of measuring the untrained model.
        run_log: Takes an event for each measurement.
        base_digest: Returns the SHA-256 of the frozen encoder weights.
    """

    def __init__(
        self,
        scorer: Scorer,
        matrix: ScoreMatrix,
        costs: Costs,
        run_log: RunLog,
        base_digest: Callable[[], str],
    ) -> None:
        self._scorer, self._matrix, self._costs, self._run_log = scorer, matrix, costs, run_log
        self._base_digest = base_digest

    def untrained(self, tasks: Sequence[Task]) -> None:
        """Record test scores of the model before it has learned anything."""
        for task in tasks:
            with self._costs.measure(task.name, "untrained"):
                accuracy, f1 = self._test(task, f"untrained on {task.name}")
            digest = self._scorer.dependencies(task, self._base_digest())
            self._matrix.record_untrained(task.index, accuracy, f1, digest)

    def test(self, row: int, task: Task, *, step: int) -> None:
        """Record test scores on ``task`` after task ``row`` was learned."""
        digest = self._scorer.dependencies(task, self._base_digest())
        known = self._matrix.reusable(task.index, digest)
        if known is None:
            known = self._test(task, f"evaluation on {task.name}")
        self._matrix.record(row, task.index, *known, digest)
        self._run_log.append(
            {
                "event": "evaluation",
                "step": step,
                "task": row,
                "on": task.index,
                "accuracy": known[0],
                "f1": known[1],
            }
        )

    def validate(self, task: Task, cursor: Cursor) -> float:
        """Return the accuracy on the validation split after the epoch that has just ended."""
        what = f"validation on {task.name}"
        predictions = self._scorer.predict(task, task.validation, what)
        accuracy, f1 = scores(*predictions, classes=len(task.classes))
        self._run_log.append(
            {
                "event": "validation",
                "step": cursor.step,
                "task": task.index,
                "epoch": cursor.epoch - 1,
                "accuracy": accuracy,
                "f1": f1,
            }
        )
        return accuracy

    def _test(self, task: Task, what: str) -> tuple[float, float]:
        return scores(*self._scorer.predict(task, task.test, what), classes=len(task.classes))
