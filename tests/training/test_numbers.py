"""Losses, penalties and gradients that are not finite, with and without a gradient scaler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from encoders import some_batch, tiny_model
from plora_cl.checkpoint.snapshot.codec import decode
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.compute.devices import Accelerator, make_accelerator
from plora_cl.compute.finite import StepResult
from plora_cl.errors import TrainingError
from plora_cl.methods.base import ContinualMethod, MethodStack
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.training import build
from plora_cl.training.run.optimization import Optimization
from plora_cl.training.trainer import CLTrainer
from training.evidence import evidence
from training.going_on import Listener, cut, events, train


class Penalises(ContinualMethod):
    """Adds a penalty that is finite, infinite or not a number, or whose gradient is."""

    name = "odd"

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def penalty(self, model: ContinualClassifier, task: int) -> Tensor:
        """Return it, computed from trainable weights."""
        weights = torch.cat([p.flatten() for p in model.trainable().values()])
        zero = (weights - weights.detach()).abs().sum()
        return {
            "penalty": zero + float("inf"),
            "gradient": zero.sqrt(),  # its slope at 0 is not finite
            "norm": zero + 1e30 * (weights - weights.detach()).sum(),  # each slope is finite
        }[self.kind]


def optimization(
    model: ContinualClassifier, accelerator: Accelerator | None = None
) -> Optimization:
    return Optimization(
        accelerator or make_accelerator(device="cpu", precision="fp32"),
        model.trainable(),
        learning_rate=1e-3,
        weight_decay=0.1,
        warmup_ratio=0.0,
        total_steps=100,
        max_grad_norm=1.0,
    )


def half(scale: float) -> Accelerator:
    """Return fp16 with a real gradient scaler, as on a GPU."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return Accelerator(torch.device("cpu"), autocast=torch.float16, scaler=scaler)


def weights_of(model: ContinualClassifier) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.trainable().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert all(torch.equal(one[name], other[name]) for name in one | other)


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("penalty", "the penalty of odd is inf"),
        ("gradient", "the norm of the gradient is nan"),
        ("norm", "the norm of the gradient is inf"),
    ],
)
def test_what_is_not_finite_is_named_and_never_applied(kind: str, named: str) -> None:
    model = tiny_model(tasks=(2,), shared="layernorm")
    steps, methods = optimization(model), MethodStack([Penalises(kind)])
    before = weights_of(model)
    steps.accumulate(model, methods, some_batch(4, 5), batches_of_step=1)
    with pytest.raises(TrainingError, match=named) as caught:
        steps.step(model, methods)
    assert "lower learning_rate" in str(caught.value)
    assert_same(weights_of(model), before)
    assert not steps.optimizer.state
    assert steps.scheduler.last_epoch == 0


def test_a_loss_that_is_not_finite_is_named_and_never_applied() -> None:
    model = tiny_model(tasks=(2,), shared="layernorm")
    with torch.no_grad():
        next(iter(model.heads[0].parameters())).fill_(float("inf"))
    steps, methods = optimization(model), MethodStack([])
    before = weights_of(model)
    steps.accumulate(model, methods, some_batch(4, 5), batches_of_step=1)
    with pytest.raises(TrainingError, match="the loss is nan, the norm of the gradient is nan"):
        steps.step(model, methods)
    assert_same(weights_of(model), before)


def test_a_step_that_overflows_in_fp16_is_skipped_and_the_scale_falls_until_one_does_not() -> None:
    model = tiny_model(tasks=(2,), shared="layernorm")
    accelerator, methods = half(2.0**34), MethodStack([])
    steps = optimization(model, accelerator)
    before = weights_of(model)

    def step() -> StepResult:
        steps.accumulate(model, methods, some_batch(4, 5), batches_of_step=1)
        return steps.step(model, methods)

    scales = [2.0**34]
    while (result := step()).skipped:
        scales.append(accelerator.scaler.get_scale())
        assert result.record()["skipped"] is True
        assert result.record()["gradient_norm"] is None
        assert isinstance(result.record()["loss"], float)
        assert_same(weights_of(model), before)
        assert steps.scheduler.last_epoch == 0
    assert len(scales) > 3
    assert scales == [2.0 ** (34 - n) for n in range(len(scales))]
    assert steps.scheduler.last_epoch == 1
    assert "skipped" not in result.record()
    assert result.gradient_norm < 100
    moved = weights_of(model)
    assert any(not torch.equal(before[name], moved[name]) for name in before)


def test_overflow_whatever_the_scale_is_an_error_in_the_end() -> None:
    model = tiny_model(tasks=(2,), shared="layernorm")
    with torch.no_grad():
        next(iter(model.heads[0].parameters())).fill_(1e30)  # infinite in fp16
    steps, methods = optimization(model, half(1.0)), MethodStack([])
    before = weights_of(model)
    for _ in range(13):
        steps.accumulate(model, methods, some_batch(4, 5), batches_of_step=1)
        assert steps.step(model, methods).skipped
    steps.accumulate(model, methods, some_batch(4, 5), batches_of_step=1)
    with pytest.raises(TrainingError, match="overflow in fp16 however small their scale"):
        steps.step(model, methods)  # 2^-14 is the first below 1e-4
    assert_same(weights_of(model), before)


@pytest.mark.parametrize("kind", ["penalty", "norm"])
def test_what_no_scale_can_mend_is_an_error_at_once_in_fp16_too(kind: str) -> None:
    model = tiny_model(tasks=(2,), shared="layernorm")
    steps, methods = optimization(model, half(1.0)), MethodStack([Penalises(kind)])
    before = weights_of(model)
    steps.accumulate(model, methods, some_batch(4, 5), batches_of_step=1)
    with pytest.raises(TrainingError, match=r"penalty of odd is inf|norm of the gradient is inf"):
        steps.step(model, methods)
    assert_same(weights_of(model), before)


def test_a_run_in_fp16_logs_what_it_skipped_and_goes_on_exactly(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "make_accelerator", lambda **_: half(2.0**34))
    whole, _ = train(settings, tmp_path / "whole", checkpoint_every=1)
    steps = events(whole, "step")
    skipped = [step["step"] for step in steps if step.get("skipped")]
    assert [step["step"] for step in steps] == list(range(1, 31))
    assert skipped[:4] == [1, 2, 3, 4]
    assert all((step["gradient_norm"] is None) == bool(step.get("skipped")) for step in steps)
    for after in (2, skipped[-1] + 1):
        folder = tmp_path / str(after)
        cut(settings, folder, after=after, checkpoint_every=1)
        assert evidence(train(settings, folder, checkpoint_every=1)[0]) == evidence(whole)


def test_a_run_that_diverges_says_where_keeps_finite_checkpoints_and_goes_on_when_tamed(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    changes: dict[str, Any] = {
        "lambda_ewc": 1e38,
        "checkpoint_every": 1,
        "keep_last_n_checkpoints": 100,
    }
    message = r"step \d+ \(task 1, epoch \d, batch \d\): the .*(penalty|gradient).* is (inf|nan)"
    with pytest.raises(TrainingError, match=message) as first:
        train(settings, tmp_path, **changes)
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    assert any("task1" in entry.path.name for entry in store.entries())
    for entry in store.entries():
        state = decode(store.read(entry)).state
        parts = [tree for name, tree in state.items() if name.startswith("model/")]
        assert all(t.isfinite().all() for part in parts for t in part.values())
    with pytest.raises(TrainingError) as second:
        train(settings, tmp_path, **changes)
    assert str(second.value) == str(first.value)
    train(settings, tmp_path, **{**changes, "lambda_ewc": 1.0}, accept=True)
    steps = [step["step"] for step in events(tmp_path / "run", "step")]
    assert steps == list(range(1, 31))


def one_step(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of a run whose only step is the last of its task."""
    off = dict.fromkeys(("use_ewc", "use_orthogonal", "use_router"), False)
    return {**settings, **off, "tasks": settings["tasks"][:1], "epochs": 1, "batch_size": 64}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 1e36}, "evaluation on animals: the logits of 20 of 20 texts are not"),
        (
            {"learning_rate": 1e36, "early_stopping_patience": 1},
            "validation on animals: the logits of 20 of 20 texts are not finite",
        ),
        ({"learning_rate": 1e38}, r"cannot compute with a learning rate of 1e\+38"),
    ],
)
def test_a_last_step_that_diverges_is_an_error_and_publishes_nothing(
    tmp_path: Path, settings: dict[str, Any], changes: dict[str, Any], named: str
) -> None:
    one = {**one_step(settings), **changes}
    for _ in range(2):
        with pytest.raises(TrainingError, match=named) as caught:
            train(one, tmp_path)
        assert str(caught.value).startswith("step 1 (task 0, epoch 0, batch 0): ")
        assert "lower learning_rate" in str(caught.value)
    assert not (tmp_path / "run" / "results" / "final_results.json").exists()


class BreaksWeights(Listener):
    """Makes one weight infinite right after a step is applied."""

    trainer: CLTrainer

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def step(self, *_: object) -> None:
        self._after -= 1
        if self._after == 0:
            with torch.no_grad():
                weight = next(iter(self.trainer.run.model.heads[0].parameters()))
                weight.view(-1)[0] = float("inf")


@pytest.mark.parametrize("after", [3, 5])  # a save within the epoch, the last step of the task
def test_weights_that_are_not_finite_are_never_saved(
    tmp_path: Path, settings: dict[str, Any], after: int
) -> None:
    one = {**one_step(settings), "batch_size": 8, "checkpoint_every": 1}
    whole, _ = train(one, tmp_path / "whole")
    reporter = BreaksWeights(after)
    place = {"experiment_dir": str(tmp_path / "broken")}
    reporter.trainer = CLTrainer(reporter=reporter, **{**one, **place})
    where = rf"step {after} \(task 0, epoch 0, batch {after - 1}\): 1 of \d+ tensors of weights"
    with pytest.raises(TrainingError, match=where):
        reporter.trainer.train_sequence()
    assert not (tmp_path / "broken" / "run" / "results" / "final_results.json").exists()
    again, _ = train(one, tmp_path / "broken")
    assert evidence(again) == evidence(whole)
