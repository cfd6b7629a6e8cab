from __future__ import annotations

import pytest

from plora_cl.checkpoint.format.naming import (
    Position,
    checkpoint_name,
    parse_name,
    retained,
    save_due,
)


def test_names_are_those_of_the_documentation_and_are_read_back() -> None:
    assert checkpoint_name(0, 1, 99) == "checkpoint_task0_epoch1_batch99.pt"
    assert parse_name(checkpoint_name(12, 3, 40)) == Position(12, 3, 40)


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint_task0_epoch1_batch99.pt.partial",
        ".checkpoint_task0_epoch1_batch99.pt",
        "checkpoint_task00_epoch1_batch99.pt",
        "checkpoint_task0_epoch1_batch-1.pt",
        "checkpoint_task0_epoch1_batch99.pt\n",
        "checkpoint_task0_epoch1_batch٣.pt",
        "config.yaml",
        "",
    ],
)
def test_other_names_are_not_checkpoints(name: str) -> None:
    assert parse_name(name) is None


def test_negative_indices_have_no_name() -> None:
    with pytest.raises(ValueError, match="start at 0"):
        checkpoint_name(0, 0, -1)


def test_a_save_is_due_every_so_many_steps_and_never_at_zero() -> None:
    assert [step for step in range(10) if save_due(step, 3)] == [3, 6, 9]
    assert not any(save_due(step, 0) for step in range(10))


def at(task: int, *batches: int) -> list[Position]:
    return [Position(task, 0, batch) for batch in batches]


def test_the_last_n_of_the_task_in_training_stay() -> None:
    positions = at(0, 9, 19, 99, 100)
    assert retained(positions, 3, current=Position(0, 0, 100)) == set(at(0, 19, 99, 100))


def test_of_completed_tasks_the_final_one_stays() -> None:
    positions = at(0, 7, 8, 9) + at(1, 7, 8, 9) + at(2, 1, 2, 3, 4)
    kept = retained(positions, 2, current=Position(2, 0, 4))
    assert kept == set(at(0, 9) + at(1, 9) + at(2, 3, 4))


def test_the_newest_task_keeps_one_more_than_its_final_one_when_it_is_done() -> None:
    def kept(keep_last: int) -> set[Position]:
        return retained(at(0, 7, 8, 9), keep_last, current=Position(0, 0, 9), done=[0])

    assert kept(50) == kept(2) == set(at(0, 8, 9))
    assert kept(1) == set(at(0, 9))


def test_the_one_more_goes_when_the_next_task_has_a_checkpoint() -> None:
    positions = at(0, 8, 9) + at(1, 1)
    assert retained(positions, 3, current=Position(1, 0, 1)) == set(at(0, 9) + at(1, 1))


def test_checkpoints_ahead_of_the_run_neither_go_nor_push_others_out() -> None:
    positions = at(0, 1, 2, 8, 9) + at(1, 5)
    kept = retained(positions, 1, current=Position(0, 0, 2))
    assert kept == set(at(0, 2, 8, 9) + at(1, 5))


def test_the_current_one_always_stays() -> None:
    for keep_last in (1, 2, 50):
        assert Position(1, 0, 4) in retained(at(0, 9) + at(1, 4), keep_last, current=at(1, 4)[0])


def test_keeping_none_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        retained([], 0, current=Position(0, 0, 0))
