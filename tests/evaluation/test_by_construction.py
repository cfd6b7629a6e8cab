from __future__ import annotations

import itertools

import pytest

from plora_cl.evaluation.by_construction import zero_by_construction

THREE = {"backward_transfer", "forgetting", "forward_transfer"}


@pytest.mark.parametrize(
    ("composition", "task_adapters", "shared", "joint", "tasks"),
    list(
        itertools.product(
            ["isolated", "cumulative"], [True, False], [True, False], [True, False], [1, 2]
        )
    ),
)
def test_only_where_nothing_that_predicts_another_task_changes_is_anything_zero(
    composition: str, task_adapters: bool, shared: bool, joint: bool, tasks: int
) -> None:
    found = zero_by_construction(
        tasks=tasks,
        composition=composition,
        task_adapters=task_adapters,
        shared=shared,
        joint=joint,
    )
    earlier_adapters_act = task_adapters and composition == "cumulative"
    zero = tasks > 1 and not (shared or joint or earlier_adapters_act)
    assert found.keys() == (THREE if zero else set())
    assert all("shared: none" in reason for reason in found.values())
