"""The result files of a run."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plora_cl.evaluation import metrics
from plora_cl.evaluation.matrix import ScoreMatrix
from plora_cl.evaluation.routing.scores import side_by_side
from plora_cl.state import StateDict

Write = Callable[[Path, bytes], None]


def summarise(
    matrix: ScoreMatrix,
    *,
    tasks: Sequence[Mapping[str, Any]],
    costs: StateDict,
    parameters: Mapping[str, int],
    methods: StateDict,
    zero_by_construction: Mapping[str, str],
    identity: StateDict,
    trajectory: StateDict | None = None,
) -> StateDict:
    """Return the content of ``final_results.json``; None for what was never measured.

    Args:
        matrix: Every score.
        tasks: Name, classes and sizes of each task.
        costs: What `Costs.summary` returns.
        parameters: Parameter counts by kind.
        methods: What `MethodStack.report` returns.
        zero_by_construction: Metrics that are zero by construction, and why.
        identity: The settings and the digests of the data that decide the results.
        trajectory: The computation that led to them, with its earlier changes; None where nothing
            was learned step by step.
    """
    accuracy, f1 = matrix.accuracy, matrix.f1
    of_accuracy = _summary(accuracy, matrix.untrained_accuracy)
    of_f1 = _summary(f1, matrix.untrained_f1)
    for summary in (of_accuracy, of_f1):
        _require_zeros(summary, zero_by_construction)
    return {
        **of_accuracy,
        "f1": of_f1,
        **_with_and_without_task_id(matrix, [task["name"] for task in tasks]),
        "accuracy_matrix": _plain(accuracy),
        "f1_matrix": _plain(f1),
        "untrained_accuracy": _plain(matrix.untrained_accuracy),
        "untrained_f1": _plain(matrix.untrained_f1),
        "tasks": [dict(task) for task in tasks],
        "wall_clock_seconds": costs["total_seconds"],
        "parameters": dict(parameters),
        "methods": methods,
        "zero_by_construction": dict(zero_by_construction),
        "identity": dict(identity),
        "trajectory": trajectory,
    }


def write_results(
    folder: Path, results: StateDict, matrix: ScoreMatrix, costs: StateDict, write: Write
) -> None:
    """Write the four result files into ``folder``; ``write`` makes each one durable.

    ``final_results.json`` comes last: where it is, the others are.
    """
    write(folder / "computational_costs.json", _json(costs))
    write(folder / "accuracy_matrix.npy", _npy(matrix.accuracy))
    write(folder / "f1_matrix.npy", _npy(matrix.f1))
    write(folder / "final_results.json", _json(results))


def _summary(
    results: npt.NDArray[np.float64], untrained: npt.NDArray[np.float64]
) -> dict[str, float | None]:
    metrics.require_identity(results)
    return {
        "average_accuracy": metrics.average_accuracy(results),
        "backward_transfer": metrics.backward_transfer(results),
        "forward_transfer": metrics.forward_transfer(results, untrained),
        "forward_transfer_single": None,  # defined for a study, which learns each task alone
        "forgetting": metrics.forgetting(results),
        "learning_accuracy": metrics.learning_accuracy(results),
        "average_anytime_accuracy": metrics.average_anytime_accuracy(results),
    }


def _require_zeros(summary: Mapping[str, float | None], zeros: Mapping[str, str]) -> None:
    for name, reason in zeros.items():
        assert summary[name] in (None, 0.0), f"{name} is {summary[name]}, although {reason}"


def _with_and_without_task_id(matrix: ScoreMatrix, names: Sequence[str]) -> StateDict:
    tasks = range(len(names))
    rows = [[matrix.routed(row, column) for column in tasks] for row in tasks]
    oracle = [matrix.scores(tasks[-1], column) for column in tasks]
    return {
        **side_by_side(names, oracle, rows[-1]),
        "routed_accuracy_matrix": [[c and c.accuracy for c in row] for row in rows],
        "routed_f1_matrix": [[c and c.f1 for c in row] for row in rows],
    }


def _plain(array: npt.NDArray[np.float64]) -> Any:
    found = array.astype(object)
    found[np.isnan(array)] = None
    return found.tolist()


def _json(value: StateDict) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def _npy(array: npt.NDArray[np.float64]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
