"""Progressive LoRA for continual learning, with runs that resume to the bit.

The names below are the public interface. Each is loaded at its first use: ``import plora_cl``
imports neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from plora_cl.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    CorruptCheckpointError,
    DataError,
    ExperimentExistsError,
    ExperimentLockedError,
    ExperimentMovedError,
    ExtensionError,
    IncompatibleCheckpointError,
    MethodError,
    ModelError,
    OutputError,
    PloraError,
    ReportError,
    RunStoppedError,
    SettingsError,
    StudyError,
    TrainingError,
)

if TYPE_CHECKING:
    from plora_cl.checkpoint import CheckpointStore, load_checkpoint, verify
    from plora_cl.config.loading import load_settings
    from plora_cl.config.schema import Settings
    from plora_cl.export.task import export_task
    from plora_cl.inference.experiment import Experiment, load_experiment
    from plora_cl.inference.predictions import Prediction, Predictions
    from plora_cl.methods.base import ContinualMethod
    from plora_cl.state import Stateful
    from plora_cl.training.trainer import CLTrainer

    __version__: str

__all__ = [
    "CLTrainer",
    "CheckpointError",
    "CheckpointNotFoundError",
    "CheckpointStore",
    "ContinualMethod",
    "CorruptCheckpointError",
    "DataError",
    "Experiment",
    "ExperimentExistsError",
    "ExperimentLockedError",
    "ExperimentMovedError",
    "ExtensionError",
    "IncompatibleCheckpointError",
    "MethodError",
    "ModelError",
    "OutputError",
    "PloraError",
    "Prediction",
    "Predictions",
    "ReportError",
    "RunStoppedError",
    "Settings",
    "SettingsError",
    "Stateful",
    "StudyError",
    "TrainingError",
    "__version__",
    "export_task",
    "load_checkpoint",
    "load_experiment",
    "load_settings",
    "verify",
]

_LAZY = {
    "CLTrainer": "plora_cl.training.trainer",
    "CheckpointStore": "plora_cl.checkpoint",
    "ContinualMethod": "plora_cl.methods.base",
    "Experiment": "plora_cl.inference.experiment",
    "Prediction": "plora_cl.inference.predictions",
    "Predictions": "plora_cl.inference.predictions",
    "Settings": "plora_cl.config.schema",
    "Stateful": "plora_cl.state",
    "export_task": "plora_cl.export.task",
    "load_checkpoint": "plora_cl.checkpoint",
    "load_experiment": "plora_cl.inference.experiment",
    "load_settings": "plora_cl.config.loading",
    "verify": "plora_cl.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("plora-cl")
    elif name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
