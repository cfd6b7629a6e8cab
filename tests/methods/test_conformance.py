from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

import pytest

import plora_cl.methods
from generators import ScriptedGenerator, numbers
from methods.conformance import CHECKS, Factory
from plora_cl.generation.lora_tuning import TuningPlan
from plora_cl.methods.base import ContinualMethod
from plora_cl.methods.ewc.penalty import Ewc
from plora_cl.methods.olora.penalty import OrthogonalLora
from plora_cl.methods.replay.method import GenerativeReplay


def replay(*, filtered: bool, tuning: TuningPlan | None = None) -> GenerativeReplay:
    return GenerativeReplay(
        generator=ScriptedGenerator(),
        encode=numbers,
        pad_token_id=1,
        ratio=1.0,
        filtered=filtered,
        batch_size=4,
        tuning=tuning,
    )


TUNING = TuningPlan(examples=9, epochs=2, batch_size=4, learning_rate=1e-2, r=2)

METHODS: dict[str, Factory] = {
    "ewc-offline-exact": lambda: Ewc(strength=100.0, mode="offline", estimator="exact", examples=4),
    "ewc-offline-empirical": lambda: Ewc(strength=100.0, mode="offline", examples=4),
    "ewc-online": lambda: Ewc(strength=100.0, mode="online", gamma=0.9, examples=4),
    "ewc-online-sampled": lambda: Ewc(strength=100.0, estimator="sampled", examples=4),
    "ewc-offline-batched": lambda: Ewc(
        strength=1000.0, mode="offline", estimator="batched", examples=6, batch_size=4
    ),
    "olora-absolute": lambda: OrthogonalLora(strength=0.1),
    "olora-squared": lambda: OrthogonalLora(strength=0.1, form="squared"),
    "olora-norm": lambda: OrthogonalLora(strength=0.1, norm_strength=0.01),
    "replay": lambda: replay(filtered=True),
    "replay-unfiltered": lambda: replay(filtered=False),
    "replay-tuned": lambda: replay(filtered=True, tuning=TUNING),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_every_method_keeps_the_contract(
    make: Factory, check: Callable[[Factory, Path], None], tmp_path: Path
) -> None:
    check(make, tmp_path)


def test_no_method_is_left_out() -> None:
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(plora_cl.methods.__path__, "plora_cl.methods.")
    ]
    there = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, ContinualMethod)
    }
    assert there - {ContinualMethod} == {type(make()) for make in METHODS.values()}
