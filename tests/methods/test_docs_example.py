from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from encoders import learn_something, tiny_model
from methods.conformance import CHECKS, Factory, learned
from plora_cl.errors import MethodError

PAGE = Path(__file__).parents[2] / "docs" / "add-a-method.md"


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    (code,) = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    file = tmp_path_factory.mktemp("docs") / "l2_anchor.py"
    file.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("l2_anchor", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
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
