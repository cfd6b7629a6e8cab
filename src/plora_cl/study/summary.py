"""Statistics over the runs of a study, written as CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from plora_cl.checkpoint.store.output_files import write_output
from plora_cl.study.file import tunable
from plora_cl.study.plan import NO_VARIANT
from plora_cl.study.records import Record, are_pair, check_same_examples, metric_names
from plora_cl.study.statistics import (
    Estimate,
    PairedComparison,
    compare,
    estimate,
    independent,
)
from plora_cl.wording import counted

RATIO = "ratio_to_baseline"
"""Average accuracy divided by that of the baseline's run of the same order and seed."""

_MEANING = {
    "order": "Unit order: one value for each order, the mean over its seeds; it holds for further "
    "orders, learned with these seeds.",
    "seed": "Unit seed: one value for each seed; it holds for this order alone.",
}
_OF_DIFFERENCE = ("n", "mean", "sd", "low", "high")
_IN_TABLE = ("average_accuracy", "backward_transfer", "forgetting", "learning_accuracy",
             "routed_average_accuracy")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group:
    """One metric over runs that differ only in order and seed.

    Attributes:
        method: Name of the method.
        variant: Name of the variant; empty if there is none.
        metric: Name of the metric.
        runs: Number of runs that measured it.
        unit: What counts as one independent value, ``order`` or ``seed``; see `independent`.
        estimate: Mean over these units.
        pairs: Number of pairs of runs that were compared.
        pair_unit: What counts as one independent difference; empty without pairs.
        comparison: Comparison with the baseline; None for the baseline and without pairs.
        zero_by_construction: Why the metric is zero for any weights; empty if it is not.
    """

    method: str
    variant: str
    metric: str
    runs: int
    unit: str
    estimate: Estimate
    pairs: int
    pair_unit: str
    comparison: PairedComparison | None
    zero_by_construction: str


class _Measured(NamedTuple):
    """A finished run with the run that it is compared with.

    Attributes:
        record: Measurements of the run.
        partner: The baseline's run on the same texts; None if there is none.
        values: Metrics of the record, and the ratio to the partner.
    """

    record: Record
    partner: Record | None
    values: Mapping[str, float | None]


def summarised(records: Sequence[Record], baseline: str | None) -> list[Group]:
    """Return statistics of every metric for each method and variant, in the order of the runs.

    Args:
        records: Records of the finished runs.
        baseline: Method to compare the others with, paired by order and seed. It is taken in the
            same variant, or without one if it has none.

    Raises:
        StudyError: Runs that would be compared had different examples.
    """
    check_same_examples(records)
    measured = _with_partners(records, baseline)
    keys = dict.fromkeys((one.run.method, one.run.variant) for one in records)
    groups = [
        _group([one for one in measured if one.record.is_of(*key)], name, baseline)
        for key in keys
        for name in (*metric_names(records), RATIO)
    ]
    return [group for group in groups if group is not None]


def write_summary(folder: Path, records: Sequence[Record], groups: Sequence[Group],
                  header: Mapping[str, Any], baseline: str | None) -> None:  # fmt: skip
    """Write ``runs.csv``, ``summary.csv``, ``summary.json`` and ``summary.md``.

    Args:
        folder: Folder of the study.
        records: Records of the finished runs.
        groups: Result of `summarised`.
        header: First entries of ``summary.json``.
        baseline: Method that the others were compared with.
    """
    names = metric_names(records)
    runs = [_run_row(one, names) for one in _with_partners(records, baseline)]
    summary = {**header, "runs": runs, "groups": [asdict(group) for group in groups]}
    files = {
        "runs.csv": _csv(runs),
        "summary.csv": _csv(map(_flat, groups)),
        "summary.json": json.dumps(summary, indent=2, allow_nan=False) + "\n",
        "summary.md": markdown(groups, baseline),
    }
    for name, content in files.items():
        write_output(folder / name, content.encode())


def main_metrics(
    groups: Sequence[Group], baseline: str | None
) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the main metrics, one row for each method and variant."""
    by_key: dict[tuple[str, str], dict[str, Group]] = {}
    for group in groups:
        by_key.setdefault((group.method, group.variant), {})[group.metric] = group
    shown = [name for name in _IN_TABLE if any(name in line for line in by_key.values())]
    head = ["method", "variant", "runs", "units", *(name.replace("_", " ") for name in shown)]
    if baseline is not None:
        head += [f"ratio to {baseline}", f"accuracy - {baseline}", "p (t)", "p (perm.)", "g_z"]
    rows = []
    for (method, variant), line in by_key.items():
        group = line["average_accuracy"]
        cells = [method, variant or "-", str(group.runs), counted(group.estimate.n, group.unit)]
        cells += [_cell(line.get(name)) for name in shown]
        if baseline is not None:
            cells += _compared(line)
        rows.append(cells)
    return head, rows


def markdown(groups: Sequence[Group], baseline: str | None) -> str:
    """Return a table of the main metrics and what its marks mean."""
    head, rows = main_metrics(groups, baseline)
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([table, "", *legend(groups), ""])


def _with_partners(records: Sequence[Record], baseline: str | None) -> list[_Measured]:
    of_baseline = [one for one in records if one.run.method == baseline]
    variants = {one.run.variant for one in of_baseline}
    found = []
    for one in records:
        variant = NO_VARIANT if NO_VARIANT in variants else one.run.variant
        others = (other for other in of_baseline if other.run.variant == variant)
        partner = next((other for other in others if are_pair(one, other)), None)
        mine = one.values["average_accuracy"]
        theirs = None if partner is None else partner.values["average_accuracy"]
        ratio = mine / theirs if mine is not None and theirs else None
        found.append(_Measured(one, partner, {**one.values, RATIO: ratio}))
    return found


def _group(runs: Sequence[_Measured], name: str, baseline: str | None) -> Group | None:
    """Return the statistics of a metric over the runs of a method in a variant."""
    measured = [(one, v) for one in runs if (v := one.values.get(name)) is not None]
    if not measured:
        return None
    first = runs[0].record.run
    pairs: list[tuple[str, float, float]] = []
    if first.method != baseline and name != RATIO:
        pairs = [
            (one.record.run.order, v, w)
            for one, v in measured
            if one.partner is not None and (w := one.partner.values.get(name)) is not None
        ]
    units = independent([v for _, v in measured], [one.record.run.order for one, _ in measured])
    orders = [order for order, _, _ in pairs]
    paired = independent([v for _, v, _ in pairs], orders)
    paired_theirs = independent([w for _, _, w in pairs], orders)
    reasons = (one.record.zero_by_construction.get(name) for one in runs)
    return Group(
        first.method,
        first.variant,
        name,
        runs=units.runs,
        unit=units.of,
        estimate=estimate(units.values),
        pairs=len(pairs),
        pair_unit=paired.of if pairs else "",
        comparison=compare(paired.values, paired_theirs.values) if pairs else None,
        zero_by_construction=next(filter(None, reasons), ""),
    )


def _run_row(one: _Measured, names: Sequence[str]) -> dict[str, Any]:
    run = one.record.run
    return {
        "run": run.name,
        "method": run.method,
        "order": run.order,
        "variant": run.variant,
        "seed": run.seed,
        **{name: getattr(run.settings, name) for name in tunable()},
        **{name: one.values.get(name) for name in (*names, RATIO)},
        "zero_by_construction": "; ".join(one.record.zero_by_construction),
    }


def _flat(group: Group) -> dict[str, Any]:
    compared = group.comparison
    difference = compared.difference if compared else None
    return {
        "method": group.method,
        "variant": group.variant,
        "metric": group.metric,
        "runs": group.runs,
        "unit": group.unit,
        **asdict(group.estimate),
        "pairs": group.pairs,
        "pair_unit": group.pair_unit,
        **{f"difference_{k}": getattr(difference, k, None) for k in _OF_DIFFERENCE},
        **{k: getattr(compared, k, None) for k in ("t_p", "permutation_p", "d_z", "g_z")},
        "zero_by_construction": group.zero_by_construction,
    }


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
    listed = list(rows)
    out = io.StringIO()
    if listed:
        writer = csv.DictWriter(out, fieldnames=list(listed[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(listed)
    return out.getvalue()


def _cell(group: Group | None) -> str:
    if group is None:
        return "-"
    if group.zero_by_construction:
        return "0*"
    found = group.estimate
    if found.sd is None or found.low is None or found.high is None:
        return f"{found.mean:.4f}"
    return f"{found.mean:.4f} ± {(found.high - found.low) / 2:.4f}"


def _compared(line: Mapping[str, Group]) -> list[str]:
    ratio, compared = line.get(RATIO), line["average_accuracy"].comparison
    first = f"{ratio.estimate.mean:.3f}" if ratio else "-"
    if compared is None:
        return [first, "-", "-", "-", "-"]
    numbers = [compared.t_p, compared.permutation_p, compared.g_z]
    shown = ["-" if number is None else f"{number:.3g}" for number in numbers]
    return [first, f"{compared.difference.mean:+.4f}", *shown]


def legend(groups: Sequence[Group]) -> list[str]:
    """Return lines that say what the marks of `main_metrics` mean."""
    lines = ["± is half of the 95 % t-interval of the mean over the units, p a test over them."]
    units = {unit for group in groups for unit in (group.unit, group.pair_unit)}
    lines += [text for unit, text in _MEANING.items() if unit in units]
    reasons = dict.fromkeys(g.zero_by_construction for g in groups if g.zero_by_construction)
    lines += [f"0*: zero by construction: {reason}." for reason in reasons]
    return lines
