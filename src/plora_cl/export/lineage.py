"""What an export says of where it comes from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from plora_cl.checkpoint.format.manifest import BASE_WEIGHTS
from plora_cl.export.folder import FORMAT
from plora_cl.inference.experiment import Experiment

_SHOWN = (
    "seed", "epochs", "batch_size", "gradient_accumulation_steps", "learning_rate", "precision",
    "max_length", "pooling", "composition", "shared", "task_adapters", "joint", "lora_r",
    "lora_alpha", "lora_dropout", "use_lateral", "use_ewc", "use_orthogonal", "use_replay",
)  # fmt: skip
"""Settings that are published. Others may name folders and people."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """What an exported model was made from.

    Attributes:
        format: Of the export.
        kind: ``peft``, ``transformers`` or ``onnx``.
        task: What the model predicts.
        classes: Its classes, in the order of the logits.
        experiment: Name of the experiment.
        checkpoint: Name of the checkpoint file.
        checkpoint_sha256: Of that file.
        learned: Names of the tasks that were learned by then, in order.
        base: Hub id of the base model; its last name where it is a folder.
        base_sha256: Of the base weights that stayed as they were.
        examples: Training texts of the task.
        data_sha256: Of the splits of the task, with their tokens: train, validation, test.
        scores: Accuracy and macro-F1 of the task on its test split, in [0, 1], as last measured.
        settings: Those that decide the result.
        plora_cl: Version of this package.
    """

    format: str
    kind: str
    task: str
    classes: tuple[str, ...]
    experiment: str
    checkpoint: str
    checkpoint_sha256: str
    learned: tuple[str, ...]
    base: str
    base_sha256: str | None
    examples: int
    data_sha256: dict[str, str]
    scores: dict[str, float]
    settings: dict[str, Any]
    plora_cl: str

    def to_plain(self) -> dict[str, Any]:
        """Return the attributes as plain JSON values."""
        return asdict(self)


def lineage_of(experiment: Experiment, task: str, kind: str) -> Lineage:
    """Return what an export of ``task`` is made from.

    Raises:
        ModelError: There is no such task.
        CheckpointNotFoundError: The checkpoint was rotated away since it was loaded.
    """
    snapshot, learned = experiment.snapshot, experiment.task(task)
    settings, facts = snapshot.facts.settings, snapshot.facts
    data = next(one for one in facts.identity["data"] if one["name"] == task)
    base = snapshot.objects.get(BASE_WEIGHTS)
    return Lineage(
        format=FORMAT,
        kind=kind,
        task=task,
        classes=learned.classes,
        experiment=experiment.folder.absolute().name,
        checkpoint=experiment.checkpoint.name,
        checkpoint_sha256=experiment.checkpoint_digest(),
        learned=tuple(snapshot.trained_tasks),
        base=hub_id(settings["model_name"]) or Path(settings["model_name"]).name,
        base_sha256=None if base is None else base.sha256,
        examples=int(data["examples"]),
        data_sha256={split: data[split] for split in ("train", "validation", "test")},
        scores=_scores(experiment, task),
        settings={name: settings[name] for name in _SHOWN if name in settings},
        plora_cl=version("plora-cl"),
    )


def hub_id(model_name: str) -> str | None:
    """Return the id of a model on the hub; None if it is a folder or packaged."""
    if model_name.startswith("packaged:") or Path(model_name).is_absolute():
        return None
    return None if Path(model_name).exists() else model_name


def _scores(experiment: Experiment, task: str) -> dict[str, float]:
    frames = experiment.scores()
    found = {}
    for name in ("accuracy", "f1", "routed_accuracy"):
        measured = [value for value in getattr(frames, name)[task] if not math.isnan(value)]
        if measured:
            found[name] = float(measured[-1])
    return found
