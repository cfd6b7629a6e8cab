"""`--overwrite`: the earlier run is there until the new one stands on a checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from plora_cl.checkpoint.store.pins import pin, unpin
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.cli.train.command import main
from plora_cl.errors import ExperimentExistsError, PloraError
from plora_cl.training.trainer import CLTrainer
from plora_cl.units import Unit
from training.evidence import evidence
from training.going_on import Listener, train


@pytest.fixture
def earlier(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def overwrite(settings: dict[str, Any], folder: Path, **changes: Any) -> Listener:
    listener = changes.pop("listener", None) or Listener()
    here = {"experiment_dir": str(folder.parent), "experiment_name": folder.name}
    trainer = CLTrainer(reporter=listener, **{**settings, **here, **changes})
    trainer.train_sequence(overwrite=True)
    return listener


class StopsBeforeTheFirstSave(Listener):
    """Ends the run, in one way or another, when the untrained model has been measured."""

    def __init__(self, *, kill: bool) -> None:
        super().__init__()
        self._kill = kill

    def activity(self, unit: Unit, /) -> None:
        if unit.what.startswith("untrained"):
            if self._kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "change",
    [{"model_name": "no/such-model"}, {"tasks": ["/no/such/task"]}, {"lora_target_modules": ["x"]}],
)
def test_what_is_refused_costs_the_earlier_run_nothing(
    settings: dict[str, Any], earlier: Path, change: dict[str, Any]
) -> None:
    before = files(earlier)
    with pytest.raises(PloraError):
        overwrite(settings, earlier, **change)
    assert files(earlier) == before


def test_a_run_that_ends_before_its_first_checkpoint_leaves_the_earlier_one(
    settings: dict[str, Any], earlier: Path
) -> None:
    before = files(earlier)
    listener = StopsBeforeTheFirstSave(kill=False)
    with pytest.raises(KeyboardInterrupt):
        overwrite(settings, earlier, listener=listener, seed=7)
    assert files(earlier) == before
    assert listener.messages[-1].endswith("saved nothing; the earlier one is there again")


@pytest.mark.fault
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_run_killed_before_its_first_checkpoint_leaves_the_earlier_one(
    settings: dict[str, Any], earlier: Path, whole: Path
) -> None:
    before = files(earlier)
    child = os.fork()
    if child == 0:
        overwrite(settings, earlier, listener=StopsBeforeTheFirstSave(kill=True), seed=7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (earlier / "replaced.json").exists()
    left = files(earlier)
    assert all(left[name] == before[name] for name in before if name.startswith("checkpoints"))
    _, listener = train(settings, earlier.parent, resume=True)
    assert any("already learned" in message for message in listener.messages)
    assert evidence(earlier) == evidence(whole)
    assert not (earlier / "replaced.json").exists()


def test_the_new_run_replaces_all_of_the_earlier_one(
    settings: dict[str, Any], earlier: Path
) -> None:
    (earlier / "lineage.json").write_text(json.dumps({"parent": "of the earlier run"}))

    seen: list[set[str]] = []

    class Watch(Listener):
        def message(self, text: str, /) -> None:
            if text.startswith("Checkpoint saved"):
                seen.append(set(files(earlier)))

    overwrite(settings, earlier, listener=Watch(), seed=7, tasks=settings["tasks"][:1])
    assert "results/final_results.json" not in seen[-1]
    names = [entry.path.name for entry in CheckpointStore(earlier / "checkpoints").entries()]
    assert {name.split("_")[1] for name in names} == {"task0"}
    assert set(files(earlier)) == {
        *(f"checkpoints/{name}" for name in names),
        *(name for name in files(earlier) if name.startswith("checkpoints/objects/")),
        *("config.yaml", "results/run_log.jsonl", "results/final_results.json"),
        *("results/accuracy_matrix.npy", "results/f1_matrix.npy"),
        "results/computational_costs.json",
    }


def test_a_run_without_checkpoints_replaces_the_earlier_one_when_it_has_results(
    settings: dict[str, Any], earlier: Path
) -> None:
    overwrite(settings, earlier, checkpoint_every=0, tasks=settings["tasks"][:1])
    assert not list((earlier / "checkpoints").glob("*.pt"))
    assert not list((earlier / "checkpoints" / "objects").iterdir())
    assert not list(earlier.rglob("*replaced*"))
    results = json.loads((earlier / "results" / "final_results.json").read_text())
    assert len(results["tasks"]) == 1


def test_pinned_checkpoints_are_not_overwritten(settings: dict[str, Any], earlier: Path) -> None:
    store = CheckpointStore(earlier / "checkpoints")
    kept = store.entries()[0]
    pin(store, kept)
    before = files(earlier)
    with pytest.raises(ExperimentExistsError, match=f"{kept.path.name}; .* unpin {earlier}@"):
        overwrite(settings, earlier)
    assert files(earlier) == before
    unpin(store, kept)
    overwrite(settings, earlier, tasks=settings["tasks"][:1])
    assert kept.path.name.startswith("checkpoint_task0")


def test_the_command_line_says_it_in_one_line_and_removes_nothing(
    settings: dict[str, Any], earlier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(earlier)
    argv = ["--config", str(earlier / "config.yaml"), "--overwrite", "--quiet"]
    here = ["--experiment-dir", str(earlier.parent), "--experiment-name", earlier.name]
    assert main([*argv, *here, "--model-name", "no/such-model"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("Error:")]
    assert files(earlier) == before
