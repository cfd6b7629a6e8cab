"""J: random histories of real runs, each held to a small model of what must hold.

A sequence trains, is stopped by signals and by time, killed at operations of the disk and at
instants of training, goes on with other settings, goes back to older checkpoints, pins, cleans up,
runs out of disk and has its files damaged; then it is let go on to the end, and that end has to be,
to the bit, the one of a run that nothing interrupted but the same changes at the same steps.

``pytest -m slow tests/faults/test_histories.py`` runs 2000 of them; ``PLORA_CL_HISTORIES=0:1000``
runs those seeds alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from pprint import pformat

import pytest

from faults.histories.generation import sequence, shortened
from faults.histories.references import Bench
from faults.histories.sequence import Action, play

FEW = 60
FIRST, LAST = map(int, os.environ.get("PLORA_CL_HISTORIES", "1000:3000").split(":"))
BLOCK = 50


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("histories"))


def problem(bench: Bench, root: Path, variant: str, actions: Sequence[Action]) -> str:
    """Return what is wrong after a sequence; empty if nothing is."""
    try:
        play(bench, root, variant, actions)
    except AssertionError as error:
        return str(error) or "an assertion"
    return ""


def require_sound(bench: Bench, root: Path, seed: int) -> None:
    """Make sure that all holds after the sequence of ``seed``; show a short one where not."""
    variant, actions = sequence(seed)
    if wrong := problem(bench, root, variant, actions):
        short = shortened(actions, lambda few: bool(problem(bench, root, variant, few)))
        shown = f"play(bench, tmp_path, {variant!r}, {pformat(short, width=90)})"
        pytest.fail(f"seed {seed}: {wrong}\nshortest:\n{shown}")


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("seed", range(FEW))
def test_a_random_history_ends_like_one_that_nothing_interrupted(
    bench: Bench, tmp_path: Path, seed: int
) -> None:
    variant, actions = sequence(seed, longest=3)
    assert problem(bench, tmp_path / "sequence", variant, actions) == "", (variant, actions)


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(FIRST, LAST, BLOCK))
def test_many_random_histories_end_like_ones_that_nothing_interrupted(
    bench: Bench, tmp_path: Path, first: int
) -> None:
    for seed in range(first, min(first + BLOCK, LAST)):
        require_sound(bench, tmp_path / "sequence", seed)
