"""``plora-cl study FILE.yaml``: every run of a study, and the comparison of their results."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from plora_cl.checkpoint.disk.lock import ExperimentLock
from plora_cl.cli.exit import OK, exit_code
from plora_cl.cli.output import continuing_without_output, ending_without_output
from plora_cl.cli.parser import Parser
from plora_cl.cli.signals import stopping
from plora_cl.cli.tables import Table, show
from plora_cl.config.inputs import require_inputs
from plora_cl.errors import ExperimentLockedError, StudyError
from plora_cl.study.child import Child
from plora_cl.study.file import StudyFile, read_study
from plora_cl.study.plan import (
    PlannedRun,
    notes_on,
    planned_runs,
    study_folder,
)
from plora_cl.study.run_folder import State, Status, results_of, status_of
from plora_cl.study.same_texts import check_same_sources
from plora_cl.study.strength_search import Choice, choose, write_choice
from plora_cl.study.supervisor import Supervisor
from plora_cl.wording import counted

INCOMPLETE = 1
"""Exit code if a run failed or was skipped."""

_EXAMPLE = """\
Started again, the same command resumes exactly. docs/study.md has an example.

example:
  plora-cl study eight-runs.yaml --dry-run
  plora-cl study eight-runs.yaml
  plora-cl study eight-runs.yaml --status   # from another terminal
"""


def study_parser() -> argparse.ArgumentParser:
    """Return the parser of ``plora-cl study``."""
    parser = Parser(
        prog="plora-cl study",
        description="Run methods x orders x variants x seeds, each in a process of its own; skip "
        "what is done, resume what was stopped, and compare the results.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("file", metavar="FILE.yaml", type=Path, help="the study")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--dry-run", action="store_true", help="list the runs and start none")
    either.add_argument("--status", action="store_true", help="show the state of each run")
    either.add_argument(
        "--summarise", action="store_true", help="compare the finished runs and start none"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``plora-cl study`` with ``argv``, by default that of the process."""
    arguments = study_parser().parse_args(argv)
    looks_only = arguments.dry_run or arguments.status or arguments.summarise
    with ending_without_output() if looks_only else continuing_without_output():
        return exit_code(lambda: OK if _command(arguments) else INCOMPLETE)


def _command(arguments: argparse.Namespace) -> bool:
    study = _Study(read_study(arguments.file), str(arguments.file))
    if arguments.dry_run:
        print(study.listing())
        study.require_inputs()
        return True
    looks_only = arguments.status or arguments.summarise
    if not looks_only:
        study.work()
    runs, choice, notes = study.so_far()
    status = {run.name: status_of(run) for run in (*choice.runs(), *runs)}
    show(_overview(status))
    for note in notes:
        print(f"Note: {note}")
    if not arguments.status:
        _summarise(study.file, runs, choice)
    return looks_only or all(status[run.name].state is State.DONE for run in runs)


def _overview(status: Mapping[str, Status]) -> Iterator[str | Table]:
    """Return the state of every run by its name, and the number of runs in each state."""
    rows = [(name, found.state, found.detail) for name, found in status.items()]
    yield Table("Runs", ("run", "state", "details"), rows)
    by_state = Counter(found.state for found in status.values())
    parts = (f"{by_state[state]} {state}" for state in State if by_state[state])
    yield f"{counted(len(status), 'run')}: {', '.join(parts)}"


class _Study:
    """A study, with the settings of its runs as far as tuning has chosen them."""

    def __init__(self, study: StudyFile, source: str) -> None:
        self.file, self._source = study, source
        self._folder = study_folder(study)
        self._untuned = planned_runs(study, source)
        self._notes = notes_on(study, self._untuned)

    def listing(self) -> str:
        """Return the name of every run, and of the trials that are known."""
        trials = self._choice().runs()
        tuned = f" after {len(trials)} trials" if trials else ""
        names = [run.name for run in (*trials, *self._untuned)]
        notes = [f"Note: {note}" for note in self._notes]
        return "\n".join(
            [*notes, *names, f"{counted(len(self._untuned), 'run')}{tuned} in {self._folder}"]
        )

    def require_inputs(self) -> None:
        """Refuse to start if a folder that a run needs does not exist."""
        nothing_to_do = (State.DONE, State.UNREADABLE)
        left = [run for run in self._untuned if status_of(run).state not in nothing_to_do]
        require_inputs(run.settings for run in left)

    def so_far(self) -> tuple[list[PlannedRun], Choice, list[str]]:
        """Return the runs, the choices of tuning, and notes on settings that are not tuned."""
        choice = self._choice()
        if not choice.complete:
            return [], choice, [*choice.notes, "the runs start when all trials are done"]
        return self._tuned(choice), choice, list(dict.fromkeys(choice.notes))

    def work(self) -> None:
        """Run trials, then runs."""
        self.require_inputs()
        for note in self._notes:
            _say(f"Note: {note}")
        start = partial(Child.start, threads=self.file.threads_per_job)
        supervisor = Supervisor(jobs=self.file.jobs, start=start, tell=_say)
        try:
            lock = ExperimentLock.acquire(self._folder)
        except ExperimentLockedError as error:
            raise ExperimentLockedError(
                f"another plora-cl study runs in {self._folder}; --status shows its state"
            ) from error
        with lock, stopping(supervisor):
            choice = self._choice(supervisor.work)
            if self.file.tune is not None:
                write_choice(choice, self._folder)
            supervisor.work(self._tuned(choice))

    def _choice(self, work: Callable[[Sequence[PlannedRun]], None] | None = None) -> Choice:
        if self.file.tune is None:
            return Choice()
        return choose(self._untuned, self.file.tune, self._folder, work)

    def _tuned(self, choice: Choice) -> list[PlannedRun]:
        return planned_runs(self.file, self._source, choice.values)


def _summarise(study: StudyFile, runs: Sequence[PlannedRun], choice: Choice) -> None:
    # SciPy takes long to load; only the summary needs it
    from plora_cl.study.records import record
    from plora_cl.study.summary import legend, main_metrics, summarised, write_summary

    found = [(run, results) for run in runs if (results := results_of(run)) is not None]
    if not found:
        print("No run is done yet: nothing to compare")
        return
    records, problems = [], []
    for run, results in found:
        try:
            records.append(record(run, results))
        except StudyError as error:
            problems.append(str(error))
    if problems:
        raise StudyError("; ".join(problems))
    check_same_sources([*choice.measured.values(), *records])
    groups = summarised(records, study.baseline)
    folder = study_folder(study)
    header = {"name": study.name, "planned": len(runs), "done": len(found)}
    write_summary(folder, records, groups, header, study.baseline)
    columns, rows = main_metrics(groups, study.baseline)
    always = ("method", "variant", "average accuracy")
    spare = [name for name in reversed(columns) if name not in always]
    table = Table("Summary", columns, rows, columns[2:], spare, elsewhere=f"{folder}/summary.md")
    print()
    show([table, *legend(groups)])
    print(f"Written: {folder}/runs.csv, summary.csv, summary.json and summary.md")


def _say(line: str) -> None:
    print(line, file=sys.stdout, flush=True)
