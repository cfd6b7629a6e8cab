"""What is replayed, how much of it, and what is kept of generated texts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from encoders import learn_something, some_batch, tiny_model, token_task
from generators import ScriptedGenerator, numbers
from plora_cl.compute.devices import make_accelerator
from plora_cl.errors import IncompatibleCheckpointError, MethodError
from plora_cl.generation.postprocess import normalised_digest
from plora_cl.methods.base import MethodStack
from plora_cl.methods.replay.draft import as_digests, quotas
from plora_cl.methods.replay.method import GenerativeReplay
from plora_cl.methods.replay.pool import ReplayPool
from plora_cl.methods.replay.schedule import ReplaySchedule
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.training.run.optimization import Optimization


def replay(generator: ScriptedGenerator | None = None, **changes: Any) -> GenerativeReplay:
    options: dict[str, Any] = {"ratio": 1.0, "batch_size": 4, "max_new_tokens": 5, "seed": 3}
    return GenerativeReplay(
        generator=generator or ScriptedGenerator(),
        encode=numbers,
        pad_token_id=1,
        **{**options, **changes},
    )


def model_of(tasks: int, **options: Any) -> ContinualClassifier:
    """Return a model of ``tasks`` tasks whose heads give texts to both classes alike."""
    model = tiny_model(**{"shared": "layernorm", **options})
    for _ in range(tasks):
        model.grow(2)
        learn_something(model)
    script = ScriptedGenerator().generate("", count=40, seed=0)
    ids = torch.tensor(numbers([text.text for text in script]))
    model.eval()
    for task in range(tasks):
        with torch.no_grad():
            logits = model(ids, torch.ones_like(ids), task)
            own_head(model, task).bias[0] -= (logits[:, 0] - logits[:, 1]).median()
    return model


def own_head(model: ContinualClassifier, task: int) -> torch.nn.Linear:
    head = model.heads[task]
    assert isinstance(head, torch.nn.Linear)
    return head


def prepared(
    method: GenerativeReplay, model: ContinualClassifier, folder: Path, tasks: int = 2
) -> list[tuple[str, int, int]]:
    """Finish all tasks but the last and start that; return the units."""
    for task in range(tasks - 1):
        list(method.start_task(model, token_task(folder, task)))
        list(method.finish_task(model, token_task(folder, task)))
    return [
        (what, done, total)
        for what, done, total in method.start_task(model, token_task(folder, tasks - 1))
    ]


def texts(method: GenerativeReplay, task: int) -> list[str]:
    """Return the kept texts of an earlier task."""
    group = method.memory()[f"examples-{task}"]
    rows = torch.split(group["input_ids"], group["lengths"].tolist())
    return [" ".join(map(str, row.tolist()[1:-1])) for row in rows]


@pytest.mark.parametrize("ratio", ["0.1", "0.2", "0.29", "0.7", "1.0", "1.5", "1e-3"])
def test_after_n_examples_exactly_the_floor_of_ratio_times_n_are_replayed(ratio: str) -> None:
    schedule, seen, replayed = ReplaySchedule(Fraction(ratio)), 0, 0
    for examples in [1, 1, 3, 8, 8, 7, 32, 5, 100, 835]:
        turn = schedule.next(examples, [0, 1])
        seen += examples
        replayed += 0 if turn is None else turn.examples
        assert replayed == seen * Fraction(ratio) // 1
    assert replayed > 0


def test_earlier_tasks_take_turns_and_go_on_where_they_were() -> None:
    schedule = ReplaySchedule(Fraction(1))
    turns = [schedule.next(examples, [0, 2, 5]) for examples in (4, 3, 2, 1, 5)]
    assert turns == [(0, 0, 4), (2, 0, 3), (5, 0, 2), (0, 4, 1), (2, 3, 5)]


def test_every_pass_over_a_pool_takes_each_text_once_in_another_order() -> None:
    group = {
        "input_ids": torch.arange(30, dtype=torch.int32),
        "lengths": torch.full((10,), 3, dtype=torch.int32),
        "labels": torch.arange(10, dtype=torch.int32),
    }

    def pool() -> ReplayPool:
        return ReplayPool(group, task=4, pad_token_id=1, seed_of_pass=lambda number: number)

    labels = [pool().batch(first, 5).labels.tolist() for first in range(0, 40, 5)]
    passes = [labels[k] + labels[k + 1] for k in range(0, 8, 2)]
    assert all(sorted(order) == list(range(10)) for order in passes)
    assert len({tuple(order) for order in passes}) == 4
    across = pool().batch(7, 6)
    assert across.labels.tolist() == passes[0][7:] + passes[1][:3]
    assert across.task == 4
    assert across.input_ids.tolist() == [
        [3 * row, 3 * row + 1, 3 * row + 2] for row in across.labels
    ]


def test_equal_shares_are_asked_of_each_task_and_each_of_its_classes() -> None:
    assert quotas(24, [2, 3]) == [[6, 6], [4, 4, 4]]
    assert quotas(25, [2, 3]) == [[7, 6], [4, 4, 4]]
    assert quotas(2, [2, 3]) == [[1, 1], [1, 1, 1]]


def test_a_text_is_kept_where_the_own_head_of_its_task_predicts_what_was_asked(
    tmp_path: Path,
) -> None:
    model = model_of(3)
    method = replay()
    prepared(method, model, tmp_path, tasks=3)
    found = 0
    for task in (0, 1):
        group, pool = method.memory()[f"examples-{task}"], texts(method, task)
        model.eval()
        for text, label in zip(pool, group["labels"].tolist(), strict=True):
            ids = torch.tensor(numbers([text]))
            assert model(ids, torch.ones_like(ids), task).argmax().item() == label
        counts = method.report(model)["2"][f"task {task}"]
        assert sorted(group["labels"].tolist()) == [0] * 3 + [1] * 3
        assert counts["kept"] == counts["asked"] == 6
        assert counts["tokens"] == counts["generated"] * 5
        found += counts["disagreed"]
    assert found > 0


def test_without_the_filter_everything_new_is_kept(tmp_path: Path) -> None:
    generator = ScriptedGenerator()
    method = replay(generator, filtered=False)
    prepared(method, model_of(2), tmp_path)
    counts = method.report(model_of(2))["1"]["task 0"]
    assert (counts["kept"], counts["disagreed"], counts["asked"]) == (12, 0, 12)
    assert [prompt for prompt, _, _ in generator.asked] == [
        p.format(task="task 0", label=f"class {label}") for label in (0, 1) for p in _prompts(2)
    ]
    assert len({seed for _, _, seed in generator.asked}) == len(generator.asked) == 4


def _prompts(count: int) -> Sequence[str]:
    from plora_cl.generation.prompts import FOR_BASE_MODELS

    return FOR_BASE_MODELS[:count]


def test_every_generated_text_is_accounted_for(tmp_path: Path) -> None:
    script = ["5 6", "", "5  6", "7 8", "9 9", "9 10", "7 8", "11 12"]
    script += ["20 21", "22 23", "24 25", "26 27", "28 29", "30 31", "32 33", "34 35"]
    method = replay(ScriptedGenerator(script), filtered=False, ratio=0.9)
    prepared(method, model_of(2), tmp_path)
    assert texts(method, 0)[:5] == ["5 6", "7 8", "9 9", "9 10", "11 12"]
    counts = method.report(model_of(2))["1"]["task 0"]
    assert counts["asked"] == 10
    assert counts["kept_by_class"] == [5, 5]
    fates = {name: counts[name] for name in ("kept", "empty", "duplicate", "disagreed", "surplus")}
    assert fates == {"kept": 10, "empty": 1, "duplicate": 2, "disagreed": 0, "surplus": 3}
    assert sum(fates.values()) == counts["generated"] == 16


def test_texts_equal_to_training_texts_are_counted_and_kept(tmp_path: Path) -> None:
    task = token_task(tmp_path, 0)
    known = task.train.texts()[:2]
    script = [known[0].upper(), f" {known[1]} ", "7 8", "9 10", "11 12", "13 14", "15 16", "17 18"]
    method = GenerativeReplay(
        generator=ScriptedGenerator(script),
        encode=lambda texts: [[2, 5 + i, 3] for i, _ in enumerate(texts)],
        pad_token_id=1,
        ratio=0.5,
        filtered=False,
        batch_size=4,
    )
    model = model_of(2)
    prepared(method, model, tmp_path)
    digests = as_digests(method.memory()["texts-0"]["digests"])
    assert digests == [normalised_digest(text) for text in task.train.texts()]
    counts = method.report(model)["1"]["task 0"]
    assert (counts["equal_to_training_text"], counts["kept"]) == (2, 6)


def test_a_class_that_the_head_never_confirms_ends_with_its_budget_and_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of(2)
    with torch.no_grad():
        own_head(model, 0).bias[0] += 1e6
    method = replay(token_budget=240)
    with caplog.at_level(logging.WARNING):
        units = prepared(method, model, tmp_path)
    counts = method.report(model)["1"]["task 0"]
    assert counts["kept_by_class"] == [6, 0]
    assert counts["disagreed"] == 120 // 5
    (record,) = caplog.records
    assert "only 6 of 12 texts of task 0 were kept, short of class 1 (6)" in record.message
    assert "replay_token_budget" in record.message
    assert units[-1] == ("replay: writing", 12, 12)
    assert [done for _, done, _ in units] == sorted(done for _, done, _ in units)


def test_nothing_to_replay_at_all_is_an_error(tmp_path: Path) -> None:
    method = replay(ScriptedGenerator([""] * 1000))
    with pytest.raises(MethodError, match=r"not one text .*replay_filter: false"):
        prepared(method, model_of(2), tmp_path)


def test_another_model_under_the_same_name_is_refused(tmp_path: Path) -> None:
    method, model = replay(), model_of(3)
    prepared(method, model, tmp_path)
    list(method.finish_task(model, token_task(tmp_path, 1)))
    other = replay(ScriptedGenerator(digest="other weights"))
    other.load_memory(method.memory())
    other.load_state_dict(method.state_dict())
    with pytest.raises(IncompatibleCheckpointError, match="'scripted' has other weights"):
        list(other.start_task(model, token_task(tmp_path, 2)))


def test_the_model_gives_its_memory_back_before_training(tmp_path: Path) -> None:
    generator = ScriptedGenerator()
    method = replay(generator)
    assert prepared(method, model_of(2), tmp_path)
    assert generator.released == 1


def test_what_was_written_goes_when_the_task_is_finished(tmp_path: Path) -> None:
    method, model = replay(), model_of(2)
    prepared(method, model, tmp_path)
    assert set(method.memory()) == {"texts-0", "examples-0"}
    list(method.finish_task(model, token_task(tmp_path, 1)))
    assert set(method.memory()) == {"texts-0", "texts-1"}
    assert method.draw_extra_batches(some_batch(4, 5, task=1)) == ()


@pytest.mark.parametrize(
    ("options", "reached"),
    [
        ({"shared": "layernorm", "composition": "isolated"}, {"shared"}),
        ({"shared": "none", "composition": "cumulative"}, {"adapter"}),
        ({"shared": "layernorm", "composition": "cumulative"}, {"shared", "adapter"}),
    ],
)
@pytest.mark.parametrize("weights", [None, torch.tensor([3.0, 0.5])])
def test_a_step_is_the_mean_over_the_batch_plus_replayed_examples_that_have_no_class_weight(
    tmp_path: Path, options: dict[str, Any], reached: set[str], weights: torch.Tensor | None
) -> None:
    model = model_of(2, lora_dropout=0.0, **options)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    method, twin = (replay(ratio=0.75) for _ in range(2))
    for each in (method, twin):
        prepared(each, model, tmp_path)
    batch = some_batch(4, 5, 6, 3, task=1)
    (extra,) = twin.draw_extra_batches(batch)
    assert (extra.task, len(extra.labels)) == (0, 3)

    def summed(part: Any) -> torch.Tensor:
        logits = model(part.input_ids, part.attention_mask, part.task)
        each = functional.cross_entropy(logits, part.labels, reduction="none")
        return (each if weights is None or part.task == 0 else each * weights[part.labels]).sum()

    model.train()
    trainable = model.trainable()
    alone: tuple[torch.Tensor | None, ...] = torch.autograd.grad(
        summed(extra), list(trainable.values()), allow_unused=True
    )
    found = {
        name.partition(".")[0].partition("-")[0]
        for name, gradient in zip(trainable, alone, strict=True)
        if gradient is not None and gradient.abs().max() > 0
    }
    assert found == reached
    loss = (summed(batch) + summed(extra)) / 4
    expected = torch.autograd.grad(loss, list(trainable.values()))

    optimization = Optimization(
        make_accelerator(device="cpu", precision="fp32"),
        trainable,
        learning_rate=1e-3,
        weight_decay=0.0,
        warmup_ratio=0.0,
        total_steps=10,
        max_grad_norm=1e9,
        class_weights={} if weights is None else {0: torch.tensor([9.0, 9.0]), 1: weights},
    )
    methods = MethodStack([method])
    optimization.accumulate(model, methods, batch, batches_of_step=1)
    for parameter, gradient in zip(trainable.values(), expected, strict=True):
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad, gradient, rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        of_task, of_replay = summed(batch).item() / 4, summed(extra).item() / 3
    result = optimization.step(model, methods)
    assert result.replay_loss is not None
    assert result.loss == pytest.approx(of_task, rel=1e-5)
    assert result.replay_loss == pytest.approx(of_replay, rel=1e-5)
    assert result.examples == 4


def test_examples_that_teach_nothing_stop_the_run(tmp_path: Path) -> None:
    model = model_of(2, shared="none")
    method = replay()
    prepared(method, model, tmp_path)
    optimization = Optimization(
        make_accelerator(device="cpu", precision="fp32"),
        model.trainable(),
        learning_rate=1e-3,
        weight_decay=0.0,
        warmup_ratio=0.0,
        total_steps=10,
        max_grad_norm=1.0,
    )
    with pytest.raises(MethodError, match=r"examples of task 0 .*composition: cumulative"):
        optimization.accumulate(
            model, MethodStack([method]), some_batch(4, 5, task=1), batches_of_step=1
        )


def test_a_state_without_a_digest_of_weights_still_knows_the_name_of_the_generator() -> None:
    method = replay(ScriptedGenerator())
    state = {**method.state_dict(), "generator": ["scripted", "digest of weights and sampling"]}
    del state["generator_weights"]
    method.load_state_dict(state)
    assert method.state_dict()["generator_weights"] == ["scripted"]
