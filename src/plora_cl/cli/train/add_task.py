"""``plora-cl add-task``: one more task for a finished experiment."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from plora_cl.checkpoint.disk.lock import require_free
from plora_cl.cli.exit import exit_code
from plora_cl.cli.output import continuing_without_output
from plora_cl.cli.parser import Parser
from plora_cl.cli.progress import reporter_for
from plora_cl.cli.signals import stopping
from plora_cl.errors import CheckpointNotFoundError, RunStoppedError
from plora_cl.training.stopping import StopRequest

_EXAMPLE = """\
The task is learned in a copy of the experiment, which changes only once it is
learned: a fall beyond the tolerance, or a kill, leaves it as it was.

example:
  plora-cl add-task experiments/news --task data/recipes --tolerance 0.01
"""


def add_task_parser() -> argparse.ArgumentParser:
    """Return the parser of ``plora-cl add-task``."""
    parser = Parser(
        prog="plora-cl add-task",
        description="Let a finished experiment learn one more task, and measure the earlier ones "
        "again where their scores may have changed.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("experiment", metavar="EXPERIMENT", type=Path, help="its folder")
    parser.add_argument("--task", required=True, metavar="T", help="as in the setting tasks")
    parser.add_argument(
        "--tolerance",
        type=_share,
        metavar="X",
        help="most that the accuracy of an earlier task may fall, in [0, 1] (default: any)",
    )
    accept = "continue although data, machine or library versions differ"
    parser.add_argument("--accept-changes", action="store_true", help=accept)
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``plora-cl add-task`` with ``argv``, by default that of the process."""
    arguments = add_task_parser().parse_args(argv)
    with continuing_without_output():
        return exit_code(lambda: _add(arguments))


def _add(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.experiment
    if not (folder / "checkpoints").is_dir():
        raise CheckpointNotFoundError(f"no experiment in {folder}: it has no folder checkpoints")
    require_free(folder)
    from plora_cl.training.adding import add_task  # takes seconds, and a mistake does not need it

    stop = StopRequest()
    with stopping(stop), reporter_for(quiet=arguments.quiet) as reporter:
        try:
            added = add_task(
                folder,
                arguments.task,
                tolerance=arguments.tolerance,
                accept_changes=arguments.accept_changes,
                reporter=reporter,
                stop=stop,
            )
        except RunStoppedError:
            print("Continue with the same command", file=sys.stderr)
            raise
        reporter.message(f"{folder} has learned {added.name}: accuracy {added.accuracy:.3f}")
        for name, (before, after) in added.changes.items():
            reporter.message(f"  {name}: {before:.3f} -> {after:.3f}")


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1]")
    return value
