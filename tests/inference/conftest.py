from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from training.going_on import train


@pytest.fixture(scope="session")
def learn(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return what trains on three tasks; only the folder of the experiment is left afterwards."""
    cache = tmp_path_factory.mktemp("cache")

    def trained(**changes: Any) -> Path:
        base = tmp_path_factory.mktemp("experiment")
        encoder = tiny.make_encoder(base / "model" / "tiny-bert")
        settings = {
            "model_name": str(encoder),
            "tasks": [str(folder) for folder in tiny.make_tasks(base / "tasks")],
            "cache_dir": str(cache),
            "experiment_name": "run",
            "device": "cpu",
            "epochs": 4,
            "batch_size": 8,
            "learning_rate": 0.02,
            "max_length": 16,
            "lora_r": 2,
            "lora_alpha": 4,
            "checkpoint_every": 5,
            "keep_last_n_checkpoints": 3,
        }
        folder, _ = train(settings, base, **changes)
        for name in ("model", "tasks"):
            shutil.rmtree(base / name)
        return folder

    return trained


@pytest.fixture(scope="session")
def folder(learn: Callable[..., Path]) -> Path:
    return learn()
