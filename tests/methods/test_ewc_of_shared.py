"""EWC where tasks share an adapter or the whole encoder and own nothing but heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from encoders import learn_something, tiny_model, token_task
from methods.conformance import begin
from methods.test_ewc import closed_form
from plora_cl.methods.ewc.penalty import Ewc


@pytest.mark.parametrize("shared", ["lora", "all"])
@pytest.mark.parametrize("task_adapters", [True, False])
def test_the_penalty_holds_back_all_that_is_shared_and_nothing_else(
    shared: str, task_adapters: bool, tmp_path: Path
) -> None:
    method = Ewc(strength=30.0, examples=4)
    model = tiny_model(shared=shared, task_adapters=task_adapters, composition="cumulative")
    for task in range(2):
        begin(method, model, tmp_path, task)
        learn_something(model)
        list(method.finish_task(model, token_task(tmp_path, task)))
    model.grow(2)
    learn_something(model)
    penalty = method.penalty(model, 2)
    assert penalty is not None
    value, gradient = closed_form(method, model, 30.0)
    assert value > 0
    torch.testing.assert_close(penalty.double(), value, rtol=1e-5, atol=0)
    learning = model.trainable()
    penalty.backward()
    reached = {name: p.grad for name, p in learning.items() if p.grad is not None}
    assert reached.keys() == {f"shared.{name}" for name in model.shared_parameters()}
    largest = float(gradient.abs().max())
    torch.testing.assert_close(
        torch.cat([g.flatten() for g in reached.values()]).double(),
        gradient,
        rtol=1e-4,
        atol=1e-5 * largest,
    )
