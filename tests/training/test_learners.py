"""Fine-tuning, sequential LoRA, joint training and a linear head: they learn, through one loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.config import learners
from plora_cl.model.encoder import load_encoder
from plora_cl.training.trainer import CLTrainer
from training.going_on import Listener

TEACHABLE: dict[str, dict[str, Any]] = {
    "fine-tuning": {"learning_rate": 0.003, "epochs": 6},
    "sequential-lora": {"learning_rate": 0.01, "epochs": 10, "lora_r": 8, "lora_alpha": 16},
    "joint": {"learning_rate": 0.01, "epochs": 12, "lora_r": 8, "lora_alpha": 16},
    "linear": {"learning_rate": 0.1, "epochs": 6},
}
"""What each of them needs to learn from 40 texts a task on an encoder with random weights."""

LEARNERS = {name: learners.LEARNERS[name] for name in TEACHABLE}


class Learned:
    """A run to its end, with all that a test may ask about it."""

    def __init__(self, name: str, settings: dict[str, Any], folder: Path) -> None:
        self.listener = Listener()
        changes = {**LEARNERS[name], **TEACHABLE[name], "pooling": "mean"}
        trainer = CLTrainer(
            reporter=self.listener, **{**settings, **changes, "experiment_dir": str(folder)}
        )
        self.results = trainer.train_sequence()
        self.store = CheckpointStore(trainer.folder / "checkpoints")
        self.model = trainer.run.model
        self.untrained = load_encoder(settings["model_name"])

    @property
    def learned(self) -> list[float]:
        """Accuracy on each task when it had just been learned."""
        matrix = self.results["accuracy_matrix"]
        return [matrix[k][k] if matrix[k][k] is not None else matrix[-1][k] for k in range(3)]

    def changed(self) -> dict[str, bool]:
        """Return whether each tensor of the encoder is another one than at the start."""
        before, now = _tensors(self.untrained), _tensors(self.model.encoder)
        assert before.keys() == now.keys()
        return {name: not torch.equal(now[name], before[name]) for name in before}


def _tensors(encoder: torch.nn.Module) -> Mapping[str, Tensor]:
    found = {**dict(encoder.named_parameters()), **dict(encoder.named_buffers())}
    return {n.replace(".base_layer", ""): t.detach() for n, t in found.items() if "lora" not in n}


@pytest.fixture(scope="module")
def runs(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Learned]:
    return {name: Learned(name, settings, tmp_path_factory.mktemp("runs")) for name in LEARNERS}


@pytest.mark.parametrize("name", LEARNERS)
def test_it_learns(name: str, runs: dict[str, Learned]) -> None:
    untrained = runs[name].results["untrained_accuracy"]
    gains = [now - before for now, before in zip(runs[name].learned, untrained, strict=True)]
    assert max(gains) > 0.1
    assert sum(gains) > 0.1


@pytest.mark.parametrize("name", ["sequential-lora", "joint", "linear"])
def test_a_frozen_encoder_keeps_every_bit(name: str, runs: dict[str, Learned]) -> None:
    changed = runs[name].changed()
    assert [tensor for tensor in changed if changed[tensor]] == []


def test_fine_tuning_changes_every_parameter_of_the_encoder_and_no_buffer(
    runs: dict[str, Learned],
) -> None:
    changed, model = runs["fine-tuning"].changed(), runs["fine-tuning"].model
    parameters = {name for name, _ in model.encoder.named_parameters()}
    assert {name for name in changed if changed[name]} == parameters


@pytest.mark.parametrize("name", LEARNERS)
def test_the_shared_adapter_alone_is_there_and_learns_where_it_is_asked_for(
    name: str, runs: dict[str, Learned]
) -> None:
    adapters = {n: p for n, p in runs[name].model.named_parameters() if "lora" in n}
    if LEARNERS[name]["shared"] != "lora":
        assert adapters == {}
        return
    assert len(adapters) == len(runs[name].model.shared_parameters()) > 0
    assert all(".shared." in n and p.abs().max() > 0 for n, p in adapters.items())


@pytest.mark.parametrize("name", LEARNERS)
def test_the_parts_are_what_the_learner_consists_of(name: str, runs: dict[str, Learned]) -> None:
    parts = {"base", "shared", "head-0", "head-1", "head-2"}
    assert set(runs[name].model.parts()) == parts
    counts = runs[name].results["parameters"]
    assert parts < counts.keys()
    assert counts["total"] == sum(counts[part] for part in parts)
    learning = ["head-0", "head-1", "head-2"] if name == "joint" else ["head-2"]
    expected = counts["shared"] + sum(counts[part] for part in learning)
    assert counts["trainable_last_task"] == expected
    if name == "fine-tuning":
        encoder = runs[name].untrained
        assert counts["shared"] == sum(p.numel() for p in encoder.parameters())
    if name == "linear":
        assert counts["shared"] == 0


@pytest.mark.parametrize("name", ["fine-tuning", "sequential-lora", "linear"])
def test_the_head_of_a_finished_task_stays_the_object_that_it_became(
    name: str, runs: dict[str, Learned]
) -> None:
    kept = [runs[name].store.manifest(entry).objects for entry in runs[name].store.entries()]
    assert len(kept) == 4  # one of each finished task, two of the newest
    assert len({objects["model/head-0"] for objects in kept}) == 1
    assert len({objects["model/base"] for objects in kept}) == 1


def test_a_linear_head_forgets_nothing_and_says_that_it_could_not(
    runs: dict[str, Learned],
) -> None:
    results, listener = runs["linear"].results, runs["linear"].listener
    for metric in ("backward_transfer", "forgetting", "forward_transfer"):
        assert results[metric] == 0
        assert "only the head of a task is trained" in results["zero_by_construction"][metric]
    assert len(results["zero_by_construction"]) == 3
    measured = [what for what in listener.activities if what.startswith("evaluation")]
    assert len(measured) == 3


@pytest.mark.parametrize("name", ["fine-tuning", "sequential-lora"])
def test_what_all_tasks_change_makes_no_metric_zero_by_construction(
    name: str, runs: dict[str, Learned]
) -> None:
    results = runs[name].results
    assert results["zero_by_construction"] == {}
    assert results["backward_transfer"] != 0
    rows = results["accuracy_matrix"]
    assert all(rows[i][j] is not None for i in range(3) for j in range(min(i + 2, 3)))


def test_with_adapters_of_tasks_beside_the_shared_one_both_learn(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    changes = {"shared": "lora", "experiment_dir": str(tmp_path)}
    trainer = CLTrainer(**{**settings, **changes})
    results = trainer.train_sequence()
    model = trainer.run.model
    for part in ("shared", "adapter-0", "adapter-1", "adapter-2"):
        tensors = model.part(part).state_dict()
        moved = [t for name, t in tensors.items() if name.endswith("lora_B")]
        assert moved
        assert all(tensor.abs().max() > 0 for tensor in moved)
    assert results["zero_by_construction"] == {}
