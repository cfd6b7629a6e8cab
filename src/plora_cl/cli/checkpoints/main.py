"""``plora-cl checkpoints``: finds the command and hands over."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from plora_cl.cli.exit import REFUSED
from plora_cl.cli.output import ending_without_output
from plora_cl.cli.parser import Parser

COMMANDS = {
    "list": ("plora_cl.cli.checkpoints.listing", "main", "show every checkpoint"),
    "inspect": ("plora_cl.cli.checkpoints.inspection", "main", "show what is in a checkpoint"),
    "verify": ("plora_cl.cli.checkpoints.verification", "main", "read every byte, find damage"),
    "diff": ("plora_cl.cli.checkpoints.difference", "main", "compare two to the bit"),
    "gc": ("plora_cl.cli.checkpoints.cleaning", "main", "remove what no checkpoint needs"),
    "pin": ("plora_cl.cli.checkpoints.pinning", "main", "keep one from rotation"),
    "unpin": ("plora_cl.cli.checkpoints.unpinning", "main", "let rotation have it again"),
    "fork": ("plora_cl.cli.checkpoints.branching", "fork_main", "go on with other settings"),
    "export": ("plora_cl.cli.checkpoints.branching", "export_main", "write one to a single file"),
    "import": ("plora_cl.cli.checkpoints.branching", "import_main", "read such a file back"),
}
"""Module, function and purpose of each command; the function takes arguments, returns a code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``plora-cl checkpoints`` with ``argv``; return the exit code."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {what}" for name, (_, _, what) in COMMANDS.items())
    parser = Parser(
        prog="plora-cl checkpoints",
        description="Look at checkpoints, and look after them.",
        epilog=f"commands:\n{listed}\n\nplora-cl checkpoints COMMAND --help explains a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("command", nargs="?", choices=list(COMMANDS), metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parsed = parser.parse_args(argv)
    if parsed.command is None:
        parser.print_help()
        return REFUSED
    module, function, _ = COMMANDS[parsed.command]
    with ending_without_output():
        code: int = getattr(import_module(module), function)(parsed.arguments)
    return code
