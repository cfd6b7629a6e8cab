"""Argument parsers that answer a mistake in one line."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from pkgutil import resolve_name
from typing import Any, NoReturn, TypeAlias

from plora_cl.cli.exit import REFUSED, show_tracebacks
from plora_cl.wording import nearest, suggestion

SUPPRESS = argparse.SUPPRESS

Commands: TypeAlias = Mapping[str, tuple[str, str]]
"""By name: a module or ``module:object`` that has ``main(argv) -> int``, and a one-line purpose."""

_WIDTH = 79
_WIDEST_FLAG = 32  # of a flag and its value on the line of their help
_UNKNOWN = "unrecognized arguments: "

_wanted: ContextVar[bool] = ContextVar("_wanted", default=False)


class _BuiltError(Exception):
    """Carries a parser that was built, see `parser_of`."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser


class _Help(argparse.Action):
    """Prints the help that fits a screen."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(parser.brief_help if isinstance(parser, Parser) else parser.format_help(), end="")
        parser.exit()


class _Debug(argparse.Action):
    """Shows tracebacks of errors from now on."""

    def __call__(self, *_: object) -> None:
        show_tracebacks()


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Gives long flags room, so that each takes one line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_WIDEST_FLAG)


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose errors look like all others.

    Every parser takes ``-h``, ``--help`` and ``--debug``, which shows the traceback of an error.

    Args:
        brief: What ``--help`` shows of a command that has too many flags for a screen;
            ``--help-all`` then shows all of them.
        options: Those of `argparse.ArgumentParser`.

    Attributes:
        settings: Names of the settings that ``--set`` takes, for hints.
    """

    settings: Collection[str] = ()

    def __init__(self, *, brief: str | None = None, **options: Any) -> None:
        super().__init__(
            **{
                "formatter_class": _Formatter,
                "allow_abbrev": False,
                "add_help": False,
                "usage": argparse.SUPPRESS if brief else None,
                **options,
            }
        )
        self._brief = brief
        self._add("-h", "--help", action=_Help, about="show the help that fits a screen")
        self._add("--debug", action=_Debug, about="show the traceback of an error")
        if brief is not None:
            self.add_argument("--help-all", action="help", help="show every flag and setting")

    def _add(self, *flags: str, action: type[argparse.Action], about: str) -> None:
        """Add a flag of every command; a help that has to fit a screen leaves it out."""
        shown = SUPPRESS if self._brief is None else about
        self.add_argument(
            *flags, action=action, nargs=0, dest=SUPPRESS, default=SUPPRESS, help=shown
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments, unless `parser_of` only wants the parser."""
        if _wanted.get():
            raise _BuiltError(self)
        return super().parse_known_args(args, namespace)

    @property
    def brief_help(self) -> str:
        """What ``--help`` prints."""
        return self.format_help() if self._brief is None else self._brief

    def format_usage(self) -> str:
        """Return the usage, as given or in one line: only what is required, if all has no room."""
        usage = super().format_usage()
        if self.usage is not None or usage.count("\n") <= 1:
            return usage
        return f"usage: {self.prog} {self._required()}\n"

    def _required(self) -> str:
        flags = [a for a in self._actions if a.option_strings and a.required]
        places = [a for a in self._actions if not a.option_strings]
        words = [f"{a.option_strings[-1]} {a.metavar}" for a in flags]
        words += [str(a.metavar) if a.nargs != "?" else f"[{a.metavar}]" for a in places]
        return " ".join(["[OPTION ...]", *words])

    def format_help(self) -> str:
        """Return the help with the description wrapped; the epilog stays as it is."""
        whole = self.description
        try:
            if whole is not None:
                self.description = "\n".join(textwrap.wrap(whole, _WIDTH, break_on_hyphens=False))
            whole_usage = super().format_usage()
            return super().format_help().replace(whole_usage, self.format_usage(), 1)
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


class OneOf:
    """A type of arguments that takes one of ``choices``, and suggests one for others.

    Attributes:
        choices: What can be typed.
    """

    def __init__(self, *choices: str) -> None:
        self.choices = choices

    def __call__(self, text: str) -> str:
        """Return ``text`` if it is a choice."""
        if text not in self.choices:
            raise argparse.ArgumentTypeError(
                f"invalid choice {text!r}; {suggestion(text, self.choices)}"
            )
        return text


def commands_parser(prog: str, description: str, commands: Commands, example: str) -> Parser:
    """Return a parser that finds a command and leaves its arguments to it; see `run_command`.

    Args:
        prog: The words before the command.
        description: First paragraph of the help.
        commands: Every command.
        example: Last line of the help.
    """
    width = max(map(len, commands))
    listed = "\n".join(f"  {name:<{width}}  {purpose}" for name, (_, purpose) in commands.items())
    brief = (
        f"usage: {prog} COMMAND ...\n\n{description}\n\n{listed}\n\n"
        f"{prog} COMMAND --help explains one; --debug shows tracebacks.\n"
        f"example: {example}\n"
    )
    parser = Parser(prog=prog, brief=brief)
    parser.add_argument("command", nargs="?", metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def parser_of(target: str, name: str) -> Parser:
    """Return the parser of a command, which is imported and not run.

    Args:
        target: As in `Commands`.
        name: What was typed for it.
    """
    token = _wanted.set(True)
    try:
        resolve_name(target).main([])
    except _BuiltError as built:
        return built.parser
    finally:
        _wanted.reset(token)
    raise AssertionError(f"{name} does not parse its arguments with a Parser")


def run_command(parser: Parser, parsed: argparse.Namespace, commands: Commands) -> int:
    """Import and run the command that ``parser`` has found; return its exit code.

    Without a command the help is printed.
    """
    if parsed.command is None:
        print(parser.brief_help, end="")
        return REFUSED
    if parsed.command not in commands:
        way_out = suggestion(parsed.command, commands)
        parser.error(f"unknown command {parsed.command!r}; {way_out}")
    code: int = resolve_name(commands[parsed.command][0]).main(parsed.arguments)
    return code
