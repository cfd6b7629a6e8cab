"""``plora-cl report``: a page, figures and LaTeX tables of runs, finished or not."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from plora_cl.cli.exit import OK, exit_code
from plora_cl.cli.output import ending_without_output
from plora_cl.cli.parser import Parser

_EXAMPLE = """\
docs/report.md shows a page. Needs: pip install 'plora-cl[report]'

example:
  plora-cl report experiments/demo
  plora-cl report experiments/a experiments/b --names plain EWC --out ab
  plora-cl report eight-runs.yaml           # a study, with its statistics
"""


def report_parser() -> argparse.ArgumentParser:
    """Return the parser of ``plora-cl report``."""
    parser = Parser(
        prog="plora-cl report",
        usage="plora-cl report RUN [RUN ...] [options]",
        description="Write a page with all results of runs, finished or in progress: report.html "
        "(one file, no network), its figures as SVG and PNG, and LaTeX tables.",
        epilog=_EXAMPLE,
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=Path,
        help="folder of an experiment or study; or FILE.yaml",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="DIR", type=Path,
        help="default: report/ in the only RUN, or here",
    )  # fmt: skip
    parser.add_argument(
        "--names", metavar="NAME", nargs="+", default=[],
        help="one for each RUN; equal ones are repetitions",
    )  # fmt: skip
    parser.add_argument(
        "--task-names", metavar="NAME", nargs="+", default=[],
        help="what to call the tasks of the first RUN",
    )  # fmt: skip
    parser.add_argument(
        "--baseline", metavar="NAME", help="what the others are compared with, in pairs"
    )
    parser.add_argument("--json", action="store_true", help="print the names of the files as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``plora-cl report`` with ``argv``, by default that of the process."""
    arguments = report_parser().parse_args(argv)
    with ending_without_output():
        return exit_code(
            lambda: report(
                arguments.runs,
                arguments.out,
                names=arguments.names,
                task_names=arguments.task_names,
                baseline=arguments.baseline,
                as_json=arguments.json,
            )
        )


def report(
    paths: Sequence[Path],
    out: Path | None,
    *,
    names: Sequence[str] = (),
    task_names: Sequence[str] = (),
    baseline: str | None = None,
    as_json: bool = False,
) -> int:
    """Write the report of ``paths``, and print where it is; return the exit code.

    Raises:
        PloraError: A run cannot be reported, or the report not written.
    """
    from plora_cl.config.errors import unknown  # imports pydantic: not needed for --help
    from plora_cl.errors import ReportError
    from plora_cl.report.output_folder import require_folder, require_libraries
    from plora_cl.report.recorded.sources import find_sources

    require_libraries()
    folder = out or (
        paths[0] / "report" if len(paths) == 1 and paths[0].is_dir() else Path("report")
    )
    sources = find_sources(paths, names)
    require_folder(folder)
    if baseline is not None and baseline not in sources.methods:
        problem = unknown(baseline, sources.methods, kind="run")
        raise ReportError(f"--baseline: {baseline!r}: {problem}")
    from plora_cl.report.comparison import Member  # imports SciPy and scikit-learn
    from plora_cl.report.recorded.reading import read_run, renaming
    from plora_cl.report.writing import write_report

    renamed = renaming(read_run(sources.runs[0].folder), task_names) if task_names else None
    members = [
        Member(one, read_run(one.folder, label=sources.title(one), task_names=renamed))
        for one in sources.runs
    ]
    written = write_report(
        members, folder, studies=sources.studies, baseline=baseline or sources.baseline
    )
    if as_json:
        files = {"figures": written.figures, "tables": written.tables}
        document = {"page": str(written.page)} | {k: [*map(str, v)] for k, v in files.items()}
        print(json.dumps(document, indent=2))
        return OK
    print(f"Report: {written.page}")
    print(f"{len(written.figures) // 2} figures (SVG, PNG) in {folder / 'figures'}")
    print(f"{len(written.tables)} LaTeX tables in {folder / 'tables'}")
    return OK
