from __future__ import annotations

import numpy as np
import pytest

from plora_cl.evaluation.matrix import ScoreMatrix
from plora_cl.evaluation.routing.scores import Routed, routed_scores, side_by_side
from plora_cl.state_digest import state_digest


def score(routes: list[int], doubtful: list[bool], predicted: list[int]) -> Routed:
    return routed_scores(
        np.array(routes),
        np.array(doubtful),
        np.array(predicted),
        np.array([0, 0, 1, 1]),
        task=1,
        tasks=3,
        classes=2,
    )


def test_an_answer_is_right_if_task_and_class_are() -> None:
    routed = score([1, 0, 1, 2], [False] * 4, [0, 0, 0, 1])
    assert routed.accuracy == 0.25
    assert routed.chosen == (1, 2, 1)
    assert routed.f1 == pytest.approx((0.5 + 0) / 2)  # class 0: one of two found, one false alarm


def test_with_every_task_right_it_is_the_score_with_the_task_known() -> None:
    routed = score([1, 1, 1, 1], [False] * 4, [0, 0, 0, 1])
    assert routed.accuracy == 0.75
    assert routed.f1 == pytest.approx((0.8 + 2 / 3) / 2)


def test_a_doubtful_text_still_has_its_answer() -> None:
    routed = score([1, 1, 1, 0], [True, False, False, True], [0, 0, 0, 1])
    assert routed.accuracy == 0.5
    assert (routed.abstained, routed.right_of_answered) == (2, 1)
    found = side_by_side(["news"], [(0.75, 0.7)], [routed])
    assert found["routed"]["tasks"][0]["accuracy_of_answered"] == 0.5


def test_both_scores_stand_side_by_side() -> None:
    first = Routed((3, 1), 0, 2, 0.5, 0.4)
    second = Routed((0, 4), 4, 0, 0.75, 0.7)
    found = side_by_side(["news", "mail"], [(1.0, 1.0), (0.75, 0.7)], [first, second])
    assert found["oracle"]["average_accuracy"] == 0.875
    assert found["routed"]["average_accuracy"] == 0.625
    assert found["gap"] == {"average_accuracy": 0.25, "average_f1": pytest.approx(0.3)}
    assert found["confusion"] == [[3, 1], [0, 4]]
    assert [task["name"] for task in found["routed"]["tasks"]] == ["news", "mail"]
    assert found["routed"]["tasks"][1]["accuracy_of_answered"] is None


def test_what_was_never_measured_is_null() -> None:
    found = side_by_side(["news"], [(0.75, 0.7)], [None])
    assert found["routed"]["average_accuracy"] is None
    assert found["gap"] == {"average_accuracy": None, "average_f1": None}
    assert found["confusion"] == [None]


def test_a_matrix_remembers_routed_scores_and_older_states_have_none() -> None:
    matrix, other = ScoreMatrix(2), ScoreMatrix(2)
    matrix.record(0, 0, 0.5, 0.5, "a")
    older = matrix.state_dict()
    assert older.keys() == {"cells", "untrained"}
    matrix.record_routed(1, 0, Routed((3, 1), 2, 1, 0.5, 0.4))
    other.load_state_dict(matrix.state_dict())
    assert other.routed(1, 0) == matrix.routed(1, 0) == Routed((3, 1), 2, 1, 0.5, 0.4)
    assert other.routed(1, 1) is None
    assert state_digest(other.state_dict()) == state_digest(matrix.state_dict())
    other.load_state_dict(older)
    assert state_digest(other.state_dict()) == state_digest(older)
