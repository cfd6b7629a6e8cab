"""The scores that a checkpoint holds, as frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from plora_cl.evaluation.matrix import ScoreMatrix
from plora_cl.state import StateDict

if TYPE_CHECKING:
    import pandas as pd


class ScoreFrames(NamedTuple):
    """Scores on the test splits, in [0, 1]; NaN where nothing was measured.

    Attributes:
        accuracy: A row for each task that was learned (``after``), a column for each task that was
            measured (``task``).
        f1: Macro-F1, the same way.
        routed_accuracy: Accuracy with the task of each text inferred by the router.
        routed_f1: Macro-F1 with the task inferred.
        untrained: Accuracy and F1 of each task before anything was learned.
    """

    accuracy: pd.DataFrame
    f1: pd.DataFrame
    routed_accuracy: pd.DataFrame
    routed_f1: pd.DataFrame
    untrained: pd.DataFrame


def score_frames(state: StateDict, names: Sequence[str]) -> ScoreFrames:
    """Return the scores of a checkpoint.

    Args:
        state: Of the component ``scores``.
        names: Of all tasks of the stream.
    """
    import pandas as pd

    matrix = ScoreMatrix(len(names))
    matrix.load_state_dict(state)
    tasks = range(len(names))
    cells = [[matrix.routed(row, column) for column in tasks] for row in tasks]

    def frame(values: object) -> pd.DataFrame:
        array = np.array(values, dtype=np.float64)
        rows, columns = pd.Index(names, name="after"), pd.Index(names, name="task")
        return pd.DataFrame(array, index=rows, columns=columns)

    untrained = {"accuracy": matrix.untrained_accuracy, "f1": matrix.untrained_f1}
    return ScoreFrames(
        accuracy=frame(matrix.accuracy),
        f1=frame(matrix.f1),
        routed_accuracy=frame([[c.accuracy if c else np.nan for c in row] for row in cells]),
        routed_f1=frame([[c.f1 if c else np.nan for c in row] for row in cells]),
        untrained=pd.DataFrame(untrained, index=pd.Index(names, name="task")),
    )
