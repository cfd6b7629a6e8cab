"""``python -m plora_cl.cli.visualize``: `plora-cl report` for experiments given by name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from plora_cl.cli.exit import exit_code
from plora_cl.cli.output import ending_without_output
from plora_cl.cli.parser import Parser
from plora_cl.cli.report import report

_EXAMPLE = """\
example:
  python -m plora_cl.cli.visualize --experiment-name full \\
    --compare-experiments no-ewc no-o --comparison-names "no EWC" "no O-LoRA"

plora-cl report does the same for folders, and for studies.
"""


def visualize_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m plora_cl.cli.visualize``."""
    parser = Parser(
        prog="python -m plora_cl.cli.visualize",
        usage="python -m plora_cl.cli.visualize --experiment-name NAME [options]",
        description="Write report.html, figures and LaTeX tables of one experiment, or of several "
        "side by side.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("--experiment-name", metavar="NAME", help="the experiment")
    parser.add_argument(
        "--compare-experiments", metavar="NAME", nargs="+", default=[], help="others"
    )
    parser.add_argument(
        "--comparison-names",
        metavar="LABEL",
        nargs="+",
        default=[],
        help="what to call the others",
    )
    parser.add_argument(
        "--task-names",
        metavar="LABEL",
        nargs="+",
        default=[],
        help="what to call the tasks of the first",
    )
    parser.add_argument(
        "--experiment-dir", metavar="DIR", type=Path, default=Path("experiments"),
        help="with the experiments (default: experiments)",
    )  # fmt: skip
    parser.add_argument(
        "--output-dir", metavar="DIR", type=Path, default=Path("plots"),
        help="where to write (default: plots)",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv``, by default that of the process; return the exit code."""
    parser = visualize_parser()
    given = parser.parse_args(argv)
    first = [given.experiment_name] if given.experiment_name is not None else []
    experiments = [*first, *given.compare_experiments]
    if not experiments:
        parser.error("expected --experiment-name, --compare-experiments, or both")
    names = given.comparison_names
    if names and len(names) == len(given.compare_experiments):
        names = [*first, *names]
    if names and len(names) != len(experiments):
        parser.error(
            f"--comparison-names: {len(names)} names; expected one for each of "
            f"{', '.join(given.compare_experiments) or 'the experiments'}"
        )
    paths = [given.experiment_dir / name for name in experiments]
    with ending_without_output():
        return exit_code(
            lambda: report(paths, given.output_dir, names=names, task_names=given.task_names)
        )


if __name__ == "__main__":
    raise SystemExit(main())
