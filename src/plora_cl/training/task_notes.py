"""Warnings and notes about tasks, by the settings that they are learned with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from plora_cl.checkpoint.snapshot.compatibility import SettingChange
from plora_cl.config.fields import SettingFields
from plora_cl.config.schema import Settings, holds_out
from plora_cl.data.notes import held_out_note, lookalike_notes, skew_note
from plora_cl.data.task import Task
from plora_cl.training.reporting import Reporter


def tell_of_tasks(tasks: Sequence[Task], reporter: Reporter, remedies: Sequence[str] = ()) -> None:
    """Report what should be known about tasks before they are learned.

    Args:
        tasks: The tasks.
        reporter: Told.
        remedies: Settings to try where a task is skewed, see `remedies_for_skew`.
    """
    for task in tasks:
        for warning in filter(None, (*lookalike_notes(task), skew_note(task, remedies))):
            reporter.message(f"Warning: {warning}")
        if note := held_out_note(task):
            reporter.message(f"Note: {note}")


def remedies_for_skew(settings: Settings) -> list[str]:
    """Return the settings that a new run could try where a task is skewed."""
    remedies = ["--set class_weights=balanced"] * (settings.class_weights == "none")
    if settings.early_stopping_patience and settings.early_stopping_metric == "accuracy":
        remedies.append("--set early_stopping_metric=f1")
    return remedies


def held_out_differently(
    changes: Sequence[SettingChange], then: Mapping[str, Any], now: Mapping[str, Any]
) -> list[SettingChange]:
    """Return differences of tasks, with the way out where texts are held out in one run alone.

    Args:
        changes: How the tasks differ.
        then: Settings of the checkpoint.
        now: Settings of this run.
    """
    held_out = [holds_out(SettingFields.model_construct(**values)) for values in (then, now)]
    if held_out[0] == held_out[1]:
        return list(changes)
    way_out = (
        "hold_out_validation: always restores it"
        if held_out[0]
        else "hold_out_validation: auto, without early stopping and measure_validation, restores it"
    )
    reason = f"texts are held out for validation in one of the two; {way_out}"
    return [
        replace(change, reason=reason)
        if re.search(r"\.(train|validation|examples)$", change.key)
        else change
        for change in changes
    ]
