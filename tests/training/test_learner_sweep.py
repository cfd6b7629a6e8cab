"""Every learner, stopped after every step of one run and inside other phases, in process.

Each process of a run does one step. `test_resume_sweep` has runs that save less often.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from plora_cl.config import learners
from training.evidence import evidence
from training.test_resume_sweep import Fuse, PowerCut, train

STEPS = 3 * 2 * 2
STREAMS = {
    **{k: learners.LEARNERS[k] for k in ("fine-tuning", "sequential-lora", "joint", "linear")},
    "sequential-lora with EWC": {**learners.LEARNERS["sequential-lora"], "use_ewc": True},
}


@dataclass(frozen=True)
class Reference:
    settings: dict[str, Any]
    evidence: dict[str, Any]
    activities: int


@pytest.fixture(scope="module")
def references(
    settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Reference]:
    """Return what runs of 3 tasks x 2 epochs x 2 batches end as, never stopped, by learner."""
    few = {"batch_size": 20, "checkpoint_every": 1, "keep_last_n_checkpoints": 2}
    every_phase = {"early_stopping_patience": 2, "router_examples": 8, "ewc_fisher_examples": 3}
    found = {}
    train(tmp_path_factory.mktemp("tokenised"), settings)
    for name, changes in STREAMS.items():
        own = {**settings, **few, **every_phase, **changes}
        counter = Fuse()
        folder = train(tmp_path_factory.mktemp("reference"), own, counter)
        found[name] = Reference(own, evidence(folder), counter.activities)
    return found


def survives(folder: Path, reference: Reference, fuse: Fuse) -> None:
    with pytest.raises(PowerCut):
        train(folder, reference.settings, fuse)
    assert evidence(train(folder, reference.settings)) == reference.evidence


@pytest.mark.fault
@pytest.mark.parametrize("name", STREAMS)
def test_a_run_stopped_after_every_step_ends_like_one_that_was_not(
    tmp_path: Path, references: dict[str, Reference], name: str
) -> None:
    for _ in range(STEPS):
        with pytest.raises(PowerCut):
            train(tmp_path, references[name].settings, Fuse(step=1))
    assert evidence(train(tmp_path, references[name].settings)) == references[name].evidence


@pytest.mark.fault
@pytest.mark.parametrize("share", [k / 4 for k in range(4)])
@pytest.mark.parametrize("name", STREAMS)
def test_a_run_stopped_inside_any_other_phase_ends_like_one_that_was_not(
    tmp_path: Path, references: dict[str, Reference], name: str, share: float
) -> None:
    reference = references[name]
    activity = 1 + int(share * reference.activities)
    survives(tmp_path, reference, Fuse(activity=activity))
