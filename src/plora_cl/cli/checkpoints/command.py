"""What all commands for checkpoints have in common: flags, targets, exit codes, output."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plora_cl.checkpoint.format.naming import is_checkpoint
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.verification import resume_point
from plora_cl.cli.exit import OK, error_line, exit_code
from plora_cl.cli.parser import Parser
from plora_cl.errors import CheckpointNotFoundError, CorruptCheckpointError

FOUND = 1
"""Exit code where damage, or a difference, was found."""

TARGET = "FOLDER|CHECKPOINT"
_TARGET_HELP = (
    "an experiment folder, or a checkpoint: the path of its file, or FOLDER@NAME.pt{default}"
)
_EXIT_CODES = "exit codes:\n  0  {ok}\n  1  {found}\n  2  the command was not understood or refused"


def command_parser(
    name: str, purpose: str, examples: Sequence[str], *, ok: str, found: str
) -> argparse.ArgumentParser:
    """Return a parser with ``--json`` and a help that ends in examples and exit codes."""
    listed = "\n".join(f"  plora-cl checkpoints {name} {example}" for example in examples)
    parser = Parser(
        prog=f"plora-cl checkpoints {name}",
        description=purpose,
        epilog=f"example:\n{listed}\n\n" + _EXIT_CODES.format(ok=ok, found=found),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="write JSON instead of tables")
    return parser


def add_target(parser: argparse.ArgumentParser, name: str = "target", *, default: str = "") -> None:
    """Add an argument for `locate`; ``default`` says what a folder stands for."""
    parser.add_argument(name, metavar=TARGET, help=_TARGET_HELP.format(default=default))


@dataclass(frozen=True, slots=True)
class Target:
    """What a command was pointed at.

    Attributes:
        store: Where the checkpoints are.
        entry: The checkpoint, if it was one; None for a folder.
    """

    store: CheckpointStore
    entry: CheckpointEntry | None

    @property
    def checkpoint(self) -> CheckpointEntry:
        """The checkpoint; for a folder the one that a run would be resumed from.

        Raises:
            CheckpointNotFoundError: There is none.
            CheckpointError: None can be used.
        """
        return self.entry or resumed_from(self.store)


def resumed_from(store: CheckpointStore) -> CheckpointEntry:
    """Return the checkpoint of ``store`` that a run would be resumed from; it is intact.

    Raises:
        CheckpointNotFoundError: There is none.
        CheckpointError: None can be used.
    """
    found = resume_point(store)
    if found is None:
        raise CheckpointNotFoundError(f"No checkpoint found in {store.directory}")
    return found


def locate(text: str) -> Target:
    """Find the experiment folder, or the checkpoint, that ``text`` names.

    Raises:
        CheckpointNotFoundError: It names neither.
    """
    path = Path(text)
    folder, at, name = text.rpartition("@")
    if at and is_checkpoint(name) and not path.exists():
        target = _folder(Path(folder))
        return _checkpoint(target.store.directory / name) if target else _nothing(text)
    if is_checkpoint(path.name):
        return _checkpoint(path)
    return _folder(path) or _nothing(text)


def finish(command: Callable[[], int]) -> int:
    """Run a command and return its exit code; errors become one line on stderr."""
    codes: list[int] = []

    def run() -> None:
        try:
            codes.append(command())
        except CorruptCheckpointError as error:
            print(error_line(error), file=sys.stderr)
            codes.append(FOUND)

    return exit_code(run) or next(iter(codes), OK)


def write_json(document: dict[str, Any]) -> None:
    """Write a JSON document to stdout."""
    try:
        text = json.dumps(document, indent=2, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise CorruptCheckpointError(f"what it says is no JSON: {error}") from error
    print(text)


def resume_hint(folder: Path) -> str:
    """Return how to go on with a new experiment."""
    command = shlex.join(["plora-cl", "train", "--config", str(folder / "config.yaml"), "--resume"])
    return f"Go on with: {command}"


def _folder(path: Path) -> Target | None:
    for directory in (path / "checkpoints", path):
        if directory.is_dir():
            store = CheckpointStore(directory)
            if directory.name == "checkpoints" or store.entries():
                return Target(store, None)
    return None


def _checkpoint(path: Path) -> Target:
    store = CheckpointStore(path.parent)
    if store.filesystem.size(path) is None:
        raise CheckpointNotFoundError(f"{path} is not there, or not a file")
    return Target(store, CheckpointEntry.at(path))


def _nothing(text: str) -> Target:
    raise CheckpointNotFoundError(
        f"{text}: neither an experiment folder nor a checkpoint; expected, for instance, "
        "experiments/demo or experiments/demo/checkpoints/checkpoint_task0_epoch1_batch99.pt"
    )
