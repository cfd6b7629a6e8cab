"""A fork with other settings goes on exactly like a run that accepts them."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.cli.checkpoints.main import main
from plora_cl.cli.train.command import main as train_main
from plora_cl.config.fields import impacts
from plora_cl.errors import IncompatibleCheckpointError
from plora_cl.impact import Impact
from plora_cl.training.trainer import CLTrainer
from training.evidence import evidence
from training.going_on import Listener, cut, events, newest, train

OTHERS: dict[str, Any] = {
    "seed": 1,
    "precision": "bf16",
    "deterministic": False,
    "epochs": 3,
    "batch_size": 4,
    "learning_rate": 0.02,
    "weight_decay": 0.5,
    "warmup_ratio": 0.5,
    "max_grad_norm": 1e-3,
    "gradient_accumulation_steps": 2,
    "max_length": 6,
    "max_train_examples": 39,
    "max_train_examples_per_class": 19,
    "max_eval_examples": 9,
    "max_validation_examples_per_class": 4,
    "eval_batch_size": 3,
    "class_weights": "balanced",
    "early_stopping_metric": "f1",
    "early_stopping_patience": 1,
    "early_stopping_min_delta": 0.5,
    "pooling": "mean",
    "composition": "cumulative",
    "lora_alpha": 40,
    "lora_dropout": 0.5,
    "lambda_ewc": 1.0,
    "ewc_fisher": "exact",
    "ewc_gamma": 0.5,
    "ewc_fisher_examples": 3,
    "ewc_fisher_batch_size": 2,
    "lambda_ortho": 9.0,
    "ortho_form": "squared",
    "lambda_ortho_norm": 0.5,
    "replay_ratio": 0.5,
    "replay_prompts": ["about {label}"],
    "replay_filter": False,
    "replay_token_budget": 9,
    "replay_tuning_examples": 9,
    "replay_tuning_epochs": 9,
    "replay_tuning_learning_rate": 0.5,
    "replay_tuning_r": 2,
    "generation_model": "another",
    "generation_batch_size": 2,
    "max_gen_length": 9,
    "temperature": 0.1,
    "top_p": 0.5,
    "use_router": False,
    "router_examples": 9,
    "router_abstain": 0.5,
}

FEW = ("learning_rate", "lora_alpha", "batch_size", "max_length", "composition", "use_router")


def fork(source: Path, folder: Path, **changes: Any) -> Path:
    sets = [
        f"{name}={yaml.safe_dump(value, default_flow_style=True)}"
        for name, value in changes.items()
    ]
    argv = [part for text in sets for part in ("--set", text.removesuffix("\n...\n").strip())]
    assert main(["fork", str(source), str(folder), *argv]) == 0
    return folder


def resume(folder: Path, *, accept: bool = False) -> Listener:
    """Go on in ``folder`` with its own settings."""
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    return train(settings, folder.parent, accept=accept, resume=True)[1]


def as_accepted(settings: dict[str, Any], parent: Path, folder: Path, **changes: Any) -> Path:
    """Return a copy of ``parent`` that has gone on with accepted changes."""
    shutil.copytree(parent, folder / "copy")
    return train(settings, folder, accept=True, resume=True, experiment_name="copy", **changes)[0]


def differing(one: Path, other: Path) -> set[str]:
    found, expected = evidence(one), evidence(other)
    both = found.keys() & expected.keys()
    assert {"run_log", "accuracy", "f1"} < both
    assert any(name.endswith("/scores") for name in both)
    return {name for name in both if found[name] != expected[name]}


@pytest.fixture(scope="module")
def between(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that was stopped when it had finished its second task."""
    folder = tmp_path_factory.mktemp("between")
    experiment = cut(settings, folder, after=21)
    store = CheckpointStore(experiment / "checkpoints")
    for entry in store.entries():
        if entry.position.task == 2:
            entry.path.unlink()
    assert newest(experiment).cursor["phase"] == "done"
    return experiment


def test_every_setting_that_changes_the_trajectory_is_tried() -> None:
    changing = {name for name, impact in impacts().items() if impact is Impact.TRAJECTORY}
    assert OTHERS.keys() == changing


@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in OTHERS]
)
def test_a_fork_goes_on_like_a_run_that_accepts_the_change(
    settings: dict[str, Any], between: Path, tmp_path: Path, name: str
) -> None:
    change = {name: OTHERS[name]}
    child = fork(between, tmp_path / "child", **change)
    assert name in resume(child).changes("trajectory-changing")
    reference = as_accepted(settings, between, tmp_path, **change)
    assert differing(child, reference) == set()
    assert newest(child).facts.settings[name] == OTHERS[name]
    assert events(child, "changed") == events(reference, "changed")
    assert not resume(child).changes("trajectory-changing")


@pytest.mark.parametrize("name", ["learning_rate", "lora_alpha", "pooling", "seed", "epochs"])
def test_inside_a_task_too(
    settings: dict[str, Any], stopped: Path, tmp_path: Path, name: str
) -> None:
    change = {name: OTHERS[name]}
    child = fork(stopped, tmp_path / "child", **change)
    resume(child)
    assert differing(child, as_accepted(settings, stopped, tmp_path, **change)) == set()


def test_a_fork_that_switches_validation_off_learns_every_epoch(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    patient = {**settings, "early_stopping_patience": 9, "epochs": 3}
    parent = cut(patient, tmp_path, after=6)
    assert newest(parent).cursor["phase"] == "validate"
    child = fork(parent, tmp_path / "child", early_stopping_patience=0)
    resume(child)
    assert len(events(child, "step")) == 3 * 3 * 5


def test_scores_of_another_scale_are_not_zero_by_construction(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    alone = {**settings, "shared": "none", "use_ewc": False}
    child = fork(cut(alone, tmp_path), tmp_path / "child", lora_alpha=40)
    assert "evaluation on animals" in resume(child).activities
    results = json.loads((child / "results" / "final_results.json").read_text())
    assert results["zero_by_construction"] == {}


def test_the_checkpoint_of_a_fork_is_its_parents_byte_for_byte(
    stopped: Path, tmp_path: Path
) -> None:
    child = fork(stopped, tmp_path / "child", lambda_ewc=1.0)
    (entry,) = CheckpointStore(child / "checkpoints").entries()
    data = entry.path.read_bytes()
    assert data == (stopped / "checkpoints" / entry.path.name).read_bytes()
    lineage = json.loads((child / "lineage.json").read_text())
    assert lineage["sha256"] == hashlib.sha256(data).hexdigest()
    assert lineage["accepted"] == ["lambda_ewc: 100.0 -> 1.0"]


def test_what_the_fork_did_not_ask_for_is_not_accepted(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child = fork(stopped, tmp_path / "child", lambda_ewc=1.0)
    argv = ["--config", str(child / "config.yaml"), "--resume", "--quiet"]
    capsys.readouterr()
    assert train_main([*argv, "--lambda-ewc", "2"]) == 2
    assert "lambda_ewc: 100.0 in the checkpoint, now 2.0" in capsys.readouterr().err
    assert train_main([*argv, "--learning-rate", "0.5"]) == 2
    said = capsys.readouterr().err
    assert "learning_rate: 0.01 in the checkpoint, now 0.5" in said
    assert "lambda_ewc" not in said


def test_what_a_fork_accepts_is_accepted_once(stopped: Path, tmp_path: Path) -> None:
    """Once something was computed with it, going back to the parent's settings is a change."""
    child = fork(stopped, tmp_path / "child", lambda_ewc=1.0)
    values = yaml.safe_load((child / "config.yaml").read_text())
    trainer = CLTrainer(reporter=Listener(3), **values)
    with pytest.raises(KeyboardInterrupt):
        trainer.train_sequence(resume=True)
    with pytest.raises(IncompatibleCheckpointError, match=r"lambda_ewc: 1\.0 in the checkpoint"):
        CLTrainer(**{**values, "lambda_ewc": 100.0}).train_sequence(resume=True)


def test_a_fork_of_a_finished_run_with_nothing_to_learn_otherwise_is_refused(
    settings: dict[str, Any], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["fork", str(whole), str(tmp_path / "no"), "--set", "learning_rate=0.5"]
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert "every task is learned" in said
    assert not (tmp_path / "no").exists()
    command = said.partition("(fork an earlier checkpoint: plora-cl checkpoints ")[2]
    advised = shlex.split(command.rstrip(")\n").replace("NEW-FOLDER", str(tmp_path / "yes")))
    assert advised[-1] == "learning_rate=0.5"
    assert main(advised) == 0
    same = fork(whole, tmp_path / "same")
    resume(same)
    assert evidence(same)["accuracy"] == evidence(whole)["accuracy"]


def test_a_fork_of_a_fork_keeps_what_nothing_was_computed_with_yet(
    settings: dict[str, Any], stopped: Path, tmp_path: Path
) -> None:
    child = fork(stopped, tmp_path / "child", lambda_ewc=1.0)
    grandchild = fork(child, tmp_path / "grandchild", learning_rate=0.02)
    resume(grandchild)
    both = {"lambda_ewc": 1.0, "learning_rate": 0.02}
    assert differing(grandchild, as_accepted(settings, stopped, tmp_path, **both)) == set()


def test_a_fork_with_other_settings_is_exported_when_it_has_gone_on(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = fork(stopped, tmp_path / "same")
    assert main(["export", str(same), "--out", str(tmp_path / "same.tar")]) == 0
    child = fork(stopped, tmp_path / "child", lambda_ewc=1.0)
    capsys.readouterr()
    assert main(["export", str(child), "--out", str(tmp_path / "a.tar")]) == 2
    assert "resume it first, or export" in capsys.readouterr().err
    resume(child)
    assert main(["export", str(child), "--out", str(tmp_path / "a.tar")]) == 0
