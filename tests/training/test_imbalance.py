"""Tasks most of whose texts are of one class: said, measured, and made up for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

import tiny
from plora_cl.methods.base import MethodStack
from plora_cl.training.run.class_weights import balanced_weights
from plora_cl.training.run.early_stopping import EarlyStopping
from plora_cl.training.trainer import CLTrainer
from training.evidence import evidence
from training.going_on import copied_tasks, cut, events, newest, refusal, rewrite, train


@pytest.fixture
def skewed(settings: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Settings of a run whose first task has 36 texts of cats and 4 of dogs to learn from."""
    folder = tiny.make_task(tmp_path / "animals", tiny.TOPICS["animals"], train=72, test=36)

    def one_dog_in_nine(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kept = [line for k, line in enumerate(lines) if line["label"] == "cat" or k % 18 == 1]
        assert kept != lines
        return kept

    for split in ("train", "validation", "test"):
        rewrite(folder / f"{split}.jsonl", one_dog_in_nine)
    return {**settings, "tasks": [str(folder), *settings["tasks"][1:]]}


def test_weights_are_those_of_sklearn_and_one_where_a_class_has_no_text() -> None:
    labels = np.repeat([0, 1, 3], [95, 4, 1])
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    weights = balanced_weights(labels, 4)
    np.testing.assert_allclose(weights[[0, 1, 3]], expected, rtol=1e-6)
    assert weights[2] == 1.0
    assert float(weights[torch.from_numpy(labels)].mean()) == pytest.approx(1.0)


@pytest.mark.parametrize("joint", [False, True])
def test_balanced_weights_are_in_the_gradient_of_the_task_in_training(
    skewed: dict[str, Any], tmp_path: Path, joint: bool
) -> None:
    changes = {"class_weights": "balanced", "lora_dropout": 0.0, "max_grad_norm": 1e9}
    off = dict.fromkeys(("use_ewc", "use_orthogonal"), False)
    shared = {"joint": True, "task_adapters": False, "shared": "lora"} if joint else {}
    every = {**skewed, **changes, **off, **shared, "experiment_dir": str(tmp_path)}
    parts = CLTrainer(**every).run.components
    parts.begin_task()
    assert parts.optimization is not None
    found: list[torch.Tensor] = []
    batch = parts.stream.at(0, 0)
    counts = np.bincount(parts.tasks[batch.task].train.labels)
    weights = torch.tensor([counts.sum() / (len(counts) * n) for n in counts])
    parts.model.train()
    for module in parts.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    logits = parts.model(batch.input_ids, batch.attention_mask, batch.task)
    each = functional.cross_entropy(logits, batch.labels, reduction="none")
    loss = (each * weights.to(each.dtype)[batch.labels]).mean()
    trainable = parts.model.trainable()
    expected: tuple[torch.Tensor | None, ...] = torch.autograd.grad(
        loss, list(trainable.values()), allow_unused=True
    )
    parts.optimization.accumulate(parts.model, MethodStack([]), batch, batches_of_step=1)
    for parameter, gradient in zip(trainable.values(), expected, strict=True):
        if gradient is not None and parameter.grad is not None:
            found.append(gradient)
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-8)
    assert any(gradient.abs().max() > 0 for gradient in found)


def test_balanced_weights_move_the_predictions_towards_the_rare_class(
    skewed: dict[str, Any], tmp_path: Path
) -> None:
    one = {**skewed, "tasks": skewed["tasks"][:1], "epochs": 4}
    share_of_dogs = {}
    for weights in ("none", "balanced"):
        place = {"experiment_dir": str(tmp_path / weights), "class_weights": weights}
        trainer = CLTrainer(**{**one, **place})
        trainer.train_sequence()
        model, task = trainer.run.model.eval(), trainer.run.components.tasks[0]
        batch = task.test.batch(np.arange(len(task.test)))
        with torch.no_grad():
            logits = model(batch.input_ids, batch.attention_mask, 0)
        share_of_dogs[weights] = float(logits.softmax(-1)[:, 1].mean())
    # 4 texts of 40 are of dogs; balanced, they are half of what is learned from.
    assert share_of_dogs["none"] < 0.2
    assert share_of_dogs["balanced"] > 0.35


def test_a_run_with_weights_goes_on_to_the_bit(skewed: dict[str, Any], tmp_path: Path) -> None:
    weighted = {**skewed, "class_weights": "balanced", "gradient_accumulation_steps": 2}
    whole, _ = train(weighted, tmp_path / "whole")
    cut(weighted, tmp_path / "cut", after=4)
    again, _ = train(weighted, tmp_path / "cut")
    assert evidence(again) == evidence(whole)


def test_other_weights_are_a_change_of_the_trajectory(
    skewed: dict[str, Any], tmp_path: Path
) -> None:
    cut(skewed, tmp_path / "cut", after=4)
    said = refusal(skewed, tmp_path / "cut", class_weights="balanced")
    assert "class_weights: 'none' in the checkpoint, now 'balanced'" in said
    experiment, _ = train(skewed, tmp_path / "cut", accept=True, class_weights="balanced")
    assert events(experiment, "changed")[0]["changes"][0]["key"] == "class_weights"


def test_a_checkpoint_from_before_there_were_weights_goes_on_without_any(
    settings: dict[str, Any], here: Path, whole: Path
) -> None:
    assert newest(here / "run").facts.settings["class_weights"] == "none"
    experiment, _ = train(settings, here)
    assert evidence(experiment) == evidence(whole)


def results(experiment: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (experiment / "results" / "final_results.json").read_text(encoding="utf-8")
    )
    return found


def test_results_have_scores_by_class_and_the_share_of_the_largest(
    skewed: dict[str, Any], tmp_path: Path
) -> None:
    experiment, listener = train(skewed, tmp_path)
    found = results(experiment)
    assert found["by_class"].keys() == {"animals", "weather", "food"}
    animals = found["by_class"]["animals"]
    assert {name: row["support"] for name, row in animals.items()} == {"cat": 18, "dog": 2}
    macro = np.mean([row["f1"] for row in animals.values()])
    assert macro == pytest.approx(found["f1_matrix"][-1][0])
    right = sum(row["recall"] * row["support"] for row in animals.values())
    assert right / 20 == pytest.approx(found["accuracy_matrix"][-1][0])
    assert [task["largest_class_share"] for task in found["tasks"]] == [0.9, 0.5, 0.35]
    assert listener.messages[-1] == f"Results: {experiment / 'results' / 'final_results.json'}"


def test_a_finished_run_that_is_resumed_finds_the_same_scores_by_class(
    skewed: dict[str, Any], tmp_path: Path
) -> None:
    experiment, _ = train(skewed, tmp_path)
    before = results(experiment)["by_class"]
    (experiment / "results" / "final_results.json").unlink()
    train(skewed, tmp_path)
    assert results(experiment)["by_class"] == before


def test_scores_by_class_are_those_of_sklearn(skewed: dict[str, Any], tmp_path: Path) -> None:
    trainer = CLTrainer(**{**skewed, "experiment_dir": str(tmp_path)})
    trainer.train_sequence()
    task = trainer.run.components.tasks[2]
    found = trainer.run.final_scores(validation=False).by_class[task.name]
    assert found is not None
    predicted, true = trainer.run.measurement._predicted[2][1]
    expected = precision_recall_fscore_support(true, predicted, labels=[0, 1, 2], zero_division=0.0)
    for index, row in enumerate(found.values()):
        assert list(row.values()) == pytest.approx([column[index] for column in expected])


def test_a_skewed_task_is_named_at_the_start_with_what_to_try(
    skewed: dict[str, Any], tmp_path: Path
) -> None:
    _, listener = train(skewed, tmp_path / "a", early_stopping_patience=2)
    (line,) = [text for text in listener.messages if "is skewed" in text]
    assert line == (
        "Warning: task animals is skewed: 90.0% of its 40 training texts are 'cat', one of 2 "
        "classes, so that accuracy says little: look at macro-F1; try --set "
        "class_weights=balanced and --set early_stopping_metric=f1"
    )
    cures = {"class_weights": "balanced", "early_stopping_metric": "f1"}
    _, listener = train({**skewed, **cures}, tmp_path / "b", early_stopping_patience=2)
    (line,) = [text for text in listener.messages if "is skewed" in text]
    assert line.endswith("look at macro-F1")


def test_what_is_known_of_a_task_is_told_once_when_it_is_new(
    skewed: dict[str, Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    skewed = {**skewed, "tasks": skewed["tasks"][:1]}
    appended = {**skewed, "tasks": [*skewed["tasks"], {"name": "b", "path": skewed["tasks"][0]}]}
    warnings = []
    for given in (skewed, skewed, appended, appended):
        _, listener = train(given, tmp_path)
        warnings.append([text for text in listener.messages if "is skewed" in text])
    (first,), again, (second,), at_last = warnings
    assert first.startswith("Warning: task animals is skewed")
    assert second.startswith("Warning: task b is skewed")
    assert "try" not in second, "a resumed run refuses other settings"
    assert again == at_last == []


def test_classes_that_differ_in_white_space_or_case_alone_are_named_with_their_counts(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    tasks = copied_tasks(settings, tmp_path / "tasks")

    def untidy(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        names = {0: "cat ", 2: "Cat"}
        return [{**line, "label": names.get(k, line["label"])} for k, line in enumerate(lines)]

    rewrite(Path(tasks[0]) / "train.jsonl", untidy)
    _, listener = train({**settings, "tasks": tasks}, tmp_path, epochs=1)
    assert [text for text in listener.messages if "alone" in text] == [
        "Warning: task animals: the classes 'Cat' (1 training texts), 'cat' (18 training texts) "
        "and 'cat ' (1 training texts) differ in white space or case alone and are learned as "
        "different ones; write them alike if they are the same"
    ]


class TestEarlyStopping:
    def stopping(self, metric: str, scores: list[tuple[float, float]]) -> EarlyStopping:
        found = EarlyStopping(patience=2, min_delta=0.0, metric=metric)
        for accuracy, f1 in scores:
            found.update(accuracy, f1, {})
        return found

    SCORES = [(0.9, 0.3), (0.8, 0.5), (0.8, 0.4), (0.8, 0.4)]  # noqa: RUF012

    def test_it_watches_the_score_that_was_asked_for(self) -> None:
        assert self.stopping("accuracy", self.SCORES).state_dict()["best"] == 0.9
        assert self.stopping("f1", self.SCORES).state_dict()["best"] == 0.5

    def test_it_says_which_epoch_which_score_and_which_weights(self) -> None:
        assert self.stopping("f1", self.SCORES).verdict(4, 9) == (
            "stopped after epoch 4 of 9, 2 without improvement; restored the weights of epoch 2 "
            "(validation macro-F1 0.5000)"
        )
        assert self.stopping("f1", self.SCORES[:2]).verdict(2, 2) == (
            "ended after all 2 epochs; kept the weights of the last, epoch 2 (validation macro-F1 "
            "0.5000)"
        )

    def test_it_says_what_becomes_of_an_epoch_that_is_not_finished(self) -> None:
        assert self.stopping("f1", self.SCORES[:2]).verdict(2, 2, 1) == (
            "ended after all 2 epochs; restored the weights of epoch 2 (validation macro-F1 0.5000)"
        )

    def test_a_run_says_so(self, settings: dict[str, Any], tmp_path: Path) -> None:
        changes = {"early_stopping_patience": 1, "epochs": 4, "learning_rate": 0.05}
        experiment, listener = train({**settings, **changes}, tmp_path)
        lines = [text for text in listener.messages if "epoch" in text and "weights of" in text]
        measured = events(experiment, "validation")
        assert len(lines) == 3
        of_first = [event["accuracy"] for event in measured if event["task"] == 0]
        best = int(np.argmax(of_first))
        assert f"epoch {best + 1} (validation accuracy {of_first[best]:.4f})" in lines[0]

    def test_the_other_metric_cannot_go_on_from_epochs_that_were_chosen_already(
        self, settings: dict[str, Any], tmp_path: Path
    ) -> None:
        patient = {**settings, "early_stopping_patience": 9}
        cut(patient, tmp_path, after=8)
        said = refusal(patient, tmp_path, accept=True, early_stopping_metric="f1")
        assert "the best epoch of the task so far was chosen by the other one" in said
