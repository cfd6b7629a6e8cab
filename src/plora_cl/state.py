"""What a run is made of, and where it stands: the vocabulary every layer shares."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Protocol, Self, SupportsIndex, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from plora_cl.errors import IncompatibleCheckpointError
from plora_cl.plain_numbers import plain_index
from plora_cl.seeds import derived_seed as derived_seed

StateDict: TypeAlias = dict[str, Any]
"""Nested dicts and lists whose leaves are tensors, numbers, strings, booleans or None."""


@runtime_checkable
class Stateful(Protocol):
    """Anything that must survive a crash.

    ``load_state_dict(state_dict())`` on a freshly built object of the same configuration must
    make its future behaviour bitwise identical.
    """

    def state_dict(self) -> StateDict:
        """Return the complete mutable state."""
        ...

    def load_state_dict(self, state: StateDict, /) -> object:
        """Replace the mutable state with ``state``."""
        ...


class Phase(StrEnum):
    """What a task goes through, in this order; TRAIN and VALIDATE alternate, one pair an epoch."""

    PREPARE = "prepare"
    TRAIN = "train"
    VALIDATE = "validate"
    CONSOLIDATE = "consolidate"
    EVALUATE = "evaluate"
    DONE = "done"


@dataclass(slots=True)
class Cursor:
    """The next unit of work.

    ``task``, ``epoch`` and ``batch`` are zero-based and name what runs *next* within ``phase``;
    ``step`` counts the optimizer steps already taken over the whole run.
    """

    task: int = 0
    phase: Phase = Phase.PREPARE
    epoch: int = 0
    batch: int = 0
    step: int = 0

    @classmethod
    def in_training(
        cls, task_idx: SupportsIndex, epoch: SupportsIndex, batch_idx: SupportsIndex, step: int
    ) -> Self:
        """Return the position at a batch.

        Raises:
            TypeError: An index is no integer.
        """
        batch = plain_index("batch_idx", batch_idx)
        task, epoch = plain_index("task_idx", task_idx), plain_index("epoch", epoch)
        return cls(task, Phase.TRAIN, epoch, batch, step)

    def advance(self, *, batches_per_epoch: int) -> None:
        """Move past the batch it points at, into the next epoch after the last one."""
        self.batch += 1
        if self.batch >= batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0

    def next_task(self) -> None:
        """Move to the beginning of the next task."""
        self.task, self.phase, self.epoch, self.batch = self.task + 1, Phase.PREPARE, 0, 0

    def state_dict(self) -> StateDict:
        """Return the cursor as plain integers and the name of the phase."""
        return {
            "task": self.task,
            "phase": self.phase.value,
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
        }

    def load_state_dict(self, state: StateDict, /) -> None:
        """Move the cursor to ``state``."""
        self.task, self.epoch = state["task"], state["epoch"]
        self.batch, self.step = state["batch"], state["step"]
        self.phase = Phase(state["phase"])


def require_same_names(saved: Mapping[str, object], live: Mapping[str, object]) -> None:
    """Refuse a saved state whose names are not those of the live one.

    Raises:
        IncompatibleCheckpointError: Names the missing and the unexpected ones.
    """
    differing = {
        "lacks": sorted(live.keys() - saved.keys()),
        "has unexpected": sorted(saved.keys() - live.keys()),
    }
    if told := [f"{verb} {names}" for verb, names in differing.items() if names]:
        raise IncompatibleCheckpointError(
            f"state_dict mismatch: the checkpoint {' and '.join(told)}"
        )


class TensorPart:
    """A named group of tensors that freezes or changes as a unit, as a `Stateful`.

    Loading copies in place, so optimizers and modules keep their references.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)

    def state_dict(self) -> StateDict:
        """Return the live tensors, not copies of them, by name."""
        return dict(self._tensors)

    def load_state_dict(self, state: StateDict, /) -> None:
        """Copy ``state`` into the tensors.

        Raises:
            IncompatibleCheckpointError: Names, shapes or dtypes differ.
        """
        require_same_names(state, self._tensors)
        for name, tensor in self._tensors.items():
            saved = state[name]
            if saved.shape != tensor.shape or saved.dtype != tensor.dtype:
                raise IncompatibleCheckpointError(
                    f"state_dict size mismatch: {name} is {saved.dtype} {list(saved.shape)} in the "
                    f"checkpoint and {tensor.dtype} {list(tensor.shape)} in this run"
                )
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(state[name])


class RandomState:
    """The process-wide random generators of Python, NumPy, PyTorch and every CUDA device."""

    @classmethod
    def seeded(cls, seed: int) -> Self:
        """Seed every generator with ``seed``."""
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - third-party code draws from this generator
        torch.manual_seed(seed)  # covers CUDA devices too
        return cls()

    def state_dict(self) -> StateDict:
        """Return the state of every generator, drawing nothing from any."""
        version, internal, gauss = random.getstate()
        name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return {
            "python": {
                "version": version,
                "internal": torch.from_numpy(np.array(internal, dtype=np.int64)),
                "gauss": gauss,
            },
            "numpy": {
                "name": str(name),
                "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
                "position": int(position),
                "has_gauss": int(has_gauss),
                "cached": float(cached),
            },
            "torch": torch.get_rng_state(),
            "cuda": cuda,
        }

    def load_state_dict(self, state: StateDict, /) -> None:
        """Rewind every generator to ``state``."""
        python, legacy = state["python"], state["numpy"]
        random.setstate((python["version"], tuple(python["internal"].tolist()), python["gauss"]))
        np.random.set_state(  # noqa: NPY002
            (
                legacy["name"],
                legacy["keys"].numpy().astype(np.uint32),
                legacy["position"],
                legacy["has_gauss"],
                legacy["cached"],
            )
        )
        torch.set_rng_state(state["torch"])
        if state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])


class SeedFor(IntEnum):
    """Last part of the key of a task's seed: what draws from it."""

    HEAD = 0
    ADAPTER = 1
    FISHER = 2
    ROUTER = 3
    LATERAL = 4
    GENERATION = 5
    REPLAY_ORDER = 6
    FISHER_LABELS = 7
    SHARED_ADAPTER = 8
    MIXTURE = 9
    GENERATOR_TUNING = 10
