"""Argument parsers that answer a mistake in one line."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Collection, Mapping
from pkgutil import resolve_name
from typing import Any, NoReturn, TypeAlias

from plora_cl.cli.exit import REFUSED
from plora_cl.wording import nearest, suggestion

Commands: TypeAlias = Mapping[str, tuple[str, str]]
"""By name: a module or ``module:object`` that has ``main(argv) -> int``, and a one-line purpose."""

_WIDTH = 79
_UNKNOWN = "unrecognized arguments: "


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose errors look like all others.

    Attributes:
        settings: Names of the settings that ``--set`` takes, for hints.
    """

    settings: Collection[str] = ()

    def __init__(self, **options: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(**{"formatter_class": formatter, "allow_abbrev": False, **options})

    def format_help(self) -> str:
        """Return the help with the description wrapped; the epilog stays as it is."""
        whole = self.description
        try:
            if whole is not None:
                self.description = "\n".join(textwrap.wrap(whole, _WIDTH, break_on_hyphens=False))
            return super().format_help()
        finally:
            self.description = whole

    def error(self, message: str) -> NoReturn:
        """Print ``message`` as one line, with a suggestion, and exit."""
        hint = self._hint(message)
        print(f"Error: {message}{hint} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(REFUSED)

    def _hint(self, message: str) -> str:
        stray = message.removeprefix(_UNKNOWN)
        if stray == message:
            return ""
        if not stray.startswith("-"):
            several = bool(self.settings) and "=" in stray
            return "; --set takes one NAME=VALUE, repeat it for more" if several else ""
        flag, _, value = stray.partition(" ")[0].partition("=")
        return self._meant(flag, value or stray.partition(" ")[2].partition(" ")[0])

    def _meant(self, flag: str, value: str) -> str:
        flags = [o[2:] for o in self._option_string_actions if o.startswith("--")]
        by_set = {name.replace("_", "-"): name for name in self.settings}
        meant = nearest(flag.lstrip("-").replace("_", "-"), [*by_set, *flags])
        if meant is None:
            return ""
        if meant in flags:
            return f"; did you mean --{meant}?"
        return f"; did you mean --set {by_set[meant]}={value or 'VALUE'}?"


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a type of arguments that takes one of ``choices``, and suggests one for others."""

    def choice(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(
                f"invalid choice {text!r}; {suggestion(text, choices)}"
            )
        return text

    return choice


def commands_parser(prog: str, description: str, commands: Commands) -> Parser:
    """Return a parser that finds a command and leaves its arguments to it; see `run_command`.

    Args:
        prog: The words before the command.
        description: First paragraph of the help.
        commands: Every command.
    """
    width = max(map(len, commands))
    listed = "\n".join(f"  {name:<{width}}  {purpose}" for name, (_, purpose) in commands.items())
    epilog = f"commands:\n{listed}\n\n{prog} COMMAND --help explains a command."
    parser = Parser(prog=prog, description=description, epilog=epilog)
    parser.add_argument("command", nargs="?", metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def run_command(parser: Parser, parsed: argparse.Namespace, commands: Commands) -> int:
    """Import and run the command that ``parser`` has found; return its exit code.

    Without a command the help is printed.
    """
    if parsed.command is None:
        parser.print_help()
        return REFUSED
    if parsed.command not in commands:
        way_out = suggestion(parsed.command, commands)
        parser.error(f"unknown command {parsed.command!r}; {way_out}")
    code: int = resolve_name(commands[parsed.command][0]).main(parsed.arguments)
    return code
