"""What is noticed of a constant that changes, and when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch

from checkpoint.components import Holder
from plora_cl.checkpoint import CheckpointError, CheckpointManager, load_checkpoint, split_module


def module() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(2, 2).requires_grad_(requires_grad=False)


def manager(folder: Path, base: torch.nn.Module) -> CheckpointManager:
    return CheckpointManager(folder, {"step": Holder(0)}, constants={"base": split_module(base)[1]})


def assign_data(base: torch.nn.Linear) -> None:
    base.weight.data = base.weight.data + 1


def halve(base: torch.nn.Linear) -> None:
    base.half()


def reshape(base: torch.nn.Linear) -> None:
    base.weight.data = base.weight.data.view(4)


@pytest.mark.parametrize("change", [assign_data, halve, reshape])
def test_a_constant_whose_data_is_assigned_is_refused_by_name_at_the_next_save(
    tmp_path: Path, change: Callable[[torch.nn.Linear], None]
) -> None:
    base = module()
    with manager(tmp_path, base) as checkpoints:
        checkpoints.save(1)
        checkpoints.flush()
        change(base)
        with pytest.raises(CheckpointError, match="written to: base/weight"):
            checkpoints.save(2)


@pytest.mark.parametrize("method", ["flush", "close"])
def test_a_constant_that_is_written_to_through_its_data_is_refused_when_saves_are_made_durable(
    tmp_path: Path, method: str
) -> None:
    base = module()
    checkpoints = manager(tmp_path, base)
    checkpoints.save(1)
    checkpoints.flush()
    base.weight.data += 1
    checkpoints.save(2)
    with pytest.raises(CheckpointError, match="written to: base"):
        getattr(checkpoints, method)()
    if method == "flush":
        with pytest.raises(CheckpointError, match="written to: base"):
            checkpoints.save(3)
        with pytest.raises(CheckpointError, match="written to: base"):
            checkpoints.close()
    manager(tmp_path, module()).close()


def test_weights_that_are_merged_and_unmerged_by_peft_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = peft.get_peft_model(
        torch.nn.Sequential(torch.nn.Linear(64, 64)),
        peft.LoraConfig(target_modules=["0"], init_lora_weights=False),
    )
    trained, frozen = split_module(model)
    checkpoints = CheckpointManager(tmp_path, {"adapter": trained}, constants={"base": frozen})
    checkpoints.save(1)
    checkpoints.flush()
    model.merge_adapter()
    model.unmerge_adapter()
    checkpoints.save(2)
    with pytest.raises(CheckpointError, match="written to: base"):
        checkpoints.close()


def test_constants_are_hashed_again_only_after_a_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with manager(tmp_path, module()) as checkpoints:
        checkpoints.resume()
        checkpoints.save(1)
        checkpoints.flush()
        monkeypatch.setattr("plora_cl.checkpoint.snapshot.constants.begin_hashing", None)
        checkpoints.flush()
    assert load_checkpoint(tmp_path).objects["base"].keys() == {"weight", "bias"}


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(2, dtype=torch.complex128), r"constants base/x is a tensor of torch\.complex"),
        (torch.eye(2).to_sparse(), r"constants base/x is a tensor of .*sparse"),
        (3.0, "constants base/x is a float; expected a tensor"),
    ],
)
def test_a_constant_that_cannot_be_stored_is_refused_by_name_at_once(
    tmp_path: Path, tensor: object, message: str
) -> None:
    folder = tmp_path / "new"
    with pytest.raises(TypeError, match=message):
        CheckpointManager(folder, {"part": Holder(1)}, constants={"base": {"x": tensor}})  # type: ignore[dict-item]
    assert not folder.exists()


def test_a_module_given_as_constants_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"constants base is a Linear; .*split_module\(module\)"):
        CheckpointManager(tmp_path, {"part": Holder(1)}, constants={"base": module()})  # type: ignore[dict-item]
