from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plora_cl.checkpoint.disk.lock import ExperimentLock, holder_of
from plora_cl.errors import (
    CheckpointNotFoundError,
    ExperimentExistsError,
    ExperimentLockedError,
    IncompatibleCheckpointError,
)
from plora_cl.state_digest import state_digest
from plora_cl.training.reporting import Reporter
from plora_cl.training.run.phases import learn
from plora_cl.training.trainer import CLTrainer
from plora_cl.units import Unit
from training.evidence import TIMED, evidence
from training.going_on import newest


class Listener(Reporter):
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.steps = 0
        self.activities: list[str] = []
        self.tables: list[tuple[str, Sequence[Sequence[str]]]] = []

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], /) -> None:
        self.tables.append((title, rows))

    def message(self, text: str, /) -> None:
        self.messages.append(text)

    def step(self, *_: object) -> None:
        self.steps += 1

    def activity(self, unit: Unit, /) -> None:
        if unit.done == unit.total:
            self.activities.append(unit.what)


@pytest.fixture(scope="module")
def finished(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    CLTrainer(**settings, experiment_dir=str(folder)).train_sequence()
    return folder / "run"


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def trainer(settings: dict[str, Any], experiment: Path, **changes: Any) -> CLTrainer:
    listener = changes.pop("reporter", None)
    return CLTrainer(
        reporter=listener, **{**settings, "experiment_dir": str(experiment.parent), **changes}
    )


def test_the_folder_is_as_documented(finished: Path) -> None:
    names = sorted(path.name for path in (finished / "checkpoints").glob("*.pt"))
    final = [f"checkpoint_task{k}_epoch1_batch4.pt" for k in range(3)]
    assert names == [*final[:2], "checkpoint_task2_epoch1_batch1.pt", final[2]]
    assert sorted(path.name for path in (finished / "results").iterdir()) == [
        "accuracy_matrix.npy",
        "computational_costs.json",
        "f1_matrix.npy",
        "final_results.json",
        "run_log.jsonl",
    ]
    assert (finished / "config.yaml").exists()


def test_cells_never_evaluated_are_not_zero(finished: Path) -> None:
    results = json.loads((finished / "results" / "final_results.json").read_text())
    matrix = np.load(finished / "results" / "accuracy_matrix.npy")
    assert results["accuracy_matrix"][0][2] is None
    assert np.isnan(matrix[0, 2])
    assert np.isfinite(matrix[np.tril_indices(3)]).all()
    assert isinstance(results["forward_transfer"], float)
    identity = results["learning_accuracy"] + 2 / 3 * results["backward_transfer"]
    assert results["average_accuracy"] == pytest.approx(identity, abs=1e-12)


def test_the_run_log_has_every_step_once(finished: Path) -> None:
    lines = (finished / "results" / "run_log.jsonl").read_text().splitlines()
    steps = [r["step"] for r in map(json.loads, lines) if r["event"] == "step"]
    assert steps == list(range(1, 31))


def test_a_checkpoint_opens_with_plain_torch(finished: Path) -> None:
    path = finished / "checkpoints" / "checkpoint_task2_epoch1_batch4.pt"
    tree = torch.load(path, weights_only=True)
    assert tree["trained_tasks"] == ["animals", "weather", "food"]
    assert tree["cursor"]["phase"] == "done"
    assert tree["seed"] == 42
    assert {"model/base", "model/adapter-0", "model/head-2"} <= tree["objects"].keys()
    objects = finished / "checkpoints" / "objects"
    for ref in tree["objects"].values():
        assert (objects / f"{ref['sha256']}.safetensors").stat().st_size == ref["bytes"]


def test_a_folder_with_checkpoints_is_refused(copy: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ExperimentExistsError, match=r"--resume.*--overwrite.*--experiment-name"):
        trainer(settings, copy).train_sequence()


def test_overwriting_starts_afresh(copy: Path, finished: Path, settings: dict[str, Any]) -> None:
    listener = Listener()
    trainer(settings, copy, reporter=listener).train_sequence(overwrite=True)
    assert listener.steps == 30
    assert evidence(copy) == evidence(finished)


def test_resuming_a_finished_run_trains_no_step_and_rewrites_missing_results(
    copy: Path, finished: Path, settings: dict[str, Any]
) -> None:
    (copy / "results" / "final_results.json").unlink()
    listener = Listener()
    trainer(settings, copy, reporter=listener).train_sequence(resume=True)
    assert listener.steps == 0
    assert any("already learned" in message for message in listener.messages)
    assert evidence(copy) == evidence(finished)


def test_resuming_from_nothing_is_an_error(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"No checkpoint found in .*checkpoints"):
        trainer(settings, tmp_path / "run").train_sequence(resume=True)


def test_a_run_may_go_on_from_any_checkpoint(
    copy: Path, finished: Path, settings: dict[str, Any]
) -> None:
    listener = Listener()
    first = copy / "checkpoints" / "checkpoint_task0_epoch1_batch4.pt"
    trainer(settings, copy, reporter=listener).train_sequence(resume=first)
    assert listener.messages[:3] == [
        f"Loading checkpoint from {first}...",
        f"harmless: experiment_dir: {str(finished.parent)!r} -> {str(copy.parent)!r}",
        "Checkpoint loaded! Resuming from task 0, epoch 2, batch 0",
    ]
    assert listener.steps == 20
    assert evidence(copy) == evidence(finished)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 1.0])
def test_a_flipped_byte_of_a_finished_run_costs_the_steps_since_the_checkpoint_before(
    copy: Path,
    finished: Path,
    settings: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    part: float,
) -> None:
    newest = copy / "checkpoints" / "checkpoint_task2_epoch1_batch4.pt"
    data = bytearray(newest.read_bytes())
    data[int(part * (len(data) - 1))] ^= 1
    newest.write_bytes(data)
    os.utime(newest)
    listener = Listener()
    trainer(settings, copy, reporter=listener).train_sequence(resume=True)
    assert "checkpoint_task2_epoch1_batch4.pt" in caplog.text
    assert listener.steps == 3
    assert evidence(copy) == evidence(finished)


def test_a_run_of_one_task_that_is_finished_survives_a_flipped_byte(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    one = {**settings, "tasks": settings["tasks"][:1]}
    trainer(one, tmp_path / "run").train_sequence()
    expected = evidence(tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "checkpoint_task0_epoch1_batch4.pt"
    newest.write_bytes(newest.read_bytes()[:-1])
    trainer(one, tmp_path / "run").train_sequence(resume=True)
    assert evidence(tmp_path / "run") == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora_r": 4}, r"state_dict size mismatch: lora_r: 2 in the checkpoint, now 4"),
        ({"learning_rate": 0.02}, r"learning_rate: 0.01 in the checkpoint, now 0.02"),
        ({"epochs": 3, "seed": 1}, r"epochs: 2 in the checkpoint, now 3; seed: 42 in"),
        ({"seed": 1}, r"every task is learned, .* seed: 42 in the checkpoint, now 1"),
    ],
)
def test_other_settings_than_a_finished_run_had_are_refused_by_name(
    copy: Path, settings: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(IncompatibleCheckpointError, match=message):
        trainer(settings, copy, **change).train_sequence(resume=True)


def test_checkpoints_can_be_switched_off(tmp_path: Path, settings: dict[str, Any]) -> None:
    trainer(settings, tmp_path / "run", checkpoint_every=0).train_sequence()
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert (tmp_path / "run" / "results" / "final_results.json").exists()


def test_a_run_with_saves_is_bitwise_the_run_without(
    tmp_path: Path, finished: Path, settings: dict[str, Any]
) -> None:
    trainer(settings, tmp_path / "run", checkpoint_every=0).train_sequence()
    log = Path("results", "run_log.jsonl")
    assert (tmp_path / "run" / log).read_bytes() == (finished / log).read_bytes()


def test_scores_that_nothing_could_change_are_reused_and_said_to_be(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    listener = Listener()
    results = trainer(
        settings, tmp_path / "run", shared="none", use_ewc=False, reporter=listener
    ).train_sequence()
    evaluations = [what for what in listener.activities if what.startswith("evaluation")]
    assert len(evaluations) == 3
    assert results["backward_transfer"] == 0
    zeros = {"backward_transfer", "forgetting", "forward_transfer"}
    assert results["zero_by_construction"].keys() == zeros
    assert all(results[name] == results["f1"][name] == 0 for name in zeros)
    (cells,) = (rows for title, rows in listener.tables if title == "Continual learning")
    marked = {name for name, value in cells if value == "+0.0000 (zero by construction)"}
    assert marked == {name.replace("_", " ") for name in zeros}
    (reason,) = set(results["zero_by_construction"].values())
    assert f"Zero by construction: {reason}" in listener.messages


def test_what_a_method_cannot_reach_is_said_at_the_start_and_in_the_results(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    for composition, reached in (("isolated", False), ("cumulative", True)):
        listener = Listener()
        results = trainer(
            settings, tmp_path / composition / "run", composition=composition, reporter=listener
        ).train_sequence()
        notes = [text for text in listener.messages if "Note: olora has no effect on" in text]
        assert len(notes) == (0 if reached else 2)
        assert bool(results["methods"]["olora"]["no_effect_on"]) != reached


def test_the_reports_of_methods_are_in_the_results_and_in_the_log(finished: Path) -> None:
    results = json.loads((finished / "results" / "final_results.json").read_text())
    log = (finished / "results" / "run_log.jsonl").read_text().splitlines()
    reports = [r["report"] for r in map(json.loads, log) if r["event"] == "methods"]
    assert [len(report["ewc"]["fisher"]) for report in reports] == [1, 2, 3]
    assert reports[-1] == results["methods"]
    assert [a["task"] for a in results["methods"]["olora"]["adapters"]] == [0, 1, 2]


def test_early_stopping_keeps_the_best_epoch_and_survives_a_resume(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    changes = {"early_stopping_patience": 1, "epochs": 4, "learning_rate": 0.05}
    trainer(settings, tmp_path / "whole" / "run", **changes).train_sequence()

    class Cut(Listener):
        def step(self, *_: object) -> None:
            super().step()
            if self.steps == 8:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(settings, tmp_path / "cut" / "run", **changes, reporter=Cut()).train_sequence()
    trainer(settings, tmp_path / "cut" / "run", **changes).train_sequence(resume=True)
    assert evidence(tmp_path / "cut" / "run") == evidence(tmp_path / "whole" / "run")


@pytest.mark.parametrize(
    "change",
    [
        {"composition": "cumulative"},
        {"gradient_accumulation_steps": 2},
        {"ewc_mode": "offline", "ewc_fisher": "exact"},
        {"precision": "bf16"},
        {"pooling": "mean", "shared": "embeddings"},
    ],
)
def test_other_ways_to_train_resume_exactly_too(
    tmp_path: Path, settings: dict[str, Any], change: dict[str, Any]
) -> None:
    class Cut(Listener):
        def step(self, *_: object) -> None:
            super().step()
            if self.steps == 13:
                raise KeyboardInterrupt

    trainer(settings, tmp_path / "whole" / "run", **change).train_sequence()
    with pytest.raises(KeyboardInterrupt):
        trainer(settings, tmp_path / "cut" / "run", **change, reporter=Cut()).train_sequence()
    trainer(settings, tmp_path / "cut" / "run", **change).train_sequence(resume=True)
    assert evidence(tmp_path / "cut" / "run") == evidence(tmp_path / "whole" / "run")


def test_checkpoints_can_be_saved_and_loaded_by_hand(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    first = trainer(settings, tmp_path / "run")
    first.begin_task()
    parameters = list(first.model.trainable().values())
    optimizer = torch.optim.AdamW(parameters, lr=0.1)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer)
    torch.stack([p.square().sum() for p in parameters]).sum().backward()
    optimizer.step()
    scheduler.step()
    path = first.save_checkpoint(
        task_idx=0, epoch=1, batch_idx=3, optimizer=optimizer, scheduler=scheduler, loss=0.5
    )
    assert path.name == "checkpoint_task0_epoch1_batch3.pt"

    second = trainer(settings, tmp_path / "run")
    latest = second.get_latest_checkpoint()
    assert latest == path
    optimizer_state, scheduler_state = second.load_checkpoint(str(latest))
    assert scheduler_state["last_epoch"] == 1
    for mine, theirs in zip(parameters, second.model.trainable().values(), strict=True):
        assert torch.equal(mine, theirs)
    twin = torch.optim.AdamW(list(second.model.trainable().values()), lr=0.1)
    twin.load_state_dict(optimizer_state)
    for mine, theirs in zip(parameters, second.model.trainable().values(), strict=True):
        assert torch.equal(optimizer.state[mine]["exp_avg"], twin.state[theirs]["exp_avg"])


def test_a_checkpoint_is_saved_by_hand_by_nobody_but_the_holder_of_the_lock(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    mine = trainer(settings, tmp_path / "run")
    mine.begin_task()
    assert mine.run.components.optimization is not None
    steps = {
        "optimizer": mine.run.components.optimization.optimizer,
        "scheduler": mine.run.components.optimization.scheduler,
    }
    with (
        ExperimentLock.acquire(tmp_path / "run"),
        pytest.raises(ExperimentLockedError, match="in use by process"),
    ):
        mine.save_checkpoint(task_idx=0, epoch=0, batch_idx=0, **steps)
    assert mine.get_latest_checkpoint() is None
    path = mine.save_checkpoint(task_idx=0, epoch=0, batch_idx=0, **steps)
    assert mine.get_latest_checkpoint() == path
    assert not holder_of(tmp_path / "run")


def test_a_checkpoint_may_be_saved_by_hand_while_the_same_trainer_trains(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    class Saves(Listener):
        def step(self, *_: object) -> None:
            super().step()
            if self.steps == 2:
                optimization = mine.run.components.optimization
                assert optimization is not None
                mine.run.checkpointer.flush()
                saved.append(
                    mine.save_checkpoint(
                        task_idx=0,
                        epoch=0,
                        batch_idx=1,
                        optimizer=optimization.optimizer,
                        scheduler=optimization.scheduler,
                    )
                )
                assert holder_of(tmp_path / "run")
                raise KeyboardInterrupt

    saved: list[Path] = []
    mine = trainer(settings, tmp_path / "run", reporter=Saves())
    with pytest.raises(KeyboardInterrupt):
        mine.train_sequence()
    assert [path.name for path in saved] == ["checkpoint_task0_epoch0_batch1.pt"]


def test_a_refused_checkpoint_leaves_the_run_as_it_is(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    used = trainer(settings, tmp_path / "run")
    used.train_sequence()
    before = used.run
    path = next((tmp_path / "run").rglob("checkpoint_task0_*.pt"))
    used.settings = used.settings.model_copy(update={"learning_rate": 0.5})
    with pytest.raises(IncompatibleCheckpointError, match="learning_rate"):
        used.load_checkpoint(path)
    assert used.run is before


def test_a_checkpoint_of_an_earlier_task_is_loaded_without_what_came_later(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    used = trainer(settings, tmp_path / "run", composition="cumulative")
    used.train_sequence()
    path = next((tmp_path / "run").rglob("checkpoint_task0_*.pt"))
    fresh = trainer(settings, tmp_path / "run", composition="cumulative")
    for each in (used, fresh):
        each.load_checkpoint(path)
    assert used.run.model.tasks == fresh.run.model.tasks == 1
    assert list(used.run.model.trainable()) == list(fresh.run.model.trainable())
    batch = next(used.run.components.tasks[0].test.in_order(8))
    with torch.no_grad():
        mine, theirs = (
            each.run.model.eval()(batch.input_ids, batch.attention_mask, 0)
            for each in (used, fresh)
        )
    assert torch.equal(mine, theirs)


class SavesByHand(Listener):
    """Saves by hand after some steps of the first task, and perhaps stops after the last of them.

    Args:
        after: Steps of a run with 5 batches an epoch.
        stop: Interrupt the run then, before it saves itself.
    """

    def __init__(self, *after: int, stop: bool = False) -> None:
        super().__init__()
        self._after, self._stop = after, stop
        self.trainer: CLTrainer | None = None

    def step(self, *arguments: object) -> None:
        super().step()
        if self.steps not in self._after:
            return
        assert self.trainer is not None
        optimization = self.trainer.run.components.optimization
        assert optimization is not None
        self.trainer.save_checkpoint(
            task_idx=0,
            epoch=(self.steps - 1) // 5,
            batch_idx=(self.steps - 1) % 5,
            optimizer=optimization.optimizer,
            scheduler=optimization.scheduler,
        )
        if self._stop:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("changes", "after"),
    [
        ({}, 3),
        ({}, 5),
        ({}, 10),
        ({"early_stopping_patience": 1, "epochs": 3, "learning_rate": 0.05}, 5),
        ({"early_stopping_patience": 1, "epochs": 3, "learning_rate": 0.05}, 10),
    ],
)
def test_a_run_goes_on_exactly_from_a_checkpoint_saved_by_hand(
    tmp_path: Path, settings: dict[str, Any], changes: dict[str, Any], after: int
) -> None:
    trainer(settings, tmp_path / "whole" / "run", **changes).train_sequence()
    by_hand = SavesByHand(after, stop=True)
    mine = trainer(settings, tmp_path / "cut" / "run", **changes, reporter=by_hand)
    by_hand.trainer = mine
    with pytest.raises(KeyboardInterrupt):
        mine.train_sequence()
    again = trainer(settings, tmp_path / "cut" / "run", **changes)
    again.train_sequence(resume=mine.get_latest_checkpoint() or "none")
    assert evidence(tmp_path / "cut" / "run") == evidence(tmp_path / "whole" / "run")


def test_a_checkpoint_saved_by_hand_leaves_the_run_that_trains_as_it_is(
    tmp_path: Path, settings: dict[str, Any], finished: Path
) -> None:
    by_hand = SavesByHand(2, 5, 7)
    mine = trainer(settings, tmp_path / "run", reporter=by_hand)
    by_hand.trainer = mine
    mine.train_sequence()
    assert evidence(tmp_path / "run") == evidence(finished)


def test_trainers_of_different_precision_in_one_process_keep_their_own(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    def learned(name: str, *others: str) -> dict[str, str]:
        run = trainer(settings, tmp_path / name / "run", precision="bf16").run
        for other in others:
            assert trainer(settings, tmp_path / other / "run", precision=other).run is not run
        learn(run)
        state = newest(tmp_path / name / "run").state
        return {part: state_digest(state[part]) for part in state if part not in TIMED}

    alone, default = learned("alone"), torch.get_autocast_dtype("cpu")
    torch.set_autocast_dtype("cpu", torch.float16)  # as CUDA has it: a dtype left out shows
    try:
        assert learned("beside", "fp32") == alone
    finally:
        torch.set_autocast_dtype("cpu", default)


@pytest.mark.fault
@pytest.mark.parametrize("resume", ["auto", False])
def test_writes_that_a_killed_process_left_go_when_a_run_begins_or_goes_on(
    settings: dict[str, Any], copy: Path, resume: str | bool
) -> None:
    places = (copy, copy / "results", copy / "checkpoints", copy / "checkpoints" / "objects")
    for place in places:
        (place / ".name.of-no-process.partial").write_bytes(b"half")
    CLTrainer(**{**settings, "experiment_dir": str(copy.parent)}).train_sequence(
        resume=resume, overwrite=not resume
    )
    assert not list(copy.rglob("*.partial"))


@pytest.mark.fault
def test_a_run_that_was_killed_while_it_wrote_its_settings_starts_again(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.yaml.of-no-process.partial").write_bytes(b"half")
    here = {**settings, "experiment_dir": str(tmp_path), "epochs": 1, "checkpoint_every": 0}
    CLTrainer(**here).train_sequence(resume="auto")
    assert not list(tmp_path.rglob("*.partial"))
