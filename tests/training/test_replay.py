"""Whole runs with generative replay by a tiny language model, stopped while it writes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from generators import make_generator
from plora_cl.checkpoint.encoding import decode
from plora_cl.checkpoint.store import CheckpointStore
from plora_cl.errors import MethodError, RunStoppedError
from plora_cl.methods.replay import GenerativeReplay
from plora_cl.state import Phase
from plora_cl.training import run as run_module
from plora_cl.training.reporting import SilentReporter
from plora_cl.training.stopping import StopRequest
from plora_cl.training.trainer import CLTrainer
from training.evidence import evidence
from training.going_on import events, newest


class PowerCut(BaseException):
    """Not an Exception: nothing may catch it."""


class Writing(SilentReporter):
    """Counts the units of writing, and does something at the chosen one."""

    def __init__(self, at: int = 0, act: Callable[[], None] | None = None) -> None:
        self.units: list[tuple[str, int, int]] = []
        self._at, self._act = at, act

    def activity(self, what: str, done: int, total: int, /) -> None:
        if what.startswith("replay"):
            self.units.append((what, done, total))
            if len(self.units) == self._at and self._act is not None:
                self._act()


def cut() -> None:
    raise PowerCut


@pytest.fixture(scope="module")
def replaying(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a run in which each later task is preceded by several chunks of writing."""
    words = [w for task in tiny.TOPICS.values() for text in task.values() for w in text.split()]
    folder = make_generator(tmp_path_factory.mktemp("generator"), [*words, *tiny.FILLER])
    return {
        **settings,
        "cache_dir": str(tmp_path_factory.mktemp("cache")),
        "use_replay": True,
        "replay_ratio": 0.3,
        "generation_model": str(folder),
        "generation_batch_size": 4,
        "max_gen_length": 6,
        "keep_last_n_checkpoints": 9,
    }


def train(folder: Path, settings: dict[str, Any], **parts: Any) -> Path:
    trainer = CLTrainer(**{**settings, "experiment_dir": str(folder)}, **parts)
    trainer.train_sequence(resume="auto")
    return trainer.folder


@pytest.fixture(scope="module")
def whole(
    replaying: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Writing]:
    counter = Writing()
    return train(tmp_path_factory.mktemp("whole"), replaying, reporter=counter), counter


@pytest.fixture(scope="module")
def expected(whole: tuple[Path, Writing]) -> dict[str, Any]:
    return evidence(whole[0])


def uncached(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return ``settings`` with a cache that holds no generated text."""
    return {**settings, "cache_dir": str(folder / "cache")}


def test_each_later_task_is_preceded_by_writing(whole: tuple[Path, Writing]) -> None:
    folder, counter = whole
    assert len(counter.units) >= 8
    assert {what for what, _, _ in counter.units} == {
        "replay: writing animals",
        "replay: writing weather",
        "replay: writing",
    }
    assert all(0 <= done <= total == 12 for _, done, total in counter.units)
    assert [unit[1:] for unit in counter.units].count((12, 12)) >= 2
    names = [path.name for path in (folder / "checkpoints").glob("*_epoch0_batch0.pt")]
    assert names == []  # kept for the task in training only, and nothing is written for the last


def test_a_run_whose_power_fails_at_any_unit_ends_like_one_that_was_not_stopped(
    tmp_path: Path,
    replaying: dict[str, Any],
    whole: tuple[Path, Writing],
    expected: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_module, "_SECONDS_BETWEEN_PREPARATION_SAVES", 0.0)
    for unit in range(1, len(whole[1].units) + 1):
        folder = tmp_path / str(unit)
        with pytest.raises(PowerCut):
            train(folder, uncached(replaying, tmp_path), reporter=Writing(unit, cut))
        rest = Writing()
        assert evidence(train(folder, uncached(replaying, tmp_path), reporter=rest)) == expected
        assert len(rest.units) <= len(whole[1].units) - unit + 2
