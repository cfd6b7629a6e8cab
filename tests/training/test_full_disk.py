"""A disk that is really full for a while, or a file that may not grow, while a run trains."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from plora_cl.checkpoint.snapshot.codec import decode
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.cli.main import main
from plora_cl.config.precedence import validate
from plora_cl.errors import OutputError, RunStoppedError
from plora_cl.training.reporting import Reporter
from plora_cl.training.stopping import StopRequest
from plora_cl.training.trainer import CLTrainer
from tmpfs import tmpfs
from training.evidence import evidence


class Watching(Reporter):
    def __init__(self, at_step: Callable[[int], None]) -> None:
        self.messages: list[str] = []
        self._at_step, self._steps = at_step, 0

    def message(self, text: str, /) -> None:
        self.messages.append(text)

    def step(self, *_: object) -> None:
        self._steps += 1
        self._at_step(self._steps)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs with room for one run."""
    with tmpfs(tmp_path / "disk", "size=32m") as place:
        yield place


def fill(place: Path) -> None:
    """Leave no byte free: what is there keeps the rest of its last page."""
    with (place / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            assert os.statvfs(place).f_bavail == 0


def train(folder: Path, settings: dict[str, Any], **changes: Any) -> Path:
    reporter = changes.pop("reporter", None)
    trainer = CLTrainer(reporter=reporter, **{**settings, "experiment_dir": str(folder), **changes})
    trainer.train_sequence(resume="auto")
    return trainer.folder


@pytest.mark.fault
@pytest.mark.parametrize("background", [True, False])
def test_a_disk_that_is_full_for_a_while_stops_nothing_and_no_record_is_lost(
    tmp_path: Path,
    small_disk: Path,
    settings: dict[str, Any],
    background: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("plora_cl.evaluation.runlog._REFRESH_SECONDS", 0.0)
    changes = {"checkpoint_every": 1, "async_checkpoint": background}
    expected = evidence(train(tmp_path / "whole", settings, **changes))
    log = small_disk / "run" / "results" / "run_log.jsonl"

    def at_step(step: int) -> None:
        if step in (3, 14):
            fill(small_disk)
        if step in (8, 18):  # before the last save of a task, which stays
            (small_disk / "filler").unlink()

    reporter = Watching(at_step)
    folder = train(small_disk, settings, **changes, reporter=reporter)
    refused = [text for text in reporter.messages if text.startswith("Warning: no checkpoint")]
    assert len(refused) > 5
    assert all("No space left on device" in text for text in refused)
    assert any(str(log) in text for text in refused)
    assert evidence(folder) == expected


@pytest.mark.fault
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("stop_at", [2, 5])
def test_a_stop_on_a_full_disk_says_what_is_lost_and_where_the_next_start_begins(
    tmp_path: Path, small_disk: Path, settings: dict[str, Any], background: bool, stop_at: int
) -> None:
    stop = StopRequest()

    def at_step(step: int) -> None:
        if step == stop_at:
            trainer.run.checkpointer.flush()
            fill(small_disk)
            stop.request("SIGTEST", 99)

    reporter = Watching(at_step)
    changes = {"async_checkpoint": background, "experiment_dir": str(small_disk)}
    trainer = CLTrainer.from_settings(
        validate({**settings, **changes}), reporter=reporter, stop=stop
    )
    with pytest.raises(RunStoppedError):
        trainer.train_sequence()
    assert not any("training goes on" in text for text in reporter.messages)
    refused, last = reporter.messages[-2:]
    assert refused.startswith("Warning: no checkpoint ")
    begins = trainer.get_latest_checkpoint()
    assert (begins is None) is (stop_at == 2)
    start = "begins anew" if begins is None else f"resumes from {begins}"
    assert last.endswith(f"lost; the next start {start}")
    (small_disk / "filler").unlink()
    expected = evidence(train(tmp_path / "whole", settings, async_checkpoint=background))
    assert evidence(train(small_disk, settings, async_checkpoint=background)) == expected


@pytest.mark.parametrize("background", [True, False])
def test_a_checkpoint_relies_on_no_record_that_is_not_in_the_file(
    tmp_path: Path, settings: dict[str, Any], background: bool
) -> None:
    log, seen = tmp_path / "run" / "results" / "run_log.jsonl", []

    class Checks(Reporter):
        def message(self, text: str, /) -> None:
            if text.startswith("Checkpoint saved: "):
                path = Path(text.removeprefix("Checkpoint saved: ").partition(" (")[0])
                store = CheckpointStore(path.parent)
                position = decode(store.read(CheckpointEntry.at(path))).state["run_log"]
                lines = log.read_bytes()[: position["bytes"]]
                assert lines.count(b"\n") == position["records"]
                assert hashlib.sha256(lines).hexdigest() == position["sha256"]
                seen.append(path)

    changes = {"checkpoint_every": 1, "async_checkpoint": background, "reporter": Checks()}
    train(tmp_path, settings, **changes)
    assert len(seen) > 30


@pytest.mark.fault
@pytest.mark.parametrize("every", [0, 3])
def test_results_that_cannot_be_written_are_an_error_that_names_the_file(
    tmp_path: Path,
    settings: dict[str, Any],
    every: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = tmp_path / "run" / "results"
    config = tmp_path / "config.yaml"
    values = {**settings, "experiment_dir": str(tmp_path), "checkpoint_every": every}
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    results.mkdir(parents=True)
    (results / "f1_matrix.npy").mkdir()  # cannot be replaced by a file
    assert main(["train", "--config", str(config), "--resume", "auto"]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith(f"Error: cannot write {results / 'f1_matrix.npy'}: ")
    assert not (results / "final_results.json").exists()
    (results / "f1_matrix.npy").rmdir()
    assert main(["train", "--config", str(config), "--resume", "auto"]) == 0
    assert (results / "final_results.json").exists()


@pytest.mark.fault
def test_a_log_that_cannot_be_written_at_the_end_is_an_error_that_names_it(
    tmp_path: Path,
    settings: dict[str, Any],
) -> None:
    log = tmp_path / "run" / "results" / "run_log.jsonl"

    def at_step(step: int) -> None:
        if step == 1:
            log.unlink()
            log.mkdir()

    changes = {"checkpoint_every": 0, "async_checkpoint": False, "reporter": Watching(at_step)}
    with pytest.raises(OutputError, match=r"cannot write .*run_log\.jsonl: Is a directory"):
        train(tmp_path, settings, **changes)
    assert not (tmp_path / "run" / "results" / "final_results.json").exists()
