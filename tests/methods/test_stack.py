from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from encoders import some_batch, tiny_model, token_task
from plora_cl.data.batches import Batch
from plora_cl.errors import MethodError
from plora_cl.methods.base import ContinualMethod, MethodStack
from plora_cl.model.classifier import ContinualClassifier


class Detached(ContinualMethod):
    """Computes a penalty that cannot act."""

    name = "detached"

    def penalty(self, model: ContinualClassifier, task: int) -> Tensor | None:
        return torch.stack([p.detach().square().sum() for p in model.trainable().values()]).sum()


class Attached(Detached):
    name = "attached"

    def penalty(self, model: ContinualClassifier, task: int) -> Tensor | None:
        return next(iter(model.trainable().values())).square().sum()


def test_a_penalty_that_reaches_nothing_is_an_error_that_names_the_method_and_the_fix() -> None:
    model = tiny_model(tasks=(2,))
    with pytest.raises(MethodError, match=r"penalty of detached .*task 0.*`shared`"):
        MethodStack([Attached(), Detached()]).penalties(model, 0)
    assert MethodStack([Attached()]).penalties(model, 0).keys() == {"attached"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "a float;"), (torch.ones(3, requires_grad=True), r"Tensor of shape \[3")],
)
def test_a_penalty_that_is_no_scalar_tensor_is_an_error_that_says_what_it_is(
    value: Any, shown: str
) -> None:
    class Wrong(Attached):
        def penalty(self, model: ContinualClassifier, task: int) -> Tensor | None:
            found: Tensor = value
            return found

    with pytest.raises(MethodError, match=rf"attached: penalty returned .*{shown}"):
        MethodStack([Wrong()]).penalties(tiny_model(tasks=(2,)), 0)


def test_a_method_without_a_report_still_says_that_nothing_is_out_of_its_reach() -> None:
    model = tiny_model(tasks=(2,))
    assert MethodStack([Attached()]).report(model) == {"attached": {"no_effect_on": {}}}
    assert MethodStack([Attached()]).notes(model) == []


@pytest.mark.parametrize("report", [{"norm": torch.ones(1)}, {1: 2}, None])
def test_a_report_that_is_no_json_is_an_error_that_names_the_method(report: Any) -> None:
    class Wrong(Attached):
        def report(self, model: ContinualClassifier) -> dict[str, Any]:
            found: dict[str, Any] = report
            return found

    with pytest.raises(
        MethodError, match=r"attached: report returned .*; expected a dict of plain"
    ):
        MethodStack([Wrong()]).report(tiny_model(tasks=(2,)))


def test_a_batch_in_place_of_a_list_of_batches_is_an_error_that_names_the_method() -> None:
    class Wrong(Attached):
        def draw_extra_batches(self, batch: Batch) -> Any:
            return batch

    with pytest.raises(MethodError, match="attached: draw_extra_batches returned a Tensor among"):
        MethodStack([Wrong()]).draw_extra_batches(some_batch(0))


@pytest.mark.parametrize("hook", ["start_task", "finish_task"])
def test_a_hook_that_returns_nothing_in_place_of_units_is_an_error_that_names_it(
    hook: str, tmp_path: Path
) -> None:
    wrong = Attached()
    setattr(wrong, hook, lambda model, task: None)
    stack = MethodStack([wrong])
    with pytest.raises(MethodError, match=rf"attached: {hook} returned None; expected units, or"):
        list(getattr(stack, hook)(tiny_model(tasks=(2,)), token_task(tmp_path, 0)))
