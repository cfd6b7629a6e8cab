"""Train one epoch. The only place where the cursor moves through batches."""

from __future__ import annotations

from collections.abc import Callable

from plora_cl.data.batches import BatchStream
from plora_cl.methods.base import MethodStack
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import Cursor
from plora_cl.training.optimization import Optimization, StepResult


def train_epoch(
    model: ContinualClassifier,
    optimization: Optimization,
    methods: MethodStack,
    stream: BatchStream,
    cursor: Cursor,
    *,
    accumulation: int,
    after_step: Callable[[StepResult], None],
) -> None:
    """Advance ``cursor`` to the end of its epoch, one optimizer step at a time.

    Continues from wherever ``cursor`` points. ``after_step`` runs when the model, the optimizer,
    the schedule and the cursor agree: the only instant within an epoch to take a snapshot.

    Args:
        model: What learns.
        optimization: Applies the gradients.
        methods: Add batches and penalties.
        stream: The batches of the task.
        cursor: What runs next; moved on.
        accumulation: Micro-batches per optimizer step; an epoch's last step may have fewer.
        after_step: Called after each optimizer step.
    """
    epoch = cursor.epoch
    while cursor.epoch == epoch:
        last = min(cursor.batch + accumulation, len(stream))
        window = [stream.at(epoch, batch) for batch in range(cursor.batch, last)]
        result = optimization.step(model, methods, window)
        cursor.advance(len(window), batches_per_epoch=len(stream))
        after_step(result)
