"""``plora-cl``: imports the command that is asked for and runs it.

The module of a command is imported only when it runs, so that ``plora-cl --help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from plora_cl.cli.exit import OK, REFUSED, exit_code
from plora_cl.cli.output import ending_without_output, open_standard_streams
from plora_cl.cli.parser import commands_parser

COMMANDS = {
    "train": ("plora_cl.cli.train.command", "learn a stream of tasks, or resume one"),
    "floor": ("plora_cl.cli.train.floor", "learn the same tasks without an encoder, to compare"),
    "study": ("plora_cl.cli.study.command", "run methods x orders x seeds, and compare them"),
    "checkpoints": ("plora_cl.cli.checkpoints.main", "manage checkpoints"),
}
"""Module and purpose of each command; the module has ``main(argv) -> int``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``plora-cl`` with ``argv``, by default that of the process; return the exit code."""
    open_standard_streams()
    with ending_without_output():
        return exit_code(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    purposes = {name: purpose for name, (_, purpose) in COMMANDS.items()}
    description = "Continual learning of text classification with progressive LoRA."
    parser = commands_parser("plora-cl", description, purposes)
    parser.add_argument("--version", action="store_true", help="show the version and exit")
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


if __name__ == "__main__":
    raise SystemExit(main())
