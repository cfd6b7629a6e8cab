"""What is learned in one go: one task, or all tasks together in joint training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plora_cl.data.batches import BatchStream, Stream
from plora_cl.data.mixture import MixtureStream
from plora_cl.data.task import Task


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """Tasks that are learned together.

    Attributes:
        name: For people, and for the costs of the run.
        tasks: In the order of the stream of tasks; at least one.
        stream: Their training batches.
    """

    name: str
    tasks: Sequence[Task]
    stream: Stream

    @property
    def first(self) -> int:
        """Index of the first task."""
        return self.tasks[0].index

    @property
    def last(self) -> int:
        """Index of the last task: the task of the cursor while the stage is learned."""
        return self.tasks[-1].index


def stages_of(tasks: Sequence[Task], *, joint: bool, batch_size: int, seed: int) -> list[Stage]:
    """Return the stages in which ``tasks`` are learned.

    Args:
        tasks: In order; at least one.
        joint: Learn all tasks in one stage, instead of each in a stage of its own.
        batch_size: Examples per batch.
        seed: Decides, with the task and the epoch, the order of the examples.
    """
    if joint:
        splits = [task.train for task in tasks]
        return [Stage("all tasks", tasks, MixtureStream(splits, batch_size=batch_size, seed=seed))]
    return [
        Stage(
            task.name,
            [task],
            BatchStream(task.train, task=task.index, batch_size=batch_size, seed=seed),
        )
        for task in tasks
    ]
