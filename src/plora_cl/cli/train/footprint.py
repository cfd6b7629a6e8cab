"""How much a run would write, from the headers of weight files; no tensor is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

from plora_cl.bounded_reading import open_regular
from plora_cl.checkpoint.format.inspection import object_tensors
from plora_cl.config.schema import Settings
from plora_cl.errors import CorruptCheckpointError, ModelError
from plora_cl.model.locations import resolve_packaged
from plora_cl.model.projections import ATTENTION_PROJECTIONS, ends_with

_NUMBER = 4  # bytes of a float32
_MOMENTS = 2  # of AdamW, for each trained parameter
_OVERHEAD = 24_000  # bytes of a checkpoint apart from tensors: generators, scores, names
_ROUTER_LAYERS = 2
_NORM = re.compile(r"norm|(^|\.)ln", re.IGNORECASE)

Shapes = Mapping[str, Sequence[int]]


class Footprint(NamedTuple):
    """What a run would write, in bytes, about.

    Attributes:
        parameters: Number of parameters of the encoder.
        base: Of the encoder, stored once.
        tasks: Of what stays of each finished task.
        checkpoint: Of one checkpoint file.
        kept: Checkpoint files at the end of the run.
    """

    parameters: int
    base: int
    tasks: int
    checkpoint: int
    kept: int

    @property
    def total(self) -> int:
        """Of everything at the end of the run."""
        return self.base + self.tasks + self.checkpoint * self.kept


def footprint(settings: Settings, classes: Sequence[int]) -> Footprint | None:
    """Return what a run would write; None where the weights of its encoder are not on this disk.

    What methods keep of each task comes on top.

    Args:
        settings: Of the run.
        classes: Number of classes of each task.

    Raises:
        ModelError: A file of weights is damaged.
    """
    shapes = _shapes(Path(resolve_packaged(settings.model_name)))
    if shapes is None:
        return None
    matrices = {name.removesuffix(".weight"): shape for name, shape in shapes.items()}
    matrices = {name: shape for name, shape in matrices.items() if len(shape) == 2}
    targets = settings.lora_target_modules
    adapted = [
        sum(shape)
        for name, shape in matrices.items()
        if (
            ATTENTION_PROJECTIONS.search(name)
            if targets is None
            else any(ends_with(name, ending) for ending in targets)
        )
    ]
    adapter = settings.lora_r * sum(adapted)
    features = adapted[0] // 2 if adapted else 0
    own = [(adapter if settings.task_adapters else 0) + (features + 1) * n for n in classes]
    shared = adapter if settings.shared == "lora" else _shared(settings.shared, shapes)
    router = _ROUTER_LAYERS * features**2 if settings.use_router else 0
    trained = shared + (sum(own) if settings.joint else max(own))
    base = sum(map(prod, shapes.values()))
    stages = 1 if settings.joint else len(classes)
    kept = stages - 1 + settings.keep_last_n_checkpoints if settings.checkpoint_every else 0
    return Footprint(
        parameters=base,
        base=base * _NUMBER,
        tasks=(sum(own) + router * len(classes)) * _NUMBER,
        checkpoint=trained * (1 + _MOMENTS) * _NUMBER + _OVERHEAD,
        kept=kept,
    )


def _shared(shared: str, shapes: Shapes) -> int:
    """Return the number of shared parameters of the encoder, see `plora_cl.model.encoder`."""
    if shared == "none":
        return 0
    if shared == "layernorm":
        found = (shape for name, shape in shapes.items() if _NORM.search(name))
    elif shared == "embeddings":
        found = (s for name, s in shapes.items() if "embeddings" in name and len(s) == 2)
    else:
        pattern = re.compile("" if shared == "all" else shared)
        found = (shape for name, shape in shapes.items() if pattern.search(name))
    return sum(map(prod, found))


def _shapes(folder: Path) -> Shapes | None:
    """Return the shape of each parameter of the encoder in a folder; None if it has no such file.

    Parameters of heads for other tasks, which a run does without, are left out.
    """
    found: dict[str, Sequence[int]] = {}
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        try:
            with open_regular(path) as file:
                found |= {name: info.shape for name, info in object_tensors(file).items()}
        except (OSError, CorruptCheckpointError) as error:
            raise ModelError(f"model_name: {path} cannot be read: {error}") from error
    of_heads = re.compile(r"^(cls|classifier|vocab_|lm_head|qa_outputs|pre_classifier)|pooler\.")
    return {name: shape for name, shape in found.items() if not of_heads.search(name)} or None
