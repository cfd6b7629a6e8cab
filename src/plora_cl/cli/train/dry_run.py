"""``plora-cl train --dry-run``: what a run would do, from settings and rows alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.cli.tables import Table, show
from plora_cl.cli.train.footprint import Footprint, footprint
from plora_cl.config.schema import Settings, experiment_folder, holds_out
from plora_cl.data.size import TaskSize, task_size
from plora_cl.data.sources.base import TaskSource
from plora_cl.data.sources.classes import OnlyClasses
from plora_cl.data.sources.declaration import parse_tasks
from plora_cl.data.sources.hub import HubSource
from plora_cl.methods.registry import techniques
from plora_cl.wording import counted, shown_bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do.

    Attributes:
        settings: Of the run.
        tasks: The size of each task; None for one that would have to be fetched.
        steps: Optimizer steps of each stage: of each task, or of all in joint training; None where
            the size of a task is not known.
        size: What it would write; None where that is not known.
        free: Bytes free for it.
        resumes: Whether there are checkpoints that it would resume from.
        unchecked: What was not looked at.
    """

    settings: Settings
    tasks: Sequence[TaskSize | None]
    steps: Sequence[int] | None
    size: Footprint | None
    free: int
    resumes: bool
    unchecked: Sequence[str]


def plan_of(settings: Settings, *, resume: bool) -> Plan:
    """Return what a run would do; rows are read and checked, and nothing else is loaded.

    Args:
        settings: Of the run.
        resume: Whether it would resume from a checkpoint, if there is one.

    Raises:
        DataError: A row cannot be read.
        ModelError: A file of weights is damaged.
    """
    sources = parse_tasks(settings.tasks)
    tasks = [None if _is_remote(source) else _size(source, settings) for source in sources]
    known = [task for task in tasks if task is not None]
    steps = _steps(known, settings) if len(known) == len(tasks) else None
    size = footprint(settings, [task.classes for task in known]) if steps is not None else None
    folder = experiment_folder(settings)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    unchecked = [
        *(f"task {s.name}: it has to be fetched" for s in sources if _is_remote(s)),
        *([] if size or steps is None else [f"size: {settings.model_name} is not on this disk"]),
        "weights, memory, and texts longer than max_length: they take loading the model",
        *(f"what {t.title} keeps or generates" for t in techniques() if t.is_on(settings)),
    ]
    entries = CheckpointStore(folder / "checkpoints").entries()
    free = shutil.disk_usage(there).free
    return Plan(settings, tasks, steps, size, free, resume and bool(entries), unchecked)


def _is_remote(source: TaskSource) -> bool:
    return isinstance(source.source if isinstance(source, OnlyClasses) else source, HubSource)


def _size(source: TaskSource, settings: Settings) -> TaskSize:
    return task_size(
        source,
        max_train=settings.max_train_examples,
        max_evaluation=settings.max_eval_examples,
        max_train_per_class=settings.max_train_examples_per_class,
        max_validation_per_class=settings.max_validation_examples_per_class,
        hold_out=holds_out(settings),
    )


def _steps(tasks: Sequence[TaskSize], settings: Settings) -> list[int]:
    batches = [-(-task.train // settings.batch_size) for task in tasks]
    if settings.joint:  # each task has an equal share of the batches
        batches = [-(-sum(batches) // len(batches)) * len(batches)]
    accumulated = settings.gradient_accumulation_steps
    return [settings.epochs * -(-count // accumulated) for count in batches]


def document(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain JSON."""
    size = plan.size
    return {
        "experiment": str(experiment_folder(plan.settings)),
        "resumes": plan.resumes,
        "tasks": [task and task._asdict() for task in plan.tasks],
        "steps": plan.steps and list(plan.steps),
        "checkpoints_saved": plan.steps and _saves(plan.steps, plan.settings),
        "disk": size and {**size._asdict(), "total": size.total},
        "free_bytes": plan.free,
        "not_checked": list(plan.unchecked),
    }


def _saves(steps: Sequence[int], settings: Settings) -> int:
    """Return how many checkpoints are saved at least: some work is saved by the clock, too."""
    every = settings.checkpoint_every
    epochs = settings.epochs * len(steps)
    return sum(count // every for count in steps) + epochs if every else 0


def shown(plan: Plan, *, as_json: bool) -> Iterator[str | Table]:
    """Yield the lines and tables of a plan."""
    if as_json:
        yield from json.dumps(document(plan), indent=2).splitlines()
        return
    settings, folder = plan.settings, experiment_folder(plan.settings)
    begins = "resumes from its newest checkpoint" if plan.resumes else "starts afresh"
    yield f"{folder}: {begins}; nothing was trained or written"
    numbers = ("classes", "train", "validation", "test", "steps")
    yield Table("Tasks", ("task", *numbers), [*_rows(plan)], numbers)
    if plan.steps is not None:
        early = ", fewer with early stopping" * bool(settings.early_stopping_patience)
        saves = _saves(plan.steps, settings)
        yield (
            f"{counted(sum(plan.steps), 'step')} of up to "
            f"{settings.batch_size * settings.gradient_accumulation_steps} examples in "
            f"{counted(settings.epochs, 'epoch')} of each task{early}"
        )
        yield f"About {counted(saves, 'checkpoint')} saved" if saves else "No checkpoint is saved"
    if plan.size is not None:
        yield (
            f"About {shown_bytes(plan.size.total)} of disk: encoder {shown_bytes(plan.size.base)}, "
            f"tasks {shown_bytes(plan.size.tasks)}, {counted(plan.size.kept, 'checkpoint')} of "
            f"{shown_bytes(plan.size.checkpoint)} kept; {shown_bytes(plan.free)} are free"
        )
        if plan.size.total > plan.free:
            yield "Warning: that does not fit; lower keep_last_n_checkpoints or make room"
    yield from (f"Not checked: {what}" for what in plan.unchecked)


def _rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    steps = plan.steps if plan.steps is not None and not plan.settings.joint else None
    for place, (source, task) in enumerate(
        zip(parse_tasks(plan.settings.tasks), plan.tasks, strict=True)
    ):
        if task is None:
            yield (source.name, *["?"] * 5)
            continue
        validation = f"{task.validation}" + " held out" * bool(task.held_out)
        own = str(steps[place]) if steps is not None else "together" * plan.settings.joint or "?"
        yield task.name, str(task.classes), str(task.train), validation, str(task.test), own


def preview(settings: Settings, *, resume: bool, as_json: bool) -> None:
    """Print what a run would do."""
    show(shown(plan_of(settings, resume=resume), as_json=as_json))
