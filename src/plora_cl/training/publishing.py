"""The result files and tables of a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from plora_cl.checkpoint.store.output_files import recording, write_output
from plora_cl.data.notes import largest_share
from plora_cl.data.task import Task
from plora_cl.evaluation.by_construction import zero_by_construction
from plora_cl.evaluation.measurement import FinalScores
from plora_cl.evaluation.results import summarise, write_results
from plora_cl.state import StateDict
from plora_cl.training.run.run import Run

_DIFFERENCES = ("backward_transfer", "forward_transfer", "forgetting")
"""Metrics that may be negative."""


def publish(run: Run, folder: Path, final: FinalScores) -> StateDict:
    """Write the result files of a finished run, show its table, and return the results.

    Args:
        run: Finished.
        folder: Of its experiment.
        final: What was measured when everything was learned.

    Raises:
        ExperimentMovedError: The folder is not the run's any more.
        OutputError: The disk refused; ``final_results.json`` appears only with all the others.
    """
    costs, matrix = run.components.costs.summary(), run.components.matrix
    results = summarise(
        matrix,
        tasks=[description(task) for task in run.components.tasks],
        costs=costs,
        parameters=_parameter_counts(run),
        methods=run.components.methods.report(run.model),
        # Scores that were measured under different settings may differ by that alone.
        zero_by_construction={}
        if matrix.is_mixed
        else zero_by_construction(
            tasks=len(run.components.tasks),
            composition=run.model.composition,
            task_adapters=run.model.task_adapters,
            shared=bool(run.model.shared_parameters()),
            joint=run.model.joint,
        ),
        identity=with_sources(run.checkpointer.facts.identity, run.components.tasks),
        trajectory=run.checkpointer.trajectory.to_plain(),
    )
    if final.validation is not None:
        measured = [accuracy for accuracy, _ in final.validation]
        results["validation"] = {
            "average_accuracy": sum(measured) / len(measured),
            "accuracy": measured,
        }
    results["by_class"] = final.by_class
    with recording(run.components.run_log.path):
        run.sync_log()
    run.components.run_log.settle()
    target = folder / "results"
    write_results(target, results, matrix, costs, partial(write_output, filesystem=run.disk))
    _show(run, results)
    run.reporter.message(f"Results: {target / 'final_results.json'}")
    return results


def with_sources(identity: Mapping[str, Any], tasks: Sequence[Task]) -> StateDict:
    """Return an identity whose data say, too, what each task was read from.

    Checkpoints do without: which examples were picked from there decides what can be resumed, and
    runs that pick others by their seed are compared by where these come from.
    """
    data = zip(identity["data"], tasks, strict=True)
    return {**identity, "data": [{**one, "source": task.source} for one, task in data]}


def description(task: Task) -> StateDict:
    """Return what ``final_results.json`` says of a task."""
    return {
        "name": task.name,
        "classes": list(task.classes),
        "train": len(task.train),
        "validation": len(task.validation),
        "test": len(task.test),
        "held_out": task.held_out,
        "largest_class_share": largest_share(task.test.labels),
    }


def _parameter_counts(run: Run) -> dict[str, int]:
    parts = run.model.parts()
    counts = {
        name: sum(tensor.numel() for tensor in part.state_dict().values())
        for name, part in parts.items()
    }
    trainable = sum(parameter.numel() for parameter in run.model.trainable().values())
    return {"total": sum(counts.values()), "trainable_last_task": trainable, **counts}


def _show(run: Run, results: StateDict) -> None:
    matrix = run.components.matrix
    learned, final, f1 = matrix.accuracy.diagonal(), matrix.accuracy[-1], matrix.f1[-1]
    rows = [
        [
            *(task.name, str(len(task.classes)), _accuracy(largest_share(task.test.labels))),
            *(_accuracy(learned[k]), _accuracy(final[k]), _accuracy(f1[k])),
        ]
        for k, task in enumerate(run.components.tasks)
    ]
    columns = ["task", "classes", "largest class", "learned", "final", "macro-F1"]
    run.reporter.table("Accuracy on the test splits, and macro-F1 at the end", columns, rows)
    names = ("average_accuracy", "backward_transfer", "forward_transfer", "forgetting")
    zeros = results["zero_by_construction"]
    summary = [[name.replace("_", " "), _number(name, results[name], zeros)] for name in names]
    summary.insert(1, ["average macro-F1", _number("f1", results["f1"]["average_accuracy"], zeros)])
    routed = results["routed"]["average_accuracy"]
    if routed is not None:
        summary.append(["average accuracy, task inferred", _number("routed", routed, zeros)])
    run.reporter.table("Continual learning", ["metric", "value"], summary)
    for reason in dict.fromkeys(zeros.values()):
        run.reporter.message(f"Zero by construction: {reason}")
    for note in run.components.methods.notes(run.model):
        run.reporter.message(f"Note: {note}")
    for left in run.checkpointer.trajectory.history:
        changes = ", ".join(f"{c['key']} {c['before']} -> {c['now']}" for c in left.changes)
        if changes:
            run.reporter.message(f"Note: changed after step {left.step}: {changes}")


def _accuracy(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _number(name: str, value: float | None, zeros: Mapping[str, str]) -> str:
    if value is None:
        return "not defined"
    form = "{:+.4f}" if name in _DIFFERENCES else "{:.4f}"
    return form.format(value) + " (zero by construction)" * (name in zeros)
