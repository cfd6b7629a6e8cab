"""What each part of the method is worth, from `eight-runs.yaml` and `defaults.yaml` of this folder.

    uv run python benchmarks/components.py experiments/eight-runs/runs.csv
    uv run python benchmarks/components.py experiments/defaults/runs.csv

Prints the tables of docs/results.md. Everything is in points: hundredths of accuracy.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from plora_cl.study.statistics import (
    Estimate,
    PairedComparison,
    compare,
    estimate,
    independent,
)

Row = dict[str, str]
Group = Sequence[Row]
Groups = Mapping[tuple[str, str], Group]

TASKS = ("ag_news", "yelp", "amazon", "yahoo", "dbpedia")
REFERENCE, JOINT, FLOOR = "no-lateral", "joint", "tfidf"
PARTS = {
    "EWC": (REFERENCE, "no-lateral-no-ewc"),
    "O-LoRA": (REFERENCE, "no-lateral-no-olora"),
    "generative replay": (REFERENCE, "no-lateral-no-replay"),
    "lateral connections": ("full", REFERENCE),
    "layer norms shared under EWC": ("ewc", "adapters"),
}
"""The method with a part, and the one without it."""


def main() -> None:
    """Print the tables of a `runs.csv`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", type=Path, metavar="runs.csv")
    print(tables(parser.parse_args().runs))


def tables(path: Path) -> str:
    """Return the tables as Markdown."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    keys = dict.fromkeys((row["method"], row["variant"]) for row in rows)
    groups: Groups = {
        key: sorted(
            (row for row in rows if (row["method"], row["variant"]) == key),
            key=lambda row: (row["order"], int(row["seed"])),
        )
        for key in keys
    }
    return "\n\n".join([_methods(groups), _by_task(groups), _parts(groups)])


def _methods(groups: Groups) -> str:
    joint = groups[JOINT, ""]
    head = ["method", "composition", "runs", "accuracy", "backward transfer", "task inferred",
            "gap", "of joint, %"]  # fmt: skip
    lines = [
        [
            method,
            variant or "-",
            str(len(group)),
            *(_cell(group, name) for name in ("average_accuracy", "backward_transfer")),
            *(_cell(group, name) for name in ("routed_average_accuracy", "routing_gap")),
            f"{100 * _mean(group, 'average_accuracy') / _mean(joint, 'average_accuracy'):.1f}",
        ]
        for (method, variant), group in groups.items()
    ]
    return _table(head, lines)


def _by_task(groups: Groups) -> str:
    floor = groups[FLOOR, ""]
    lines = []
    for (method, variant), group in groups.items():
        cells = [_mean(group, f"accuracy on {task}") for task in TASKS]
        floors = [_mean(floor, f"accuracy on {task}") for task in TASKS]
        below = [task for task, a, b in zip(TASKS, cells, floors, strict=True) if a < b]
        shown = [f"{100 * cell:.1f}" for cell in cells]
        lines.append([method, variant or "-", *shown, ", ".join(below) or "none"])
    return _table(["method", "composition", *TASKS, "below the floor"], lines)


def _parts(groups: Groups) -> str:
    head = ["part", "composition", "accuracy", "p", "backward transfer", "task inferred"]
    lines = []
    for part, (having, lacking) in PARTS.items():
        for variant in dict.fromkeys(variant for _, variant in groups):
            with_it, without = groups.get((having, variant)), groups.get((lacking, variant))
            if with_it is None or without is None:
                continue
            with_it, without = _common(with_it, without), _common(without, with_it)
            accuracy = _paired(with_it, without, "average_accuracy")
            p = _compared(with_it, without, "average_accuracy").t_p
            lines.append(
                [
                    part,
                    variant or "-",
                    accuracy,
                    "-" if p is None else f"{p:.2g}",
                    _paired(with_it, without, "backward_transfer"),
                    _paired(with_it, without, "routed_average_accuracy"),
                ]
            )
    return _table(head, lines)


def _common(group: Group, other: Group) -> Group:
    """Return the runs of orders and seeds that both have."""
    others = {(row["order"], row["seed"]) for row in other}
    return [row for row in group if (row["order"], row["seed"]) in others]


def _paired(with_it: Group, without: Group, name: str) -> str:
    return _shown(_compared(with_it, without, name).difference, "{:+.1f}")


def _compared(with_it: Group, without: Group, name: str) -> PairedComparison:
    pairs = [[(row["order"], row["seed"]) for row in group] for group in (with_it, without)]
    assert pairs[0] == pairs[1]
    return compare(_units(with_it, name), _units(without, name))


def _cell(group: Group, name: str) -> str:
    if not all(row[name] for row in group):
        return "-"
    if all(name in row["zero_by_construction"].split("; ") for row in group):
        return "0*"
    return _shown(estimate(_units(group, name)), "{:.1f}" if "acc" in name else "{:+.1f}")


def _shown(found: Estimate, form: str) -> str:
    if found.low is None or found.high is None:
        return form.format(100 * found.mean)
    return f"{form.format(100 * found.mean)} ± {50 * (found.high - found.low):.1f}"


def _units(group: Group, name: str) -> tuple[float, ...]:
    values = [float(row[name]) for row in group]
    return independent(values, [row["order"] for row in group]).values


def _mean(group: Group, name: str) -> float:
    return estimate(_units(group, name)).mean


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


if __name__ == "__main__":
    main()
