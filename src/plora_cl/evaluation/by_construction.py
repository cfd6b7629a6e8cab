"""Which metrics of a run are zero by construction."""

from __future__ import annotations

_METRICS = ("backward_transfer", "forgetting", "forward_transfer")


def zero_by_construction(
    *, tasks: int, composition: str, task_adapters: bool, shared: bool, joint: bool
) -> dict[str, str]:
    """Return the metrics, of accuracy and of F1, that are zero by construction, and why.

    This holds for scores with the task known: routed scores can change all the same.

    Args:
        tasks: Number of tasks; with one, there is nothing to forget or to transfer to.
        composition: ``isolated`` or ``cumulative``.
        task_adapters: Whether each task adds an adapter of its own.
        shared: Whether any parameter is shared between tasks and trained.
        joint: Whether all tasks are learned at once, so that none comes before another.
    """
    if joint or shared or tasks < 2:
        return {}
    if not task_adapters:
        reason = "with task_adapters: false and shared: none only the head of a task is trained"
    elif composition == "isolated":
        reason = (
            "in the isolated composition with shared: none nothing that predicts another task ever "
            "changes"
        )
    else:
        return {}
    return dict.fromkeys(_METRICS, reason)
