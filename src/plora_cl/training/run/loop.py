"""Train one epoch. The only place where the cursor moves through batches."""

from __future__ import annotations

from collections.abc import Callable

from plora_cl.compute.finite import StepResult
from plora_cl.data.batches import Stream
from plora_cl.errors import TrainingError
from plora_cl.methods.base import MethodStack
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import Cursor
from plora_cl.training.run.optimization import Optimization


def train_epoch(
    model: ContinualClassifier,
    optimization: Optimization,
    methods: MethodStack,
    stream: Stream,
    cursor: Cursor,
    *,
    accumulation: int,
    after_batch: Callable[[], None],
    after_step: Callable[[StepResult], None],
) -> None:
    """Advance ``cursor`` to the end of its epoch, one batch at a time.

    Continues from the position of ``cursor``, also between the batches of one optimizer step. When
    ``after_batch`` or ``after_step`` runs, the model, the optimizer, the schedule, the accumulated
    gradients and the cursor agree: the only instants within an epoch to take a snapshot.

    The next change after `after_batch` is that of the gradients, by the next batch; after
    `after_step` it is that of the weights, by the optimizer.

    Args:
        model: What learns.
        optimization: Accumulates and applies the gradients.
        methods: Add batches and penalties.
        stream: The batches to learn from.
        cursor: What runs next; moved on.
        accumulation: Batches per optimizer step; an epoch's last step may have fewer.
        after_batch: Called after each batch that does not complete an optimizer step.
        after_step: Called after each optimizer step.

    Raises:
        TrainingError: A step cannot be applied; the message says which.
    """
    epoch = cursor.epoch
    while cursor.epoch == epoch:
        done = cursor.batch % accumulation
        of_step = min(accumulation, len(stream) - cursor.batch + done)
        optimization.accumulate(
            model, methods, stream.at(epoch, cursor.batch), batches_of_step=of_step
        )
        if done + 1 < of_step:
            cursor.advance(batches_per_epoch=len(stream))
            after_batch()
            continue
        try:
            result = optimization.step(model, methods)
        except TrainingError as error:
            raise TrainingError(
                f"step {cursor.step + 1} (task {cursor.task}, epoch {epoch}, batch "
                f"{cursor.batch}): {error}"
            ) from error
        cursor.step += 1
        cursor.advance(batches_per_epoch=len(stream))
        after_step(result)
