"""What a run says of its checkpoints and its tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plora_cl.training.trainer import CLTrainer
from training.going_on import Listener, train


def test_each_checkpoint_is_announced_with_what_it_has(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    _, listener = train(settings, tmp_path, checkpoint_every=100)
    saved = [text for text in listener.messages if text.startswith("Checkpoint saved: ")]
    assert len(saved) == len(set(saved))
    last = [text.partition(" (")[2] for text in saved if "task2_epoch1" in text]
    assert last == [
        "step 30, task 3 trained)",
        "step 30, task 3 consolidated)",
        "step 30, task 3 learned and measured)",
    ]


def test_a_task_that_goes_on_says_how_many_steps_of_it_are_done(
    settings: dict[str, Any], here: Path
) -> None:
    started: list[tuple[object, ...]] = []

    class Watch(Listener):
        def task_started(self, *what: object) -> None:
            started.append(what)

    CLTrainer(reporter=Watch(), **{**settings, "experiment_dir": str(here)}).train_sequence(
        resume=True
    )
    assert started == [(1, 3, "weather", 8, 2), (2, 3, "food", 10, 0)]
