"""Forks, exports and imports of a run that was really trained."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.cli.checkpoints.main import main
from plora_cl.config.precedence import dump, resolve, validate
from plora_cl.training.trainer import CLTrainer
from training.evidence import evidence


def resume(folder: Path) -> dict[str, Any]:
    resolved = resolve(config=folder / "config.yaml", resume=True)
    trainer = CLTrainer.from_settings(resolved.settings)
    assert trainer.folder == folder
    trainer.train_sequence(resume=True)
    return evidence(folder)


def differing(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Return what differs, of what is in both: a branch lacks the checkpoints before it."""
    both = one.keys() & other.keys()
    assert "run_log" in both
    assert any(name.startswith("checkpoint_task2") for name in both)
    return {name for name in both if one[name] != other[name]}


def stopped_at(parent: Path, name: str, folder: Path) -> Path:
    """Return a copy of the experiment as it was when checkpoint ``name`` was its newest."""
    shutil.copytree(parent, folder)
    for entry in CheckpointStore(folder / "checkpoints").entries():
        if entry.position > CheckpointEntry.at(folder / name).position:
            entry.path.unlink()
    config = validate(
        {
            **yaml.safe_load((folder / "config.yaml").read_text()),
            "experiment_dir": str(folder.parent),
            "experiment_name": folder.name,
        }
    )
    (folder / "config.yaml").write_text(dump(config))
    return folder


@pytest.fixture(scope="module")
def parent(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parent")
    trainer = CLTrainer(
        **{**settings, "experiment_dir": str(folder), "keep_last_n_checkpoints": 50}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointStore, "delete", lambda store, entries: None)
        trainer.train_sequence()
    return trainer.folder


def middle(parent: Path) -> str:
    names = [e.path.name for e in CheckpointStore(parent / "checkpoints").entries()]
    inside = [name for name in names if name.startswith("checkpoint_task1_epoch1")]
    return inside[0]


def test_a_fork_without_changes_ends_like_its_parent(parent: Path, tmp_path: Path) -> None:
    before = evidence(parent)
    name = middle(parent)
    assert main(["fork", f"{parent}@{name}", str(tmp_path / "twin")]) == 0
    assert differing(resume(tmp_path / "twin"), before) == set()
    assert evidence(parent) == before


def test_a_fork_with_another_setting_goes_on_with_it_and_costs_no_object_bytes(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, name, folder = evidence(parent), middle(parent), tmp_path / "other"
    stopped = stopped_at(parent, name, tmp_path / "stopped")
    argv = [f"{stopped}@{name}", str(folder), "--set", "lambda_ewc=0.5", "--json"]
    assert main(["fork", *argv]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["changed"], shown["copied_object_bytes"]) == (["lambda_ewc"], 0)
    for path in (folder / "checkpoints" / "objects").iterdir():
        assert path.samefile(stopped / "checkpoints" / "objects" / path.name)
    lineage = json.loads((folder / "lineage.json").read_text())
    assert (lineage["parent"], lineage["checkpoint"]) == (str(stopped), name)
    assert lineage["changed"]["lambda_ewc"]["here"] == 0.5
    assert yaml.safe_load((folder / "config.yaml").read_text())["lambda_ewc"] == 0.5
    after = resume(folder)
    assert after["run_log"] != before["run_log"]
    assert differing(resume(stopped), before) == set()


def test_an_imported_checkpoint_ends_like_the_run_it_was_taken_of(
    parent: Path, tmp_path: Path
) -> None:
    name, file = middle(parent), str(tmp_path / "one.tar")
    assert main(["export", f"{parent}@{name}", "--out", file]) == 0
    assert main(["import", file, str(tmp_path / "moved")]) == 0
    assert differing(resume(tmp_path / "moved"), evidence(parent)) == set()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("lora_r=4", "lora_r: 2 in the checkpoint, now 4 (a fork resumes"),
        ("tasks=[a]", "no task is called 'a'"),
        ("model_name=no/such-model", "no/such-model"),
        ("use_ewc=false", "use_ewc: True in the checkpoint, now False"),
        ("batch_size=4", "batch_size: 8 in the checkpoint, now 4 - the checkpoint is inside"),
        ("max_train_examples=20", "tasks[1].examples: 40 in the checkpoint, now 20 - "),
        ("max_train_examples_per_class=5", "tasks[1].examples: 40 in the checkpoint, now 10"),
        ("lambda_ewd=1", "did you mean lambda_ewc"),
        ("epochs=many", "expected a whole number"),
        ("experiment_name=x", "NEW-FOLDER"),
    ],
)
def test_a_fork_that_could_not_go_on_is_refused_in_one_line(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, said: str
) -> None:
    argv = [f"{parent}@{middle(parent)}", str(tmp_path / "no"), "--set", change]
    assert main(["fork", *argv]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "no").exists()


@pytest.mark.fault
def test_damage_is_exit_code_1_and_nothing_is_made(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray((parent / "checkpoints" / middle(parent)).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / "checkpoints" / middle(parent)
    path.write_bytes(data)
    assert main(["fork", str(path), str(tmp_path / "no")]) == 1
    assert "Error:" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


@pytest.mark.fault
def test_a_fork_that_was_stopped_is_completed_by_the_next(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["fork", f"{parent}@{middle(parent)}", str(tmp_path / "b")]
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "commit", lambda *_: (_ for _ in ()).throw(OSError(5, "x")))
        with pytest.raises(OSError, match="x"):
            main(argv)
    assert not list((tmp_path / "b").glob("checkpoints/*.pt"))
    assert main(argv) == 0
    assert main(argv) == 2


@pytest.mark.fault
def test_where_links_are_impossible_objects_are_copied_and_it_says_so(
    parent: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    assert main(["fork", str(parent), str(tmp_path / "b"), "--json"]) == 0
    objects = list((tmp_path / "b" / "checkpoints" / "objects").iterdir())
    copied = sum(path.stat().st_size for path in objects)
    assert json.loads(capsys.readouterr().out)["copied_object_bytes"] == copied > 0
