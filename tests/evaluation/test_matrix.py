from __future__ import annotations

import io

import numpy as np
import torch

from plora_cl.evaluation.matrix import UNTRAINED, ScoreMatrix


def recorded() -> ScoreMatrix:
    matrix = ScoreMatrix(3)
    matrix.record(UNTRAINED, 0, 0.5, 0.4, "fresh-0")
    matrix.record(0, 0, 0.9, 0.8, "a")
    matrix.record(0, 1, 0.3, 0.2, "b")
    return matrix


def test_cells_that_were_never_measured_are_nan_and_not_zero() -> None:
    matrix = recorded()
    assert np.array_equal(np.isnan(matrix.accuracy), np.isnan(matrix.f1))
    assert np.isnan(matrix.accuracy).sum() == 7
    assert matrix.accuracy[0, :2].tolist() == [0.9, 0.3]
    assert matrix.f1[0, :2].tolist() == [0.8, 0.2]
    assert matrix.untrained_accuracy[0] == 0.5
    assert np.isnan(matrix.untrained_f1[1:]).all()
    assert [matrix.scores(0, task) for task in range(3)] == [(0.9, 0.8), (0.3, 0.2), None]


def test_a_score_of_zero_is_a_measurement() -> None:
    matrix = ScoreMatrix(1)
    matrix.record(0, 0, 0.0, 0.0, "a")
    assert matrix.scores(0, 0) == (0.0, 0.0)
    assert matrix.reusable(0, "a") == (0.0, 0.0)


def test_a_score_is_reused_only_for_the_same_task_and_the_same_digest() -> None:
    matrix = recorded()
    assert matrix.reusable(0, "a") == (0.9, 0.8)
    assert matrix.reusable(0, "fresh-0") == (0.5, 0.4)
    assert matrix.reusable(0, "changed") is None
    assert matrix.reusable(1, "a") is None


def test_its_state_is_plain_and_restores_everything() -> None:
    matrix, twin = recorded(), ScoreMatrix(3)
    file = io.BytesIO()
    torch.save(matrix.state_dict(), file)
    file.seek(0)
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert twin.state_dict() == matrix.state_dict()
    assert np.array_equal(twin.accuracy, matrix.accuracy, equal_nan=True)
    assert np.array_equal(twin.untrained_f1, matrix.untrained_f1, equal_nan=True)
    assert twin.reusable(1, "b") == (0.3, 0.2)


def test_restoring_forgets_what_was_measured_later() -> None:
    matrix = recorded()
    state = matrix.state_dict()
    matrix.record(1, 1, 1.0, 1.0, "c")
    matrix.load_state_dict(state)
    assert matrix.reusable(1, "c") is None
    assert np.isnan(matrix.accuracy[1, 1])
