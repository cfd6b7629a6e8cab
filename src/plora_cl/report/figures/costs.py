"""Time and bytes of a run by task, and the sizes of its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from plora_cl.report.colours import LIGHT, SERIES
from plora_cl.report.drawing import Chart
from plora_cl.report.labels import NOTHING, duration, short_labels
from plora_cl.report.run import Run
from plora_cl.report.tables import Column, Table, columns
from plora_cl.wording import shown_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_BARS = 30
_HATCHES = ("", "////", "", "\\\\\\\\", "", "||||", "xxxx", "----")


def time_by_task(run: Run, slug: str) -> Chart | None:
    """Return seconds by task and activity; None where nothing was measured."""
    seconds = run.costs.seconds
    if not run.costs.total_seconds:
        return None
    totals: dict[str, float] = {}
    for of_task in seconds.values():
        for activity, value in of_task.items():
            totals[activity] = totals.get(activity, 0.0) + value
    activities = sorted(totals, key=lambda name: -totals[name])
    slug = f"{slug}time-by-task"
    rows = [
        [
            task,
            duration(sum(of_task.values())),
            f"{run.costs.steps.get(task, 0)}",
            f"{run.costs.examples.get(task, 0)}",
            *(f"{of_task.get(name, 0.0):.3g}" for name in activities),
        ]
        for task, of_task in seconds.items()
    ]
    head = columns("task", "time", "steps", "examples", *(f"{name} (s)" for name in activities))
    drawn = dict(list(seconds.items())[:_MOST_BARS])
    caption = (
        f"Seconds of each task by activity, summed over all sessions of the run: "
        f"{duration(run.costs.total_seconds)} in all."
    )
    if len(drawn) < len(seconds):
        caption += f" The first {_MOST_BARS} tasks; the table has all."
    largest = max(sum(of_task.values()) for of_task in drawn.values())
    unit, scale = ("seconds", 1.0) if largest < 300 else ("minutes", 60.0)
    return Chart(
        slug,
        "Time by task",
        caption,
        Table(slug, f"Time by task: {run.label}", head, rows),
        lambda figure: _stacked(
            figure,
            list(drawn),
            {
                name: [of_task.get(name, 0.0) / scale for of_task in drawn.values()]
                for name in activities
            },
            unit,
        ),
        _height(len(drawn), len(activities)),
    )


def bytes_by_task(run: Run, slug: str) -> Chart | None:
    """Return the bytes on disk that each task added; None where there is no checkpoint."""
    added = run.storage.bytes_by_task
    if not added:
        return None
    names = [run.names[k] if k < len(run.names) else f"task {k + 1}" for k in added]
    slug = f"{slug}bytes-by-task"
    caption = (
        "Bytes that the last checkpoint of each task added to the disk: its file, and the objects "
        "that no earlier task refers to. The first one includes the base model."
    )
    rows = [
        [name, shown_bytes(count), str(count)]
        for name, count in zip(names, added.values(), strict=True)
    ]
    unit, scale = _unit(max(added.values()))
    shown = dict(list(zip(names, added.values(), strict=True))[:_MOST_BARS])
    return Chart(
        slug,
        "Bytes by task",
        caption,
        Table(slug, f"Bytes on disk by task: {run.label}", columns("task", "size", "bytes"), rows),
        lambda figure: _stacked(
            figure, list(shown), {"added": [count / scale for count in shown.values()]}, unit
        ),
        _height(len(shown), 1),
    )


def checkpoint_sizes(run: Run, slug: str) -> Chart | None:
    """Return own and shared bytes of each checkpoint; None where there is none."""
    found = run.storage.checkpoints
    if not found:
        return None
    slug = f"{slug}checkpoint-sizes"
    rows = [
        [
            one.name,
            NOTHING if one.step is None else str(one.step),
            shown_bytes(one.own_bytes),
            shown_bytes(one.shared_bytes),
            one.problem or ("retired" if one.is_retired else "ok"),
        ]
        for one in found
    ]
    head = [Column("checkpoint", is_number=False), *map(Column, ("step", "own", "shared"))]
    head.append(Column("state", is_number=False))
    shown = found[-_MOST_BARS:]
    unit, scale = _unit(max(one.own_bytes + one.shared_bytes for one in shown))
    caption = (
        "Own: the file, and objects that nothing else refers to. Shared: objects such as base "
        "weights and finished adapters, stored once. On disk: "
        f"{shown_bytes(run.storage.file_bytes)} in {len(found)} files and "
        f"{shown_bytes(run.storage.object_bytes)} in objects."
    )
    names = [
        one.name.removeprefix("checkpoint_").removesuffix(".pt").replace("_", " ") for one in shown
    ]
    return Chart(
        slug,
        "Checkpoint sizes",
        caption,
        Table(slug, f"Checkpoints: {run.label}", head, rows),
        lambda figure: _stacked(
            figure,
            names,
            {
                "own": [one.own_bytes / scale for one in shown],
                "shared": [one.shared_bytes / scale for one in shown],
            },
            unit,
        ),
        _height(len(shown), 2),
    )


def _height(bars: int, kinds: int) -> float:
    return min(8.0, 0.75 + 0.27 * bars + 0.2 * -(-kinds // 3) * (kinds > 1))


def _unit(largest: float) -> tuple[str, float]:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if largest >= scale:
            return unit, scale
    return "bytes", 1.0


def _stacked(
    figure: Figure, names: Sequence[str], parts: Mapping[str, Sequence[float]], unit: str
) -> None:
    axes = figure.subplots()
    axes.grid(visible=False, axis="y")
    places, left = range(len(names)), [0.0] * len(names)
    for k, (part, values) in enumerate(parts.items()):
        axes.barh(
            places,
            values,
            left=left,
            height=0.68,
            color=SERIES[k % len(SERIES)],
            edgecolor=LIGHT["surface"],
            linewidth=0.8,
            hatch=_HATCHES[k % len(_HATCHES)],
            label=part,
        )
        left = [before + value for before, value in zip(left, values, strict=True)]
    axes.set_yticks(places, short_labels(names, 22))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(unit)
    if len(parts) > 1:
        figure.legend(loc="outside lower center", ncols=3)
