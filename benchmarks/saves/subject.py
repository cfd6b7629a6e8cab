"""A real run in the middle of a task, of which every step can be saved."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch

from plora_cl.state import Cursor
from plora_cl.training.reporting import Reporter
from plora_cl.training.trainer import CLTrainer
from saves.workplace import BATCH, Workplace


class Announcements(Reporter):
    """Notes when each checkpoint was announced as durable."""

    def __init__(self) -> None:
        self.count = 0
        self.at = 0.0

    def message(self, text: str, /) -> None:
        """Note the instant; show whatever is no announcement."""
        if text.startswith("Checkpoint saved: "):
            self.at = time.perf_counter()
            self.count += 1
        else:
            print(text, file=sys.stderr)


class Subject:
    """What `CLTrainer` builds from settings, moved into the middle of a task.

    Args:
        place: Where everything is.
        name: Of the experiment.
        tasks: How many there are.
        at: Zero-based task in training.
        sizes: Training examples of each task; one batch each by default.
        settings: Whatever differs from `Workplace.settings`.
    """

    def __init__(
        self,
        place: Workplace,
        name: str,
        *,
        tasks: int,
        at: int,
        sizes: list[int] | None = None,
        **settings: Any,
    ) -> None:
        folders = place.tasks(sizes or [BATCH] * tasks)
        self.settings = {**place.settings(name, place.distilbert(), folders), **settings}
        self.said = Announcements()
        trainer = CLTrainer(reporter=self.said, **self.settings)
        self.folder = trainer.folder
        self.run = trainer.run
        self.checkpointer = self.run.checkpointer
        self.parts = parts = self.run.components
        parts.run_log.clear()
        parts.rebuild(Cursor(task=at))
        if at:
            parts.methods.load_memory({"ewc/running": self._memory()})
        self.model, self.loss = parts.model, 0.5
        self.parameters = list(self.model.trainable().values())
        for parameter in self.parameters:
            parameter.grad = torch.randn_like(parameter)
        self.step()

    @property
    def trainable(self) -> int:
        """Number of scalars that change from step to step."""
        return sum(parameter.numel() for parameter in self.parameters)

    @property
    def bytes_allowed(self) -> float:
        """Most bytes that a save should write."""
        return 1.05 * 12 * self.trainable + 64 * 1024

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of PyTorch."""
        assert self.parts.optimization is not None
        return self.parts.optimization.optimizer

    @property
    def scheduler(self) -> Any:
        """The learning-rate schedule."""
        assert self.parts.optimization is not None
        return self.parts.optimization.scheduler

    def step(self) -> None:
        """Change everything that changes from step to step; gradients are the same each time."""
        self.optimizer.step()
        self.scheduler.step()
        self._advance()

    def backward(self) -> None:
        """Compute the gradients of one batch of 8 texts of 64 tokens, as training does."""
        assert self.parts.optimization is not None
        batch = self.parts.stream.at(0, 0)
        self.parts.optimization.accumulate(self.model, self.parts.methods, batch, batches_of_step=1)

    def apply(self) -> None:
        """Apply the gradients of `backward`, as training does."""
        assert self.parts.optimization is not None
        self.parts.optimization.step(self.model, self.parts.methods)
        self._advance()

    def save(self) -> Path:
        """Save; `settle` before the next step."""
        self.run.save()
        return self.checkpointer.store.directory if self.checkpointer.store else Path()

    def settle(self) -> None:
        """Return when training may change what was saved."""
        self.checkpointer.settle()

    def memory(self) -> dict[str, Any]:
        """Return the Fisher information and the anchors."""
        return {
            f"{group}/{name}": tensor
            for group, tensors in self.parts.methods.memory().items()
            for name, tensor in tensors.items()
        }

    def live(self) -> dict[str, Any]:
        """Return the states that change from step to step."""
        return {name: part.state_dict() for name, part in self.parts.live().items()}

    def everything(self) -> dict[str, Any]:
        """Return what the naive design saves: base, heads, adapters, optimizer, Fisher, anchors."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "ewc": self.memory(),
            "random": self.parts.random.state_dict(),
            "cursor": self.parts.cursor.state_dict(),
        }

    def _memory(self) -> dict[str, torch.Tensor]:
        shared = self.parts.model.shared_parameters()
        return {
            **{f"fisher.{name}": torch.rand_like(p).detach() for name, p in shared.items()},
            **{f"anchor.{name}": p.detach().clone() for name, p in shared.items()},
        }

    def _advance(self) -> None:
        cursor = self.parts.cursor
        cursor.advance(batches_per_epoch=len(self.parts.stream))
        cursor.step += 1
        self.parts.loss = 0.5
        self.parts.costs.count(self.parts.task.name, steps=1, examples=BATCH)
        record = {"event": "step", "step": cursor.step, "task": cursor.task, "loss": 0.5}
        self.parts.run_log.append(record)
