"""Several runs side by side, with the statistics of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from plora_cl.config.precedence import validate
from plora_cl.config.schema import as_recorded
from plora_cl.errors import SettingsError, StudyError
from plora_cl.report.figures.stream import seen_average
from plora_cl.report.recorded.sources import Source
from plora_cl.report.run import Run
from plora_cl.study.plan import PlannedRun
from plora_cl.study.records import Record, record
from plora_cl.study.statistics import Estimate, estimate, independent
from plora_cl.study.summary import Group, summarised


class Member(NamedTuple):
    """A run and what it was asked for as."""

    source: Source
    run: Run


@dataclass(slots=True)
class Line:
    """Runs of one method and variant.

    Attributes:
        label: Method and variant.
        members: Its runs, finished or not.
        groups: By metric: statistics over those that are finished.
    """

    label: str
    members: list[Member]
    groups: Mapping[str, Group] = field(default_factory=dict)

    @property
    def finished(self) -> list[Member]:
        """Its runs that have ended."""
        return [one for one in self.members if one.run.is_finished]

    def estimate(self, metric: str) -> Estimate | None:
        """Return the estimate of a metric; None where it was not measured."""
        group = self.groups.get(metric)
        return None if group is None else group.estimate

    def along_stream(self) -> list[Estimate]:
        """Return the mean accuracy over tasks so far, after each task."""
        lengths = {len(one.run.tasks) for one in self.finished}
        if len(lengths) != 1:
            return []
        curves = [seen_average(one.run.scores.accuracy) for one in self.finished]
        orders = [order_of(one) for one in self.finished]
        found = []
        for values in zip(*curves, strict=True):
            if not np.isfinite(values).all():
                return []
            found.append(estimate(independent(values, orders).values))
        return found

    def final_accuracy(self) -> dict[str, float]:
        """Return the mean accuracy at the end by task."""
        by_task: dict[str, list[float]] = {}
        for one in self.finished:
            for name, value in zip(one.run.names, one.run.scores.accuracy[-1], strict=True):
                by_task.setdefault(name, []).append(float(value))
        return {name: float(np.mean(values)) for name, values in by_task.items()}


@dataclass(slots=True)
class Comparison:
    """Several runs.

    Attributes:
        lines: One for each method and variant.
        baseline: Label of the line that the others are compared with; None if there is none.
        notes: What is left out of the statistics, and why.
    """

    lines: list[Line]
    baseline: str | None
    notes: list[str]

    @property
    def tasks(self) -> list[str]:
        """Names of all tasks, without repetitions."""
        members = (one for line in self.lines for one in line.members)
        return list(dict.fromkeys(name for one in members for name in one.run.names))


def order_of(member: Member) -> str:
    """Return the name of the order of a run; outside a study, its tasks."""
    return member.source.order or " → ".join(member.run.names)


def compare_runs(members: Sequence[Member], baseline: str | None) -> Comparison:
    """Return ``members`` by method and variant, with statistics over those that have ended.

    Args:
        members: Runs.
        baseline: Method that the others are compared with, pair by pair.
    """
    lines: dict[tuple[str, str], Line] = {}
    notes: list[str] = []
    records: list[Record] = []
    for one in members:
        key = one.source.method, one.source.variant
        lines.setdefault(key, Line(one.source.label, [])).members.append(one)
        if not one.run.is_finished:
            notes.append(f"{one.run.folder.name} has not ended: it is not in the statistics")
            continue
        try:
            records.append(_record(one))
        except (StudyError, SettingsError) as error:
            notes.append(f"{one.run.folder.name} is not in the statistics: {error}")
    try:
        groups = summarised(records, baseline) if records else []
    except StudyError as error:
        groups = []
        notes.append(f"no statistics: {error}")
    for key, line in lines.items():
        line.groups = {g.metric: g for g in groups if (g.method, g.variant) == key}
    return Comparison(list(lines.values()), baseline, notes)


def _record(one: Member) -> Record:
    settings = validate(as_recorded(one.run.settings), source=str(one.run.folder))
    seed = settings.seed if one.source.seed is None else one.source.seed
    planned = PlannedRun(one.source.method, order_of(one), one.source.variant, seed, None, settings)
    assert one.run.results is not None
    return record(planned, one.run.results)
