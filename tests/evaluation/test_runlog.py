from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plora_cl.errors import CheckpointError, TrainingError
from plora_cl.evaluation.runlog import RunLog
from plora_cl.state import StateDict


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "run_log.jsonl"


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def steps(path: Path) -> list[int]:
    return [record["step"] for record in records(path) if "step" in record]


def killed_after(path: Path, saved: int, written: int) -> StateDict:
    """Leave a log of ``written`` steps whose newest checkpoint knows of ``saved``."""
    log = RunLog(path)
    state = log.state_dict()
    for step in range(written):
        log.append({"step": step, "loss": 1 / (step + 3)})
        if step + 1 == saved:
            log.sync()
            state = log.state_dict()
    log.sync()
    return state


def resumed(path: Path, state: StateDict) -> RunLog:
    log = RunLog(path)
    log.load_state_dict(state)
    return log


def test_a_log_without_records_makes_no_file(path: Path) -> None:
    log = RunLog(path)
    log.sync()
    log.state_dict()
    log.load_state_dict(log.state_dict())
    assert not path.parent.exists()


def test_a_record_is_one_line_with_sorted_keys_and_exact_numbers(path: Path) -> None:
    log = RunLog(path)
    log.append({"step": 1, "loss": 0.1 + 0.2, "note": "a\nb"})
    log.sync()
    assert path.read_bytes() == b'{"loss": 0.30000000000000004, "note": "a\\nb", "step": 1}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused_and_leaves_no_trace(
    path: Path, value: float
) -> None:
    log = RunLog(path)
    log.append({"step": 0})
    before = log.state_dict()
    with pytest.raises(TrainingError, match="not finite"):
        log.append({"loss": value})
    assert log.state_dict() == before
    log.sync()
    assert steps(path) == [0]


@pytest.mark.parametrize("saved", [0, 1, 3, 5])
def test_after_a_kill_every_step_appears_once(path: Path, saved: int) -> None:
    uninterrupted = path.with_name("uninterrupted.jsonl")
    killed_after(uninterrupted, 5, 5)
    log = resumed(path, killed_after(path, saved, 5))
    for step in range(saved, 5):
        log.append({"step": step, "loss": 1 / (step + 3)})
    log.sync()
    assert path.read_bytes() == uninterrupted.read_bytes()


def test_a_torn_last_line_is_replaced(path: Path) -> None:
    state = killed_after(path, 2, 3)
    path.write_bytes(path.read_bytes()[:-7])
    log = resumed(path, state)
    log.append({"step": 2})
    log.sync()
    assert steps(path) == [0, 1, 2]


def test_state_goes_on_as_if_nothing_had_happened(path: Path) -> None:
    uninterrupted = RunLog(path.with_name("uninterrupted.jsonl"))
    for step in range(4):
        uninterrupted.append({"step": step, "loss": 1 / (step + 3)})
    log = resumed(path, killed_after(path, 2, 4))
    for step in (2, 3):
        log.append({"step": step, "loss": 1 / (step + 3)})
    assert log.state_dict() == uninterrupted.state_dict()
    assert log.state_dict()["records"] == 4


def test_looking_at_an_old_checkpoint_leaves_the_log_alone(path: Path) -> None:
    state = killed_after(path, 2, 5)
    before = path.read_bytes()
    log = resumed(path, state)
    log.sync()
    assert log.state_dict() == state
    assert path.read_bytes() == before


def test_a_log_that_only_a_copy_holds_is_put_in_place_before_a_checkpoint_commits_to_it(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, whole = killed_after(path, 3, 5), path.read_bytes()
    RunLog(path).set_aside(1)
    other = RunLog(path)
    other.append({"of": "another branch"})
    other.sync()
    its_state, its_bytes = other.state_dict(), path.read_bytes()
    log = resumed(path, state)
    log.sync()
    assert log.state_dict() == state
    assert path.read_bytes() == whole
    again = resumed(path, its_state)  # whose log made room, and was not set aside before
    again.sync()
    again.append({"step": 1})
    again.sync()
    assert path.read_bytes() == its_bytes + b'{"step": 1}\n'
    assert not caplog.records


def test_a_pipe_in_place_of_the_log_is_refused_and_does_not_block(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        RunLog(path).set_aside(1)


def test_a_run_that_ends_earlier_than_another_branch_leaves_no_line_of_that(path: Path) -> None:
    log = RunLog(path)
    states = []
    for step in range(4):
        log.append({"step": step})
        states.append(log.state_dict())
    log.sync()
    again = RunLog(path)
    again.load_state_dict(states[1])
    again.append({"step": 2})  # the same as in the other branch, so that it stays as it is
    again.sync()
    assert again.state_dict() == states[2]
    again.settle()
    assert len(path.read_bytes()) == states[2]["bytes"]
    again.settle()
    assert len(path.read_bytes()) == states[2]["bytes"]


def test_a_run_that_restores_nothing_starts_an_empty_log(path: Path) -> None:
    killed_after(path, 3, 3)
    log = RunLog(path)
    log.append({"step": 0})
    log.sync()
    assert steps(path) == [0]


def test_clearing_removes_the_log_of_an_earlier_run(path: Path) -> None:
    state = killed_after(path, 3, 3)
    log = resumed(path, state)
    log.clear()
    assert not path.exists()
    log.append({"step": 0})
    log.sync()
    assert steps(path) == [0]
    assert log.state_dict()["records"] == 1


@pytest.mark.parametrize("damage", ["gone", "short", "torn", "edited"])
def test_a_log_that_lost_records_says_so_and_training_goes_on(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = killed_after(path, 4, 5)
    lines = path.read_bytes().splitlines(keepends=True)
    kept = {
        "gone": [],
        "short": lines[:2],
        "torn": [*lines[:2], lines[2][:5]],
        "edited": [lines[0].replace(b"0", b"7"), *lines[1:]],
    }[damage]
    path.unlink()
    if kept:
        path.write_bytes(b"".join(kept))
    log = resumed(path, state)
    with caplog.at_level(logging.WARNING):
        log.append({"step": 4})
        log.sync()
    assert str(path) in caplog.text
    assert "4 records" in caplog.text
    complete = {"gone": 0, "short": 2, "torn": 2, "edited": 4}[damage]
    found = records(path)
    assert [r.get("event") for r in found] == [None] * complete + ["gap", None]
    assert found[complete]["expected_records"] == 4
    assert found[complete]["found_records"] == complete
    again = resumed(path, log.state_dict())
    caplog.clear()
    again.append({"step": 5})
    again.sync()
    assert not caplog.records
    assert steps(path)[-2:] == [4, 5]


def test_an_intact_log_is_restored_without_a_warning(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resumed(path, killed_after(path, 3, 5)).append({"step": 3})
    assert not caplog.records


def kept(log: RunLog, steps: range) -> bytes:
    """Append ``steps``; return what the file should get for them."""
    for step in steps:
        log.append({"step": step})
    return b"".join(b'{"step": %d}\n' % step for step in steps)


def test_a_record_waits_in_memory_and_asks_nothing_of_the_disk(path: Path) -> None:
    path.parent.write_text("a file in place of the folder")
    log = RunLog(path)
    expected = kept(log, range(3))
    with pytest.raises(OSError, match=r"run_log\.jsonl"):
        log.sync()
    path.parent.unlink()
    log.sync()
    assert path.read_bytes() == expected


@pytest.mark.fault
@pytest.mark.parametrize("durable", [0, 2])
def test_a_disk_that_takes_half_a_line_gets_all_of_them_once_there_is_room(
    path: Path, durable: int
) -> None:
    log = RunLog(path)
    expected = kept(log, range(durable))
    log.sync()
    there = len(expected)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in range(0, 120, 7):
        before = log.state_dict()["records"]
        expected += kept(log, range(before, before + 10))
        resource.setrlimit(resource.RLIMIT_FSIZE, (there + room, hard))
        try:
            with pytest.raises(OSError, match=r"File too large.*run_log\.jsonl"):
                log.sync()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.stat().st_size == there + room
        if room % 2:
            log.sync()
            assert path.read_bytes() == expected
            there = len(expected)
    log.sync()
    assert path.read_bytes() == expected
    assert log.state_dict()["bytes"] == len(expected)
    assert log.state_dict()["sha256"] == hashlib.sha256(expected).hexdigest()


def test_what_a_failed_flush_may_have_lost_is_written_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RunLog(path)
    expected = kept(log, range(2))
    log.sync()
    durable = len(expected)
    expected += kept(log, range(2, 5))

    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(OSError, match="Input/output error"):
            log.sync()
    # The kernel reports it once, and may drop the pages
    path.write_bytes(expected[:durable] + bytes(len(expected) - durable))
    log.sync()
    assert path.read_bytes() == expected


def test_repeated_records_whose_flush_failed_are_written_again_although_the_file_has_them(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = killed_after(path, 1, 4)
    expected = path.read_bytes()
    log = resumed(path, state)
    for step in range(1, 4):
        log.append({"step": step, "loss": 1 / (step + 3)})

    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(OSError, match="Input/output error"):
            log.sync()
    os.utime(path, (0, 0))  # clean pages from now on: only a write makes the next flush store them
    log.sync()
    assert path.read_bytes() == expected
    assert path.stat().st_mtime > 0


def test_records_reach_the_file_once_a_second_for_whoever_watches_it(path: Path) -> None:
    now, jobs = [0.0], list[Callable[[], object]]()
    log = RunLog(path, submit=jobs.append, clock=lambda: now[0])
    expected = kept(log, range(3))
    assert len(jobs) == 1
    assert not path.exists()
    jobs.pop()()
    assert path.read_bytes() == expected
    expected += kept(log, range(3, 5))
    assert not jobs
    now[0] = 1.0
    expected += kept(log, range(5, 6))
    jobs.pop()()
    assert path.read_bytes() == expected


def test_a_disk_that_refuses_records_is_told_of_once_and_stops_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.write_text("a file in place of the folder")
    jobs = list[Callable[[], object]]()
    log = RunLog(path, submit=jobs.append, clock=iter(range(100)).__next__)
    expected = kept(log, range(5))
    for job in jobs:
        job()
    (told,) = caplog.messages
    assert str(path) in told
    path.parent.unlink()
    expected += kept(log, range(5, 8))
    jobs[-1]()
    assert path.read_bytes() == expected


def test_records_that_come_while_the_file_is_written_are_neither_lost_nor_doubled(
    path: Path,
) -> None:
    log, ended = RunLog(path), threading.Event()

    def keep_writing() -> None:
        while not ended.is_set():
            log.sync()

    writer = threading.Thread(target=keep_writing)
    writer.start()
    expected = kept(log, range(3000))
    ended.set()
    writer.join()
    log.sync()
    assert path.read_bytes() == expected


def test_a_log_that_cannot_be_read_is_an_error_that_names_it(path: Path) -> None:
    state = killed_after(path, 2, 2)
    path.unlink()
    path.mkdir()
    with pytest.raises(CheckpointError, match=r"cannot read .*run_log\.jsonl, which this run"):
        resumed(path, state).append({"step": 2})
