"""What all commands for checkpoints share: their declaration, targets, output and exit codes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from plora_cl.checkpoint.format.naming import is_checkpoint
from plora_cl.checkpoint.reading import store_in
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.verification import resume_point
from plora_cl.cli.exit import OK, error_line, exit_code
from plora_cl.cli.parser import Parser
from plora_cl.cli.tables import Table, show
from plora_cl.config.fields import SettingFields
from plora_cl.errors import CheckpointNotFoundError, CorruptCheckpointError
from plora_cl.wording import nearest

FOUND = 1
"""Exit code where damage, or a difference, was found."""

RESUMED_FROM = "; a folder stands for the checkpoint a run would resume from"

Argument: TypeAlias = tuple[tuple[str, ...], dict[str, Any]]
"""Names and options of an argument, for `argparse.ArgumentParser.add_argument`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a command.

    Attributes:
        document: What ``--json`` prints.
        shown: What is printed without it; evaluated only then.
        code: Exit code.
    """

    document: Mapping[str, Any]
    shown: Iterable[str | Table]
    code: int = OK


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its flags, its help and what it does.

    Attributes:
        name: What is typed after ``plora-cl checkpoints``.
        purpose: The description in the help.
        arguments: Its arguments; ``--json`` comes with every command.
        examples: Arguments of the examples in the help.
        ok: What exit code 0 means.
        found: What exit code 1 means.
        run: Does the work. Errors raised on purpose become one line on stderr.
    """

    name: str
    purpose: str
    arguments: Sequence[Argument]
    examples: Sequence[str]
    ok: str
    found: str
    run: Callable[[argparse.Namespace], Answer]

    def main(self, argv: Sequence[str]) -> int:
        """Run the command with the arguments ``argv``; return the exit code."""
        arguments = self._parser().parse_args(argv)

        def answered() -> int:
            try:
                answer = self.run(arguments)
                if arguments.json:
                    print(_json(answer.document))
                else:
                    show(answer.shown)
            except CorruptCheckpointError as error:
                print(error_line(error), file=sys.stderr)
                return FOUND
            return answer.code

        return exit_code(answered)

    def _parser(self) -> Parser:
        prog = f"plora-cl checkpoints {self.name}"
        parser = Parser(
            prog=prog,
            description=self.purpose,
            epilog="\n".join(
                [
                    *("example:", *(f"  {prog} {example}" for example in self.examples), ""),
                    *("exit codes:", f"  0  {self.ok}", f"  1  {self.found}"),
                    "  2  the command was not understood or refused",
                ]
            ),
        )
        parser.add_argument("--json", action="store_true", help="print JSON")
        for names, options in self.arguments:
            parser.add_argument(*names, **options)
        return parser


def command(
    name: str,
    purpose: str,
    *arguments: Argument,
    examples: Sequence[str],
    ok: str = "done",
    found: str = "a checkpoint is damaged",
) -> Callable[[Callable[[argparse.Namespace], Answer]], Command]:
    """Return a decorator that makes a `Command` of the function that does the work."""
    return lambda run: Command(name, purpose, arguments, examples, ok, found, run)


def argument(*names: str, **options: Any) -> Argument:
    """Return an argument, declared as for `argparse.ArgumentParser.add_argument`."""
    return names, options


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


def _json(document: Mapping[str, Any]) -> str:
    try:
        return json.dumps(document, indent=2, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise CorruptCheckpointError(f"the answer is not JSON: {error}") from error
