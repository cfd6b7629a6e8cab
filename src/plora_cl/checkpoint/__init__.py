"""Checkpoints for any PyTorch loop: durable, verified, resumable to the bit.

`CheckpointManager` saves and resumes; docs/checkpoint-library.md shows it in a complete program.
`load_checkpoint` and `verify` read what it, or a run of `plora-cl train`, has saved. Importing this
package imports no PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plora_cl.checkpoint.manager import CheckpointManager
    from plora_cl.checkpoint.module_parts import split_module
    from plora_cl.checkpoint.reading import load_checkpoint, verify
    from plora_cl.checkpoint.snapshot.loading import Resumable
    from plora_cl.checkpoint.snapshot.snapshot import Snapshot
    from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
    from plora_cl.checkpoint.tools.verification import Verification
    from plora_cl.errors import (
        CheckpointError,
        CheckpointNotFoundError,
        CorruptCheckpointError,
        ExperimentExistsError,
        ExperimentLockedError,
        ExperimentMovedError,
        IncompatibleCheckpointError,
    )
    from plora_cl.state import Stateful, TensorPart

__all__ = [
    "CheckpointEntry",
    "CheckpointError",
    "CheckpointManager",
    "CheckpointNotFoundError",
    "CheckpointStore",
    "CorruptCheckpointError",
    "ExperimentExistsError",
    "ExperimentLockedError",
    "ExperimentMovedError",
    "IncompatibleCheckpointError",
    "Resumable",
    "Snapshot",
    "Stateful",
    "TensorPart",
    "Verification",
    "load_checkpoint",
    "split_module",
    "verify",
]

_MODULES = {
    "CheckpointEntry": "plora_cl.checkpoint.store.store",
    "CheckpointManager": "plora_cl.checkpoint.manager",
    "CheckpointStore": "plora_cl.checkpoint.store.store",
    "Resumable": "plora_cl.checkpoint.snapshot.loading",
    "Snapshot": "plora_cl.checkpoint.snapshot.snapshot",
    "Stateful": "plora_cl.state",
    "TensorPart": "plora_cl.state",
    "Verification": "plora_cl.checkpoint.tools.verification",
    "load_checkpoint": "plora_cl.checkpoint.reading",
    "split_module": "plora_cl.checkpoint.module_parts",
    "verify": "plora_cl.checkpoint.reading",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES.get(name, "plora_cl.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
