"""What all commands that only answer share: their declaration, output and exit codes."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from plora_cl.cli.exit import OK, error_line, exit_code
from plora_cl.cli.parser import Parser
from plora_cl.cli.tables import Table, show
from plora_cl.errors import CorruptCheckpointError

FOUND = 1
"""Exit code where damage, or a difference, was found."""

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
        name: What is typed after ``plora-cl``.
        purpose: The description in the help.
        arguments: Its arguments; ``--json`` comes with every command.
        examples: Arguments of the examples in the help.
        ok: What exit code 0 means.
        found: What exit code 1 means; empty if the command never returns it.
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

    @property
    def _codes(self) -> str:
        found = f"; 1 {self.found}" * bool(self.found)
        return f"0 {self.ok}{found}; 2 not understood or refused"

    def _parser(self) -> Parser:
        prog = f"plora-cl {self.name}"
        parser = Parser(
            prog=prog,
            description=self.purpose,
            epilog="\n".join(
                [
                    textwrap.fill(f"exit codes: {self._codes}", 79, subsequent_indent="  "),
                    "example:",
                    *(f"  {prog} {example}".rstrip() for example in self.examples),
                ]
            ),
        )
        parser.add_argument("--json", action="store_true", help="print JSON")
        for names, options in self.arguments:
            parser.add_argument(*names, **options)
        return parser


Declare: TypeAlias = Callable[[Callable[[argparse.Namespace], Answer]], Command]
"""A decorator that makes a `Command` of the function that does the work."""


def command(
    name: str,
    purpose: str,
    *arguments: Argument,
    examples: Sequence[str],
    ok: str = "done",
    found: str = "",
) -> Declare:
    """Return a decorator that makes a `Command` of the function that does the work."""
    return lambda run: Command(name, purpose, arguments, examples, ok, found, run)


def argument(*names: str, **options: Any) -> Argument:
    """Return an argument, declared as for `argparse.ArgumentParser.add_argument`."""
    return names, options


def _json(document: Mapping[str, Any]) -> str:
    try:
        return json.dumps(document, indent=2, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise CorruptCheckpointError(f"the answer is not JSON: {error}") from error
