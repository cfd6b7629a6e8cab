"""Live components of a small run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.format.trajectory import UNKNOWN
from plora_cl.checkpoint.snapshot.snapshot import RunFacts, Snapshot
from plora_cl.checkpoint.snapshot.staging import HostStaging
from plora_cl.state import Cursor, Phase, RandomState, StateDict, Stateful, TensorPart


class Learner:
    """A model with dropout under AdamW and a warm-up: everything that must survive."""

    def __init__(self, seed: int = 0, width: int = 5) -> None:
        self._width = width
        self.random = RandomState.seeded(seed)
        self.model = nn.Sequential(nn.Linear(width, 4), nn.Dropout(0.5), nn.Linear(4, 2))
        self.optimizer = AdamW(self.model.parameters(), lr=0.1)
        self.scheduler = LambdaLR(self.optimizer, lambda step: min(1.0, (step + 1) / 4))

    def step(self) -> Tensor:
        """Take one optimizer step on random data; return the loss."""
        self.optimizer.zero_grad()
        loss: Tensor = self.model(torch.randn(8, self._width)).square().mean()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return loss.detach()

    def components(self) -> dict[str, Stateful]:
        return {
            "model": TensorPart(dict(self.model.named_parameters())),
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "random": self.random,
        }


class Plain:
    """A component whose state is ``state``."""

    def __init__(self, state: StateDict) -> None:
        self.state = state

    def state_dict(self) -> StateDict:
        return self.state

    def load_state_dict(self, state: StateDict, /) -> None:
        self.state = state


class Holder:
    """A component that holds whatever it is given.

    Args:
        state: What it holds.
        applied: What it makes of a state that is loaded.
    """

    def __init__(self, state: Any, applied: Callable[[Any], Any] = lambda state: state) -> None:
        self.state = state
        self._applied = applied

    def state_dict(self) -> StateDict:
        return {"value": self.state}

    def load_state_dict(self, state: StateDict, /) -> None:
        self.state = self._applied(state["value"])


def capture(
    components: Mapping[str, Stateful],
    *,
    objects: Mapping[str, ObjectRef] | None = None,
    loss: float | None = 0.25,
    settings: Mapping[str, Any] | None = None,
) -> Snapshot:
    staging = HostStaging()
    snapshot = Snapshot.capture(
        components,
        cursor=Cursor(task=1, phase=Phase.TRAIN, epoch=2, batch=3, step=4).state_dict(),
        trained_tasks=["news"],
        loss=loss,
        facts=RunFacts(
            seed=42,
            settings=settings or {"lora_r": 8, "tasks": ["news", "mail"], "learning_rate": 1e-4},
            identity={"data": "abc"},
            environment={"torch": "2"},
        ),
        trajectory=UNKNOWN,
        staging=staging,
    )
    staging.complete()
    return replace(snapshot, objects=objects or {})
