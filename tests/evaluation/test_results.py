from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from plora_cl.evaluation import metrics
from plora_cl.evaluation.costs import Costs
from plora_cl.evaluation.matrix import UNTRAINED, ScoreMatrix
from plora_cl.evaluation.results import summarise, write_results
from plora_cl.state import StateDict

METRICS = {
    "average_accuracy",
    "backward_transfer",
    "forward_transfer",
    "forward_transfer_single",
    "forgetting",
    "learning_accuracy",
    "average_anytime_accuracy",
}


def two_tasks() -> ScoreMatrix:
    matrix = ScoreMatrix(2)
    matrix.record(UNTRAINED, 0, 0.5, 0.3, "u0")
    matrix.record(UNTRAINED, 1, 0.25, 0.1, "u1")
    matrix.record(0, 0, 0.9, 0.9, "a")
    matrix.record(0, 1, 0.5, 0.4, "b")
    matrix.record(1, 0, 0.7, 0.6, "c")
    matrix.record(1, 1, 0.8, 0.8, "d")
    return matrix


def summary(matrix: ScoreMatrix, zeros: dict[str, str] | None = None) -> StateDict:
    return summarise(
        matrix,
        tasks=[{"name": "news", "classes": ["a", "b"]}, {"name": "mail", "classes": ["x", "y"]}],
        costs=Costs().summary(),
        parameters={"total": 10},
        methods={"ewc": {"lambda_ewc": 3.0}},
        zero_by_construction=zeros or {},
        identity={"seed": 7},
    )


def test_the_summary_has_every_metric_for_accuracy_and_for_f1() -> None:
    results = summary(two_tasks())
    assert results.keys() > METRICS
    assert results["f1"].keys() == METRICS
    assert results["average_accuracy"] == pytest.approx(0.75)
    assert results["backward_transfer"] == pytest.approx(-0.2)
    assert results["forward_transfer"] == pytest.approx(0.25)
    assert results["forgetting"] == pytest.approx(0.2)
    assert results["f1"]["backward_transfer"] == pytest.approx(-0.3)
    assert results["f1"]["forward_transfer"] == pytest.approx(0.3)
    assert results["methods"] == {"ewc": {"lambda_ewc": 3.0}}
    assert [task["name"] for task in results["tasks"]] == ["news", "mail"]
    assert results["identity"] == {"seed": 7}


def test_every_summary_is_held_to_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "learning_accuracy", lambda results: 0.123)
    with pytest.raises(AssertionError, match="ACC is"):
        summary(two_tasks())


def test_what_is_said_to_be_zero_has_to_be_zero_in_accuracy_and_f1() -> None:
    with pytest.raises(AssertionError, match=r"forgetting is 0\.2.*nothing shared"):
        summary(two_tasks(), {"forgetting": "nothing shared"})
    matrix = two_tasks()
    matrix.record(1, 0, 0.9, 0.6, "c")
    with pytest.raises(AssertionError, match="forgetting"):
        summary(matrix, {"forgetting": "nothing shared"})
    matrix.record(1, 0, 0.9, 0.9, "c")
    results = summary(matrix, {"forgetting": "nothing shared"})
    assert results["zero_by_construction"] == {"forgetting": "nothing shared"}


def test_cells_never_measured_are_null_in_the_file_and_nan_in_the_array(tmp_path: Path) -> None:
    matrix = ScoreMatrix(2)
    matrix.record(0, 0, 0.9, 0.8, "a")
    results = summary(matrix)
    write_results(tmp_path, results, matrix, Costs().summary(), write)
    stored = json.loads((tmp_path / "final_results.json").read_text())
    assert stored["accuracy_matrix"] == [[0.9, None], [None, None]]
    assert stored["f1_matrix"] == [[0.8, None], [None, None]]
    assert stored["untrained_accuracy"] == [None, None]
    assert stored["average_accuracy"] is None
    accuracy = np.load(tmp_path / "accuracy_matrix.npy", allow_pickle=False)
    assert accuracy.dtype == np.float64
    assert accuracy[0, 0] == 0.9
    assert np.isnan(accuracy).sum() == 3
    assert np.load(tmp_path / "f1_matrix.npy")[0, 0] == 0.8
    assert "total_seconds" in json.loads((tmp_path / "computational_costs.json").read_text())


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def test_every_file_goes_through_the_given_writer(tmp_path: Path) -> None:
    written: dict[str, bytes] = {}
    matrix = two_tasks()
    write_results(
        tmp_path,
        summary(matrix),
        matrix,
        Costs().summary(),
        lambda path, data: written.update({path.name: data}),
    )
    assert written.keys() == {
        "final_results.json",
        "accuracy_matrix.npy",
        "f1_matrix.npy",
        "computational_costs.json",
    }
    assert not list(tmp_path.iterdir())


def test_a_number_that_is_not_finite_never_gets_into_a_result_file(tmp_path: Path) -> None:
    matrix = two_tasks()
    results = summary(matrix) | {"wall_clock_seconds": math.inf}
    with pytest.raises(ValueError, match="JSON"):
        write_results(tmp_path, results, matrix, Costs().summary(), write)
