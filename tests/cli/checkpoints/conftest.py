from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from checkpoint.components import Holder, Learner, capture
from plora_cl.checkpoint.format.tensor_object import encode_object
from plora_cl.checkpoint.snapshot.codec import encode
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.config.precedence import dump, validate
from plora_cl.config.schema import identity


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CheckpointStore:
    """``demo`` in the working directory: two checkpoints of task 0, the second one final."""
    monkeypatch.chdir(tmp_path)
    folder = Path("experiments", "demo")
    settings = validate({"experiment_name": "demo", "tasks": ["news", "mail"]})
    store = CheckpointStore(folder / "checkpoints")
    base = store.objects.put(encode_object({"weight": torch.arange(6.0).view(2, 3)}))
    learner = Learner()
    for batch, phase in ((9, "train"), (19, "done")):
        learner.step()
        own = store.objects.put(encode_object({"own": torch.full((batch,), 1.0)}))
        scores = {"cells": [[0, 0, batch / 20, 0.5, "digest"]], "untrained": [[0, 0.1, 0.1, "d"]]}
        state = {**learner.components(), "costs": Holder(batch)}
        snapshot = capture(
            state,
            objects={"model/base": base, "model/adapter-0": own},
            settings=settings.model_dump(mode="json"),
        )
        snapshot = replace(
            snapshot,
            cursor={"task": 0, "epoch": 0, "batch": batch + 1, "step": batch + 1, "phase": phase},
            facts=replace(
                snapshot.facts,
                identity={**identity(settings), "task_digests": {"news": "1", "mail": "2"}},
            ),
            state={**snapshot.state, "scores": scores, "run_log": _log_position()},
        )
        store.commit(f"checkpoint_task0_epoch0_batch{batch}.pt", encode(snapshot))
    (folder / "results").mkdir()
    (folder / "results" / "run_log.jsonl").write_bytes(b'{"step": 1}\n')
    (folder / "config.yaml").write_text(dump(settings))
    return store


def _log_position() -> dict[str, object]:
    line = b'{"step": 1}\n'
    return {"bytes": len(line), "records": 1, "sha256": hashlib.sha256(line).hexdigest()}
