"""Runs beside each other have their base weights once on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import tiny
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.checkpoint.tools.verification import verify
from plora_cl.training.trainer import CLTrainer


def test_a_second_run_links_the_base_weights_and_goes_on_without_the_first(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    encoder = tiny.make_encoder(tmp_path / "encoder", hidden_size=192)
    settings = {
        **settings,
        "model_name": str(encoder),
        "experiment_dir": str(tmp_path / "experiments"),
        "tasks": settings["tasks"][:1],
        "epochs": 1,
    }
    bases = []
    for name, seed in (("one", 1), ("two", 2)):
        trainer = CLTrainer(**{**settings, "experiment_name": name, "seed": seed})
        trainer.train_sequence()
        store = CheckpointStore(trainer.folder / "checkpoints")
        ref = store.manifest(store.entries()[-1]).objects["model/base"]
        bases.append(store.objects.path(ref))
    assert bases[0].stat().st_size > 1 << 20
    assert bases[0].samefile(bases[1])
    shutil.rmtree(tmp_path / "experiments" / "one")
    two = CheckpointStore(bases[1].parents[1])
    assert verify(two).is_intact
    two.delete(two.entries()[1:])
    again = CLTrainer(**{**settings, "experiment_name": "two", "seed": 2})
    assert again.train_sequence(resume=True)
    assert verify(two).is_intact
