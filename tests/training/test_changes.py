"""Changes that a run goes on with: shown, refused until accepted, and in effect."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from plora_cl.checkpoint.format.tensor_object import decode_object
from plora_cl.checkpoint.snapshot.codec import decode
from plora_cl.checkpoint.snapshot.compatibility import moved_generators
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.cli.train.command import main
from plora_cl.training.trainer import CLTrainer
from training.evidence import evidence
from training.going_on import (
    Listener,
    copied_encoder,
    copied_tasks,
    cut,
    events,
    newest,
    refusal,
    train,
)

# --- harmless


def test_what_cannot_change_the_trajectory_is_shown_and_changes_no_bit(
    settings: dict[str, Any], stopped: Path, whole: Path, tmp_path: Path
) -> None:
    elsewhere: dict[str, Any] = {
        "model_name": str(copied_encoder(settings, tmp_path)),
        "tasks": copied_tasks(settings, tmp_path / "tasks"),
        "cache_dir": str(tmp_path / "cache"),
        "experiment_name": "moved",
        "keep_last_n_checkpoints": 2,
        "checkpoint_every": 2,
        "checkpoint_disk_budget": 10**9,
        "async_checkpoint": False,
    }
    shutil.copytree(stopped, tmp_path / "moved")
    experiment, listener = train(settings, tmp_path, **elsewhere)
    assert listener.changes("harmless") == {*elsewhere, "experiment_dir"}
    assert not listener.changes("trajectory-changing")
    assert not events(experiment, "changed")
    found, expected = evidence(experiment), evidence(whole)
    both = found.keys() & expected.keys()
    assert {"run_log", "accuracy", "checkpoint_task2_epoch1_batch4.pt/optimizer"} <= both
    assert {name for name in both if found[name] != expected[name]} == set()


def test_another_host_is_harmless(
    settings: dict[str, Any], here: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    experiment, listener = train(settings, here)
    assert listener.changes("harmless") == {"experiment_dir", "environment.host"}
    assert evidence(experiment) == evidence(whole)


def test_the_generator_of_the_gpu_in_use_moves_with_the_run() -> None:
    assert moved_generators(["a", "b"], ["x", "y"], before=1, now=1) == ["a", "b"]
    assert moved_generators(["a", "b"], ["x", "y"], before=0, now=1) == ["x", "a"]
    assert moved_generators(["a", "b"], ["x"], before=1, now=0) == ["b"]
    assert moved_generators(["a"], ["x", "y"], before=0, now=0) == ["a", "y"]
    assert moved_generators([], ["x"], before=0, now=0) == ["x"]
    assert moved_generators(["a"], [], before=0, now=0) == []


# --- trajectory-changing


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.02},
        {"epochs": 3},
        {"seed": 1},
        {"weight_decay": 0.5},
        {"lambda_ewc": 1.0},
        {"eval_batch_size": 3},
        {"max_eval_examples": 9},
        {"early_stopping_patience": 2},
        {"pooling": "mean"},
        {"precision": "bf16"},
        {"lora_alpha": 8},
        {"lora_dropout": 0.5},
        {"max_length": 6},
    ],
)
def test_what_changes_the_trajectory_is_shown_refused_and_accepted_on_demand(
    settings: dict[str, Any], here: Path, whole: Path, change: dict[str, Any]
) -> None:
    (key,) = change
    said = refusal(settings, here, **change)
    assert re.search(rf"{re.escape(key)}: .+ in the checkpoint, now ", said)
    assert "--accept-changes" in said
    experiment, listener = train(settings, here, accept=True, **change)
    assert key in listener.changes("trajectory-changing")
    (event,) = events(experiment, "changed")
    assert (event["step"], event["task"]) == (12, 1)
    assert {
        "key": key,
        "checkpoint": repr(newest(whole).facts.settings[key]),
        "now": repr(change[key]),
    } in event["changes"]
    assert newest(experiment).facts.settings[key] == change[key]
    same = newest(experiment).objects["model/head-1"] == newest(whole).objects["model/head-1"]
    assert same == (key in {"eval_batch_size", "max_eval_examples"})
    # Once accepted and saved, it is the run's own.
    _, listener = train({**settings, **change}, here)
    assert not listener.changes("trajectory-changing")
    assert len(events(experiment, "changed")) == 1


def test_the_command_refuses_with_exit_code_2_and_shows_the_difference(
    settings: dict[str, Any], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = here / "config.yaml"
    config.write_text(yaml.safe_dump({**settings, "learning_rate": 0.02}))
    argv = ["--config", str(config), "--experiment-dir", str(here), "--resume", "auto"]
    assert main(argv) == 2
    shown = capsys.readouterr()
    assert "trajectory-changing: learning_rate: 0.01 -> 0.02" in shown.out.splitlines()
    assert len(shown.err.splitlines()) == 1
    assert shown.err.startswith("Error: ")
    assert "learning_rate: 0.01 in the checkpoint, now 0.02" in shown.err
    assert "--accept-changes" in shown.err
    assert main([*argv, "--accept-changes"]) == 0
    assert "trajectory-changing: learning_rate: 0.01 -> 0.02" in capsys.readouterr().out


def test_every_change_is_listed_in_one_refusal(settings: dict[str, Any], here: Path) -> None:
    said = refusal(settings, here, learning_rate=0.02, seed=1, lora_r=4)
    assert said.startswith("state_dict size mismatch: ")
    assert "learning_rate: 0.01 in the checkpoint, now 0.02; lora_r: 2 in the checkpoint" in said
    assert "seed: 42 in the checkpoint, now 1" in said


def test_a_new_rate_is_what_the_optimizer_applies_from_the_next_step_on(
    settings: dict[str, Any], here: Path
) -> None:
    experiment, _ = train(settings, here, accept=True, learning_rate=0.5, max_grad_norm=1e-6)
    rates = {r["step"]: r["learning_rate"] for r in events(experiment, "step")}
    # 10 steps a task, of which the first is the warm-up
    decay = [0.0, *((10 - k) / 9 for k in range(1, 10))]
    assert [rates[step] for step in range(11, 13)] == pytest.approx([0.01 * s for s in decay[:2]])
    assert [rates[step] for step in range(13, 21)] == pytest.approx([0.5 * s for s in decay[2:]])
    assert [rates[step] for step in range(21, 31)] == pytest.approx([0.5 * s for s in decay])


def test_the_optimizer_and_its_schedule_hold_the_new_values(
    settings: dict[str, Any], here: Path
) -> None:
    changes = {"learning_rate": 0.5, "weight_decay": 0.25}
    trainer = CLTrainer(
        reporter=Listener(1), **{**settings, "experiment_dir": str(here), **changes}
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.train_sequence(resume=True, accept_changes=True)
    assert trainer.run.components.optimization is not None
    groups = trainer.run.components.optimization.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.25, 0.0]
    assert [group["initial_lr"] for group in groups] == [0.5, 0.5]
    assert trainer.run.components.optimization.scheduler.base_lrs == [0.5, 0.5]


@pytest.mark.parametrize(("change", "steps"), [({"epochs": 3}, 15), ({"warmup_ratio": 0.5}, 10)])
def test_a_new_schedule_takes_effect_inside_a_task(
    settings: dict[str, Any], here: Path, change: dict[str, Any], steps: int
) -> None:
    experiment, _ = train(settings, here, accept=True, **change)
    reference, _ = train({**settings, **change}, here.parent / "afresh")
    rates, expected = (
        {(r["task"], r["epoch"], r["batch"]): r["learning_rate"] for r in events(e, "step")}
        for e in (experiment, reference)
    )
    later = [at for at in expected if at > (1, 0, 1)]
    assert len([at for at in later if at[0] == 1]) == steps - 2
    assert [rates[at] for at in later] == [expected[at] for at in later]


def test_a_new_decay_shrinks_what_it_should(settings: dict[str, Any], here: Path) -> None:
    name = "checkpoint_task1_epoch1_batch4.pt"

    def weights(**changes: Any) -> float:
        folder = here.parent / f"{len(changes)}"
        shutil.copytree(here, folder)
        experiment, _ = train(settings, folder, accept=True, **changes)
        store = CheckpointStore(experiment / "checkpoints")
        entry = next(e for e in store.entries() if e.path.name == name)
        ref = decode(store.read(entry)).objects["model/head-1"]
        return float(decode_object(store.objects.get(ref))["weight"].norm())

    assert weights(weight_decay=20.0) < 0.8 * weights()


def test_a_new_seed_draws_other_dropout_masks(settings: dict[str, Any], here: Path) -> None:
    trainer = CLTrainer(
        reporter=Listener(1), **{**settings, "experiment_dir": str(here), "seed": 1}
    )
    before = newest(here / "run").state["random"]["torch"]
    applied: list[torch.Tensor] = []
    trainer._reporter.task_started = lambda *_: applied.append(torch.get_rng_state())  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.train_sequence(resume=True, accept_changes=True)
    assert not torch.equal(applied[0], before)


def test_scores_of_other_settings_are_measured_again(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    alone = {**settings, "shared": "none", "use_ewc": False}
    cut(alone, tmp_path)
    _, listener = train(alone, tmp_path, accept=True, lora_alpha=40)
    assert "evaluation on animals" in listener.activities


def test_validation_that_is_switched_off_ends_no_task(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    patient = {**settings, "early_stopping_patience": 9}
    experiment = cut(patient, tmp_path, after=6)  # one step later
    assert newest(experiment).cursor["phase"] == "validate"
    train(patient, tmp_path, accept=True, early_stopping_patience=0)
    assert [r["step"] for r in events(experiment, "step")] == list(range(1, 31))
    assert not events(experiment, "validation")


@pytest.mark.parametrize(
    ("steps", "phase", "epochs", "ended"),
    [
        (17, "train", 3, "ended after all 3 epochs"),
        (17, "train", 2, "ended after epoch 3, 2 are planned now"),
        (16, "validate", 2, "ended after epoch 3, 2 are planned now"),
    ],
)
def test_a_task_that_ends_at_once_for_fewer_epochs_ends_with_its_best_weights(
    settings: dict[str, Any], tmp_path: Path, steps: int, phase: str, epochs: int, ended: str
) -> None:
    changes = {"early_stopping_patience": 3, "learning_rate": 0.05, "checkpoint_every": 1}
    patient = {**settings, **changes, "tasks": settings["tasks"][:1], "epochs": 4}
    before = newest(cut(patient, tmp_path, after=steps))
    assert before.cursor["phase"] == phase
    best = before.state["early_stopping"]
    assert best["stale"] == (2 if phase == "train" else 1)  # those of the first epoch
    experiment, listener = train(patient, tmp_path, accept=True, epochs=epochs)
    (verdict,) = [text for text in listener.messages if "weights of" in text]
    assert f"{ended}; restored the weights of epoch 1 (" in verdict
    assert len(events(experiment, "step")) == steps - 1
    store = CheckpointStore(experiment / "checkpoints")
    done = newest(experiment)
    parts = [decode_object(store.objects.get(ref)) for ref in done.objects.values()]
    parts.append(done.state["model/shared"])
    found = [tensor for part in parts for tensor in part.values()]
    for weights in best["weights"].values():
        assert any(w.shape == weights.shape and torch.equal(w, weights) for w in found)


# --- the environment


def test_another_number_of_threads_is_refused_and_accepted_on_demand(
    settings: dict[str, Any], here: Path
) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        said = refusal(settings, here)
        experiment, listener = train(settings, here, accept=True)
    finally:
        torch.set_num_threads(threads)
    assert f"environment.threads: {threads} in the checkpoint, now {threads + 1}" in said
    assert listener.changes("trajectory-changing") == {"environment.threads"}
    (event,) = events(experiment, "changed")
    assert [change["key"] for change in event["changes"]] == ["environment.threads"]


def test_another_version_of_a_library_is_refused(
    settings: dict[str, Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plora_cl.compute.environment._version", lambda name: f"{name} 0")
    said = refusal(settings, here)
    for library in ("torch", "transformers", "peft", "accelerate", "numpy", "tokenizers"):
        assert re.search(rf"environment\.{library}: .+ in the checkpoint, now ", said)


def test_a_run_whose_test_splits_changed_publishes_what_it_measured(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """Its scores differ although nothing is forgotten, so that no zero is by construction."""
    alone = {**settings, "shared": "none", "use_ewc": False}
    cut(alone, tmp_path)
    experiment, _ = train(alone, tmp_path, accept=True, max_eval_examples=5)
    results = json.loads((experiment / "results" / "final_results.json").read_text())
    assert results["zero_by_construction"] == {}
    assert results["tasks"][0]["test"] == 5
    afresh, _ = train(alone, tmp_path / "afresh")
    results = json.loads((afresh / "results" / "final_results.json").read_text())
    assert set(results["zero_by_construction"]) == {
        "backward_transfer",
        "forgetting",
        "forward_transfer",
    }
