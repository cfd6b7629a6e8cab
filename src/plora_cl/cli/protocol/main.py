"""``plora-cl protocol FILE.yaml``: every run of an experiment, and what they show together."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from plora_cl.checkpoint.lock import ExperimentLock
from plora_cl.cli.exit import OK, exit_code
from plora_cl.cli.protocol.overview import overview
from plora_cl.cli.signals import stopping
from plora_cl.config.protocol_file import ProtocolFile, read_protocol
from plora_cl.errors import ExperimentLockedError, ProtocolError
from plora_cl.protocol.child import Child
from plora_cl.protocol.plan import PlannedRun, planned_runs, protocol_folder
from plora_cl.protocol.run_folder import State, results_of, status_of
from plora_cl.protocol.supervisor import Supervisor

INCOMPLETE = 1
"""Exit code where a run failed or was left alone."""

_EXAMPLE = """\
example:
  plora-cl protocol eight-runs.yaml --dry-run
  plora-cl protocol eight-runs.yaml            # again after any interruption: goes on exactly
  plora-cl protocol eight-runs.yaml --status   # from another terminal, at any time
"""


def protocol_parser() -> argparse.ArgumentParser:
    """Return the parser of ``plora-cl protocol``."""
    parser = argparse.ArgumentParser(
        prog="plora-cl protocol",
        description="Run methods x orders x variants x seeds, each in a process of its own; skip "
        "what is done, go on with what was stopped, and compare the results.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE.yaml", type=Path, help="what to run")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--dry-run", action="store_true", help="list the runs and start none")
    either.add_argument("--status", action="store_true", help="say where each run stands")
    either.add_argument(
        "--summarise", action="store_true", help="compare what is done so far and start nothing"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Do what ``argv`` says, by default that of the process; return the exit code."""
    arguments = protocol_parser().parse_args(argv)
    complete = True

    def command() -> None:
        nonlocal complete
        complete = _command(arguments)

    code = exit_code(command)
    return code if code != OK or complete else INCOMPLETE


def _command(arguments: argparse.Namespace) -> bool:
    protocol = read_protocol(arguments.file)
    runs = planned_runs(protocol, str(arguments.file))
    if arguments.dry_run:
        print("\n".join(run.name for run in runs))
        print(f"{len(runs)} runs in {protocol_folder(protocol)}")
        return True
    if not arguments.status and not arguments.summarise:
        _work(protocol, runs)
    complete = _show_overview(runs)
    if not arguments.status:
        _summarise(protocol, runs)
    return complete or arguments.status


def _work(protocol: ProtocolFile, runs: Sequence[PlannedRun]) -> None:
    folder = protocol_folder(protocol)
    start = partial(Child.start, threads=protocol.threads_per_job)
    supervisor = Supervisor(runs, jobs=protocol.jobs, start=start, tell=_say)
    try:
        lock = ExperimentLock.acquire(folder)
    except ExperimentLockedError as error:
        raise ExperimentLockedError(
            f"another plora-cl protocol is at work in {folder}; see how far it is with --status"
        ) from error
    with lock, stopping(supervisor):
        supervisor.work()


def _show_overview(runs: Sequence[PlannedRun]) -> bool:
    statuses = [status_of(run) for run in runs]
    print(overview(runs, statuses))
    return all(status.state is State.DONE for status in statuses)


def _summarise(protocol: ProtocolFile, runs: Sequence[PlannedRun]) -> None:
    # SciPy takes long to load and is not needed to look or to start.
    from plora_cl.protocol.records import record
    from plora_cl.protocol.summary import summarised, write_summary

    found = [(run, results) for run in runs if (results := results_of(run)) is not None]
    if not found:
        return
    records, problems = [], []
    for run, results in found:
        try:
            records.append(record(run, results))
        except ProtocolError as error:
            problems.append(str(error))
    if problems:
        raise ProtocolError("; ".join(problems))
    groups = summarised(records, protocol.baseline)
    folder = protocol_folder(protocol)
    header = {"name": protocol.name, "planned": len(runs), "done": len(found)}
    print(f"\n{write_summary(folder, records, groups, header, protocol.baseline)}")
    print(f"Written: {folder}/runs.csv, summary.csv, summary.json and summary.md")


def _say(line: str) -> None:
    print(line, file=sys.stdout, flush=True)
