"""Heat maps: the matrix of results, and the confusion of the router."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from plora_cl.report.colours import HEAT_LIGHT, INK_ON_HEAT, LIGHT, heat
from plora_cl.report.drawing import Chart
from plora_cl.report.labels import NOTHING, share, short_labels
from plora_cl.report.run import Matrix, Run
from plora_cl.report.tables import Table, columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_IN_TABLE = 40
"""Tasks up to which a table has the whole matrix."""

_MOST_CELLS, _MOST_NUMBERS, _MOST_LABELS = 30, 12, 30


def accuracy_matrix(run: Run, slug: str) -> Chart:
    """Return the heat map of accuracy with the task given."""
    return _result_matrix(
        run,
        run.scores.accuracy,
        f"{slug}accuracy-matrix",
        "Accuracy, task given (oracle)",
        "Accuracy on the test split of each task (column) after learning each task (row). The "
        "diagonal is the score right after learning, the last row the final one.",
    )


def routed_matrix(run: Run, slug: str) -> Chart:
    """Return the heat map of accuracy with the task inferred by the router."""
    return _result_matrix(
        run,
        run.scores.routed,
        f"{slug}routed-accuracy-matrix",
        "Accuracy, task inferred (routed)",
        "The same with the task of each text inferred by the router: a text that is sent to "
        "another task counts as wrong.",
    )


def _result_matrix(run: Run, values: Matrix, slug: str, title: str, caption: str) -> Chart:
    names = run.names
    if len(names) <= MOST_IN_TABLE:
        head = columns("after learning", *names)
        rows = [[name, *map(share, row)] for name, row in zip(names, values, strict=True)]
        note = ""
    else:
        head = columns("task", "when learned", "at the end")
        rows = [[name, share(values[k, k]), share(values[-1, k])] for k, name in enumerate(names)]
        note = "The result files have the whole matrix."
    return Chart(
        slug,
        title,
        caption,
        Table(slug, f"{title}: {run.label}", head, rows, note),
        lambda figure: _draw(figure, values, names, names, ("test split of", "after learning")),
        _height(len(names)),
    )


def confusion(run: Run, slug: str) -> Chart:
    """Return the heat map of where the router sent the texts of each task."""
    names, counts = run.names, run.scores.confusion
    shares = np.full((len(names), len(names)), np.nan)
    for row, chosen in enumerate(counts):
        if chosen and sum(chosen):
            shares[row, : len(chosen)] = np.divide(chosen, sum(chosen))
    shown = names[:MOST_IN_TABLE]
    rows = [
        [name, *(str(n) for n in (chosen or [])[: len(shown)])]
        + [NOTHING] * (len(shown) - len((chosen or [])[: len(shown)]))
        for name, chosen in zip(shown, counts, strict=False)
    ]
    title = "Confusion of the router"
    note = "" if len(shown) == len(names) else f"The first {MOST_IN_TABLE} tasks."
    return Chart(
        f"{slug}router-confusion",
        title,
        "Share of the test texts of each task (row) that the router sent to each task (column), "
        "after the last task that was learned.",
        Table(
            f"{slug}router-confusion",
            f"Texts by task and inferred task: {run.label}",
            columns("texts of", *shown),
            rows,
            note,
        ),
        lambda figure: _draw(figure, shares, names, names, ("sent to", "texts of")),
        _height(len(names)),
    )


def heat_map(
    values: Matrix, rows: Sequence[str], names: Sequence[str], axes_names: tuple[str, str]
) -> tuple[Callable[[Figure], None], float]:
    """Return what draws shares in [0, 1] as coloured cells, and the height of the figure."""
    return (
        lambda figure: _draw(figure, values, rows, names, axes_names),
        min(6.0, 1.3 + 0.34 * len(rows)),
    )


def _height(tasks: int) -> float:
    return min(4.6, 1.75 + 0.36 * tasks)


def _draw(
    figure: Figure,
    values: Matrix,
    rows: Sequence[str],
    names: Sequence[str],
    axes_names: tuple[str, str],
) -> None:
    axes = figure.subplots()
    axes.grid(visible=False)
    height, width = values.shape
    if max(height, width) > _MOST_CELLS:
        _draw_image(axes, values)
    else:
        _draw_cells(axes, values, with_numbers=width <= _MOST_NUMBERS)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.set(xlabel=axes_names[0], ylabel=axes_names[1])
    every = -(-width // _MOST_LABELS), -(-height // _MOST_LABELS)
    labels = short_labels(names, 15)[:: every[0]]
    slanted = width > 3 or max(map(len, labels)) > 9
    axes.set_xticks(
        range(0, width, every[0]),
        labels,
        rotation=35 if slanted else 0,
        ha="right" if slanted else "center",
        rotation_mode="anchor",
    )
    axes.set_yticks(range(0, height, every[1]), short_labels(rows, 18)[:: every[1]])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_cells(axes: Axes, values: Matrix, *, with_numbers: bool) -> None:
    from matplotlib.patches import Rectangle

    size = 9.0 if values.shape[1] <= 8 else 7.0
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        step = heat(float(value))
        axes.add_patch(
            Rectangle(
                (column - 0.47, row - 0.46), 0.94, 0.92, facecolor=HEAT_LIGHT[step], linewidth=0
            )
        )
        if with_numbers:
            colour = LIGHT["ink" if step < INK_ON_HEAT else "surface"]
            axes.text(
                column,
                row,
                _digits(float(value)),
                color=colour,
                size=size,
                ha="center",
                va="center",
            )


def _digits(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.2f}".removeprefix("0") if value < 0.995 else "1.0"


def _draw_image(axes: Axes, values: Matrix) -> None:
    from matplotlib.colors import to_rgba

    levels = np.array([to_rgba(colour) for colour in HEAT_LIGHT] + [(0.0, 0.0, 0.0, 0.0)])
    steps = np.clip(np.nan_to_num(values, nan=0.0) * 10, 0, 9).astype(int)
    axes.imshow(
        levels[np.where(np.isfinite(values), steps, len(HEAT_LIGHT))],
        interpolation="nearest",
        aspect="auto",
    )
