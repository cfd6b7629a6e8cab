from __future__ import annotations

import pytest

from plora_cl.evaluation.costs import Costs, peak_resident_bytes


class Clock:
    """A clock that moves when told to."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_time_inside_an_inner_activity_is_counted_once() -> None:
    clock = Clock()
    costs = Costs(clock)
    with costs.measure("news", "train"):
        clock.now += 2
        with costs.measure("news", "checkpoint"):
            clock.now += 5
        clock.now += 1
    clock.now += 100
    with costs.measure("mail", "train"):
        clock.now += 4
    assert costs.summary()["seconds"] == {
        "news": {"train": 3.0, "checkpoint": 5.0},
        "mail": {"train": 4.0},
    }
    assert costs.summary()["total_seconds"] == 12.0


def test_a_checkpoint_in_mid_activity_holds_the_time_up_to_that_instant() -> None:
    clock = Clock()
    costs = Costs(clock, lambda: 7)
    with costs.measure("news", "train"):
        clock.now += 2
        costs.count("news", steps=1, examples=32)
        state = costs.state_dict()
        clock.now += 50  # lost: the process dies before the next checkpoint
    later = Clock(9000.0)
    resumed = Costs(later, lambda: 5)
    resumed.load_state_dict(state)
    with resumed.measure("news", "train"):
        later.now += 3
        resumed.count("news", steps=2, examples=40)
    assert resumed.summary() == {
        "seconds": {"news": {"train": 5.0}},
        "counts": {"news": {"steps": 3, "examples": 72}},
        "total_seconds": 5.0,
        "peak_memory_bytes": 7,
    }


def test_a_state_that_was_taken_does_not_move_on() -> None:
    clock = Clock()
    costs = Costs(clock)
    with costs.measure("news", "train"):
        clock.now += 1
        state = costs.state_dict()
        clock.now += 1
        costs.count("news", steps=1, examples=1)
    assert state["seconds"] == {"news": {"train": 1.0}}
    assert state["counts"] == {}


def test_an_activity_that_fails_is_counted_too() -> None:
    clock = Clock()
    costs = Costs(clock)

    @costs.measure("news", "evaluate")
    def fail() -> None:
        clock.now += 2
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    clock.now += 9
    assert costs.summary()["seconds"] == {"news": {"evaluate": 2.0}}


def test_the_peak_memory_of_this_process_is_plausible() -> None:
    assert 2**24 < peak_resident_bytes() < 2**42
