"""``plora-cl status``: where every run in a folder stands."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from plora_cl.cli.command import Answer, argument, command
from plora_cl.cli.tables import Table, watch
from plora_cl.cli.train.resume_path import resume_command
from plora_cl.errors import CheckpointNotFoundError, SettingsError
from plora_cl.folders.found import experiments_in, perhaps_meant
from plora_cl.folders.standing import Standing, State, standing_of
from plora_cl.wording import counted, shown_age

_SECONDS = 2.0
_MOST_SHOWN = 4
_COLUMNS = ("experiment", "state", "task", "epoch", "phase", "step", "saved", "accuracy")
_NUMBERS = ("epoch", "step", "saved")
_SPARE = ("step", "phase", "epoch")


@command(
    "status",
    "Show where every run in a folder stands, those of studies included: state, task, epoch, "
    "phase, age of the newest durable checkpoint, accuracies so far, and the process that holds "
    "the lock. Nothing is changed, and no torch is loaded.",
    argument(
        "folder",
        metavar="DIR",
        nargs="?",
        type=Path,
        default=Path("experiments"),
        help="folder of experiments, or one of them (default: experiments)",
    ),
    argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=float,
        const=_SECONDS,
        help="show it again every so many seconds (default: 2) until Ctrl-C",
    ),
    examples=["", "experiments/demo --json", "experiments --watch"],
    ok="it was shown",
)
def show_status(arguments: Namespace) -> Answer:
    """Show where runs stand."""
    folder = arguments.folder
    if arguments.watch is None:
        found = _found(folder)
        document = {"folder": str(folder), "experiments": [_document(each) for each in found]}
        return Answer(document, _shown(folder, found))
    if arguments.json or arguments.watch <= 0:
        raise SettingsError(["--watch takes seconds above 0, and shows tables: leave --json out"])
    _found(folder)  # refused before the screen is cleared
    watch(lambda: _shown(folder, _found(folder)), arguments.watch)
    return Answer({}, ())


def _found(folder: Path) -> list[Standing]:
    experiments = experiments_in(folder)
    if not experiments:
        raise CheckpointNotFoundError(f"{folder} has no experiment; {perhaps_meant(folder)}")
    return [standing_of(experiment) for experiment in experiments]


def _document(found: Standing) -> dict[str, Any]:
    return {
        **asdict(found),
        "folder": str(found.folder),
        "saved": None if found.saved is None else _time(found.saved),
        "checkpoint_age_seconds": found.age,
        "holder_is_alive": found.state is State.RUNNING,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _shown(folder: Path, found: Sequence[Standing]) -> Iterator[str | Table]:
    names = [_name(folder, each.folder) for each in found]
    rows = [_row(name, each) for name, each in zip(names, found, strict=True)]
    yield Table(str(folder), _COLUMNS, rows, _NUMBERS, _SPARE)
    yield _counts(found)
    by_parent: dict[Path, list[Standing]] = {}
    for each in found:
        by_parent.setdefault(each.folder.parent, []).append(each)
    for parent, inside in by_parent.items():
        if len(by_parent) > 1 and parent != folder:
            yield f"{_name(folder, parent)}: {_counts(inside)}"
    for name, each in zip(names, found, strict=True):
        if line := _about(each):
            yield f"{name}: {line}"


def _name(folder: Path, experiment: Path) -> str:
    return str(experiment.relative_to(folder)) if experiment != folder else experiment.name or "."


def _row(name: str, found: Standing) -> tuple[str, ...]:
    task = "-" if found.task is None else f"{found.task}/{found.tasks or '?'} {found.name or ''}"
    is_under_way = found.state is not State.FINISHED
    epoch = f"{found.epoch}/{found.epochs or '?'}" if is_under_way and found.epoch else "-"
    return (
        *(name, str(found.state), task.rstrip(), epoch, found.phase or "-"),
        "-" if found.step is None else str(found.step),
        "-" if found.age is None else f"{shown_age(found.age)} ago",
        _accuracies(list(found.accuracies.values())),
    )


def _accuracies(values: Sequence[float]) -> str:
    if not values:
        return "-"
    if len(values) <= _MOST_SHOWN:
        return " ".join(f"{value:.2f}" for value in values)
    return f"{sum(values) / len(values):.2f}, mean of {len(values)}"


def _counts(found: Sequence[Standing]) -> str:
    by_state = Counter(each.state for each in found)
    parts = [f"{by_state[state]} {state}" for state in State if by_state[state]]
    return f"{counted(len(found), 'experiment')}: {', '.join(parts)}"


def _about(found: Standing) -> str:
    """Return what there is to know or to do about a run, in one line; empty if there is nothing."""
    holder = found.holder
    process = f"process {holder.pid} on {holder.host}" if holder is not None else ""
    if found.state is State.RUNNING and holder is not None:
        return f"{process} holds the lock since {holder.since}, and is alive"
    if found.state in (State.FAILED, State.UNREADABLE):
        return found.problem or "no reason was recorded"
    resume = resume_command(found.folder)
    if found.state is State.KILLED and holder is not None:
        way_on = f"; {resume}" if found.checkpoint else ""
        return f"{process} left its lock behind, and is gone{way_on}"
    return resume if found.state is State.STOPPED else ""
