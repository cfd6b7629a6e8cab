"""Loss, penalties and learning rate over the optimizer steps of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from plora_cl.report.colours import DASHES, LIGHT, SERIES
from plora_cl.report.drawing import Chart
from plora_cl.report.labels import clean, number, short_labels
from plora_cl.report.recorded.run_log import LogSummary, Series
from plora_cl.report.run import Run
from plora_cl.report.tables import Table, columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_NAMED, _MOST_MARKS = 8, 40
_LOG_SCALE_FROM = 300.0


def training(run: Run, slug: str) -> Chart | None:
    """Return the curves of training; None where no step was logged."""
    log = run.log
    if not log.loss.points and not log.learning_rate.points:
        return None
    return Chart(
        f"{slug}training",
        "Training",
        _caption(run),
        _table(run, f"{slug}training"),
        lambda figure: _draw(figure, run),
        1.1 + 1.35 * len(_panels(log)),
    )


def _caption(run: Run) -> str:
    width = run.log.loss.width
    text = "Loss and learning rate by optimizer step; vertical lines begin a task."
    if width > 1:
        text = (
            f"{run.log.steps:,} optimizer steps, thinned: each point is the mean of {width} steps, "
            "the band reaches from the lowest to the highest of them. Vertical lines begin a task."
        )
    marked = [one for one in run.storage.checkpoints if one.step is not None]
    if marked:
        text += " Triangles mark the checkpoints that are kept."
    if run.log.changes:
        steps = ", ".join(str(step) for step, _ in run.log.changes[:_MOST_MARKS])
        text += f" Red lines: resumed with other settings or from an earlier point (step {steps})."
    if run.log.gaps:
        text += f" Records are missing after step {', '.join(map(str, run.log.gaps[:5]))}."
    return text + " An exact resume leaves no trace: every step is in the log once."


def _table(run: Run, slug: str) -> Table:
    names, epochs = run.names, list(run.log.epochs.values())
    rows = [
        [
            names[one.task] if one.task < len(names) else f"task {one.task + 1}",
            "all" if one.epoch is None else str(one.epoch + 1),
            str(one.steps),
            number(one.mean_loss),
            number(one.learning_rate, 3),
        ]
        for one in epochs
    ]
    head = columns("task", "epoch", "steps", "mean loss", "last learning rate")
    changed = [f"after step {step}: {clean(text)}" for step, text in run.log.changes if text]
    note = f"Changed {'; '.join(changed[:20])}." if changed else ""
    return Table(slug, f"Loss by epoch: {run.label}", head, rows, note)


def _panels(log: LogSummary) -> list[tuple[str, list[tuple[str, Series]]]]:
    losses = [("loss", log.loss), ("loss on replay", log.replay_loss)]
    names = short_labels([clean(name) for name in log.penalties], 24)
    penalties = list(zip(names, log.penalties.values(), strict=True))
    panels = [
        ("loss", losses),
        ("penalty", penalties),
        ("learning rate", [("", log.learning_rate)]),
    ]
    drawn = [(name, [one for one in series if one[1].points]) for name, series in panels]
    return [(name, series) for name, series in drawn if series]


def _draw(figure: Figure, run: Run) -> None:
    panels = _panels(run.log)
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, series) in zip(rows, panels, strict=True):
        _draw_panel(axes, name, series)
    for axes in rows:
        for step in sorted(run.log.first_steps.values())[1:_MOST_MARKS]:
            axes.axvline(step - 0.5, color=LIGHT["muted"], lw=0.7)
        for step, _ in run.log.changes[:_MOST_MARKS]:
            axes.axvline(step + 0.5, color=LIGHT["warn"], lw=1.1, ls=(0, (4, 2)))
    _name_tasks(rows[0], run)
    _mark_checkpoints(rows[0], run)
    rows[-1].set_xlabel("optimizer step")
    rows[-1].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _draw_panel(axes: Axes, name: str, series: Sequence[tuple[str, Series]]) -> None:
    for k, (label, one) in enumerate(series):
        colour, steps = SERIES[k % len(SERIES)], [point.middle for point in one.points]
        axes.plot(
            steps,
            [point.mean for point in one.points],
            color=colour,
            lw=1.2,
            linestyle=DASHES[k % len(DASHES)],
            label=label,
        )
        if one.width > 1:
            axes.fill_between(
                steps,
                [point.low for point in one.points],
                [point.high for point in one.points],
                color=colour,
                alpha=0.2,
                lw=0,
            )
    axes.set_ylabel(name)
    means = [point.mean for _, one in series for point in one.points]
    if name == "penalty" and min(means) > 0 and max(means) / min(means) > _LOG_SCALE_FROM:
        axes.set_yscale("log")
    elif name == "loss":
        axes.set_ylim(bottom=min(0.0, *means))
    if len(series) > 1 or name == "penalty":
        if axes.get_yscale() == "linear":
            low, high = axes.get_ylim()
            axes.set_ylim(low, high + 0.3 * (high - low))  # room for the legend
        axes.legend(loc="upper right", ncols=2, handlelength=1.6, borderaxespad=0.1)


def _name_tasks(axes: Axes, run: Run) -> None:
    begins = sorted(run.log.first_steps.items(), key=lambda item: item[1])
    if len(begins) > _MOST_NAMED:
        return
    labels = short_labels(run.names, max(6, 44 // len(begins)))
    ends = [first for _, first in begins[1:]] + [int(run.log.last["step"]) + 1]
    for (task, first), end in zip(begins, ends, strict=True):
        label = labels[task] if task < len(labels) else str(task + 1)
        axes.annotate(
            label,
            ((first + end) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            size=7 if len(begins) > 4 else 8,
            color=LIGHT["muted"],
            annotation_clip=False,
        )


def _mark_checkpoints(axes: Axes, run: Run) -> None:
    steps = sorted({one.step for one in run.storage.checkpoints if one.step is not None})
    axes.plot(
        steps,
        [1.03] * len(steps),
        linestyle="none",
        marker="v",
        markersize=4.5,
        color=LIGHT["accent"],
        transform=axes.get_xaxis_transform(),
        clip_on=False,
    )
