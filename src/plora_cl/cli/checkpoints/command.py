"""What the commands for checkpoints share: how targets are named and found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plora_cl.checkpoint.format.naming import is_checkpoint
from plora_cl.checkpoint.reading import store_in
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.verification import resume_point
from plora_cl.cli import command as cli_command
from plora_cl.cli.command import Argument, Declare, argument
from plora_cl.config.fields import SettingFields
from plora_cl.errors import CheckpointNotFoundError
from plora_cl.wording import nearest

RESUMED_FROM = "; a folder stands for the checkpoint a run would resume from"


def command(
    name: str,
    purpose: str,
    *arguments: Argument,
    examples: Sequence[str],
    ok: str = "done",
    found: str = "a checkpoint is damaged",
) -> Declare:
    """Return the decorator of `plora_cl.cli.command.command` for ``plora-cl checkpoints NAME``."""
    return cli_command.command(
        f"checkpoints {name}", purpose, *arguments, examples=examples, ok=ok, found=found
    )


def target(default: str = "", *, name: str = "target") -> Argument:
    """Return an argument for `locate`; ``default`` says what a folder stands for."""
    what = "an experiment folder, or a checkpoint: the path of its file, or FOLDER@NAME.pt"
    metavar = "FOLDER|CHECKPOINT" if name == "target" else name.upper()
    return argument(name, metavar=metavar, help=what + default)


@dataclass(frozen=True, slots=True)
class Target:
    """What a command was pointed at.

    Attributes:
        store: The store of the checkpoints.
        entry: The checkpoint; None for a folder.
    """

    store: CheckpointStore
    entry: CheckpointEntry | None

    @property
    def checkpoint(self) -> CheckpointEntry:
        """The checkpoint; for a folder the intact one that a run would resume from.

        Raises:
            CheckpointNotFoundError: There is none.
            CheckpointError: None can be used.
        """
        found = self.entry or resume_point(self.store)
        if found is None:
            raise CheckpointNotFoundError(f"No checkpoint found in {self.store.directory}")
        return found


def locate(text: str) -> Target:
    """Return the experiment folder, or the checkpoint, that ``text`` names.

    Raises:
        CheckpointNotFoundError: It names neither.
    """
    path = Path(text)
    folder, at, name = text.rpartition("@")
    found: Target | None
    if at and (is_checkpoint(name) or name.endswith(".pt")) and not path.exists():
        found = _folder(Path(folder))
        found = found and _checkpoint(found.store.directory / name)
    else:
        found = _checkpoint(path) if is_checkpoint(path.name) else _folder(path)
    if found is None:
        raise CheckpointNotFoundError(
            f"{text}: neither an experiment folder nor a checkpoint; {_perhaps_meant(path)}"
        )
    return found


def _perhaps_meant(path: Path) -> str:
    inside = _experiments(path)
    if inside:
        return f"the experiments in it are {', '.join(inside)}; for instance, {path / inside[0]}"
    for parent in (path.parent, Path(SettingFields().experiment_dir)):
        meant = nearest(path.name, _experiments(parent))
        if meant is not None:
            return f"did you mean {parent / meant}?"
    return (
        "expected, for instance, experiments/demo or "
        "experiments/demo/checkpoints/checkpoint_task0_epoch1_batch99.pt"
    )


def _experiments(parent: Path) -> list[str]:
    try:
        return sorted(path.parent.name for path in parent.glob("*/checkpoints") if path.is_dir())
    except OSError:
        return []


def _folder(path: Path) -> Target | None:
    store = store_in(path)
    return None if store is None else Target(store, None)


def _checkpoint(path: Path) -> Target:
    store = CheckpointStore(path.parent)
    if store.size(path) is None:
        there = store.entries() if path.parent.is_dir() else []
        newest = f"; the newest checkpoint there is {there[-1].name}" if there else ""
        raise CheckpointNotFoundError(f"{path} does not exist, or is not a file{newest}")
    return Target(store, CheckpointEntry.at(path))
