"""A parser of arguments that answers a mistake in one line."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from plora_cl.cli.exit import REFUSED

_UNKNOWN = "unrecognized arguments: "


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose errors look like all others."""

    def error(self, message: str) -> NoReturn:
        """Print ``message`` as one line and exit."""
        hint = ""
        stray = message.removeprefix(_UNKNOWN)
        sets = "--set" in self._option_string_actions
        if sets and stray != message and "=" in stray and not stray.startswith("-"):
            hint = "; --set takes one PATH=VALUE, repeat it for more"
        print(f"Error: {message}{hint} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(REFUSED)
