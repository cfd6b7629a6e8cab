"""One forward pass for texts of several tasks, each under its own adapter and head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from plora_cl.model.classifier import ContinualClassifier


def can_mix(model: ContinualClassifier) -> bool:
    """Return whether one forward pass can serve texts of several tasks.

    A lateral connection reads the features under all earlier adapters, and a shared adapter acts
    together with that of the task: both take a pass for each task.
    """
    if model.laterals:
        return False
    return not _is_isolated(model) or not model.adapters.has_shared


def mixed_logits(
    model: ContinualClassifier, input_ids: Tensor, attention_mask: Tensor, tasks: Sequence[int]
) -> list[Tensor]:
    """Return the logits of each text, ``[classes of its task]``, in the order of the texts.

    Args:
        model: In evaluation mode, and one that `can_mix`.
        input_ids: Token ids ``[batch, tokens]``.
        attention_mask: ``[batch, tokens]``, 1 for text and 0 for padding.
        tasks: Zero-based index of the task of each text, ``[batch]``.

    Raises:
        IndexError: The model has no such task.
    """
    for task in tasks:
        if not 0 <= task < model.tasks:
            raise IndexError(f"task {task} of a model with {model.tasks} tasks")
    features = _features(model, input_ids, attention_mask, tasks)
    rows: list[Tensor] = [features.new_empty(0)] * len(tasks)
    for task in sorted(set(tasks)):
        own = [row for row, other in enumerate(tasks) if other == task]
        for row, logits in zip(own, model.heads[task](features[own]), strict=True):
            rows[row] = logits
    return rows


def _features(
    model: ContinualClassifier, input_ids: Tensor, attention_mask: Tensor, tasks: Sequence[int]
) -> Tensor:
    if not _is_isolated(model) or len(set(tasks)) == 1:
        return model.represent(input_ids, attention_mask, tasks[0])
    with model.adapters.select_each(tasks):
        return model.adapted.features(input_ids, attention_mask, [])


def _is_isolated(model: ContinualClassifier) -> bool:
    """Return whether the adapters that contribute depend on the task."""
    return model.task_adapters and model.composition == "isolated"
