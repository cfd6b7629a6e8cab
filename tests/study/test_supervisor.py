"""Which runs are started when, and what becomes of them; processes are pretended here."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from plora_cl.checkpoint.disk.lock import ExperimentLock
from plora_cl.errors import RunStoppedError
from plora_cl.study import supervisor as module
from plora_cl.study.plan import PlannedRun
from plora_cl.study.run_folder import State, status_of
from plora_cl.study.supervisor import Supervisor
from study.conftest import Planned, begin, finish


@dataclass
class Process:
    """Stands for a child: ends after so many polls, leaving behind what ``ends`` does."""

    run: PlannedRun
    ends: Callable[[PlannedRun], int]
    polls: int = 2
    stops: int = 0

    def stop(self) -> None:
        self.stops += 1
        self.ends, self.polls = lambda _: 143, 3  # saving takes a while

    def exit_code(self) -> int | None:
        self.polls -= 1
        return None if self.polls >= 0 else self.ends(self.run)

    def record_failure(self, code: int, /) -> str:
        self.run.folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"exit_code": code, "line": "Error: no"})
        (self.run.folder / "failure.json").write_text(content)
        return f"exit code {code}: Error: no"


@dataclass
class Stage:
    """Starts pretended processes and remembers what was started and told."""

    ends: dict[str, Callable[[PlannedRun], int]] = field(default_factory=dict)
    started: list[Process] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    most_at_once: int = 0
    on_start: Callable[[], None] = lambda: None

    def start(self, run: PlannedRun) -> Process:
        process = Process(run, self.ends.get(run.name, ends_well))
        self.started.append(process)
        under_way = sum(process.polls >= 0 for process in self.started)
        self.most_at_once = max(self.most_at_once, under_way)
        self.on_start()
        return process

    def names(self) -> list[str]:
        return [process.run.name for process in self.started]


def ends_well(run: PlannedRun) -> int:
    finish(run)
    return 0


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.0)


def supervisor(stage: Stage, jobs: int = 2) -> Supervisor:
    return Supervisor(jobs=jobs, start=stage.start, tell=stage.told.append)


def test_every_run_is_started_once_and_in_order(planned: Planned) -> None:
    runs, stage = planned(), Stage()
    supervisor(stage).work(runs)
    assert stage.names() == [run.name for run in runs]
    assert all(status_of(run).state is State.DONE for run in runs)


@pytest.mark.parametrize("jobs", [1, 3])
def test_no_more_runs_than_jobs_are_under_way(planned: Planned, jobs: int) -> None:
    stage = Stage()
    supervisor(stage, jobs).work(planned())
    assert stage.most_at_once == jobs


def test_what_is_done_is_not_started_again(planned: Planned) -> None:
    runs, stage = planned(), Stage()
    finish(runs[0])
    supervisor(stage).work(runs)
    assert stage.names() == [run.name for run in runs[1:]]


def test_a_run_with_other_settings_is_left_alone(planned: Planned) -> None:
    runs, stage = planned(), Stage()
    finish(runs[0])
    begin(runs[0], epochs=9)
    supervisor(stage).work(runs)
    assert stage.names() == [run.name for run in runs[1:]]
    assert "epochs 9 -> 2" in stage.told[0]


@pytest.mark.parametrize("code", [0, 1, 2, 137])
def test_a_run_that_ends_without_results_failed_and_stops_no_other(
    planned: Planned, code: int
) -> None:
    runs = planned()
    stage = Stage(ends={runs[1].name: lambda _: code})
    supervisor(stage).work(runs)
    states = [status_of(run).state for run in runs]
    assert states == [State.DONE, State.FAILED, *[State.DONE] * (len(runs) - 2)]
    assert f"failed: {runs[1].name}: exit code {code}: Error: no" in stage.told


def test_a_run_that_failed_is_tried_again_at_the_next_start(planned: Planned) -> None:
    runs = planned()
    supervisor(Stage(ends={runs[1].name: lambda _: 1})).work(runs)
    again = Stage()
    supervisor(again).work(runs)
    assert again.names() == [runs[1].name]


def test_asked_to_stop_it_passes_that_on_once_and_starts_nothing_more(planned: Planned) -> None:
    runs, stage = planned(), Stage()
    asked = supervisor(stage)
    stage.on_start = lambda: asked.request("SIGINT", 130)
    with pytest.raises(RunStoppedError) as caught:
        asked.work(runs)
    assert caught.value.exit_code == 130
    assert stage.names() == [runs[0].name]
    assert stage.started[0].stops == 1
    assert stage.told[-1] == f"stopped: {runs[0].name}"
    assert not (runs[0].folder / "failure.json").exists()


def test_a_run_that_another_process_runs_is_waited_for_and_counts_as_a_job(
    planned: Planned,
) -> None:
    runs, stage = planned(), Stage()
    with ExitStack() as elsewhere:
        elsewhere.enter_context(ExperimentLock.acquire(runs[0].folder))

        def end_elsewhere() -> None:
            assert stage.most_at_once == 1
            finish(runs[0])
            elsewhere.close()

        stage.on_start = lambda: end_elsewhere() if len(stage.started) == 3 else None
        supervisor(stage).work(runs)
    assert stage.names() == [run.name for run in runs[1:]]
    assert stage.told[0].startswith(f"running elsewhere: {runs[0].name}")
    assert f"done: {runs[0].name}" in stage.told


def test_a_run_that_died_elsewhere_is_resumed(planned: Planned) -> None:
    runs, stage = planned(), Stage()
    with ExitStack() as elsewhere:
        elsewhere.enter_context(ExperimentLock.acquire(runs[0].folder))
        stage.on_start = lambda: elsewhere.close() if len(stage.started) == 2 else None
        supervisor(stage).work(runs)
    assert sorted(stage.names()) == sorted(run.name for run in runs)


def test_a_child_refused_by_the_lock_of_a_dying_one_has_not_failed(planned: Planned) -> None:
    runs = planned()[:1]
    with ExitStack() as elsewhere:

        def refused(run: PlannedRun) -> int:
            elsewhere.enter_context(ExperimentLock.acquire(run.folder))
            stage.ends.clear()
            return 2

        stage = Stage(ends={runs[0].name: refused})
        told = stage.told.append

        def tell(line: str) -> None:
            told(line)
            if line.startswith("running elsewhere"):
                elsewhere.close()

        Supervisor(jobs=1, start=stage.start, tell=tell).work(runs)
    assert stage.names() == [runs[0].name] * 2
    assert status_of(runs[0]).state is State.DONE
    assert not any(line.startswith("failed") for line in stage.told)


def test_the_folder_of_a_run_is_all_that_is_remembered(planned: Planned, file: Path) -> None:
    runs = planned()
    supervisor(Stage()).work(runs)
    kept = {path.name for path in (file.parent / "experiments" / "four").iterdir()}
    assert kept == {run.name for run in runs}
