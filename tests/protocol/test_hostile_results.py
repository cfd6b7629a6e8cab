"""Results that somebody edited, and things that are no files: a status, or one line."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from plora_cl.errors import ProtocolError
from plora_cl.protocol.records import record
from plora_cl.protocol.run_folder import LOG, State, results_of, status_of
from protocol.conftest import Planned, finish

ODD: tuple[Any, ...] = (None, [], {}, "x", -1, 1.5, [[1]], {"a": 1})


def test_any_value_in_results_is_a_record_or_one_line(planned: Planned) -> None:
    run = planned()[0]
    finish(run)
    path = run.folder / "results" / "final_results.json"
    whole = json.loads(path.read_bytes())
    refused = 0
    for name in whole:
        for odd in ODD:
            path.write_text(json.dumps({**whole, name: odd}))
            results = results_of(run)
            if results is not None:
                try:
                    record(run, results)
                except ProtocolError as error:
                    refused += 1
                    said = str(error)
                    if "\n" in said:
                        raise
    assert refused > 20


@pytest.mark.parametrize("name", ["results/final_results.json", "failure.json", LOG])
@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "nested"])
def test_what_is_no_file_is_a_status_or_one_line(planned: Planned, name: str, kind: str) -> None:
    run = planned()[0]
    finish(run)
    if name == "failure.json":
        (run.folder / "results" / "final_results.json").unlink()
    path = run.folder / name
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(path.name)
    else:
        path.write_text("[" * 100_000)
    try:
        assert status_of(run).state in State
    except ProtocolError as error:
        assert path.name in str(error)  # noqa: PT017 - a status is right, too
