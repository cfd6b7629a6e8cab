"""Figures that compare methods, with intervals over their repetitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from plora_cl.report.colours import DASHES, LIGHT, MARKERS, SERIES
from plora_cl.report.comparison import Comparison, Line
from plora_cl.report.drawing import Chart
from plora_cl.report.figures.matrices import heat_map
from plora_cl.report.figures.stream import whole_numbers
from plora_cl.report.labels import MINUS, NOTHING, number, share, short_labels, signed
from plora_cl.report.tables import Table, columns
from plora_cl.study.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS = (
    ("average_accuracy", "ACC", False),
    ("backward_transfer", "BWT", True),
    ("forward_transfer", "FWT", True),
    ("forgetting", "forgetting", True),
    ("learning_accuracy", "LA", False),
    ("routed_average_accuracy", "ACC routed", False),
)
"""Name, heading, and whether it is a difference that may be negative."""

_DRAWN = 4
_MOST_LINES, _MOST_CURVES, _MOST_TASKS = 24, 8, 30
_INTERVAL = "Bars are 95 % t-intervals of the mean over orders or, with one order, over seeds."


def shown(found: Estimate | None, *, is_difference: bool) -> str:
    """Return a mean with half of its interval."""
    if found is None:
        return NOTHING
    mean = signed(found.mean) if is_difference else share(found.mean)
    if found.low is None or found.high is None:
        return mean
    return f"{mean} ± {(found.high - found.low) / 2:.3f}"


def summary(comparison: Comparison) -> Table | None:
    """Return the main table of a comparison; None without statistics."""
    lines = [line for line in comparison.lines if line.groups]
    if not lines:
        return None
    names = [name for _, name, _ in METRICS]
    tests: list[str] = []
    note = (
        "± is half of the 95 % t-interval of the mean. 0*: zero by construction, for any weights."
    )
    if comparison.baseline is not None:
        tests = [f"ACC {MINUS} {comparison.baseline}", "p (t)", "p (perm.)", "g_z"]
        note += (
            " p: two-sided paired t-test and sign-flip permutation test; g_z: Hedges' g of the "
            "paired differences."
        )
    head = columns("method", "runs", names[0], *tests, *names[1:])
    rows = []
    for line in lines:
        accuracy, *others = _cells(line)
        against = _against(line) if tests else []
        rows.append([line.label, _repetitions(line), accuracy, *against, *others])
    return Table("summary", "All scores by method", head, rows, note).without_empty_columns()


def _against(line: Line) -> list[str]:
    group = line.groups["average_accuracy"]
    if group.comparison is None:
        return [NOTHING] * 4
    found = group.comparison
    tests = (found.t_p, found.permutation_p, found.g_z)
    return [shown(found.difference, is_difference=True), *(number(one, 2) for one in tests)]


def metrics(comparison: Comparison) -> Chart | None:
    """Return ACC, BWT, FWT and forgetting of each method; None without statistics."""
    lines = [line for line in comparison.lines if line.groups]
    if not lines:
        return None
    rows = [[line.label, _repetitions(line), *_cells(line)] for line in lines]
    drawn = lines[:_MOST_LINES]
    caption = f"Scores of each method. {_INTERVAL} A hollow mark is zero by construction."
    if len(drawn) < len(lines):
        caption += f" The first {_MOST_LINES} of {len(lines)}; the table has all."
    table = Table(
        "metrics",
        "Scores by method",
        columns("method", "runs", *(head for _, head, _ in METRICS)),
        rows,
        "± is half of the 95 % t-interval. 0*: zero by construction, for any weights.",
    )
    return Chart(
        "metrics", "Scores", caption, table, lambda f: _draw_metrics(f, drawn),
        1.35 + 0.46 * len(drawn),
    )  # fmt: skip


def _repetitions(line: Line) -> str:
    group = line.groups["average_accuracy"]
    return f"{group.runs} ({group.estimate.n} {group.unit}{'s' * (group.estimate.n != 1)})"


def _cells(line: Line) -> list[str]:
    found = []
    for name, _, is_difference in METRICS:
        group = line.groups.get(name)
        if group is not None and group.zero_by_construction:
            found.append("0*")
        else:
            found.append(shown(line.estimate(name), is_difference=is_difference))
    return found


def _draw_metrics(figure: Figure, lines: Sequence[Line]) -> None:
    grid = figure.subplots(2, 2, sharey=True)
    for axes, (name, head, is_difference) in zip(grid.flat, METRICS[:_DRAWN], strict=True):
        _dots(axes, lines, name)
        axes.set_title(head, loc="left")
        if is_difference:
            axes.axvline(0, color=LIGHT["muted"], lw=0.8)
        axes.locator_params(axis="x", nbins=3)


def _dots(axes: Axes, lines: Sequence[Line], metric: str) -> None:
    axes.grid(visible=False, axis="y")
    for place, line in enumerate(lines):
        found = line.estimate(metric)
        if found is None:
            continue
        is_zero = bool(line.groups[metric].zero_by_construction)
        if found.low is not None and found.high is not None:
            axes.plot([found.low, found.high], [place, place], color=SERIES[0], lw=1.6)
        axes.plot(
            [found.mean],
            [place],
            marker="o",
            color=SERIES[0],
            markerfacecolor=LIGHT["surface"] if is_zero else SERIES[0],
        )
    axes.set_yticks(range(len(lines)), short_labels([line.label for line in lines], 18))
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)


def along_stream(comparison: Comparison) -> Chart | None:
    """Return the mean accuracy over tasks so far of each method; None where none has it."""
    curves = [(line.label, found) for line in comparison.lines if (found := line.along_stream())]
    curves = [(label, found) for label, found in curves if len(found) > 1]
    if not curves:
        return None
    most = max(len(found) for _, found in curves)
    steps = sorted({int(k) for k in np.linspace(0, most - 1, min(most, _MOST_TASKS))})
    rows = [
        [
            label,
            *(shown(found[k], is_difference=False) if k < len(found) else NOTHING for k in steps),
        ]
        for label, found in curves
    ]
    drawn = curves[:_MOST_CURVES]
    caption = (
        "Mean accuracy over the tasks learned so far, after each task. Bands are 95 % t-intervals."
    )
    if len(drawn) < len(curves):
        caption += f" The first {_MOST_CURVES} of {len(curves)}; the table has all."
    return Chart(
        "stream-comparison",
        "Accuracy along the stream",
        caption,
        Table(
            "stream-comparison",
            "Mean accuracy over tasks so far, by number of tasks learned",
            columns("method", *(str(k + 1) for k in steps)),
            rows,
        ),
        lambda figure: _draw_curves(figure, drawn),
        3.0 + 0.17 * -(-len(drawn) // 3),
    )


def _draw_curves(figure: Figure, curves: Sequence[tuple[str, list[Estimate]]]) -> None:
    axes = figure.subplots()
    labels = short_labels([label for label, _ in curves], 20)
    for k, (label, (_, found)) in enumerate(zip(labels, curves, strict=True)):
        places, colour = np.arange(1, len(found) + 1), SERIES[k % len(SERIES)]
        axes.plot(
            places,
            [one.mean for one in found],
            color=colour,
            marker=MARKERS[k % len(MARKERS)],
            linestyle=DASHES[k % len(DASHES)],
            label=label,
        )
        lows = [one.mean if one.low is None else max(0.0, one.low) for one in found]
        highs = [one.mean if one.high is None else min(1.0, one.high) for one in found]
        if lows != highs:
            axes.fill_between(places, lows, highs, color=colour, alpha=0.13, lw=0)
    axes.set(xlabel="tasks learned", ylabel="mean accuracy so far", ylim=(0, 1.02))
    whole_numbers(axes, max(len(found) for _, found in curves))
    figure.legend(loc="outside lower center", ncols=3)


def final_accuracy(comparison: Comparison) -> Chart | None:
    """Return accuracy at the end by method and task; None where no run has ended."""
    lines = [line for line in comparison.lines if line.finished]
    if not lines:
        return None
    found = [line.final_accuracy() for line in lines]
    tasks = comparison.tasks
    rows = [
        [line.label, *(share(of_line.get(name)) for name in tasks)]
        for line, of_line in zip(lines, found, strict=True)
    ]
    values = np.array([[one.get(name, np.nan) for name in tasks] for one in found])
    draw, height = heat_map(
        values[:_MOST_LINES], [line.label for line in lines[:_MOST_LINES]], tasks, ("task", "")
    )
    return Chart(
        "final-accuracy",
        "Final accuracy by task",
        "Accuracy on the test split of each task after the whole stream, mean over the runs.",
        Table(
            "final-accuracy", "Final accuracy by method and task", columns("method", *tasks), rows
        ),
        draw,
        height,
    )


def differences(comparison: Comparison) -> Chart | None:
    """Return the paired differences to the baseline; None where there is none."""
    pairs = [
        (line, group.comparison)
        for line in comparison.lines
        if (group := line.groups.get("average_accuracy")) and group.comparison is not None
    ]
    if not pairs or comparison.baseline is None:
        return None
    rows = [
        [
            line.label,
            f"{line.groups['average_accuracy'].pairs}",
            *_against(line),
        ]
        for line, one in pairs
    ]
    labels = [line.label for line, _ in pairs][:_MOST_LINES]
    estimates = [one.difference for _, one in pairs][:_MOST_LINES]
    return Chart(
        "differences",
        f"Difference in ACC to {comparison.baseline}",
        f"Average accuracy minus that of {comparison.baseline}, over pairs of runs of the same "
        f"order and seed. {_INTERVAL} Left of zero is worse.",
        Table(
            "differences",
            f"Average accuracy minus that of {comparison.baseline}",
            columns("method", "pairs", "difference", "p (t)", "p (permutation)", "g_z"),
            rows,
            "p: two-sided paired t-test and sign-flip permutation test; g_z: Hedges' g of the "
            "differences.",
        ),
        lambda figure: _draw_differences(figure, labels, estimates),
        0.85 + 0.32 * len(labels),
    )


def _draw_differences(figure: Figure, labels: list[str], found: Sequence[Estimate]) -> None:
    axes = figure.subplots()
    axes.grid(visible=False, axis="y")
    axes.axvline(0, color=LIGHT["muted"], lw=0.9)
    for place, one in enumerate(found):
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [place, place], color=SERIES[0], lw=1.6)
        axes.plot([one.mean], [place], marker="o", color=SERIES[0])
    axes.set_yticks(range(len(labels)), short_labels(labels, 22))
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.1)
    axes.set_xlabel("difference in average accuracy")
