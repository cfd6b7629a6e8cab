from __future__ import annotations

from typing import Any

import pytest

from plora_cl.checkpoint.snapshot.compatibility import (
    SettingChange,
    as_structural,
    require_acceptable,
    task_changes,
    value_changes,
)
from plora_cl.errors import IncompatibleCheckpointError
from plora_cl.impact import Impact

IMPACTS = {"lora_r": Impact.STRUCTURAL, "folder": Impact.HARMLESS, "rate": Impact.TRAJECTORY}


def lines(changes: list[SettingChange]) -> list[str]:
    return [str(change) for change in changes]


def refusal(changes: list[SettingChange], *, accept: bool) -> str:
    with pytest.raises(IncompatibleCheckpointError) as caught:
        require_acceptable(changes, accept=accept, shape_settings={"lora_r"})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_differs() -> None:
    assert value_changes({"rate": 1, "x": None}, {"rate": 1, "x": None}, IMPACTS) == []
    assert require_acceptable([], accept=False, shape_settings=()) == []


def test_each_difference_is_a_line_with_its_class_and_both_values() -> None:
    saved = {"lora_r": 8, "folder": "a", "rate": 0.1, "old": 1, "data": "0" * 64}
    current = {"lora_r": 4, "folder": "b", "rate": 0.2, "new": 2, "data": "1" * 64}
    assert lines(value_changes(saved, current, IMPACTS)) == [
        "trajectory-changing: data: 000000000000 -> 111111111111",
        "harmless: folder: 'a' -> 'b'",
        "structural: lora_r: 8 -> 4",
        "trajectory-changing: new: nothing -> 2",
        "trajectory-changing: old: 1 -> nothing",
        "trajectory-changing: rate: 0.1 -> 0.2",
    ]


def test_harmless_changes_need_no_consent_and_are_none() -> None:
    changes = value_changes({"folder": "a"}, {"folder": "b"}, IMPACTS)
    assert require_acceptable(changes, accept=False, shape_settings=()) == []


def test_changes_of_the_trajectory_are_refused_together_unless_accepted() -> None:
    saved, current = {"rate": 0.1, "new": 1, "folder": 1}, {"rate": 0.2, "new": 2, "folder": 2}
    changes = value_changes(saved, current, IMPACTS)
    assert refusal(changes, accept=False) == (
        "resuming would not compute what the run of the checkpoint would have: "
        "new: 1 in the checkpoint, now 2; rate: 0.1 in the checkpoint, now 0.2 "
        "(restore them, or accept them with --accept-changes)"
    )
    accepted = require_acceptable(changes, accept=True, shape_settings=())
    assert [change.key for change in accepted] == ["new", "rate"]


def test_structural_changes_are_refused_even_if_accepted() -> None:
    changes = value_changes({"lora_r": 8, "rate": 1}, {"lora_r": 4, "rate": 2}, IMPACTS)
    assert refusal(changes, accept=False).startswith(
        "state_dict size mismatch: lora_r: 8 in the checkpoint, now 4; rate: 1 in "
    )
    said = refusal(changes, accept=True)
    assert "rate" not in said
    assert "--overwrite" in said
    assert "--experiment-name" in said
    (change,) = value_changes({"rate": 1}, {"rate": 2}, IMPACTS)
    assert "rate: 1 in the checkpoint, now 2 - because (" in refusal(
        [as_structural(change, "because")], accept=True
    )


def task(name: str, **changes: Any) -> dict[str, Any]:
    digests = {split: f"{name} {split}" for split in ("train", "validation", "test")}
    return {"name": name, "classes": ["a", "b"], "examples": 9, **digests, **changes}


def changed(now: list[dict[str, Any]], *, inside: bool = True) -> list[str]:
    """Return how a stream differs from a, b, c at the second of them."""
    saved = [task("a"), task("b"), task("c")]
    return lines(task_changes(saved, now, task=1, inside=inside))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (["a", "b", "c"], []),
        (["a", "b", "c", "d"], ["harmless: tasks[3]: nothing -> 'd', appended"]),
        (["a", "b"], ["trajectory-changing: tasks[2]: 'c' -> nothing"]),
        (["a"], ["structural: tasks[1]: 'b' -> nothing", "trajectory-changing: tasks[2]"]),
        (["b", "a", "c"], ["structural: tasks[0].name: 'a' -> 'b'"]),
        (["a", "b", "x"], ["trajectory-changing: tasks[2].name: 'c' -> 'x'"]),
    ],
)
def test_tasks_that_were_begun_stay_where_they_are(now: list[str], expected: list[str]) -> None:
    found = changed([task(name) for name in now])
    assert all(any(line.startswith(start) for line in found) for start in expected)
    assert bool(found) == bool(expected)


@pytest.mark.parametrize(
    ("index", "what", "impact"),
    [
        (0, {"classes": ["a", "b", "c"]}, "structural"),
        (1, {"classes": ["b", "a"]}, "structural"),
        (2, {"classes": ["a"]}, "trajectory-changing"),
        (0, {"examples": 8}, "trajectory-changing"),
        (1, {"examples": 8}, "structural"),
        (2, {"examples": 8}, "trajectory-changing"),
        (0, {"test": "other"}, "trajectory-changing"),
        (1, {"train": "other"}, "trajectory-changing"),
    ],
)
def test_what_a_task_was_learned_from(index: int, what: dict[str, Any], impact: str) -> None:
    now = [task(name, **(what if k == index else {})) for k, name in enumerate("abc")]
    ((key, _),) = what.items()
    (line,) = changed(now)
    assert line.startswith(f"{impact}: tasks[{index}].{key}: ")


def test_between_tasks_the_last_one_may_have_another_number_of_examples() -> None:
    (line,) = changed([task("a"), task("b", examples=8), task("c")], inside=False)
    assert line.startswith("trajectory-changing: tasks[1].examples: 9 -> 8")
