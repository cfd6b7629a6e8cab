"""The classes that an experiment has learned, and labels that are none of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from plora_cl.checkpoint.format.inspection import read_content
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError, CheckpointNotFoundError, DataError, ModelError
from plora_cl.folders.found import is_experiment, perhaps_meant
from plora_cl.folders.outcome import newest_content
from plora_cl.wording import nearest, short

_MOST_NAMED = 10


def learned_classes(folder: Path, checkpoint: Path | None = None) -> Mapping[str, Sequence[str]]:
    """Return the classes of each task that an experiment can predict, in the order of its logits.

    Args:
        folder: Of the experiment.
        checkpoint: The checkpoint file; None for the newest one that can be read.

    Raises:
        CheckpointNotFoundError: There is no such experiment or checkpoint.
        CheckpointError: It is damaged, or does not name classes.
    """
    if not is_experiment(folder):
        raise CheckpointNotFoundError(f"{folder} is no experiment; {perhaps_meant(folder)}")
    if checkpoint is None:
        found = newest_content(folder)
    else:
        entry = CheckpointEntry.at(checkpoint)
        store = CheckpointStore(checkpoint.parent)
        manifest = store.manifest(entry)
        with store.opened(entry) as file:
            found = entry, manifest, read_content(file)
    if found is None:
        raise CheckpointNotFoundError(f"no checkpoint in {folder / 'checkpoints'}")
    entry, manifest, content = found
    try:
        data = content["identity"]["data"]
        learned = data[: manifest.cursor["task"] + 1]
        return {str(task["name"]): tuple(map(str, task["classes"])) for task in learned}
    except (LookupError, TypeError) as error:
        raise CheckpointError(
            f"{entry.path} does not name the classes of its tasks: an earlier version, or a "
            "program of its own, saved it"
        ) from error


def require_task(task: str, tasks: Mapping[str, Sequence[str]], folder: Path) -> Sequence[str]:
    """Return the classes of ``task``.

    Args:
        task: Its name.
        tasks: What `learned_classes` returned.
        folder: Of the experiment, for the message.

    Raises:
        ModelError: There is no such task.
    """
    if task in tasks:
        return tasks[task]
    meant = nearest(task, tasks)
    way_out = f"did you mean {meant!r}? " if meant else ""
    raise ModelError(f"{folder} has no task {task!r}; {way_out}it has {', '.join(tasks)}")


def require_known(labels: Sequence[str], classes: Sequence[str], task: str, place: str) -> None:
    """Refuse labels that are none of a task's classes.

    Args:
        labels: The label of each text.
        classes: Those of the task.
        task: Its name.
        place: Where the labels are from.

    Raises:
        DataError: There are such labels; the message names them.
    """
    unknown = Counter(label for label in labels if label not in {*classes})
    if not unknown:
        return
    named = [f"{short(label)} ({count} of the texts)" for label, count in unknown.most_common()]
    more = f" and {len(named) - _MOST_NAMED} others" * (len(named) > _MOST_NAMED)
    raise DataError(
        f"{place}: no class of the task {task!r} is called {', '.join(named[:_MOST_NAMED])}{more}; "
        f"its classes are {', '.join(map(short, classes))}"
    )
