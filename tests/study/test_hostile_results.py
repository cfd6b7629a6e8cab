"""Edited results, and things that are no files: a status, or one line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from plora_cl.checkpoint.disk.lock import ExperimentLock
from plora_cl.checkpoint.store.run_log import RUN_LOG
from plora_cl.errors import StudyError
from plora_cl.study.plan import PlannedRun
from plora_cl.study.records import Record, record
from plora_cl.study.run_folder import LOG, State, results_of, status_of
from plora_cl.study.summary import markdown, summarised
from study.conftest import Planned, finish

ODD: tuple[Any, ...] = (None, [], {}, "x", True, -1, 1.5, 10**400, [[1]], {"a": 1})


def test_any_value_in_results_is_compared_or_refused_in_one_line(planned: Planned) -> None:
    runs = planned(methods=["plain"], seeds=[1])
    for run in runs:
        finish(run)
    path = runs[0].folder / "results" / "final_results.json"
    whole = json.loads(path.read_bytes())
    other = read(runs[1])
    refused = 0
    for place in places(whole):
        for odd in ODD:
            path.write_text(json.dumps(replaced(whole, place, odd)))
            results = results_of(runs[0])
            if results is not None:
                try:
                    one = record(runs[0], results)
                except StudyError as error:
                    refused += 1
                    assert "\n" not in str(error)  # noqa: PT017 - a record is right, too
                else:
                    markdown(summarised([one, other], "plain"), "plain")
    assert refused > 100


def places(found: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where something is in results, but for the settings, which are not read there."""
    keys: list[Any] = []
    if isinstance(found, dict):
        keys = ["data"] if at == ("identity",) else list(found)
    elif isinstance(found, list):
        keys = list(range(len(found)))
    for key in keys:
        yield (*at, key)
        yield from places(found[key], (*at, key))


def replaced(whole: Any, place: tuple[Any, ...], odd: Any) -> Any:
    copy = json.loads(json.dumps(whole))
    found = copy
    for key in place[:-1]:
        found = found[key]
    found[place[-1]] = odd
    return copy


def read(run: PlannedRun) -> Record:
    results = results_of(run)
    assert results is not None
    return record(run, results)


@pytest.mark.parametrize(
    ("place", "odd", "said"),
    [
        (("identity", "data"), [{"name": "a", "train": "x", "test": "y"}], "identity.data has"),
        (
            ("zero_by_construction",),
            ["forgetting"],
            "zero_by_construction: Input should be a valid dict",
        ),
        (("zero_by_construction",), {"a\nb": 1}, "zero_by_construction.'a\\nb': Input"),
        (("tasks", 0, "validation"), -1, "tasks.0.validation: Input"),
        (("f1", "average_accuracy"), "x", "f1.average_accuracy: Input should be a valid number"),
        (("f1", "average_accuracy"), -1.5, "f1.average_accuracy: Input should be greater than"),
        (
            ("average_accuracy",),
            True,
            "average_accuracy: Input should be a valid number, found true)",
        ),
        (
            ("average_accuracy",),
            None,
            "average_accuracy: Input should be a valid number, found null)",
        ),
        pytest.param(("forgetting",), 10**400, "forgetting: ", id="too large"),
        (("accuracy_matrix", -1), [0.8], "accuracy_matrix ends with [0.8]; expected 2 numbers"),
        (("tasks", 1, "name"), "a", "tasks has the tasks ['a', 'a']; expected ['a', 'w']"),
    ],
)
def test_what_was_edited_is_named_with_the_way_out(
    planned: Planned, place: tuple[Any, ...], odd: Any, said: str
) -> None:
    run = planned()[0]
    finish(run)
    path = run.folder / "results" / "final_results.json"
    path.write_text(json.dumps(replaced(json.loads(path.read_bytes()), place, odd)))
    with pytest.raises(StudyError) as caught:
        read(run)
    start = f"{run.folder}: its results are damaged or were edited (final_results.json: {said}"
    assert start in str(caught.value)
    assert str(caught.value).endswith("remove results/ and start again")


@pytest.mark.parametrize("name", ["results/final_results.json", "failure.json", LOG, RUN_LOG])
@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "nested"])
def test_what_is_no_file_is_a_status_or_one_line(planned: Planned, name: str, kind: str) -> None:
    run = planned()[0]
    finish(run)
    if name == "failure.json":
        (run.folder / "results" / "final_results.json").unlink()
    path = run.folder / name
    path.unlink(missing_ok=True)
    under_way = ExperimentLock.acquire(run.folder) if name == RUN_LOG else nullcontext()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(path.name)
    else:
        path.write_text("[" * 100_000)
    with under_way:
        assert status_of(run).state in State
