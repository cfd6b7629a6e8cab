from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny
from generators import make_generator
from training.going_on import cut, train


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_encoder(tmp_path_factory.mktemp("model") / "tiny-bert")


@pytest.fixture(scope="session")
def task_folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return tiny.make_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="session")
def settings(
    encoder: Path, task_folders: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Settings of a run of 3 tasks x 2 epochs x 5 batches with every method on."""
    return {
        "model_name": str(encoder),
        "tasks": [str(folder) for folder in task_folders],
        "cache_dir": str(tmp_path_factory.mktemp("cache")),
        "experiment_name": "run",
        "device": "cpu",
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 0.01,
        "max_length": 16,
        "lora_r": 2,
        "lora_alpha": 4,
        "checkpoint_every": 3,
        "ewc_fisher_examples": 6,
        "lambda_ewc": 100.0,
        "use_orthogonal": True,
        "lambda_ortho": 0.1,
    }


@pytest.fixture(scope="session")
def whole(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(settings, tmp_path_factory.mktemp("whole"))[0]


@pytest.fixture(scope="session")
def stopped(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    return cut(settings, folder)


@pytest.fixture
def here(stopped: Path, tmp_path: Path) -> Path:
    """Return a copy of a run that was stopped inside its second task."""
    shutil.copytree(stopped.parent, tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture(scope="session")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a language model that writes the words of the tiny tasks."""
    words = [w for task in tiny.TOPICS.values() for text in task.values() for w in text.split()]
    return make_generator(tmp_path_factory.mktemp("generator"), [*words, *tiny.FILLER])
