from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from checkpoint.components import Holder, Learner, capture
from plora_cl.checkpoint.snapshot.codec import decode, encode
from plora_cl.checkpoint.snapshot.snapshot import json_copy
from plora_cl.checkpoint.snapshot.staging import HostStaging
from plora_cl.errors import CheckpointError, IncompatibleCheckpointError
from plora_cl.state import RandomState
from plora_cl.state_digest import state_digest


def copied(staging: HostStaging, state: dict[str, Any]) -> Any:
    copy = staging.begin(state)
    staging.complete()
    return copy


def trained(steps: int) -> Learner:
    learner = Learner()
    for _ in range(steps):
        learner.step()
    return learner


@pytest.mark.parametrize("steps", [0, 3])
def test_a_restored_learner_goes_on_bitwise_like_the_one_that_never_stopped(steps: int) -> None:
    learner = trained(steps)
    snapshot = decode(encode(capture(learner.components())))
    expected = [learner.step() for _ in range(3)]
    other = Learner(seed=99)
    other.step()
    snapshot.restore(other.components())
    for loss in expected:
        assert torch.equal(other.step(), loss)
    for mine, theirs in zip(other.model.parameters(), learner.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert encode(capture(other.components())) == encode(capture(learner.components()))


def test_capturing_and_encoding_draw_no_random_number() -> None:
    learner = trained(2)
    before = state_digest(RandomState().state_dict())
    encode(capture(learner.components()))
    assert state_digest(RandomState().state_dict()) == before


def test_a_snapshot_is_of_its_instant_whatever_training_does_later() -> None:
    learner = trained(2)
    snapshot = capture(learner.components())
    before = encode(snapshot)
    for _ in range(3):
        learner.step()
    assert encode(snapshot) == before
    fresh = Learner()
    snapshot.restore(fresh.components())
    fresh.step()
    assert encode(snapshot) == before


def test_settings_changed_after_the_copy_do_not_change_it() -> None:
    settings: dict[str, Any] = {"tasks": ["news"]}
    copy = json_copy(settings, "settings")
    settings["tasks"].append("mail")
    assert copy == {"tasks": ["news"]}


def test_a_staging_area_serves_one_state_after_the_other_whatever_their_layout() -> None:
    staging = HostStaging()
    states: list[Any] = [
        {"a": torch.randn(3), "b": [torch.arange(4), 1]},
        {"a": torch.randn(3), "b": [torch.arange(4) + 9, 2]},
        {"a": torch.randn(5, 2).double(), "c": torch.tensor(True)},
        {"nothing": None},
    ]
    for state in states:
        assert state_digest(copied(staging, state)) == state_digest(state)
    first = copied(staging, states[0])["a"]
    second = copied(staging, states[1])["a"]
    assert first.data_ptr() == second.data_ptr()


def test_what_is_held_is_copied_once_by_whoever_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    staging = HostStaging()
    weights = torch.randn(3)
    expected = state_digest(weights)
    begun, go_on = threading.Event(), threading.Event()
    copy = torch._foreach_copy_
    copies = 0

    def slow_copy(*tensors: Any) -> None:
        nonlocal copies
        copies += 1
        begun.set()
        assert go_on.wait(60)
        copy(*tensors)

    monkeypatch.setattr(torch, "_foreach_copy_", slow_copy)
    held = staging.begin({"weights": weights})["weights"]
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(staging.complete)
        assert begun.wait(60)
        second = threads.submit(staging.complete)
        with pytest.raises(TimeoutError):
            second.result(0.05)
        go_on.set()
        first.result()
        second.result()
    weights.zero_()
    staging.complete()
    assert copies == 1
    assert state_digest(held) == expected


def test_a_tensor_that_changes_before_it_is_copied_is_an_error_on_every_thread() -> None:
    staging = HostStaging()
    parameter = torch.nn.Parameter(torch.randn(3))
    staging.begin({"weights": parameter.detach()})
    with torch.no_grad():
        parameter.add_(1)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"before the save had copied them"):
            staging.complete()
    staging.begin({"weights": parameter.detach()})
    staging.complete()


def test_all_tensors_of_one_dtype_lie_in_one_block_and_keep_their_values() -> None:
    state = {
        "a": [torch.randn(3, 4).t(), {"b": torch.tensor(1.5), "none": torch.empty(0, 2)}],
        "c": (torch.arange(3), torch.nn.Parameter(torch.randn(2))),
        "z": 1,
    }
    copy = copied(HostStaging(), state)
    assert state_digest(copy) == state_digest(state)
    assert list(copy) == list(state)
    floats = [copy["a"][0], copy["a"][1]["b"], copy["c"][1]]
    assert len({tensor.untyped_storage().data_ptr() for tensor in floats}) == 1
    assert all(type(tensor) is torch.Tensor for tensor in floats)
    assert not any(tensor.requires_grad for tensor in floats)


@pytest.mark.parametrize(
    "value", [np.float64(1), np.zeros(2), {1}, b"x", torch.eye(2).to_sparse(), {True: 1}, {0.5: 1}]
)
def test_what_cannot_be_saved_is_refused_at_capture_with_its_place(value: object) -> None:
    with pytest.raises(TypeError, match="/method/value/1"):
        capture({"method": Holder([0, value])})


def test_settings_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="settings/lambda_ewc is nan"):
        json_copy({"lambda_ewc": float("nan")}, "settings")


def test_components_that_are_missing_or_left_over_are_listed() -> None:
    snapshot = capture({"model": Holder(1), "old": Holder(2)})
    model = Holder(7)
    refused = partial(pytest.raises, IncompatibleCheckpointError)
    with refused(match=r"checkpoint lacks \['new'\] and has unexpected \['old'\]$"):
        snapshot.restore({"model": model, "new": Holder(0)})
    with refused(match=r"the checkpoint has unexpected \['old'\]$"):
        snapshot.restore({"model": model})
    assert model.state == 7


def test_another_shape_is_refused_with_its_name() -> None:
    snapshot = capture(Learner().components())
    with pytest.raises(IncompatibleCheckpointError, match=r"size mismatch: 0\.weight"):
        snapshot.restore(Learner(width=6).components())


def test_a_component_that_refuses_its_state_is_named() -> None:
    snapshot = capture({"optimizer": Holder(1)})
    with pytest.raises(IncompatibleCheckpointError, match="optimizer refuses"):
        snapshot.restore({"optimizer": Learner().optimizer})


@pytest.mark.parametrize("error", [AttributeError, IndexError, AssertionError])
def test_a_component_that_cannot_read_its_state_is_named(error: type[Exception]) -> None:
    def fails(state: Any) -> Any:
        raise error("no such thing")

    snapshot = capture({"loader": Holder(1)})
    with pytest.raises(IncompatibleCheckpointError, match=r"loader refuses .*: no such thing"):
        snapshot.restore({"loader": Holder(1, fails)})


@pytest.mark.parametrize("wrong", [str, float, bool])
def test_a_state_that_was_loaded_but_not_applied_is_noticed_and_named(wrong: Any) -> None:
    snapshot = capture({"good": Holder(1), "scheduler": Holder(1)})
    with pytest.raises(CheckpointError, match="the state of scheduler was loaded but is not in"):
        snapshot.restore({"good": Holder(0), "scheduler": Holder(0, wrong)})


def test_one_wrong_bit_of_a_live_tensor_is_noticed() -> None:
    snapshot = capture({"model": Holder(torch.zeros(1000))})

    def nearly(tensor: torch.Tensor) -> torch.Tensor:
        tensor[-1] = -0.0
        return tensor

    with pytest.raises(CheckpointError, match="the state of model"):
        snapshot.restore({"model": Holder(None, nearly)})
