"""Learners by name: bundles of settings that experiments compare."""

from __future__ import annotations

from collections.abc import Mapping

from plora_cl.methods.registry import BUILT_IN

_ALL_ON = {technique.switch: True for technique in BUILT_IN}
_ALL_OFF = {technique.switch: False for technique in BUILT_IN}

FLOOR = "tfidf"
"""The learner that has no encoder: TF-IDF features and logistic regression, each task alone."""

LEARNERS: Mapping[str, Mapping[str, object]] = {
    "full": _ALL_ON,
    **{f"no-{each.name}": {**_ALL_ON, each.switch: False} for each in BUILT_IN},
    "plain": _ALL_OFF,
    "fine-tuning": {**_ALL_OFF, "task_adapters": False, "shared": "all"},
    "sequential-lora": {**_ALL_OFF, "task_adapters": False, "shared": "lora"},
    "joint": {**_ALL_OFF, "task_adapters": False, "shared": "lora", "joint": True},
    "linear": {**_ALL_OFF, "task_adapters": False, "shared": "none"},
    FLOOR: _ALL_OFF,
}
"""Settings of each learner; what it does not set is up to the experiment.

``full`` has every built-in technique and each ``no-`` all but one; ``plain`` has none: adapters,
heads and what ``shared`` says, unprotected.
``fine-tuning`` changes the whole encoder task after task, ``sequential-lora`` one adapter,
``joint`` learns all tasks at once, ``linear`` learns heads on a frozen encoder.
"""
