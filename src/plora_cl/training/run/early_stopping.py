"""Stop a task when validation no longer improves, and keep its best weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from plora_cl.state import StateDict


class EarlyStopping:
    """Watches one task's validation score.

    Args:
        patience: Epochs without improvement after which the task stops; 0 never stops it.
        min_delta: An epoch improves when it beats the best one by more than this.
        metric: ``accuracy`` or ``f1`` (macro), both in [0, 1].
    """

    def __init__(self, *, patience: int, min_delta: float, metric: str = "accuracy") -> None:
        self._patience, self._min_delta, self._metric = patience, min_delta, metric
        self._best: float | None = None
        self._stale = 0
        self._weights: dict[str, Tensor] = {}

    @property
    def active(self) -> bool:
        """Whether validation decides anything."""
        return self._patience > 0

    @property
    def has_chosen(self) -> bool:
        """Whether the task is to end with the weights of its best epoch so far."""
        return self.active and self._best is not None

    def reset(self) -> None:
        """Forget everything: a new task begins."""
        self._best, self._stale, self._weights = None, 0, {}

    def update(self, accuracy: float, f1: float, parameters: Mapping[str, nn.Parameter]) -> bool:
        """Take the scores of an epoch and return whether to stop; keeps the best weights."""
        score = f1 if self._metric == "f1" else accuracy
        if self._best is None or score > self._best + self._min_delta:
            self._best, self._stale = score, 0
            self._weights = {name: p.detach().clone() for name, p in parameters.items()}
        else:
            self._stale += 1
        return self._stale >= self._patience

    def verdict(self, done: int, epochs: int, batches: int = 0) -> str:
        """Return in words why a task ended and which weights it continues with.

        Args:
            done: Epochs that were trained.
            epochs: Epochs that were planned; fewer than ``done`` if the plan has changed since.
            batches: Batches that were trained after them.
        """
        name = {"f1": "macro-F1"}.get(self._metric, self._metric)
        best = f"epoch {done - self._stale} (validation {name} {self._best:.4f})"
        ended = f"ended after all {epochs} epochs"
        if self._stale >= self._patience:
            ended = f"stopped after epoch {done} of {epochs}, {self._stale} without improvement"
        if done > epochs:
            ended = f"ended after epoch {done}, {epochs} are planned now"
        kept = (
            "restored the weights of" if self._stale or batches else "kept the weights of the last,"
        )
        return f"{ended}; {kept} {best}"

    def restore_best(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Restore the weights of the best epoch."""
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(self._weights[name])

    def state_dict(self) -> StateDict:
        """Return the best score, its weights, and the epochs since."""
        return {"best": self._best, "stale": self._stale, "weights": dict(self._weights)}

    def load_state_dict(self, state: StateDict, /) -> None:
        """Restore `state_dict`."""
        self._best, self._stale = state["best"], state["stale"]
        self._weights = dict(state["weights"])
