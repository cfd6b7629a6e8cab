"""``plora-cl``: finds the command and hands over.

A command's module is imported only when it runs, so that ``plora-cl --help`` answers at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from plora_cl.cli.exit import OK, REFUSED, exit_code
from plora_cl.cli.output import ending_without_output, open_standard_streams
from plora_cl.cli.parser import Parser

COMMANDS = {
    "train": ("plora_cl.cli.train.command", "learn a stream of tasks, or go on with one"),
    "floor": ("plora_cl.cli.train.floor", "learn the same tasks without an encoder, to compare"),
    "protocol": ("plora_cl.cli.study.command", "run methods x orders x seeds, and compare them"),
    "checkpoints": ("plora_cl.cli.checkpoints.main", "look at checkpoints, and look after them"),
}
"""Module and purpose of each command; the module has ``main(argv) -> int``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``plora-cl`` with ``argv``, by default that of the process; return the exit code."""
    open_standard_streams()
    codes: list[int] = []
    with ending_without_output():
        code = exit_code(lambda: codes.append(_run(argv)))
    return next(iter(codes), code)


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.version:
        from importlib.metadata import version

        print(f"plora-cl {version('plora-cl')}")
        return OK
    if arguments.command is None:
        parser.print_help()
        return REFUSED
    module = import_module(COMMANDS[arguments.command][0])
    code: int = module.main(arguments.arguments)
    return code


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {purpose}" for name, (_, purpose) in COMMANDS.items())
    parser = Parser(
        prog="plora-cl",
        description="Continual learning of text classification with progressive LoRA.",
        epilog=f"commands:\n{listed}\n\nplora-cl COMMAND --help explains a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    parser.add_argument("command", nargs="?", choices=list(COMMANDS), metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
