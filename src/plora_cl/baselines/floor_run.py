"""The floor: a run without an encoder, on the examples of a run with the same settings."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from plora_cl.baselines.tfidf import Examples, tfidf_predictions
from plora_cl.checkpoint.disk.lock import ExperimentLock
from plora_cl.checkpoint.store.output_files import write_output
from plora_cl.config.locations import RECORD, anchored
from plora_cl.config.precedence import dump
from plora_cl.config.schema import Settings, experiment_folder, identity
from plora_cl.data.notes import largest_share
from plora_cl.data.split import Split
from plora_cl.data.task import Task
from plora_cl.errors import ExperimentExistsError, ModelError
from plora_cl.evaluation.costs import Costs
from plora_cl.evaluation.matrix import ScoreMatrix
from plora_cl.evaluation.metrics import scores, scores_by_class
from plora_cl.evaluation.results import summarise, write_results
from plora_cl.model.encoder import load_tokenizer
from plora_cl.state import StateDict
from plora_cl.training.build import data_identity, load_stream
from plora_cl.training.publishing import description, with_sources
from plora_cl.training.reporting import Reporter
from plora_cl.training.task_notes import tell_of_tasks

RESULTS = "results/final_results.json"
_ALONE = "each task has a model of its own, which nothing changes later"


def learn_floor(settings: Settings, reporter: Reporter) -> StateDict:
    """Fit TF-IDF and logistic regression to each task alone, and write the result files.

    Args:
        settings: Settings of the run to compare with; those of the encoder have no effect.
        reporter: Receives the progress.

    Returns:
        The content of ``final_results.json``; ``floor`` has the penalty chosen for each task.

    Raises:
        DataError: A task cannot be read.
        ModelError: The tokenizer of the encoder cannot be loaded.
        ExperimentExistsError: The folder holds a run, whose results would be overwritten.
        ExperimentLockedError: Another process uses the folder, or the folder was moved.
        OutputError: The disk refused a file.
    """
    settings = anchored(settings)
    folder = experiment_folder(settings)
    with ExperimentLock.acquire(folder) as lock:
        _require_no_run(folder)
        if (folder / RESULTS).is_file():
            reporter.message(f"{folder} holds a floor; its results will be replaced")
        tokenizer = _tokenizer(settings.model_name)
        tasks = load_stream(settings, tokenizer, reporter.activity)
        tell_of_tasks(tasks, reporter)
        matrix, costs = ScoreMatrix(len(tasks)), Costs()
        chosen = [_learn(task, len(tasks), matrix, costs, reporter) for task in tasks]
        results = summarise(
            matrix,
            tasks=[description(task) for task in tasks],
            costs=costs.summary(),
            parameters={},
            methods={},
            zero_by_construction=dict.fromkeys(("backward_transfer", "forgetting"), _ALONE),
            identity=with_sources({**identity(settings), "data": data_identity(tasks)}, tasks),
        )
        by_class = {found["task"]: found.pop("by_class") for found in chosen}
        results = {**results, "floor": chosen, "by_class": by_class}
        write = partial(write_output, filesystem=lock.filesystem)
        write(folder / RECORD, dump(settings).encode())
        target = folder / "results"
        write_results(target, results, matrix, costs.summary(), write)
    reporter.message(f"Average accuracy: {results['average_accuracy']:.1%}. Results in {target}")
    return results


def _tokenizer(model_name: str) -> PreTrainedTokenizerBase:
    try:
        return load_tokenizer(model_name)
    except ModelError as error:
        raise ModelError(
            f"{error}; the floor tokenises as the run would: give its --model-name"
        ) from error


def _require_no_run(folder: Path) -> None:
    """Refuse a folder with checkpoints, or with results that have no ``floor``."""
    results = folder / RESULTS
    try:
        is_run = results.is_file() and "floor" not in json.loads(results.read_bytes())
    except (ValueError, TypeError, RecursionError):
        is_run = False  # torn by a power cut
    if is_run or any(folder.glob("checkpoints/*.pt")):
        raise ExperimentExistsError(
            f"{folder} holds a run, whose results would be overwritten; choose another "
            "--experiment-name for the floor"
        )


def _learn(
    task: Task, tasks: int, matrix: ScoreMatrix, costs: Costs, reporter: Reporter
) -> StateDict:
    with costs.measure(task.name, "train"):
        found = tfidf_predictions(
            _examples(task.train), _examples(task.validation), task.test.texts()
        )
    accuracy, f1 = scores(found.predicted, task.test.labels, classes=len(task.classes))
    for row in range(task.index, tasks):
        matrix.record(row, task.index, accuracy, f1, task.digest)
    reporter.message(
        f"Task {task.index + 1} of {tasks}: {task.name}: accuracy {accuracy:.1%} "
        f"(macro-F1 {f1:.1%}; share of the largest class {largest_share(task.test.labels):.1%})"
    )
    return {
        "task": task.name,
        "strength": found.strength,
        "validation_accuracy": found.validation_accuracy,
        "by_class": scores_by_class(found.predicted, task.test.labels, classes=task.classes),
    }


def _examples(split: Split) -> Examples:
    return split.texts(), split.labels
