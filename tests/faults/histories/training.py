"""Starting, stopping, killing, going on: each process is held to the model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from faults.histories import reading
from faults.histories.child import CRASHED, Ending, Outcome, digests, run
from faults.histories.model import (
    Experiment,
    after_the_gap,
    difference,
    is_end_of,
    is_refused,
    kept,
    leads_to,
    relevant,
    settings_of,
)
from faults.histories.place import MAY_FAIL, Place
from faults.histories.references import RELEVANT, History, comparable, train_argv

FINISHED = 0
_STOPPED = {"SIGTERM": 143, "SIGINT": 130, "SIGUSR1": 138, "SIGHUP": 129}


class Training(Place):
    """Everything that trains."""

    def train(
        self,
        resume: str | int = "auto",
        *,
        changes: Mapping[str, Any] | None = None,
        accept: bool = False,
        bare: bool = False,
        ending: tuple[Any, ...] = ("none",),
    ) -> Outcome:
        """Start or go on.

        Args:
            resume: ``auto``, ``yes``, ``no``, ``overwrite``, or a number: that one of the
                checkpoints that are there.
            changes: Other values of settings.
            accept: With ``--accept-changes``.
            bare: Leave all settings to what is recorded.
            ending: See `Ending`.
        """
        me, end = self.here, Ending(*ending)
        wanted = self._with_tasks(me.wanted | dict(changes or {}))
        base, mode = self._base(resume)
        recorded = me.folder / "config.yaml"
        bare = bare and base is not None and base.sha256 in self.known.histories
        bare = bare and (me.config_is_ours or not (recorded.exists() or me.accepted[0]))
        if bare and base is not None:
            wanted = self._recorded(base, recorded)
        flags = ["--accept-changes"] if accept and "--resume" in mode else []
        argv = train_argv(self.root, me.name, None if bare else wanted, [*mode, *flags])
        before, there = reading.tree(me.folder), me.names()
        refused = self._is_refused(mode, base, wanted, exists=bool(there), accept=accept)
        history = () if refused else self.history_of(base, wanted)
        outcome = run(argv, self.root, end)
        self.check_status(outcome, end, refused=refused)
        if refused and outcome.status >= 0:
            now = reading.tree(me.folder)
            assert now in (before, reading.undone(before)), (
                f"a refusal changed {now.items() ^ before.items()}"
            )
            return outcome
        if outcome.status == 2 and not me.lineage_is_ours:
            assert reading.tree(me.folder) == before, "a refusal changed the folder"
            (me.folder / "lineage.json").unlink()
            me.accepted, me.lineage_is_ours = ("", ""), True
            return outcome
        if outcome.status == 2 and not me.config_is_ours and "config.yaml" in outcome.output:
            assert reading.tree(me.folder) == before, "a refusal changed the folder"
            (me.folder / "config.yaml").unlink()
            return outcome
        if resume == "overwrite" and self._is_replaced(me, outcome):
            me.promised, me.pinned, me.log_is_ours = {}, set(), True
        self._take_in(me, outcome, history, wanted, there)
        taken = [Path(path) for path in outcome.noted("loading")]
        assert taken in ([], [base and base.path]), f"{taken} was taken, {base} was expected"
        if base is None or taken:
            me.wanted = wanted
        if outcome.status == FINISHED:
            self._check_end(me, wanted, outcome.output)
        return outcome

    def _is_replaced(self, me: Experiment, outcome: Outcome) -> bool:
        found = reading.checkpoints(me.folder)
        is_new = any(c.sha256 not in self.known.histories for c in found)
        return is_new or bool(outcome.noted("saved"))

    def _with_tasks(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        tasks = wanted["tasks"]
        return {**wanted, "tasks": self.bench.tasks[:tasks] if isinstance(tasks, int) else tasks}

    def _recorded(self, base: reading.Checkpoint, record: Path) -> dict[str, Any]:
        """Return what a run wants that is told nothing: what it had, whichever file says so."""
        assert base.manifest is not None
        saved = base.manifest["settings"]
        last = saved
        if reading.branch_of(record) == base.trajectory["branch"]:
            last = yaml.safe_load(record.read_text())
        before = settings_of(self.known.histories[base.sha256])
        if base.sha256 == self.here.accepted[1]:
            return self.here.wanted | json.loads(self.here.accepted[0])
        appended = last["tasks"][: len(before["tasks"])] == before["tasks"]
        return {
            **self.here.wanted,
            **before,
            "tasks": last["tasks"] if appended else before["tasks"],
            "keep_last_n_checkpoints": min(
                last["keep_last_n_checkpoints"], saved["keep_last_n_checkpoints"]
            ),
            "checkpoint_disk_budget": last["checkpoint_disk_budget"]
            or saved["checkpoint_disk_budget"],
        }

    def _base(self, resume: str | int) -> tuple[reading.Checkpoint | None, list[str]]:
        """Return the checkpoint to go on from, if there has to be one, and the flags."""
        me = self.here
        if resume == "no":
            return None, []
        if resume == "overwrite":
            return None, ["--overwrite"]
        names = me.names()
        if isinstance(resume, int) and names:
            paths = reading.named(me.folder)
            path = paths[resume % len(paths)]
            return reading.checkpoint(path), ["--resume", str(path)]
        newest = reading.newest_usable(me.folder)
        if names:
            self.check_verify(newest)
        return newest, ["--resume", "auto"] if resume != "yes" else ["--resume"]

    def _is_refused(
        self,
        mode: list[str],
        base: reading.Checkpoint | None,
        wanted: Mapping[str, Any],
        *,
        exists: bool,
        accept: bool,
    ) -> bool:
        if not mode:
            return exists
        if mode[0] == "--overwrite":
            return bool(reading.pinned(self.here.folder))
        if base is None:
            return exists or mode == ["--resume"]
        if not base.is_usable or base.manifest is None:
            return True
        accept = accept or self.here.has_accepted(relevant(wanted), base.sha256)
        then = settings_of(self.known.histories[base.sha256])
        return is_refused(then, wanted, base.manifest["cursor"], accept=accept)

    def check_status(self, outcome: Outcome, end: Ending, *, refused: bool) -> None:
        shown = f"exit status {outcome.status}: {outcome.output[-3000:]}"
        assert outcome.status != CRASHED, shown
        assert "Traceback" not in outcome.output, shown
        allowed: set[int] = {2} if refused else {FINISHED}
        allowed |= {-9} if end.kind.startswith("kill") else MAY_FAIL.get(end.kind, set())
        if end.kind == "signal":
            allowed.add(_STOPPED[str(end.detail)])
        me = self.here
        if not me.lineage_is_ours or (not me.config_is_ours and "config.yaml" in outcome.output):
            allowed.add(2)
        assert outcome.status in allowed, f"expected one of {allowed}, {shown}"
        if outcome.status == 2:
            assert "Error: " in outcome.output, shown

    def _take_in(
        self,
        me: Experiment,
        outcome: Outcome,
        history: History,
        wanted: Mapping[str, Any],
        there: list[str],
    ) -> None:
        """Note what was announced, what that lets go of, and whose history each new file has."""
        for note in outcome.notes:
            if "loading" in note:
                current = Path(note["loading"])
                if current.parent == me.folder / "checkpoints" and current.name in there:
                    done = reading.is_done(current)
                    self._let_go(me, current.name, there, history, wanted, done=done)
            if "saved" in note:
                saved = note["saved"]
                assert saved["is_intact"], f"{saved['name']} was announced and is damaged"
                phase = json.loads(saved["cursor"])["phase"]
                me.promised[saved["name"], history] = phase
                self.known.histories[saved["sha256"]] = history
                done = phase == "done"
                self._let_go(me, saved["name"], saved["there"], history, wanted, done=done)
        for found in (*reading.checkpoints(me.folder), *reading.retired(me.folder)):
            if found.sha256 not in self.known.histories:
                self.known.histories[found.sha256] = history

    def _let_go(
        self,
        me: Experiment,
        current: str,
        there: Iterable[str],
        history: History,
        wanted: Mapping[str, Any],
        *,
        done: bool,
    ) -> None:
        left = kept(
            {*there, current},
            current,
            wanted["keep_last_n_checkpoints"],
            done=done,
            budget=wanted["checkpoint_disk_budget"],
        )
        for name, of in list(me.promised):
            goes = name not in left and (name, of) not in me.pinned
            if goes and leads_to(name, of, history, self.known):
                del me.promised[name, of]

    def _check_end(self, me: Experiment, wanted: Mapping[str, Any], output: str) -> None:
        """Hold a finished run to the one that nothing interrupted."""
        newest = reading.newest_usable(me.folder)
        assert newest is not None
        history = self.known.histories[newest.sha256]
        results = (me.folder / "results" / "final_results.json").read_bytes()
        identity, made_by = json.loads(results)["identity"], settings_of(history)
        wrong = [k for k in RELEVANT if k != "tasks" and identity[k] != made_by[k]]
        assert not wrong, f"results name other settings than made them: {wrong}"
        recorded = yaml.safe_load((me.folder / "config.yaml").read_text())
        kept = {name: recorded[name] for name in RELEVANT if recorded[name] != wanted[name]}
        assert not kept, f"config.yaml is not what was in force: {kept}"
        me.config_is_ours = True
        left = [str(p) for p in reading.unneeded(me.folder) if p.name.endswith(".partial")]
        assert not left, f"unfinished writes stay: {left}"
        for found in reading.checkpoints(me.folder):
            if found.is_intact:
                self._check_checkpoint(found)
        if history not in self.known.within:
            expected = self.bench.reference(self.variant, history)
            scores = comparable(results)
            other = [name for name in scores if scores[name] != expected.results.get(name)]
            assert not other, f"other results than uninterrupted: {other}"
            self._check_log(me, expected.log, output)

    @staticmethod
    def _check_log(me: Experiment, expected: bytes, output: str) -> None:
        file = me.folder / "results" / "run_log.jsonl"
        log = file.read_bytes() if me.log_is_ours or file.exists() else b""
        if me.log_is_ours:
            line = difference(log, expected)
            assert not line, f"another run log: {line}"
        elif "nothing to train" not in output or "run_log.jsonl" not in output:
            after = after_the_gap(log)
            assert is_end_of(after, expected), f"another log after its loss: {after[:3]}"

    def _check_checkpoint(self, found: reading.Checkpoint) -> None:
        history = self.known.histories[found.sha256]
        if history in self.known.within:
            return
        expected = self.bench.reference(self.variant, history).checkpoints.get(found.cursor)
        if expected is None:
            return  # it was stopped between the batches of a step
        here = digests(found.path.read_bytes())
        is_halfway = here.get("under_way") != expected.get("under_way")
        if is_halfway and reading.is_within_a_phase(found):
            return
        other = sorted({k for k in {*here, *expected} if here.get(k) != expected.get(k)})
        assert not other, f"{found.path.name} differs in {other}"
