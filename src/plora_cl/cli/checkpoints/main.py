"""``plora-cl checkpoints``: imports the command that is asked for and runs it."""

from __future__ import annotations

from collections.abc import Sequence

from plora_cl.cli.output import ending_without_output
from plora_cl.cli.parser import Commands, commands_parser, run_command

_HERE = __name__.rpartition(".")[0]
COMMANDS: Commands = {
    "list": (f"{_HERE}.listing:show_list", "show every checkpoint"),
    "inspect": (f"{_HERE}.inspection:inspect", "show what is in a checkpoint"),
    "verify": (f"{_HERE}.verification:verify_all", "read every byte, find damage"),
    "diff": (f"{_HERE}.difference:diff", "compare two to the bit"),
    "gc": (f"{_HERE}.cleaning:gc", "remove what no checkpoint needs"),
    "pin": (f"{_HERE}.pinning:pin", "keep one from rotation"),
    "unpin": (f"{_HERE}.pinning:unpin", "let rotation have it again"),
    "fork": (f"{_HERE}.branching:fork", "resume with other settings"),
    "export": (f"{_HERE}.branching:export", "write one to a single file"),
    "import": (f"{_HERE}.branching:import_", "read such a file back"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``plora-cl checkpoints`` with ``argv``; return the exit code."""
    example = "plora-cl checkpoints list experiments/demo"
    parser = commands_parser("plora-cl checkpoints", "Manage checkpoints.", COMMANDS, example)
    with ending_without_output():
        return run_command(parser, parser.parse_args(argv), COMMANDS)
