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
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from pprint import pformat

import pytest

from faults.histories.generation import sequence, shortened
from faults.histories.references import Bench
from faults.histories.sequence import Action, play

FEW = 12
FIRST, LAST = map(int, os.environ.get("PLORA_CL_HISTORIES", "1000:3000").split(":"))
BLOCK = 50

_MEMORY = Path("/dev/shm")
"""No power is cut here, so that a disk in memory, which flushes at once, is as good as any."""

FOUND: dict[str, tuple[str, list[Action]]] = {
    "a finished run takes no other settings": (
        "plain",
        [("train", {}), ("train", {"changes": {"weight_decay": 0.1}, "accept": True})],
    ),
    "nor does a fork of one": (
        "plain",
        [("train", {}), ("fork", {"which": 9, "changes": {"weight_decay": 0.1}})],
    ),
    "settings half written": (
        "plain",
        [("train", {"ending": ("kill write", 2)}), ("gc", {}), ("train", {})],
    ),
    "results half written": (
        "sequential",
        [("train", {"ending": ("kill write", 124)}), ("look", {}), ("train", {})],
    ),
    "a finished run without its log": (
        "plain",
        [("train", {}), *[("corrupt", {"which": n, "kind": "zero", "where": 0.5})
                          for n in (7, 8, 9, 10)], ("train", {}), ("train", {"bare": True})],
    ),
    "a fork while the run is about to be replaced": (
        "routed",
        [("train", {"ending": ("signal", 30, "SIGTERM")}),
         ("train", {"resume": "overwrite", "ending": ("kill disk", 15)}),
         ("fork", {"which": 1}), ("train", {})],
    ),
    "a pin while the run is about to be replaced": (
        "routed",
        [("train", {"ending": ("signal", 30, "SIGTERM")}),
         ("train", {"resume": "overwrite", "ending": ("kill disk", 15)}),
         ("pin", {"which": 0}), ("train", {"resume": "overwrite"}), ("unpin", {"which": 0})],
    ),
    "a pin that rotation comes by": (
        "plain",
        [("train", {"ending": ("signal", 12, "SIGTERM")}), ("pin", {"which": 0}), ("train", {})],
    ),
    "epochs without improvement before a kill": (
        "plain",
        [("train", {"changes": {"epochs": 5, "early_stopping_patience": 2},
                    "ending": ("kill saved", 6)}), ("train", {})],
    ),
    "a run that ends before the branch that it leaves": (
        "routed",
        [("train", {}), ("train", {"resume": 0, "changes": {"tasks": 3}, "accept": True}),
         ("train", {"resume": 4, "bare": True})],
    ),
    **{
        f"file {which} damaged while a task is learned": (
            "plain",
            [("train", {"ending": ("signal", 40, "SIGTERM")}),
             ("corrupt", {"which": which, "kind": "flip", "where": 0.4}), ("look", {})],
        )
        for which in range(12)
    },
}  # fmt: skip
"""Sequences, or such as them, that were once found to go wrong."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    where = _MEMORY if os.access(_MEMORY, os.W_OK) else tmp_path_factory.mktemp("histories")
    with tempfile.TemporaryDirectory(dir=where) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def bench(root: Path) -> Bench:
    return Bench(root)


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


@pytest.mark.fault
@pytest.mark.parametrize("name", FOUND)
def test_what_went_wrong_once_does_not_again(bench: Bench, root: Path, name: str) -> None:
    play(bench, root / "sequence", *FOUND[name])


@pytest.mark.fault
@pytest.mark.parametrize("seed", range(FEW))
def test_a_random_history_ends_like_one_that_nothing_interrupted(
    bench: Bench, root: Path, seed: int
) -> None:
    variant, actions = sequence(seed, longest=3)
    assert problem(bench, root / "sequence", variant, actions) == "", (variant, actions)


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(FIRST, LAST, BLOCK))
def test_many_random_histories_end_like_ones_that_nothing_interrupted(
    bench: Bench, root: Path, first: int
) -> None:
    for seed in range(first, min(first + BLOCK, LAST)):
        require_sound(bench, root / "sequence", seed)
