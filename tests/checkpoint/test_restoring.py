"""A component gets back what it gave, also what neither checkpoints nor PyTorch keep."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, lr_scheduler

from checkpoint.components import Plain, capture
from plora_cl.checkpoint import CheckpointManager, load_checkpoint
from plora_cl.checkpoint.snapshot.codec import decode, encode


class Point(NamedTuple):
    x: int
    y: int


def rates(folder: Path, stop: int = 8) -> list[float]:
    """Return the learning rates of a run whose second schedule holds a Counter."""
    net = nn.Linear(2, 1)
    optimizer = SGD(net.parameters(), lr=1.0)
    parts = [
        lr_scheduler.LinearLR(optimizer, total_iters=3),
        lr_scheduler.MultiStepLR(optimizer, [2, 4]),
    ]
    schedule = lr_scheduler.SequentialLR(optimizer, parts, [3])
    found = []
    components: dict[str, Any] = {"net": net, "optimizer": optimizer, "schedule": schedule}
    with CheckpointManager(folder, components) as manager:
        for step in range(manager.resume(), stop):
            optimizer.step()
            schedule.step()
            found.append(optimizer.param_groups[0]["lr"])
            manager.save(step + 1)
    return found


def test_a_schedule_that_counts_milestones_continues_as_if_never_stopped(tmp_path: Path) -> None:
    expected = rates(tmp_path / "whole")
    assert rates(tmp_path / "killed", stop=2) + rates(tmp_path / "killed") == expected


def test_containers_have_the_types_that_a_fresh_component_has() -> None:
    lists: defaultdict[str, list[int]] = defaultdict(list)
    saved = {
        "counter": Counter("aab"),
        "ordered": OrderedDict([("b", 1), ("a", 2)]),
        "default": lists | {"x": [1]},
        "betas": (0.9, [0.5]),
        "point": Point(1, 2),
        "shape": torch.Size([2, 3]),
        "list": [(1, 2), (3, 4)],
        "unknown": {"inner": 1},
    }
    fresh = Plain(
        {
            "counter": Counter(),
            "ordered": OrderedDict(),
            "default": lists,
            "betas": (0.1, []),
            "point": Point(0, 0),
            "shape": torch.Size([]),
            "list": [(0, 0)],
        }
    )
    decode(encode(capture({"part": Plain(saved)}))).restore({"part": fresh})
    found = fresh.state
    assert found == {**saved, "list": [(1, 2), [3, 4]]}
    types = {name: type(value) for name, value in found.items()}
    assert types == {name: type(value) for name, value in saved.items()}
    assert list(found["ordered"]) == ["b", "a"]
    assert found["default"]["new"] == []
    assert not lists


@pytest.mark.parametrize("name", ["NAdam", "ASGD", "Adam"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_optimizer_states_keep_their_dtypes(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    def trained(folder: Path, stop: int) -> Tensor:
        torch.manual_seed(0)
        net = nn.Linear(3, 1).to(dtype)
        optimizer = getattr(torch.optim, name)(net.parameters(), lr=0.1)
        with CheckpointManager(folder, {"net": net, "optimizer": optimizer}) as manager:
            for step in range(manager.resume(), stop):
                optimizer.zero_grad()
                net(torch.ones(2, 3, dtype=dtype)).square().sum().backward()
                optimizer.step()
                manager.save(step + 1)
        return net.weight.detach()

    expected = trained(tmp_path / "whole", 6)
    trained(tmp_path / "killed", 3)
    assert torch.equal(trained(tmp_path / "killed", 6), expected)


def test_saves_and_resumes_in_inference_mode_leave_everything_trainable(tmp_path: Path) -> None:
    net = nn.Linear(2, 1)
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        net(torch.ones(1, 2)).sum().backward()
        optimizer.step()

    components: dict[str, Any] = {"net": net, "optimizer": optimizer}
    for done in (0, 1):
        with CheckpointManager(tmp_path, components) as manager:
            with torch.inference_mode():
                assert manager.resume() == done
            step()
            with torch.inference_mode():
                manager.save(done + 1)
    with torch.inference_mode():
        loaded = load_checkpoint(tmp_path).snapshot.state["net"]["weight"]
    assert not loaded.is_inference()


def test_generators_of_cuda_are_restored_before_cuda_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = {"on": True, "state": torch.arange(16, dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: gpu["on"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "init", lambda: gpu.update(on=True))
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [gpu["state"].clone()])  # type: ignore[attr-defined]
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda states: gpu.update(state=states[0]))
    with CheckpointManager(tmp_path, {"net": nn.Linear(2, 2)}) as manager:
        manager.save(1)
    gpu.update(on=False, state=torch.zeros(16, dtype=torch.uint8))
    with CheckpointManager(tmp_path, {"net": nn.Linear(2, 2)}) as manager:
        manager.resume()
    assert torch.equal(torch.as_tensor(gpu["state"]), torch.arange(16, dtype=torch.uint8))


def test_generators_of_cuda_that_cannot_be_restored_are_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_initialized", lambda: True)
        patch.setattr(torch.cuda, "get_rng_state_all", lambda: [torch.zeros(16)])
        with CheckpointManager(tmp_path, {"net": nn.Linear(2, 2)}) as manager:
            manager.save(1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with (
        caplog.at_level(logging.WARNING),
        CheckpointManager(tmp_path, {"net": nn.Linear(2, 2)}) as manager,
    ):
        manager.resume()
    assert "generators of 1 CUDA devices are in the checkpoint and not restored" in caplog.text


@pytest.mark.parametrize(
    ("tensor", "what"),
    [
        (torch.empty(2, device="meta"), "meta tensor"),
        (torch.empty(2, dtype=vars(torch)["uint4"]), "torch.uint4"),
    ],
)
def test_tensors_that_cannot_be_copied_are_refused_by_place(tensor: Tensor, what: str) -> None:
    with pytest.raises(TypeError, match=f"'/part/weight' is a .*{what}"):
        capture({"part": Plain({"weight": tensor})})


def test_constants_that_cannot_be_stored_are_refused_by_name(tmp_path: Path) -> None:
    with torch.inference_mode():
        made_in_evaluation = torch.ones(2)
    for name, tensor, what in [
        ("weight", made_in_evaluation, "weight is an inference tensor"),
        ("weight", torch.empty(2, device="meta"), "weight is a meta tensor"),
        ("weight\udc80", torch.ones(2), "half a character"),
    ]:
        with pytest.raises(TypeError, match=f"constants base/.*{what}"):
            CheckpointManager(
                tmp_path, {"part": nn.Linear(1, 1)}, constants={"base": {name: tensor}}
            )
