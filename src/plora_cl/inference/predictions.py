"""What an experiment predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction of one text.

    Attributes:
        label: The most probable class.
        probability: Its probability, in [0, 1].
        probabilities: Of every class of the task, in the order of the classes; they sum to 1.
        task: Whose adapter and head predicted.
        task_probability: Of that task among those to choose from; 1.0 where the caller named it.
        abstained: The task was inferred, and the choice is doubtful: the text is like no task, or
            another task comes close. The label is a guess then.
    """

    label: str
    probability: float
    probabilities: Mapping[str, float]
    task: str
    task_probability: float
    abstained: bool

    def to_plain(self) -> dict[str, Any]:
        """Return the attributes as plain JSON values."""
        return {
            "label": self.label,
            "probability": self.probability,
            "task": self.task,
            "task_probability": self.task_probability,
            "abstained": self.abstained,
            "probabilities": dict(self.probabilities),
        }


class Predictions(Sequence[Prediction]):
    """The predictions of several texts, in the order of the texts.

    Args:
        rows: One for each text.
    """

    def __init__(self, rows: Sequence[Prediction]) -> None:
        self._rows = tuple(rows)

    @property
    def labels(self) -> list[str]:
        """The label of each text."""
        return [row.label for row in self._rows]

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each text: label, probability, task, task_probability, abstained.

        ``probabilities`` is a column of dicts, since tasks have different classes.
        """
        import pandas as pd

        columns = list(Prediction.__dataclass_fields__)
        return pd.DataFrame([row.to_plain() for row in self._rows], columns=columns)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> Predictions: ...
    def __getitem__(self, index: int | slice) -> Prediction | Predictions:
        found = self._rows[index]
        return found if isinstance(found, Prediction) else Predictions(found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Predictions) and self._rows == other._rows

    def __hash__(self) -> int:
        return hash(self._rows)

    def __repr__(self) -> str:
        return f"Predictions({list(self._rows)!r})"
