"""Accuracy of each task while the stream is learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from plora_cl.report.colours import DASHES, LIGHT, MARKERS, SERIES
from plora_cl.report.drawing import Chart
from plora_cl.report.labels import share, short_labels
from plora_cl.report.run import Matrix, Run
from plora_cl.report.tables import Table, columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_NAMED, _MOST_LINES = 10, 60


def along_stream(run: Run, slug: str) -> Chart:
    """Return the lines of accuracy of each task from the moment when it was learned."""
    values, names = run.scores.accuracy, run.names
    seen = seen_average(values)
    slug = f"{slug}accuracy-along-stream"
    rows = [
        [f"{k + 1}. {name}", share(seen[k]), share(values[k, k]), share(values[-1, k])]
        for k, name in enumerate(names)
    ]
    caption = (
        "Each line is a task, from the moment when it was learned; a falling line is a task that "
        "is being forgotten. The thick line is the mean over the tasks learned so far."
    )
    if len(names) > _MOST_NAMED:
        caption += " With this many tasks the lines are not told apart; the table names them."
    return Chart(
        slug,
        "Accuracy along the stream",
        caption,
        Table(
            slug,
            f"Accuracy along the stream: {run.label}",
            columns("learned", "mean over tasks so far", "when learned", "at the end"),
            rows,
        ),
        lambda figure: _draw(figure, values, names),
        3.2,
    )


def seen_average(accuracy: Matrix) -> list[float]:
    """Return for each task the mean accuracy over the tasks up to it, after learning it.

    NaN where not all of them were measured.
    """
    return [float(accuracy[k, : k + 1].mean()) for k in range(len(accuracy))]


def _draw(figure: Figure, values: Matrix, names: list[str]) -> None:
    axes = figure.subplots()
    tasks = len(names)
    places = np.arange(1, tasks + 1)
    if tasks <= _MOST_NAMED:
        for k, label in enumerate(short_labels(names, 16)):
            axes.plot(
                places[k:],
                values[k:, k],
                color=SERIES[k % len(SERIES)],
                marker=MARKERS[k % len(MARKERS)],
                linestyle=DASHES[k % len(DASHES)],
                label=label,
            )
    else:
        for k in np.linspace(0, tasks - 1, min(tasks, _MOST_LINES)).astype(int):
            every = np.unique(np.linspace(k, tasks - 1, min(tasks - k, 100)).astype(int))
            axes.plot(places[every], values[every, k], color=LIGHT["muted"], lw=0.7, alpha=0.5)
    every = np.unique(np.linspace(0, tasks - 1, min(tasks, 200)).astype(int))
    axes.plot(
        places[every],
        np.array(seen_average(values))[every],
        color=LIGHT["ink"],
        lw=2.6,
        alpha=0.85,
        label="mean so far",
        zorder=1.5,
    )
    axes.set(xlabel="tasks learned", ylabel="accuracy", ylim=(0, 1.02))
    axes.set_xlim(0.8, tasks + 0.2)
    whole_numbers(axes, tasks)
    figure.legend(loc="outside lower center", ncols=3)


def whole_numbers(axes: Axes, tasks: int) -> None:
    """Mark numbers of tasks on the horizontal axis."""
    from matplotlib.ticker import MaxNLocator

    if tasks <= _MOST_NAMED:
        axes.set_xticks(range(1, tasks + 1))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
