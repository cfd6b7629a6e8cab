from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from encoders import tiny_model
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
