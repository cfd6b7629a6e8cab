"""Exports one task of an experiment, and checks the result before it appears."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from plora_cl.errors import ModelError
from plora_cl.export.card import model_card
from plora_cl.export.extra import require_onnx
from plora_cl.export.folder import LINEAGE, appearing, require_writable
from plora_cl.export.lineage import hub_id, lineage_of
from plora_cl.export.weights import TaskWeights, task_weights
from plora_cl.inference.experiment import Experiment
from plora_cl.pretrained.quiet import quiet_loading

if TYPE_CHECKING:
    from os import PathLike

ExportFormat: TypeAlias = Literal["peft", "transformers", "onnx"]
_Logits: TypeAlias = Callable[[Tensor, Tensor], Tensor]

_TOLERANCE = 1e-4  # of the largest logit: float32 in another order of operations
_PROBES = ((3, 9), (1, 16), (2, 5))  # texts, tokens


def export_task(
    experiment: Experiment,
    task: str,
    out: str | PathLike[str],
    *,
    format: ExportFormat,  # noqa: A002 - as the flag
    overwrite: bool = False,
    repository: str | None = None,
) -> Path:
    """Export one task as a model that loads without this package.

    The logits of the export are compared with those of the experiment before the folder appears.

    Args:
        experiment: What learned the task.
        task: Its name.
        out: A new folder; it appears when it is complete.
        format: ``peft``, an adapter with its head for the base model; ``transformers``, the merged
            model; or ``onnx``.
        overwrite: Replace an earlier export.
        repository: Where it will be pushed, for the usage in its card; see `push`.

    Returns:
        The folder.

    Raises:
        ModelError: There is no such task, or the format cannot compute its logits.
        OutputError: The folder exists, or cannot be written.
    """
    if format not in get_args(ExportFormat):
        raise ModelError(f"format: {format!r}; expected {', '.join(get_args(ExportFormat))}")
    if format == "onnx":
        require_onnx()
    folder = Path(out)
    require_writable(folder, overwrite=overwrite)
    index = [one.name for one in experiment.tasks].index(experiment.task(task).name)
    weights = task_weights(experiment.classifier, index)
    lineage = lineage_of(experiment, task, format)
    base = hub_id(experiment.settings.model_name) if format == "peft" else None
    with appearing(folder, overwrite=overwrite) as new, _quiet():
        logits = _save(experiment, weights, index, new, format)
        _check(experiment, index, logits, format)
        tokenizer = deepcopy(experiment.tokenizer)
        tokenizer.model_max_length = experiment.settings.max_length
        tokenizer.save_pretrained(new)
        described = json.dumps(lineage.to_plain(), indent=2, ensure_ascii=False) + "\n"
        (new / LINEAGE).write_text(described, "utf-8")
        where, is_pushed = repository or str(out), repository is not None
        card = model_card(lineage, where=where, base=base, is_pushed=is_pushed)
        (new / "README.md").write_text(card, "utf-8")
    return folder


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries from telling how they save, and which of their own uses are outdated."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with quiet_loading(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        registration.setLevel(level)


def _save(
    experiment: Experiment, weights: TaskWeights, index: int, folder: Path, kind: str
) -> _Logits:
    """Save the model, and return what loads it and computes logits."""
    from plora_cl.export.stock import labelled, require_stock, save_peft, save_transformers

    model = experiment.classifier
    config = labelled(model.encoder.config, experiment.tasks[index].classes)
    if kind == "onnx":
        from plora_cl.export.onnx_model import onnx_logits, save_onnx

        save_onnx(weights, model, index, _probe(experiment, 2, 7), folder)
        config.save_pretrained(folder)
        return partial(onnx_logits, folder)
    head = require_stock(weights, config, model.adapted.pooling)
    if kind == "peft":
        base = hub_id(experiment.settings.model_name)
        return save_peft(weights, config, head, folder, base=base)
    return save_transformers(weights, config, head, folder)


def _check(experiment: Experiment, index: int, exported: _Logits, kind: str) -> None:
    """Compare the logits of an export with those of the model that it was made from.

    Raises:
        ModelError: They differ.
    """
    model: Any = experiment.classifier
    for texts, tokens in _PROBES:
        ids, mask = _probe(experiment, texts, tokens)
        with torch.no_grad():
            found = exported(ids, mask)
            device = model.device
            expected = model(ids.to(device), mask.to(device), index).float().cpu()
        apart = float((found - expected).abs().max())
        if not apart <= _TOLERANCE * max(1.0, float(expected.abs().max())):
            raise ModelError(
                f"the logits of the export as {kind} differ from those of the experiment by "
                f"{apart:.2g}, so that it was not written; try another --format, and report this"
            )


def _probe(experiment: Experiment, texts: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Return token ids and mask of random texts of several lengths, ``[texts, tokens]``."""
    tokenizer = experiment.tokenizer
    tokens = min(tokens, experiment.settings.max_length)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(len(tokenizer), (texts, tokens), generator=generator)
    lengths = torch.arange(texts).flip(0) + tokens - texts + 1
    mask = (torch.arange(tokens) < lengths.unsqueeze(1)).long()
    pad = tokenizer.pad_token_id
    ids = torch.where(ids == pad, (pad + 1) % len(tokenizer), ids)
    return torch.where(mask.bool(), ids, pad), mask
