"""Learners by name: bundles of settings that experiments compare."""

from __future__ import annotations

from collections.abc import Mapping

_TECHNIQUES = ("use_ewc", "use_orthogonal", "use_replay", "use_lateral")
_ALL_ON = dict.fromkeys(_TECHNIQUES, True)
_ALL_OFF = dict.fromkeys(_TECHNIQUES, False)

FLOOR = "tfidf"
"""The learner that has no encoder: TF-IDF features and logistic regression, each task alone."""

LEARNERS: Mapping[str, Mapping[str, object]] = {
    "full": _ALL_ON,
    "no-ewc": {**_ALL_ON, "use_ewc": False},
    "no-olora": {**_ALL_ON, "use_orthogonal": False},
    "no-replay": {**_ALL_ON, "use_replay": False},
    "no-lateral": {**_ALL_ON, "use_lateral": False},
    "plain": _ALL_OFF,
    "fine-tuning": {**_ALL_OFF, "task_adapters": False, "shared": "all"},
    "sequential-lora": {**_ALL_OFF, "task_adapters": False, "shared": "lora"},
    "joint": {**_ALL_OFF, "task_adapters": False, "shared": "lora", "joint": True},
    "linear": {**_ALL_OFF, "task_adapters": False, "shared": "none"},
    FLOOR: _ALL_OFF,
}
"""Settings of each learner; what it does not set is up to the experiment.

``full`` has every technique and each ``no-`` all but one; ``plain`` has none: adapters,
heads and what ``shared`` says, unprotected.
``fine-tuning`` changes the whole encoder task after task, ``sequential-lora`` one adapter,
``joint`` learns all tasks at once, ``linear`` learns heads on a frozen encoder.
"""
