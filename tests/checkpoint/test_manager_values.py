"""What `CheckpointManager` takes as steps, losses, identities and states, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoint.components import Holder, Learner
from checkpoint.test_manager import manager, names, train
from plora_cl.checkpoint import (
    CheckpointManager,
    CheckpointStore,
    IncompatibleCheckpointError,
    load_checkpoint,
)


@pytest.mark.parametrize(
    "loss",
    [np.float64(0.5), np.float32(0.5), torch.tensor(0.5), torch.tensor([0.5], requires_grad=True)],
    ids=["float64", "float32", "tensor", "tensor with a gradient"],
)
def test_steps_and_losses_of_other_libraries_are_saved_as_plain_numbers(
    tmp_path: Path, loss: Any
) -> None:
    with CheckpointManager(tmp_path, {"part": Holder(1)}) as checkpoints:
        checkpoints.save(np.int64(5), loss=loss)
        checkpoints.save(torch.tensor(6), loss=loss)
    snapshot = load_checkpoint(tmp_path).snapshot
    assert (snapshot.cursor["step"], snapshot.loss) == (6, 0.5)
    assert {type(snapshot.cursor["step"]), type(snapshot.loss)} == {int, float}


@pytest.mark.parametrize("step", [True, 5.0, np.float64(7), "5", None])
def test_a_step_that_is_no_integer_is_refused_at_once(tmp_path: Path, step: Any) -> None:
    with CheckpointManager(tmp_path, {"part": Holder(1)}) as checkpoints:
        with pytest.raises(TypeError, match=r"step is .*; expected an integer"):
            checkpoints.save(step)
        with pytest.raises(ValueError, match="expected at most 999999999999999999"):
            checkpoints.save(10**18)
        checkpoints.save(1)
    assert names(tmp_path) == ["checkpoint_task0_epoch0_batch0.pt"]


@pytest.mark.parametrize("loss", [10**400, "high", torch.zeros(2), 1j])
def test_a_loss_that_is_no_number_is_refused_at_once(tmp_path: Path, loss: Any) -> None:
    with (
        CheckpointManager(tmp_path, {"part": Holder(1)}) as checkpoints,
        pytest.raises(TypeError, match=r"loss is .*; expected one number"),
    ):
        checkpoints.save(1, loss=loss)


@pytest.mark.parametrize(
    ("before", "now"),
    [(True, 1), (0, False), (0.0, -0.0), (0, 0.0), ([1, {"a": 1}], [1, {"a": 1.0}])],
)
def test_an_identity_that_is_equal_only_to_python_is_another_one(
    tmp_path: Path, before: Any, now: Any
) -> None:
    train(tmp_path, 1, identity={"value": before})
    with (
        manager(tmp_path, Learner(), identity={"value": now}) as checkpoints,
        pytest.raises(IncompatibleCheckpointError, match=r"identity\.value: .+ in the checkpoint"),
    ):
        checkpoints.resume()
    with manager(tmp_path, Learner(), identity={"value": before}) as checkpoints:
        assert checkpoints.resume() == 1


def test_a_key_of_the_identity_that_json_would_turn_into_text_is_refused_by_name(
    tmp_path: Path,
) -> None:
    with pytest.raises(TypeError, match=r"the key 1 of identity/classes/0 is an int.*pass '1'"):
        CheckpointManager(tmp_path, {"part": Holder(1)}, identity={"classes": [{1: "a", "1": "b"}]})
    CheckpointManager(tmp_path, {"part": Holder(1)}).close()


def test_accepted_changes_of_a_large_identity_do_not_make_checkpoints_grow(tmp_path: Path) -> None:
    for change in range(4):
        files = [f"{change}-{number}" for number in range(10_000)]
        with manager(tmp_path, Learner(), identity={"files": files}) as checkpoints:
            step = checkpoints.resume(accept_changes=True)
            checkpoints.save(step + 1)
    history = (
        CheckpointStore(tmp_path / "checkpoints")
        .manifest(CheckpointStore(tmp_path / "checkpoints").entries()[-1])
        .trajectory.history
    )
    recorded = [change for departure in history for change in departure.changes]
    assert len(recorded) == 3
    assert len({change["now"] for change in recorded}) == 3
    assert max(len(change["before"]) for change in recorded) < 250
    assert recorded[0]["before"].startswith("['0-0', '0-1', ")


def test_a_tensor_of_inference_mode_is_refused_with_its_place_and_the_way_out(
    tmp_path: Path,
) -> None:
    with torch.inference_mode():
        mean = torch.ones(2)
    part = Holder({"mean": [mean]})
    with CheckpointManager(tmp_path, {"part": part}) as checkpoints:
        with pytest.raises(TypeError, match=r"'/part/value/mean/0' is an inference tensor.*clone"):
            checkpoints.save(1)
        part.state = {"mean": [mean.clone()]}
        checkpoints.save(1)
    assert load_checkpoint(tmp_path).snapshot.state["part"]["value"]["mean"][0].sum() == 2
