"""Several runs in one process, one inside the other: none changes a number that another draws."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from plora_cl.compute.random_state import Generators
from plora_cl.errors import TrainingError
from plora_cl.state import RandomState
from plora_cl.state_digest import state_digest
from plora_cl.training.trainer import CLTrainer
from training.evidence import evidence
from training.going_on import Listener, train

Settings = dict[str, Any]


def build(other: CLTrainer) -> None:
    assert other.run.model.tasks == 0


def learn(other: CLTrainer) -> None:
    other.train_sequence(overwrite=True)


def load(other: CLTrainer) -> None:
    learn(other)
    latest = other.get_latest_checkpoint()
    assert latest is not None
    other.load_checkpoint(latest)


class Meddles(Listener):
    """Does something with another trainer after the third step."""

    def __init__(self, meddle: Callable[[], None]) -> None:
        super().__init__()
        self._meddle, self._steps = meddle, 0

    def step(self, *_: object) -> None:
        self._steps += 1
        if self._steps == 3:
            self._meddle()


@pytest.fixture(scope="module")
def small(settings: Settings) -> Settings:
    changes = {"tasks": settings["tasks"][:2], "epochs": 1, "checkpoint_every": 1}
    return {**settings, **changes}


@pytest.fixture(scope="module")
def alone(small: Settings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return evidence(train(small, tmp_path_factory.mktemp("alone"))[0])


@pytest.mark.parametrize("meddle", [build, learn, load])
def test_a_run_learns_the_same_bits_whatever_another_one_does_meanwhile(
    small: Settings,
    alone: dict[str, Any],
    tmp_path: Path,
    meddle: Callable[[CLTrainer], None],
) -> None:
    other = CLTrainer(**{**small, "experiment_dir": str(tmp_path / "other"), "seed": 7})
    trainer = CLTrainer(
        reporter=Meddles(lambda: meddle(other)), **{**small, "experiment_dir": str(tmp_path)}
    )
    trainer.train_sequence()
    assert evidence(trainer.folder) == alone


def test_a_run_inside_another_one_learns_the_same_bits_as_alone(
    small: Settings, alone: dict[str, Any], tmp_path: Path
) -> None:
    inner = CLTrainer(**{**small, "experiment_dir": str(tmp_path / "inner")})
    outer = {**small, "experiment_dir": str(tmp_path), "seed": 7}
    CLTrainer(reporter=Meddles(lambda: learn(inner)), **outer).train_sequence()
    assert evidence(inner.folder) == alone


@pytest.mark.parametrize("meddle", [build, learn])
def test_a_trainer_in_another_thread_is_refused_while_one_learns(
    small: Settings, alone: dict[str, Any], tmp_path: Path, meddle: Callable[[CLTrainer], None]
) -> None:
    refused: list[str] = []

    def in_a_thread() -> None:
        with pytest.raises(TrainingError, match="at work in another thread") as caught:
            meddle(CLTrainer(**{**small, "experiment_dir": str(tmp_path / "other"), "seed": 7}))
        refused.append(str(caught.value))

    def meddle_in_a_thread() -> None:
        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()

    trainer = CLTrainer(
        reporter=Meddles(meddle_in_a_thread), **{**small, "experiment_dir": str(tmp_path)}
    )
    trainer.train_sequence()
    assert len(refused) == 1
    assert evidence(trainer.folder) == alone
    meddle(CLTrainer(**{**small, "experiment_dir": str(tmp_path / "other"), "seed": 7}))


def of_process() -> str:
    return state_digest(RandomState().state_dict())


def test_generators_are_in_the_process_while_they_are_in_effect_and_gone_afterwards() -> None:
    RandomState.seeded(1)
    before = of_process()
    one, other = Generators.seeded(2), Generators.seeded(3)
    assert of_process() == before
    with one.in_effect():
        first = torch.rand(3)
        drawn = of_process()
        with other.in_effect():
            torch.rand(5)
            assert state_digest(one.state_dict()) == drawn
            assert state_digest(other.state_dict()) == of_process() != drawn
            other.hand_over()
            one.hand_over()
            assert state_digest(other.state_dict()) == of_process() != drawn
        assert state_digest(one.state_dict()) == of_process() == drawn
        second = torch.rand(3)
    assert of_process() == before
    RandomState.seeded(2)
    assert torch.equal(torch.cat([first, second]), torch.cat([torch.rand(3), torch.rand(3)]))


def test_generators_that_are_rewound_inside_another_run_begin_there_when_their_turn_comes() -> None:
    one, other, wanted = Generators.seeded(2), Generators.seeded(3), Generators.seeded(4)
    with one.in_effect():
        with other.in_effect():
            one.load_state_dict(wanted.state_dict())
        assert of_process() == state_digest(wanted.state_dict())
