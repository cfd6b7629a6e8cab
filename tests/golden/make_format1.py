"""Makes ``tests/golden/format1``; run once, never again, or the test proves nothing.

From the repository: ``PYTHONPATH=tests uv run python -m golden.make_format1 FOLDER``. A real run of
two tasks with every method on; what is kept is the checkpoint in mid-epoch of the second task, with
the objects it refers to, and `expected.json`, what a reader must find in them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import tiny
from plora_cl.checkpoint.snapshot.loading import Resumable, load
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.state_digest import state_digest
from plora_cl.training.reporting import Reporter
from plora_cl.training.trainer import CLTrainer

NAME = "checkpoint_task1_epoch0_batch2.pt"


class EnoughError(BaseException):
    """The checkpoint to keep has been written."""


class StopsAtName(Reporter):
    def message(self, text: str) -> None:
        if f"/{NAME} (" in text:
            raise EnoughError


def train(folder: Path) -> Path:
    """Run into the second of two small tasks; return the folder of the checkpoints."""
    os.chdir(folder)  # so that the settings hold relative paths
    encoder = tiny.make_encoder(Path("encoder"))
    tasks = tiny.make_tasks(Path("tasks"))[:2]
    trainer = CLTrainer(
        reporter=StopsAtName(),
        model_name=str(encoder),
        tasks=[str(task) for task in tasks],
        experiment_name="golden",
        experiment_dir="experiments",
        cache_dir="cache",
        device="cpu",
        epochs=1,
        batch_size=8,
        learning_rate=0.01,
        max_length=16,
        lora_r=2,
        lora_alpha=4,
        checkpoint_every=1,
        ewc_fisher_examples=6,
    )
    with suppress(EnoughError):
        trainer.train_sequence()
    return trainer.folder / "checkpoints"


def expected(found: Resumable, directory: Path) -> dict[str, Any]:
    """Return what a reader of every later version must find."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        "files": {
            path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        },
        "cursor": dict(found.snapshot.cursor),
        "trained_tasks": list(found.snapshot.trained_tasks),
        "seed": found.snapshot.facts.seed,
        "loss": found.snapshot.loss,
        "identity": dict(found.snapshot.facts.identity),
        "settings": dict(found.snapshot.facts.settings),
        "state_digest": state_digest(found.snapshot.state),
        "components": {
            name: state_digest(state) for name, state in sorted(found.snapshot.state.items())
        },
        "objects": {
            name: {key: tensor.flatten()[:3].tolist() for key, tensor in sorted(tensors.items())}
            for name, tensors in sorted(found.objects.items())
        },
    }


def main() -> None:
    target = Path(sys.argv[1]).absolute()
    objects = target / "objects"
    objects.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        made = CheckpointStore(train(Path(scratch)))
        found = load(made, CheckpointEntry.at(made.directory / NAME))
        shutil.copy(found.entry.path, target)
        for ref in found.snapshot.objects.values():
            shutil.copy(made.objects.path(ref), objects)
        text = json.dumps(expected(found, target), indent=1, sort_keys=True)
        os.chdir(target)
    (target / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
