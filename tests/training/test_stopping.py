"""Asked to stop, a run saves, says how to go on, and goes on exactly."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from plora_cl.checkpoint.snapshot.codec import decode
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.cli.train.command import main
from plora_cl.errors import RunStoppedError
from plora_cl.training.reporting import Reporter
from plora_cl.training.stopping import StopRequest
from plora_cl.training.trainer import CLTrainer
from plora_cl.units import Unit
from training.evidence import evidence
from training.test_kills import TRAIN
from warm import Interpreter


class Asks(Reporter):
    """Asks to stop at a step, or at a call of `activity` after that step."""

    def __init__(self, stop: StopRequest, step: int, activity: str = "") -> None:
        self._stop, self._step, self._activity = stop, step, activity

    def step(self, *_: object) -> None:
        self._step -= 1
        if self._step == 0 and not self._activity:
            self._stop.request("SIGTEST", 99)

    def activity(self, unit: Unit, /) -> None:
        if (
            self._step <= 0
            and self._activity
            and unit.what.startswith(self._activity)
            and unit.done > 1
        ):
            self._stop.request("SIGTEST", 99)


class Counts(Reporter):
    """Notes the units of an activity."""

    def __init__(self, activity: str) -> None:
        self._activity = activity
        self.units: list[tuple[str, int]] = []

    def activity(self, unit: Unit, /) -> None:
        if unit.what.startswith(self._activity):
            self.units.append((unit.what, unit.done))


def train(folder: Path, settings: dict[str, Any], **parts: Any) -> Path:
    trainer = CLTrainer(**{**settings, "experiment_dir": str(folder)}, **parts)
    trainer.train_sequence(resume="auto")
    return trainer.folder


@pytest.fixture(scope="module")
def whole(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("whole"), settings)


@pytest.mark.parametrize("step", [1, 7, 10, 25])
def test_it_stops_after_the_step_with_that_step_saved(
    tmp_path: Path, settings: dict[str, Any], whole: Path, step: int
) -> None:
    stop = StopRequest()
    with pytest.raises(RunStoppedError, match="stopped by SIGTEST") as stopped:
        train(tmp_path, settings, reporter=Asks(stop, step), stop=stop)
    assert stopped.value.exit_code == 99
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    assert store.manifest(store.entries()[-1]).cursor["step"] == step
    assert evidence(train(tmp_path, settings)) == evidence(whole)


@pytest.mark.parametrize("activity", ["evaluation", "Fisher"])
def test_it_stops_between_the_units_of_long_work_and_goes_on_there(
    tmp_path: Path, settings: dict[str, Any], whole: Path, activity: str
) -> None:
    stop, all_of_it, rest = StopRequest(), Counts(activity), Counts(activity)
    train(tmp_path / "whole", settings, reporter=all_of_it)
    with pytest.raises(RunStoppedError):
        train(tmp_path, settings, reporter=Asks(stop, 10, activity), stop=stop)
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    assert store.manifest(store.entries()[-1]).cursor["step"] == 10
    assert evidence(train(tmp_path, settings, reporter=rest)) == evidence(whole)
    done = 2 if activity == "Fisher" else 1
    assert rest.units == all_of_it.units[done:]


class StopsAtBatch(StopRequest):
    """Asks to stop once, after a given number of training batches."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.left, self.trains = batch, False

    @property
    def requested(self) -> bool:
        self.left -= self.trains
        if self.left == 0:
            self.request("SIGTEST", 99)
        return super().requested


class SaysWhenTrainingBegins(Reporter):
    def __init__(self, stop: StopsAtBatch) -> None:
        self._stop = stop

    def task_started(self, *_: object) -> None:
        self._stop.trains = True

    def activity(self, unit: Unit, /) -> None:
        self._stop.left += self._stop.trains  # asked after this unit too, which is no batch


@pytest.fixture(scope="module")
def accumulating(
    settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return settings with 3 + 2 batches per optimizer step, and the evidence of their run."""
    accumulating = {**settings, "gradient_accumulation_steps": 3, "keep_last_n_checkpoints": 1}
    return accumulating, evidence(train(tmp_path_factory.mktemp("whole"), accumulating))


@pytest.mark.parametrize("batch", range(1, 8))
def test_it_stops_between_the_batches_of_one_optimizer_step(
    tmp_path: Path, accumulating: tuple[dict[str, Any], dict[str, Any]], batch: int
) -> None:
    settings, expected = accumulating
    stop = StopsAtBatch(batch)
    with pytest.raises(RunStoppedError):
        train(tmp_path, settings, reporter=SaysWhenTrainingBegins(stop), stop=stop)
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    snapshot = decode(store.read(store.entries()[-1]))
    cursor = snapshot.cursor
    assert cursor["epoch"] * 5 + cursor["batch"] == batch
    gradients = snapshot.state["gradients"].get("gradients", {})
    assert any(g.abs().max() > 0 for g in gradients.values()) == (cursor["batch"] % 3 > 0)
    assert evidence(train(tmp_path, settings)) == expected


def test_time_is_up_when_the_clock_says_so() -> None:
    now = 0.0
    stop = StopRequest(clock=lambda: now)
    stop.limit(10, "--max-time")
    stop.check()
    now = 10.0
    with pytest.raises(RunStoppedError, match="--max-time") as stopped:
        stop.check()
    assert stopped.value.exit_code == 75


def configured(folder: Path, settings: dict[str, Any]) -> list[str]:
    folder.mkdir(exist_ok=True)
    config = folder / "settings.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return ["--config", str(config), "--experiment-dir", str(folder), "--resume", "auto"]


def test_no_time_at_all_exits_with_75_and_says_how_to_go_on(
    tmp_path: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = signal.getsignal(signal.SIGTERM)
    argv = configured(tmp_path, settings)
    assert main([*argv, "--max-time", "0s"]) == 75
    out, err = capsys.readouterr()
    assert "Run stopped by --max-time" in err
    assert f"plora-cl train --config {tmp_path}/run/config.yaml --resume auto" in out
    assert signal.getsignal(signal.SIGTERM) is handlers
    with pytest.raises(SystemExit, match="2"):
        main([*argv, "--max-time", "soon"])


@pytest.mark.fault
@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_a_real_process_that_gets_a_signal_ends_with_its_code_and_goes_on_exactly(
    tmp_path: Path, settings: dict[str, Any], number: signal.Signals, warm: Interpreter
) -> None:
    # Long enough that the signal comes before the end, and what is kept does not depend on when
    slow = {**settings, "epochs": 20, "checkpoint_every": 1000, "keep_last_n_checkpoints": 1}
    expected = evidence(train(tmp_path / "whole", slow))
    argv = configured(tmp_path, slow)
    output, log = tmp_path / "output.txt", tmp_path / "run" / "results" / "run_log.jsonl"
    with output.open("w") as file:
        process = warm.start(TRAIN, *argv, stdout=file)
    while not log.exists() or log.read_bytes().count(b"\n") < 2:
        assert process.poll() is None, output.read_text()
        time.sleep(0.001)
    process.send_signal(number)
    assert process.wait() == 128 + number
    text = output.read_text()
    assert f"{number.name}: stopping at the next safe instant" in text
    assert "Resume with: plora-cl train --config" in text
    assert evidence(train(tmp_path, slow)) == expected


def test_a_second_signal_ends_the_process_at_once() -> None:
    program = (
        "import time\n"
        "from plora_cl.cli.signals import stopping\n"
        "class Run:\n"
        "    def request(self, reason, exit_code):\n"
        "        print(reason, exit_code, flush=True)\n"
        "with stopping(Run()):\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"
        "        time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "SIGUSR1 138\n"
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM


class AsksWhileLoading(StopRequest):
    """Is asked to stop once everything is loaded, just before the run begins."""

    def __init__(self) -> None:
        super().__init__()
        self.told: str | None = None

    def begin(self) -> None:
        self.told = self.request("SIGTEST", 99)
        super().begin()


def files(folder: Path) -> dict[Path, bytes]:
    """Return every file; that of the lock names the process that was there last."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.read_bytes() for path in found}


@pytest.mark.parametrize("epochs", [2, 3], ids=["finished", "unfinished"])
@pytest.mark.parametrize("request_", [{"resume": True}, {"overwrite": True}], ids=["resume", "new"])
def test_a_run_that_is_asked_to_stop_while_it_is_loaded_changes_nothing(
    tmp_path: Path,
    settings: dict[str, Any],
    whole: Path,
    epochs: int,
    request_: dict[str, bool],
) -> None:
    here = {**settings, "epochs": epochs, "experiment_dir": str(tmp_path)}
    if epochs == 2:
        shutil.copytree(whole, tmp_path / "run")
    else:
        stop = StopRequest()
        with pytest.raises(RunStoppedError):
            train(tmp_path, here, reporter=Asks(stop, 7), stop=stop)
    before, asked = files(tmp_path), AsksWhileLoading()
    trainer = CLTrainer(**here, stop=asked)
    with pytest.raises(RunStoppedError, match="SIGTEST") as stopped:
        trainer.train_sequence(**request_)
    assert stopped.value.exit_code == 99
    assert asked.told == "as soon as the run has loaded"
    assert trainer.undone
    assert files(tmp_path) == before


def test_a_signal_during_training_waits_for_the_next_safe_instant() -> None:
    stop = StopRequest()
    stop.limit(0, "--max-time")  # does not count: else a short limit would never come to its end
    stop.begin()
    assert stop.request("SIGTEST", 99) is None
