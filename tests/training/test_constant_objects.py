"""What stays as it is is encoded once, and each checkpoint refers to what it was made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.format.tensor_object import encode_object
from plora_cl.checkpoint.snapshot.codec import decode
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.verification import verify
from plora_cl.compute.random_state import Generators
from plora_cl.training.trainer import CLTrainer
from training.going_on import DONE_0, cut, train


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_no_group_is_encoded_twice_in_a_run(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    encoded: Counter[ObjectRef] = Counter()

    def counted(tensors: Mapping[str, Tensor]) -> bytes:
        data = encode_object(tensors)
        encoded[ObjectRef.of(data)] += 1
        return data

    monkeypatch.setattr("plora_cl.checkpoint.snapshot.committer.encode_object", counted)
    changes: dict[str, Any] = {"early_stopping_patience": 9, "use_router": True, "ewc_mode": mode}
    experiment, _ = train(settings, tmp_path, **changes)
    assert max(encoded.values()) == 1
    store = CheckpointStore(experiment / "checkpoints")
    entries = store.entries()
    refs = [store.manifest(entry).objects for entry in entries]
    assert set().union(*(set(found.values()) for found in refs)) <= set(encoded)
    ewc = [name for name in refs[-1] if name.startswith("memory/ewc/")]
    assert len(ewc) == {"online": 1, "offline": len(settings["tasks"])}[mode]
    assert refs[0][ewc[0]] == refs[-1][ewc[0]] if mode == "offline" else len(ewc) == 1
    assert verify(store).is_intact


def test_a_checkpoint_after_another_one_was_loaded_refers_to_what_that_one_holds(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    found = [cut(settings, tmp_path / str(seed), seed=seed) / "checkpoints" for seed in (1, 2)]
    trainer = CLTrainer(**{**settings, "experiment_dir": str(tmp_path), "seed": 1})
    nothing = Generators.seeded(0)
    for folder in found:
        entry = CheckpointStore(folder).entries()[-1]
        assert entry.path.name != DONE_0
        trainer.load_checkpoint(entry.path, accept_changes=True)
        cursor = trainer.run.components.cursor
        path = trainer.save_checkpoint(
            task_idx=cursor.task,
            epoch=cursor.epoch,
            batch_idx=cursor.batch,
            optimizer=nothing,
            scheduler=nothing,
        )
        store = CheckpointStore(path.parent)
        saved = store.manifest(CheckpointEntry.at(path)).objects
        assert saved == decode(CheckpointStore(folder).read(entry)).objects
