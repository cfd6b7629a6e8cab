"""A folder that cannot be read, and a run that cannot be started: the other runs continue."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from plora_cl.cli.study.command import main
from plora_cl.errors import OutputError, PloraError, StudyError
from plora_cl.study import supervisor as module
from plora_cl.study.child import Child
from plora_cl.study.plan import PlannedRun
from plora_cl.study.run_folder import State, results_of, status_of
from study.conftest import Planned, begin, finish
from study.test_supervisor import Process, Stage, ends_well, supervisor


def results_are_a_folder(folder: Path) -> None:
    (folder / "results" / "final_results.json").unlink()
    (folder / "results" / "final_results.json").mkdir()


def checkpoints_are_a_file(folder: Path) -> None:
    (folder / "checkpoints").write_text("x")


def the_lock_is_a_folder(folder: Path) -> None:
    (folder / ".lock").mkdir()


def the_run_is_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


DAMAGES = (results_are_a_folder, checkpoints_are_a_file, the_lock_is_a_folder, the_run_is_a_file)
damages = pytest.mark.parametrize("damage", DAMAGES)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.0)


@damages
def test_a_folder_that_cannot_be_read_is_a_state_and_stops_no_other(
    planned: Planned, damage: Callable[[Path], None]
) -> None:
    runs, stage = planned(), Stage()
    finish(runs[0])
    damage(runs[0].folder)
    supervisor(stage).work(runs)
    status = status_of(runs[0])
    assert status.state is State.UNREADABLE
    assert str(runs[0].folder) in status.detail
    # An unreadable lock hides its holder; the results can still be read.
    assert (results_of(runs[0]) is None) == (damage is not the_lock_is_a_folder)
    assert stage.names() == [run.name for run in runs[1:]]
    assert stage.told[0] == f"unreadable: {runs[0].name}: {status.detail}"


@damages
def test_the_other_runs_are_still_shown_and_compared(
    planned: Planned,
    file: Path,
    damage: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = planned()
    for run in runs:
        finish(run)
    damage(runs[0].folder)
    assert main([str(file), "--status"]) == 0
    out = capsys.readouterr().out
    assert f"{runs[0].name}  unreadable  " in out
    assert "8 runs: 7 done, 1 unreadable" in out
    assert main([str(file), "--summarise"]) == 0
    compared = 4 if damage is the_lock_is_a_folder else 3
    out = capsys.readouterr().out
    assert re.search(rf"^plain +- +{compared} +2 orders ", out, re.MULTILINE)


def test_one_that_is_unreadable_leaves_the_study_incomplete(planned: Planned, file: Path) -> None:
    runs = planned()
    for folder in ("animals", "weather"):
        (file.parent / "data" / folder).mkdir(parents=True)
    for run in runs:
        finish(run)
    assert main([str(file)]) == 0
    checkpoints_are_a_file(runs[0].folder)
    assert main([str(file)]) == 1


@pytest.mark.parametrize(("code", "told"), [(0, "unreadable"), (1, "failed")])
def test_a_run_that_ends_and_cannot_be_looked_at_stops_no_other(
    planned: Planned, code: int, told: str
) -> None:
    runs = planned()

    def ends_unreadable(run: PlannedRun) -> int:
        finish(run)
        results_are_a_folder(run.folder)
        return code

    stage = Stage(ends={runs[0].name: ends_unreadable})
    supervisor(stage, jobs=1).work(runs)
    assert stage.names() == [run.name for run in runs]
    assert stage.told[1].startswith(f"{told}: {runs[0].name}: ")


def test_a_run_that_becomes_unreadable_while_it_waits_is_left_alone(planned: Planned) -> None:
    runs = planned()

    def damages_the_next(run: PlannedRun) -> int:
        begin(runs[1])
        checkpoints_are_a_file(runs[1].folder)
        return ends_well(run)

    stage = Stage(ends={runs[0].name: damages_the_next})
    supervisor(stage, jobs=1).work(runs)
    assert stage.names() == [run.name for run in runs if run is not runs[1]]
    assert any(line.startswith(f"unreadable: {runs[1].name}: ") for line in stage.told)


@pytest.mark.parametrize("error", [OutputError, StudyError])
def test_a_run_that_cannot_be_started_stops_no_other(
    planned: Planned, error: type[PloraError]
) -> None:
    runs, stage = planned(), Stage()

    def start(run: PlannedRun) -> Process:
        if run is runs[1]:
            raise error("cannot write x: No space left on device")
        return stage.start(run)

    module.Supervisor(jobs=2, start=start, tell=stage.told.append).work(runs)
    assert all(status_of(run).state is State.DONE for run in runs if run is not runs[1])
    failed = f"failed: {runs[1].name}: not started: cannot write x: No space left on device"
    assert failed in stage.told


@pytest.mark.parametrize("name", ["log.txt", "run.yaml"])
def test_a_file_that_a_start_cannot_write_is_kept_as_its_failure(
    planned: Planned, name: str
) -> None:
    run = planned()[0]
    (run.folder / name).mkdir(parents=True)
    with pytest.raises(OutputError, match=name):
        Child.start(run, threads=1)
    status = status_of(run)
    assert status.state is State.FAILED
    assert status.detail.startswith(f"not started: cannot write {run.folder / name}: ")


def test_a_process_that_the_system_refuses_is_kept_as_a_failure(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = planned()[0]
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(StudyError, match=rf"cannot start a process for {run.name}: No such"):
        Child.start(run, threads=1)
    assert status_of(run).detail.startswith("not started: cannot start a process")
