"""A training loop of the user's own: begin a task, save each batch, load, continue."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from plora_cl.checkpoint import load_checkpoint
from plora_cl.errors import CheckpointError, ExperimentExistsError, TrainingError
from plora_cl.state_digest import state_digest
from plora_cl.training.trainer import CLTrainer

EPOCHS = 2


class InterruptedLoopError(Exception):
    pass


def train(folder: Path, settings: dict[str, Any], stop_after: int | None = None) -> str:
    """Learn every task with plain SGD; return the digest of the model."""
    trainer = CLTrainer(**{**settings, "experiment_dir": str(folder), "use_orthogonal": False})
    latest = trainer.get_latest_checkpoint()
    states = None if latest is None else trainer.load_checkpoint(latest)
    first, batches = trainer.cursor.task, 0
    for task in range(first, len(settings["tasks"])):
        stage = trainer.begin_task() if states is None else trainer.stage
        optimizer = torch.optim.SGD(trainer.model.trainable().values(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
        epoch, batch = 0, 0
        if states is not None:
            optimizer.load_state_dict(states[0])
            scheduler.load_state_dict(states[1])
            epoch, batch = trainer.cursor.epoch, trainer.cursor.batch
            states = None
        while epoch < EPOCHS:
            texts = stage.stream.at(epoch, batch)
            trainer.model.train()
            logits = trainer.model(texts.input_ids, texts.attention_mask, texts.task)
            optimizer.zero_grad()
            functional.cross_entropy(logits, texts.labels).backward()
            optimizer.step()
            scheduler.step()
            trainer.save_checkpoint(
                task_idx=task,
                epoch=epoch,
                batch_idx=batch,
                optimizer=optimizer,
                scheduler=scheduler,
            )
            batches += 1
            if batches == stop_after:
                raise InterruptedLoopError
            epoch, batch = (epoch, batch + 1) if batch + 1 < len(stage.stream) else (epoch + 1, 0)
    return state_digest({n: p.state_dict() for n, p in trainer.model.parts().items()})


@pytest.mark.parametrize("stop_after", [1, 5, 9, 10, 11, 24])
def test_a_loop_of_the_users_own_resumes_to_the_bit(
    tmp_path: Path, settings: dict[str, Any], whole_loop: str, stop_after: int
) -> None:
    with pytest.raises(InterruptedLoopError):
        train(tmp_path, settings, stop_after)
    assert train(tmp_path, settings) == whole_loop


@pytest.fixture(scope="module")
def whole_loop(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("own-loop")
    digest = train(folder, settings)
    shutil.rmtree(folder)
    return digest


def test_a_task_begins_after_the_one_before_and_none_after_the_last(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    trainer = CLTrainer(**{**settings, "experiment_dir": str(tmp_path)})
    begun = [trainer.begin_task().name for _ in settings["tasks"]]
    assert begun == [Path(folder).name for folder in settings["tasks"]]
    assert trainer.model.tasks == trainer.cursor.task + 1 == len(begun)
    with pytest.raises(TrainingError, match="every task has begun; none is left"):
        trainer.begin_task()


def test_joint_training_begins_all_tasks_at_once(tmp_path: Path, settings: dict[str, Any]) -> None:
    joint: dict[str, Any] = {
        "joint": True,
        "task_adapters": False,
        "shared": "all",
        "use_orthogonal": False,
    }
    trainer = CLTrainer(**{**settings, **joint, "use_ewc": False, "experiment_dir": str(tmp_path)})
    stage = trainer.begin_task()
    assert [task.name for task in stage.tasks] == [Path(f).name for f in settings["tasks"]]
    assert trainer.stage is stage
    assert trainer.model.tasks == 3
    with pytest.raises(TrainingError, match="every task has begun"):
        trainer.begin_task()


def test_a_checkpoint_of_a_task_before_the_one_in_training_is_refused(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    trainer = CLTrainer(**{**settings, "experiment_dir": str(tmp_path)})
    trainer.begin_task()
    trainer.begin_task()
    before = trainer.cursor
    optimizer = torch.optim.SGD(trainer.model.trainable().values(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    with pytest.raises(CheckpointError, match=r"task 0 has no place for task 1, .* save one of"):
        trainer.save_checkpoint(
            task_idx=0, epoch=0, batch_idx=0, optimizer=optimizer, scheduler=scheduler
        )
    assert trainer.cursor == before
    assert trainer.get_latest_checkpoint() is None


class Loop:
    """A loop that a test takes step by step."""

    def __init__(self, folder: Path, settings: dict[str, Any], *, resumed: bool = False) -> None:
        self.trainer = CLTrainer(**{**settings, "experiment_dir": str(folder)})
        if resumed:
            latest = self.trainer.get_latest_checkpoint()
            assert latest is not None
            self.trainer.load_checkpoint(latest)
        else:
            self.trainer.begin_task()
        weights = list(self.trainer.model.trainable().values())
        self.optimizer = torch.optim.SGD(weights, lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 5)

    def save(self) -> Path:
        cursor = self.trainer.cursor
        return self.trainer.save_checkpoint(
            task_idx=cursor.task,
            epoch=cursor.epoch,
            batch_idx=cursor.batch,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
        )


def test_of_two_loops_in_one_folder_the_second_is_refused(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    first, second = Loop(tmp_path, settings), Loop(tmp_path, settings)
    first.save()
    with pytest.raises(ExperimentExistsError, match=r"already holds 1 checkpoint: call load_check"):
        second.save()
    first.save()
    third = Loop(tmp_path, settings, resumed=True)
    path = third.save()
    for late in (first, first, second):
        with pytest.raises(ExperimentExistsError, match=r"already holds|was written by another"):
            late.save()
    first.trainer.load_checkpoint(path)
    first.save()
    with pytest.raises(ExperimentExistsError, match="was written by another process or trainer"):
        third.save()


def test_a_loop_may_save_after_the_sequence_that_its_trainer_has_learned(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    trainer = CLTrainer(**{**settings, "experiment_dir": str(tmp_path), "epochs": 1})
    trainer.train_sequence()
    optimization = trainer.run.components.optimization
    assert optimization is not None
    trainer.save_checkpoint(
        task_idx=len(settings["tasks"]) - 1,
        epoch=0,
        batch_idx=0,
        optimizer=optimization.optimizer,
        scheduler=optimization.scheduler,
    )


def test_the_step_counts_the_batches_of_a_loop(tmp_path: Path, settings: dict[str, Any]) -> None:
    loop = Loop(tmp_path, settings)
    batches = len(loop.trainer.stage.stream)
    steps = []
    for _ in range(batches + 1):
        path = loop.save()
        steps.append(load_checkpoint(path).snapshot.cursor["step"])
    assert steps == list(range(1, batches + 2))
    assert (loop.trainer.cursor.epoch, loop.trainer.cursor.batch) == (1, 1)
    loop = Loop(tmp_path, settings, resumed=True)
    assert loop.trainer.cursor.step == batches + 1
    loop.save()
    loop.trainer.begin_task()
    loop.save()
    assert loop.trainer.cursor.step == batches + 3
