"""The same bits each time: what is switched for that, for whom, and on a GPU what comes of it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from encoders import FAMILIES, some_batch, tiny_model
from plora_cl.compute import determinism
from plora_cl.compute.determinism import (
    CUBLAS_VARIABLE,
    DETERMINISTIC,
    Switches,
    configure_cublas,
    recorded_variables,
    switched,
)
from plora_cl.compute.devices import Accelerator, make_accelerator
from plora_cl.errors import ModelError
from plora_cl.methods.base import MethodStack
from plora_cl.training.reporting import Reporter
from plora_cl.training.run.optimization import Optimization
from plora_cl.training.trainer import CLTrainer
from training.evidence import evidence
from training.going_on import cut, train

on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")


def fail_within(seen: list[Switches]) -> None:
    with switched(DETERMINISTIC):
        seen.append(Switches.current())
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.mem_efficient_sdp_enabled()
        raise KeyError


def test_switches_are_in_effect_inside_and_gone_outside_also_after_an_error() -> None:
    before, seen = Switches.current(), list[Switches]()
    with pytest.raises(KeyError):
        fail_within(seen)
    assert seen == [DETERMINISTIC] != [before]
    assert Switches.current() == before


def test_a_run_inside_another_one_has_what_the_process_had_before_both() -> None:
    before = Switches.current()
    own = replace(before, cudnn_benchmark=not before.cudnn_benchmark)
    own.put_in_effect()  # as the user of the library likes it
    try:
        with switched(DETERMINISTIC):
            with switched(None):
                assert Switches.current() == own
                with switched(DETERMINISTIC):
                    assert Switches.current() == DETERMINISTIC
                assert Switches.current() == own
            assert Switches.current() == DETERMINISTIC
        assert Switches.current() == own
    finally:
        before.put_in_effect()


def test_only_cuda_is_switched_and_only_where_that_is_wanted() -> None:
    before = Switches.current()
    for accelerator in (
        Accelerator(CPU),
        make_accelerator(device="cpu", precision="bf16"),
        Accelerator(CPU, deterministic=False),
    ):
        with accelerator.in_effect():
            assert Switches.current() == before


def test_a_run_on_the_cpu_computes_as_the_process_does_whoever_is_around(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    seen: set[Switches] = set()

    class Looks(Reporter):
        def step(self, *_: object) -> None:
            seen.add(Switches.current())

    before = Switches.current()
    with switched(DETERMINISTIC):  # a run on a GPU that tells its reporter of a step
        trainer = CLTrainer(
            reporter=Looks(), **{**settings, "experiment_dir": str(tmp_path), "epochs": 1}
        )
        trainer.train_sequence()
        assert Switches.current() == DETERMINISTIC
    assert seen == {before}
    assert trainer.run.checkpointer.facts.environment["deterministic_algorithms"] is False


@pytest.fixture
def variable(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv(CUBLAS_VARIABLE, "")  # taken back in the end, whatever is set meanwhile
    monkeypatch.delenv(CUBLAS_VARIABLE)
    monkeypatch.setattr(determinism, "_configured_here", False)
    return monkeypatch


def test_cublas_is_configured_before_cuda_is_used(variable: pytest.MonkeyPatch) -> None:
    variable.setattr(torch.cuda, "is_initialized", lambda: False)
    configure_cublas()
    assert os.environ[CUBLAS_VARIABLE] == ":4096:8"
    variable.setattr(torch.cuda, "is_initialized", lambda: True)
    configure_cublas()  # by the second run of the process
    assert recorded_variables(CUDA)[CUBLAS_VARIABLE] == ":4096:8"
    assert CUBLAS_VARIABLE not in recorded_variables(CPU)


def test_what_somebody_chose_for_cublas_stays_and_is_recorded(variable: pytest.MonkeyPatch) -> None:
    variable.setenv(CUBLAS_VARIABLE, ":16:8")
    configure_cublas()
    assert os.environ[CUBLAS_VARIABLE] == ":16:8"
    assert recorded_variables(CPU)[CUBLAS_VARIABLE] == ":16:8"


def test_cuda_that_was_used_too_early_is_an_error_with_two_ways_out(
    variable: pytest.MonkeyPatch,
) -> None:
    variable.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(ModelError, match=r":4096:8 before the process.*deterministic: false"):
        configure_cublas()
    assert CUBLAS_VARIABLE not in os.environ


def test_a_workspace_of_cublas_that_varies_is_an_error(variable: pytest.MonkeyPatch) -> None:
    variable.setenv(CUBLAS_VARIABLE, ":0:0")
    with pytest.raises(ModelError, match=r"CUBLAS_WORKSPACE_CONFIG is ':0:0'"):
        configure_cublas()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("_", [pytest.param(0, marks=on_gpu)])
def test_every_family_learns_the_same_bits_twice_on_a_gpu(
    _: int, family: str, precision: str
) -> None:
    def learned() -> dict[str, Tensor]:
        accelerator = make_accelerator(device="cuda", precision=precision)
        torch.manual_seed(1)
        model = tiny_model(family, tasks=(2,), shared="all").to(accelerator.device)
        optimization = Optimization(
            accelerator,
            model.trainable(),
            learning_rate=1e-2,
            weight_decay=0.1,
            warmup_ratio=0.0,
            total_steps=100,
            max_grad_norm=1.0,
        )
        with accelerator.in_effect():
            for seed in range(20):
                lengths = [3 + (seed + n) % 30 for n in range(16)]
                batch = some_batch(*lengths, seed=seed)
                optimization.accumulate(model, MethodStack([]), batch, batches_of_step=1)
                optimization.step(model, MethodStack([]))
        return {name: p.detach().cpu() for name, p in model.trainable().items()}

    one, other = learned(), learned()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=on_gpu),
        pytest.param({"precision": "bf16", "composition": "cumulative"}, marks=on_gpu),
        pytest.param({"precision": "fp16", "shared": "lora"}, marks=on_gpu),
        pytest.param({"ewc_mode": "offline", "ewc_fisher": "exact"}, marks=on_gpu),
        pytest.param({"replay": True}, marks=on_gpu),
    ],
)
def test_a_run_on_a_gpu_goes_on_to_the_bit(
    tmp_path: Path, settings: dict[str, Any], generator: Path, changes: dict[str, Any]
) -> None:
    changes = {"device": "cuda", **changes}
    if changes.pop("replay", False):
        replay = {"use_replay": True, "replay_filter": False, "generation_model": str(generator)}
        changes |= {**replay, "composition": "cumulative", "max_gen_length": 8}
    whole = evidence(train(settings, tmp_path / "whole", **changes)[0])
    cut(settings, tmp_path / "cut", **changes)
    experiment, listener = train(settings, tmp_path / "cut", **changes)
    assert not listener.changes("trajectory-changing")
    assert evidence(experiment) == whole
