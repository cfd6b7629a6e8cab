"""Tables and targets for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from saves.rows import OURS

NAIVE = "naive torch.save of everything"


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return ``rows`` as a table in Markdown."""
    lines = [columns, ["---"] * len(columns)]
    lines += [[_shown(row.get(column)) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def targets(result: Mapping[str, Any]) -> list[str]:
    """Return a line for each target of which something was measured."""
    return [*_of_rows(result), *_of_others(result)]


def _of_rows(result: Mapping[str, Any]) -> Iterator[str]:
    rows = {row["name"]: row for row in result["rows"]}
    if not rows:
        return
    for situation in ("", ", in training", ", previous save under way"):
        row = rows[OURS + situation]
        what = situation.lstrip(", ") or "the copy waited for at once"
        yield _line(f"stall p50, {what}", row["stall_ms_p50"], 1.0, "ms")
        yield _line(f"stall p99, {what}", row["stall_ms_p99"], 5.0, "ms")
        ratio = rows[NAIVE]["stall_ms_p50"] / row["stall_ms_p50"]
        yield _line(f"stall of the naive save / ours, {what}", ratio, 1000.0, "x", least=True)
    yield _line(
        "bytes of a step save", rows[OURS]["bytes_written"], result["bytes_allowed"], "bytes"
    )


def _of_others(result: Mapping[str, Any]) -> Iterator[str]:
    if tasks := result.get("tasks"):
        last = tasks["rows"][-1]
        yield _line("stall p50 at task 50", last["stall_ms_p50"], 1.0, "ms")
        yield _line("bytes at task 50", last["bytes_written"], tasks["bytes_allowed"], "bytes")
        # Names and digests of what is referred to are part of each checkpoint
        yield _line("bytes at task 50 beyond task 1", tasks["growth_percent"], 1.0, "%")
    if result.get("overhead_every_step_percent") is not None:
        first, third = result["overhead_quartiles_percent"]
        what = f"overhead of saving each step (quartiles {first:.2f} to {third:.2f})"
        yield _line(what, result["overhead_every_step_percent"], 1.0, "%")
    for batch, stages in result.get("resume_ms", {}).items():
        yield _line(f"resume to first step at batch {batch}", stages["to_first_step"], 300.0, "ms")
    if full := result.get("full"):
        yield _line("everything trainable: stall / memcpy", full["ratio_to_memcpy"], 1.5, "x")


def _line(what: str, measured: float, target: float, unit: str, *, least: bool = False) -> str:
    met = measured >= target if least else measured <= target
    sign = ">=" if least else "<="
    return (
        f"{'met   ' if met else 'missed'}  {what}: {_shown(measured)} {unit}, "
        f"target {sign} {_shown(target)} {unit}"
    )


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if value < 100 else f"{value:.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
