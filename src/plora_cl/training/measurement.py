"""Scores of a model on its tasks, and where they are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from plora_cl.data.task import Task
from plora_cl.evaluation.costs import Costs
from plora_cl.evaluation.matrix import ScoreMatrix
from plora_cl.evaluation.metrics import scores, scores_by_class
from plora_cl.evaluation.routing import routed_scores
from plora_cl.evaluation.runlog import RunLog
from plora_cl.state import Cursor
from plora_cl.training.routing import Router
from plora_cl.training.scoring import Predictions, Scorer


class Measurement:
    """Measures on validation and test splits; what cannot have changed is not measured again.

    Args:
        scorer: Predicts.
        matrix: Takes the test scores.
        costs: Takes the time of measuring the untrained model.
        run_log: Takes an event for each measurement.
        base_digest: Returns the SHA-256 of the frozen encoder weights.
        router: Infers the task of a text; None measures with the task known only.
    """

    def __init__(
        self,
        scorer: Scorer,
        matrix: ScoreMatrix,
        costs: Costs,
        run_log: RunLog,
        base_digest: Callable[[], str],
        router: Router | None = None,
    ) -> None:
        self._scorer, self._matrix, self._costs, self._run_log = scorer, matrix, costs, run_log
        self._base_digest = base_digest
        self._router = router
        self._predicted: dict[int, tuple[str, Predictions]] = {}

    def untrained(self, tasks: Sequence[Task]) -> None:
        """Record test scores of the model before it has learned anything."""
        for task in tasks:
            with self._costs.measure(task.name, "untrained"):
                what = f"untrained on {task.name}"
                predictions = self._scorer.predict(task, task.test, what)
            accuracy, f1 = scores(*predictions, classes=len(task.classes))
            digest = self._scorer.dependencies(task, self._base_digest())
            self._matrix.record_untrained(task.index, accuracy, f1, digest)

    def test(self, row: int, task: Task, *, step: int) -> None:
        """Record test scores on ``task`` after task ``row`` was learned."""
        digest = self._scorer.dependencies(task, self._base_digest())
        known = self._matrix.reusable(task.index, digest)
        if known is None:
            known = self._test(task, f"evaluation on {task.name}", digest)
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
        if self._router is not None and task.index <= row and self._router.knows(row + 1):
            self._test_routed(self._router, row, task, digest, step=step)

    def learn_routes(self, tasks: Sequence[Task]) -> None:
        """Let the router, if there is one, learn to tell ``tasks`` apart."""
        if self._router is not None:
            self._router.learn(tasks)

    def validate(self, task: Task, cursor: Cursor) -> tuple[float, float]:
        """Return accuracy and macro-F1 on the validation split after the epoch that has ended."""
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
        return accuracy, f1

    def by_class(self, row: int, task: Task) -> dict[str, dict[str, float]] | None:
        """Return the scores of each class on the test split, of the model as it stands.

        Those that do not make up what was recorded after task ``row``, for instance on another
        machine, are none.
        """
        digest = self._scorer.dependencies(task, self._base_digest())
        predictions = self._predictions(task, f"evaluation on {task.name}", digest)
        recorded = self._matrix.row(row)[task.index], self._matrix.f1_row(row)[task.index]
        if recorded != scores(*predictions, classes=len(task.classes)):
            return None
        return scores_by_class(*predictions, classes=task.classes)

    def validation_accuracies(self, tasks: Sequence[Task]) -> list[float]:
        """Return the accuracy on the validation split of each task, of the model as it stands."""
        return [
            scores(
                *self._scorer.predict(task, task.validation, f"validation on {task.name}"),
                classes=len(task.classes),
            )[0]
            for task in tasks
        ]

    def _test_routed(self, router: Router, row: int, task: Task, digest: str, *, step: int) -> None:
        routes, doubtful = router.route(task, row + 1)
        routed = routed_scores(
            routes,
            doubtful,
            *self._predictions(task, f"evaluation on {task.name}", digest),
            task=task.index,
            tasks=row + 1,
            classes=len(task.classes),
        )
        self._matrix.record_routed(row, task.index, routed)
        event = {"event": "routing", "step": step, "task": row, "on": task.index}
        self._run_log.append({**event, **routed._asdict()})

    def _test(self, task: Task, what: str, digest: str) -> tuple[float, float]:
        return scores(*self._predictions(task, what, digest), classes=len(task.classes))

    def _predictions(self, task: Task, what: str, digest: str) -> Predictions:
        """Return test predictions; those that depend on the same ``digest`` are made once."""
        known = self._predicted.get(task.index)
        if known is None or known[0] != digest:
            known = digest, self._scorer.predict(task, task.test, what)
            self._predicted[task.index] = known
        return known[1]
