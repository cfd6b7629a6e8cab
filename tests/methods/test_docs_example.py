from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from encoders import learn_something, tiny_model
from methods.conformance import CHECKS, Factory, learned
from methods.docs_example import load_example
from plora_cl.errors import MethodError


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    module = load_example(tmp_path_factory.mktemp("docs"))
    return lambda: module.L2Anchor(strength=3.0)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_example_of_the_page_keeps_the_contract(
    make: Factory, check: Callable[[Factory, Path], None], tmp_path: Path
) -> None:
    check(make, tmp_path)


def test_the_example_computes_what_it_says(make: Factory, tmp_path: Path) -> None:
    method, model = learned(make, tmp_path, tasks=1)
    anchor = method.memory()["anchor"]
    learn_something(model)
    expected = 1.5 * sum(
        float((p.detach() - anchor[name]).double().square().sum())
        for name, p in model.shared_parameters().items()
    )
    penalty = method.penalty(model, 1)
    assert penalty is not None
    torch.testing.assert_close(penalty.item(), expected, rtol=1e-5, atol=0)


def test_the_example_refuses_to_have_no_effect(make: Factory) -> None:
    with pytest.raises(MethodError, match="shared: layernorm"):
        make().check(tiny_model(tasks=(2,), shared="none"))
