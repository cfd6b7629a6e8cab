"""`split_module` of modules that change after it was called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from checkpoint.components import Holder
from plora_cl.checkpoint import (
    CheckpointError,
    CheckpointManager,
    IncompatibleCheckpointError,
    split_module,
)


class Centred(nn.Linear):
    """Subtracts a running mean, a buffer that each forward pass replaces; counts the passes."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.passes = 0

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what is learned of the inputs around their mean."""
        self.passes += 1
        self.mean = 0.9 * self.mean + 0.1 * inputs.mean(0)
        return super().forward(inputs - self.mean) / self.passes

    def get_extra_state(self) -> Any:
        """Return the number of passes."""
        return {"passes": self.passes}

    def set_extra_state(self, state: Any) -> None:
        """Continue to count from ``state``."""
        self.passes = state["passes"]


def train(folder: Path, steps: int) -> dict[str, Any]:
    torch.manual_seed(0)
    module = nn.Sequential(Centred())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    parts: dict[str, Any] = {"module": split_module(module)[0], "optimizer": optimizer}
    with CheckpointManager(folder, parts) as checkpoints:
        for step in range(checkpoints.resume(), steps):
            optimizer.zero_grad()
            module(torch.full((3, 2), step + 1.0)).square().sum().backward()
            optimizer.step()
            checkpoints.save(step + 1)
    return {**module.state_dict(), "passes": module[0].passes}


def test_buffers_that_are_assigned_and_extra_states_survive_a_resume(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", 6)
    train(tmp_path / "parts", 3)
    resumed = train(tmp_path / "parts", 6)
    assert whole["passes"] == resumed["passes"] == 6
    for name in ("0.weight", "0.bias", "0.mean"):
        assert torch.equal(whole[name], resumed[name]), name


def test_the_parts_hold_what_the_module_holds_now() -> None:
    module = nn.Sequential(nn.Linear(3, 3).requires_grad_(requires_grad=False), nn.BatchNorm1d(3))
    trained, frozen = split_module(module)
    module.double()
    module(torch.randn(5, 3).double())
    now = module.state_dict()
    held = {**trained.state_dict(), **frozen.state_dict()}
    assert held.keys() == now.keys()
    assert all(torch.equal(held[name], tensor) for name, tensor in now.items())
    assert list(trained.state_dict()) == [name for name in now if name.startswith("1.")]


def unfreeze(module: nn.Sequential) -> None:
    module[0].requires_grad_(requires_grad=True)


def freeze(module: nn.Sequential) -> None:
    module[1].requires_grad_(requires_grad=False)


def append(module: nn.Sequential) -> None:
    module.append(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unfreeze, r"0.bias was frozen when .* and is trained now \(1 more changed\)"),
        (freeze, r"1.bias was trained when .* and is frozen now"),
        (append, r"2.bias was absent when .* and is trained now"),
    ],
)
def test_a_module_with_other_members_than_when_it_was_split_is_refused(
    tmp_path: Path, change: Callable[[nn.Sequential], None], message: str
) -> None:
    module = nn.Sequential(nn.Linear(2, 2).requires_grad_(requires_grad=False), nn.Linear(2, 2))
    trained, _ = split_module(module)
    with CheckpointManager(tmp_path, {"module": trained}) as checkpoints:
        checkpoints.save(1)
        change(module)
        with pytest.raises(CheckpointError, match=message):
            checkpoints.save(2)


def test_frozen_parameters_that_are_replaced_are_refused_at_the_next_save(tmp_path: Path) -> None:
    module = nn.Linear(2, 2).requires_grad_(requires_grad=False)
    _, frozen = split_module(module)
    with CheckpointManager(
        tmp_path, {"part": Holder(1)}, constants={"base": frozen}
    ) as checkpoints:
        checkpoints.save(1)
        checkpoints.flush()
        module.load_state_dict({"weight": torch.ones(2, 2), "bias": torch.ones(2)}, assign=True)
        with pytest.raises(CheckpointError, match="written to: base/weight, base/bias"):
            checkpoints.save(2)


def test_a_checkpoint_without_the_extra_state_of_a_module_is_refused() -> None:
    trained, _ = split_module(Centred())
    state = trained.state_dict()
    del state["_extra_state"]
    with pytest.raises(IncompatibleCheckpointError, match="lacks the extra state _extra_state"):
        trained.load_state_dict(state)
