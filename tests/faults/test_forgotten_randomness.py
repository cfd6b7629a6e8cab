"""A run that does not save its random generators is told from one that does."""

from __future__ import annotations

import pytest

from checkpoint.components import Learner, capture
from plora_cl.checkpoint.snapshot.codec import decode, encode
from plora_cl.state_digest import state_digest


def ends_with(*, stopped: bool, forgotten: str = "") -> str:
    """Return the digest of a run of five steps, stopped or not, without one of its components."""
    learner = Learner(seed=1)
    for _ in range(2):
        learner.step()
    if stopped:
        parts = {name: part for name, part in learner.components().items() if name != forgotten}
        data = encode(capture(parts))
        learner = Learner(seed=99)
        live = {name: part for name, part in learner.components().items() if name != forgotten}
        decode(data).restore(live)
    for _ in range(3):
        learner.step()
    return state_digest({name: part.state_dict() for name, part in learner.components().items()})


def test_a_run_that_was_stopped_ends_like_one_that_was_not() -> None:
    assert ends_with(stopped=True) == ends_with(stopped=False)


@pytest.mark.parametrize("forgotten", ["random", "optimizer", "scheduler", "model"])
def test_a_run_that_forgets_a_component_is_caught(forgotten: str) -> None:
    assert ends_with(stopped=True, forgotten=forgotten) != ends_with(stopped=False)
