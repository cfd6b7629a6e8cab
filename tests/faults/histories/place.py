"""Where a sequence takes place: its experiments, and what is known of them."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faults.histories import reading
from faults.histories.child import digests
from faults.histories.model import (
    Experiment,
    Knowledge,
    going_on,
    relevant,
)
from faults.histories.references import Bench, History
from plora_cl.cli.main import main

MAY_FAIL: dict[str, set[int]] = {"full": {2}, "limit": {2}, "time": {75}}
"""Exit statuses that an ending allows beside success."""


class Place:
    """The experiments of one sequence; and the tools to look at them.

    Args:
        bench: Encoder, tasks, references.
        root: Of this sequence, empty.
        variant: What its experiments are like.
    """

    def __init__(self, bench: Bench, root: Path, variant: str) -> None:
        self.bench, self.root, self.variant = bench, root, variant
        self.known = Knowledge()
        self.experiments: list[Experiment] = []
        self._at = 0
        self.said = ""
        (root / "experiments").mkdir(parents=True)
        self.add("run", bench.settings(variant))

    @property
    def here(self) -> Experiment:
        """The experiment that actions apply to."""
        return self.experiments[self._at % len(self.experiments)]

    def add(self, name: str, wanted: Mapping[str, Any]) -> Experiment:
        self.experiments.append(Experiment(self.root / "experiments" / name, dict(wanted)))
        return self.experiments[-1]

    def check_verify(self, newest: reading.Checkpoint | None) -> None:
        status, found = self.tool("verify", str(self.here.folder), "--json")
        there = (*reading.checkpoints(self.here.folder), *reading.retired(self.here.folder))
        whole = {c.path.name: c.is_intact for c in there}
        said = {c["name"]: c["status"] == "intact" for c in found["checkpoints"]}
        assert said == whole, f"verify says {said}, the files say {whole}"
        assert status == (not all(whole.values())), self.said
        said_newest, name = found["resumes_from"], newest and newest.path.name
        assert said_newest == name, f"verify says {said_newest}, the files say {name}"

    def history_of(self, base: reading.Checkpoint | None, wanted: Mapping[str, Any]) -> History:
        if base is None:
            return (("", relevant(wanted)),)
        before = self.known.histories[base.sha256]
        place = reading.position(reading.name_of(base.path.name))
        assert place is not None
        self.known.places[base.cursor] = place
        history = going_on(before, base.cursor, wanted)
        if history != before and (before in self.known.within or self._is_within(base, before)):
            self.known.within.add(history)
        return history

    def _is_within(self, base: reading.Checkpoint, history: History) -> bool:
        """Tell whether some but not all units of a phase are done in a checkpoint."""
        if not reading.is_within_a_phase(base):
            return False
        expected = self.bench.reference(self.variant, history).checkpoints.get(base.cursor)
        return digests(base.path.read_bytes()) != expected

    def tool(self, *argv: str) -> tuple[int, Any]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(["checkpoints", *argv])
        self.said = f"{argv}: exit status {status}: {err.getvalue()}"
        assert status in (0, 1, 2), self.said
        return status, json.loads(out.getvalue()) if "--json" in argv and out.getvalue() else None
