"""A score is reused where all that it depends on is the same, and nowhere else."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from encoders import tiny_model, token_task
from plora_cl.data.task import Task
from plora_cl.evaluation.predictor import Scorer
from plora_cl.evaluation.under_way import UnderWay


def digest(task: Task, *, precision: str = "fp32", batch_size: int = 4, **options: Any) -> str:
    model = tiny_model(tasks=(2, 2), **options)
    scorer = Scorer(
        model,
        batch_size=batch_size,
        autocast=nullcontext,
        precision=precision,
        under_way=UnderWay(),
    )
    return scorer.dependencies(task, "base")


def test_equal_models_have_equal_digests(tmp_path: Path) -> None:
    task = token_task(tmp_path, 0)
    assert digest(task) == digest(task)
    assert digest(task) == digest(task, lora_dropout=0.5)  # silent when measuring


@pytest.mark.parametrize(
    "options",
    [
        {"lora_alpha": 8},
        {"pooling": "mean"},
        {"composition": "cumulative"},
        {"precision": "bf16"},
        {"batch_size": 5},
        {"seed": 2},
    ],
)
def test_whatever_else_predictions_depend_on_changes_the_digest(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    task = token_task(tmp_path, 0)
    assert digest(task, **options) != digest(task)


def test_another_configuration_of_the_encoder_changes_the_digest(tmp_path: Path) -> None:
    task, model = token_task(tmp_path, 0), tiny_model(tasks=(2,))
    scorer = Scorer(
        model, batch_size=4, autocast=nullcontext, precision="fp32", under_way=UnderWay()
    )
    before = scorer.dependencies(task, "base")
    model.encoder.config.num_attention_heads = 1  # type: ignore[union-attr]
    assert scorer.dependencies(task, "base") != before
