"""Run logs of any length and any content, thinned for drawing."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path

import pytest

from plora_cl.report.recorded.run_log import MOST_POINTS, Series, read_log
from report.conftest import Page, Report


def step(number: int, **changes: object) -> dict[str, object]:
    fixed = {"event": "step", "task": 0, "epoch": 0, "batch": number, "penalties": {}}
    return {**fixed, "step": number, "loss": 1.0, "learning_rate": 0.1, **changes}


def test_a_short_series_is_kept_as_it_is() -> None:
    series = Series()
    for k in range(MOST_POINTS):
        series.add(k, float(k))
    assert [(point.first, point.mean) for point in series.points] == [
        (k, k) for k in range(MOST_POINTS)
    ]


def test_a_million_steps_become_a_few_hundred_points_that_lose_no_extreme() -> None:
    generator, series, values = random.Random(1), Series(), []
    for k in range(1_000_000):
        value = 1e6 if k == 654_321 else generator.random()
        values.append(value)
        series.add(k, value)
    points = series.points
    assert MOST_POINTS <= len(points) <= 2 * MOST_POINTS
    assert sum(point.steps for point in points) == 1_000_000
    assert math.isclose(math.fsum(point.total for point in points), math.fsum(values), rel_tol=1e-9)
    assert max(point.high for point in points) == 1e6
    assert min(point.low for point in points) == min(values)
    assert all(a.last + 1 == b.first for a, b in itertools.pairwise(points))


def test_a_long_log_gives_a_small_figure_that_says_how_it_was_thinned(
    copy: Path, report: Report
) -> None:
    generator = random.Random(0)
    with (copy / "results" / "run_log.jsonl").open("w") as file:
        for k in range(1, 100_001):
            penalties = {"ewc": generator.random(), "olora": generator.random()}
            event = step(k, task=k // 40_000, epoch=k // 1_000 % 40, penalties=penalties)
            file.write(json.dumps({**event, "loss": generator.random()}) + "\n")
    out = report(copy)
    assert (out / "figures" / "training.svg").stat().st_size < 200_000
    page = Page(out / "report.html")
    assert "100,000 optimizer steps, thinned: each point is the mean of 256 steps" in page.text
    assert len(page.source) < 600_000


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\n",
        b"[1, 2]\n",
        b'{"event": "step", "step": "one"}\n',
        b'{"event": "step", "step": 5, "task": 0, "epoch": 0, "loss": NaN, "penalties": [1]}\n',
        b'{"event": "step", "step": 5, "task": 0, "epoch": 0, "loss": 1e999, "penalties": {}}\n',
        b'{"event": "evaluation", "task": 0, "on": 900, "accuracy": 5, "f1": 1}\n',
        b'{"event": "routing", "task": 0, "on": 0, "accuracy": 0.5, "chosen": "all"}\n',
        b'{"event": "changed", "step": 1, "changes": {"key": 1}}\n',
        b"[" * 100_000 + b"\n",
        b'{"event": "step", "ste',
    ],
)
def test_lines_that_no_run_writes_are_left_out(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(line.rstrip(b"\n") + b"\n" + json.dumps(step(7)).encode() + b"\n" + line)
    found = read_log(path)
    assert found.last["step"] in (5, 7)
    assert sum(point.steps for point in found.loss.points) == 1
    assert found.loss.points[0].mean == 1.0


def test_epochs_are_summed_up_and_many_of_them_by_task(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    events = [step(k, task=k // 1000, epoch=k % 1000, loss=float(k % 2)) for k in range(3000)]
    path.write_text("".join(json.dumps(event) + "\n" for event in events[:200]))
    assert len(read_log(path).epochs) == 200
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    found = read_log(path).epochs.values()
    assert [(one.task, one.epoch, one.steps, one.mean_loss) for one in found] == [
        (task, None, 1000, 0.5) for task in range(3)
    ]


def test_no_log_is_an_empty_one(tmp_path: Path) -> None:
    assert read_log(tmp_path / "none").steps == 0
