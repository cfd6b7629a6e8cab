"""A parser of arguments that answers a mistake in one line."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import textwrap
from collections.abc import Collection, Iterable
from typing import NoReturn

from plora_cl.cli.exit import REFUSED

_WIDTH = 79
_UNKNOWN = "unrecognized arguments: "
_CHOICE = re.compile(r"argument (\S+): invalid choice: (.+) \(choose from (.+)\)")


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose errors look like all others.

    Attributes:
        settings: Names of what ``--set`` takes, for hints.
    """

    settings: Collection[str] = ()

    def format_help(self) -> str:
        """Return the help; the description is wrapped, whatever the formatter does to examples."""
        whole = self.description
        try:
            if whole is not None:
                self.description = "\n".join(textwrap.wrap(whole, _WIDTH, break_on_hyphens=False))
            return super().format_help()
        finally:
            self.description = whole

    def error(self, message: str) -> NoReturn:
        """Print ``message`` as one line, with what was perhaps meant, and exit."""
        text = self._choice(message) or message + self._hint(message)
        print(f"Error: {text} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(REFUSED)

    def _choice(self, message: str) -> str | None:
        found = _CHOICE.fullmatch(message)
        if found is None:
            return None
        what, given = found[1].lower(), found[2]
        choices = re.findall(r"[^\s',]+", found[3])
        meant = _nearest(given.strip("'"), choices)
        ways = f"did you mean {meant}?" if meant else f"there are {', '.join(choices)}"
        return f"unknown {what} {given}; {ways}"

    def _hint(self, message: str) -> str:
        stray = message.removeprefix(_UNKNOWN)
        if stray == message:
            return ""
        if not stray.startswith("-"):
            several = bool(self.settings) and "=" in stray
            return "; --set takes one PATH=VALUE, repeat it for more" if several else ""
        flag, _, value = stray.partition(" ")[0].partition("=")
        return self._meant(flag, value or stray.partition(" ")[2].partition(" ")[0])

    def _meant(self, flag: str, value: str) -> str:
        flags = [option for option in self._option_string_actions if option.startswith("--")]
        by_set = {f"--{name.replace('_', '-')}": name for name in self.settings}
        meant = _nearest(flag.replace("_", "-"), [*flags, *by_set])
        if meant is None:
            return ""
        if meant in flags:
            return f"; did you mean {meant}?"
        return f"; did you mean --set {by_set[meant]}={value or 'VALUE'}?"


def _nearest(name: str, valid: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(valid), n=1)), None)
