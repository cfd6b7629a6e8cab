"""Measures a model on its tasks and records the scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from plora_cl.data.task import Task
from plora_cl.evaluation.costs import Costs
from plora_cl.evaluation.matrix import UNTRAINED, ScoreMatrix
from plora_cl.evaluation.metrics import scores, scores_by_class
from plora_cl.evaluation.predictor import Predictions, Scorer
from plora_cl.evaluation.routing.router import Router
from plora_cl.evaluation.routing.scores import routed_scores
from plora_cl.evaluation.runlog import RunLog
from plora_cl.evaluation.under_way import ByClass, UnderWay
from plora_cl.state import Cursor, StateDict
from plora_cl.units import Units

Scores = tuple[float, float]
"""Accuracy and macro-F1, in [0, 1]."""


class FinalScores(NamedTuple):
    """What is measured when everything is learned.

    Attributes:
        by_class: Scores of each class on the test split, by task; None where they do not agree
            with the recorded scores.
        validation: Scores on the validation split of each task; None if not requested.
    """

    by_class: dict[str, ByClass | None]
    validation: list[Scores] | None


@dataclass(slots=True)
class Measurement:
    """Measures on validation and test splits; scores that cannot have changed are reused.

    Attributes:
        scorer: Predicts.
        matrix: Takes the test scores.
        costs: Takes the time of measuring the untrained model.
        run_log: Takes an event for each measurement.
        under_way: Holds what was found so far.
        base_digest: Returns the SHA-256 of the frozen encoder weights.
        router: Infers the task of a text; None measures with the task known only.
    """

    scorer: Scorer
    matrix: ScoreMatrix
    costs: Costs
    run_log: RunLog
    under_way: UnderWay
    base_digest: Callable[[], str]
    router: Router | None = None
    _predicted: dict[int, tuple[str, Predictions]] = field(default_factory=dict, init=False)

    def untrained(self, tasks: Sequence[Task]) -> Units[None]:
        """Record test scores before anything was learned, unless they are known."""
        for task in tasks:
            if self.matrix.scores(UNTRAINED, task.index):
                continue
            with self.costs.measure(task.name, "untrained"):
                what = f"untrained on {task.name}"
                predictions = yield from self.scorer.predict(task, task.test, what, key="start")
            found = _scores(task, predictions)
            self.matrix.record(UNTRAINED, task.index, *found, self._digest(task))
            self.scorer.forget()

    def test(self, row: int, task: Task, *, step: int) -> Units[None]:
        """Record test scores on ``task`` after task ``row`` was learned, unless they are known."""
        is_known = self.matrix.scores(row, task.index) is not None
        if is_known and not self._is_routed(row, task):
            return
        digest = self._digest(task)
        if not is_known:
            known = self.matrix.reusable(task.index, digest)
            if known is None:
                known = _scores(task, (yield from self._predictions(task, digest)))
            self.matrix.record(row, task.index, *known, digest)
            self.run_log.append(
                {
                    "event": "evaluation",
                    "step": step,
                    "task": row,
                    "on": task.index,
                    "accuracy": known[0],
                    "f1": known[1],
                }
            )
        if self._is_routed(row, task):
            yield from self._test_routed(row, task, digest, step=step)
        self.scorer.forget()

    def learn_routes(self, tasks: Sequence[Task]) -> Units[None]:
        """Let the router, if there is one, learn to tell ``tasks`` apart."""
        if self.router is not None:
            yield from self.router.learn(tasks)

    def validate(self, tasks: Sequence[Task], cursor: Cursor) -> Units[list[Scores]]:
        """Return scores on the validation splits after the epoch that has just ended."""
        event = {"event": "validation", "step": cursor.step, "epoch": cursor.epoch - 1}
        return (yield from self._validated(tasks, lambda _: f"step {cursor.step}", event))

    def at_the_end(
        self, row: int, tasks: Sequence[Task], *, validation: bool
    ) -> Units[FinalScores]:
        """Return the scores of the present model that are published along with the matrix.

        Args:
            row: The last row of the matrix.
            tasks: All tasks.
            validation: Measure on the validation splits, too.
        """
        known = self.under_way.by_class
        for task in tasks:
            digest = self._digest(task)
            if task.index not in known or known[task.index][0] != digest:
                known[task.index] = digest, (yield from self._by_class(row, task, digest))
                self.scorer.forget()
        found = (yield from self._validated(tasks, self._digest, None)) if validation else None
        return FinalScores({task.name: known[task.index][1] for task in tasks}, found)

    def _digest(self, task: Task) -> str:
        return self.scorer.dependencies(task, self.base_digest())

    def _by_class(self, row: int, task: Task, digest: str) -> Units[ByClass | None]:
        """Return the scores of each class on the test split.

        None if they do not agree with the scores recorded after task ``row``, for instance those
        of another machine.
        """
        predictions = yield from self._predictions(task, digest, "classes of")
        if _scores(task, predictions) != self.matrix.scores(row, task.index):
            return None
        return scores_by_class(*predictions, classes=task.classes)

    def _validated(
        self, tasks: Sequence[Task], weights: Callable[[Task], str], event: StateDict | None
    ) -> Units[list[Scores]]:
        """Return scores of ``tasks``; `UnderWay` keeps those of the tasks that are done.

        Args:
            tasks: What to measure.
            weights: Returns an identifier of the weights that decide the scores of a task.
            event: Logged together with the scores; None logs nothing.
        """
        found = self.under_way.scores
        for task in tasks:
            key = f"{weights(task)}, {task.validation.digest}"
            if task.index in found and found[task.index][0] == key:
                continue
            what = f"validation on {task.name}"
            predictions = yield from self.scorer.predict(task, task.validation, what, key=key)
            accuracy, f1 = _scores(task, predictions)
            found[task.index] = key, (accuracy, f1)
            self.scorer.forget()
            if event is not None:
                self.run_log.append({**event, "task": task.index, "accuracy": accuracy, "f1": f1})
        return [found[task.index][1] for task in tasks]

    def _is_routed(self, row: int, task: Task) -> bool:
        return (
            self.router is not None
            and task.index <= row
            and self.router.knows(row + 1)
            and self.matrix.routed(row, task.index) is None
        )

    def _test_routed(self, row: int, task: Task, digest: str, *, step: int) -> Units[None]:
        assert self.router is not None
        predictions = yield from self._predictions(task, digest)
        routes, doubtful = yield from self.router.route(task, row + 1)
        routed = routed_scores(
            routes,
            doubtful,
            *predictions,
            task=task.index,
            tasks=row + 1,
            classes=len(task.classes),
        )
        self.matrix.record_routed(row, task.index, routed)
        self.router.forget()
        event = {"event": "routing", "step": step, "task": row, "on": task.index}
        self.run_log.append({**event, **routed._asdict()})

    def _predictions(
        self, task: Task, digest: str, what: str = "evaluation on"
    ) -> Units[Predictions]:
        """Return test predictions, computed once for each ``digest``."""
        known = self._predicted.get(task.index)
        if known is None or known[0] != digest:
            predictions = yield from self.scorer.predict(
                task, task.test, f"{what} {task.name}", key=digest
            )
            known = self._predicted[task.index] = digest, predictions
        return known[1]


def _scores(task: Task, predictions: Predictions) -> Scores:
    return scores(*predictions, classes=len(task.classes))
