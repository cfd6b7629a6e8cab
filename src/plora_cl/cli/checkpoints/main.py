"""``plora-cl checkpoints``: imports the command that is asked for and runs it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from plora_cl.cli.exit import REFUSED
from plora_cl.cli.output import ending_without_output
from plora_cl.cli.parser import commands_parser

COMMANDS = {
    "list": ("listing.show_list", "show every checkpoint"),
    "inspect": ("inspection.inspect", "show what is in a checkpoint"),
    "verify": ("verification.verify_all", "read every byte, find damage"),
    "diff": ("difference.diff", "compare two to the bit"),
    "gc": ("cleaning.gc", "remove what no checkpoint needs"),
    "pin": ("pinning.pin", "keep one from rotation"),
    "unpin": ("pinning.unpin", "let rotation have it again"),
    "fork": ("branching.fork", "resume with other settings"),
    "export": ("branching.export", "write one to a single file"),
    "import": ("branching.import_", "read such a file back"),
}
"""Module and `Command` in this package, and purpose, of each command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``plora-cl checkpoints`` with ``argv``; return the exit code."""
    purposes = {name: purpose for name, (_, purpose) in COMMANDS.items()}
    parser = commands_parser("plora-cl checkpoints", "Manage checkpoints.", purposes)
    parsed = parser.parse_args(argv)
    if parsed.command is None:
        parser.print_help()
        return REFUSED
    module, _, attribute = COMMANDS[parsed.command][0].partition(".")
    with ending_without_output():
        command = getattr(import_module(f"{__package__}.{module}"), attribute)
        code: int = command.main(parsed.command, parsed.arguments)
    return code
