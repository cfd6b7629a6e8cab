"""What users do to an experiment between runs, and what happens to its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faults.histories import reading
from faults.histories.child import Ending, run
from faults.histories.model import (
    broken_promises,
    is_refused,
    relevant,
    settings_of,
)
from faults.histories.place import MAY_FAIL, Place
from faults.histories.references import History


class Tools(Place):
    """Everything that does not train."""

    def switch(self, to: int) -> None:
        """Turn to another experiment."""
        self._at = to

    def pin(self, which: int) -> None:
        """Pin one of the checkpoints that are there."""
        if there := reading.live(self.here.folder):
            found = there[which % len(there)]
            name = found.path.name
            status, _ = self.tool("pin", str(found.path))
            assert status == (0 if found.manifest is not None else 1), self.said
            if found.is_intact:
                key = (name, self.known.histories[found.sha256])
                self.here.pinned.add(key)
                self.here.promised[key] = json.loads(found.cursor)["phase"]

    def unpin(self, which: int) -> None:
        """Unpin one of them."""
        if names := self.here.names():
            name = names[which % len(names)]
            status, _ = self.tool("unpin", str(self.here.folder / "checkpoints" / name))
            assert status == 0, self.said
            found = reading.checkpoint(self.here.folder / "checkpoints" / name)
            self.here.unpin(name, self.known.histories.get(found.sha256))

    def look(self) -> None:
        """List and verify."""
        if self.here.names():
            there = (*reading.checkpoints(self.here.folder), *reading.retired(self.here.folder))
            whole = all(c.is_intact for c in there)
            before = reading.tree(self.here.folder)
            status, _ = self.tool("list", str(self.here.folder), "--json")
            assert status in ((0,) if whole else (0, 1)), self.said
            self.check_verify(reading.newest_usable(self.here.folder))
            assert reading.tree(self.here.folder) == before, "looking changed the folder"

    def gc(self, *, retired: bool = False) -> None:
        """Clean up, perhaps what other branches left, too."""
        me = self.here
        if not me.names():
            return
        found = [*reading.checkpoints(me.folder), *reading.retired(me.folder)]
        readable = all(c.manifest is not None for c in found)
        spared = [c for c in found if c.path.suffix == ".pt" or self._is_pinned(c)]
        status, _ = self.tool("gc", str(me.folder), *(["--retired"] if retired else []))
        assert status in ((0,) if readable else (0, 1)), self.said
        if status == 0:
            left = [str(path) for path in reading.unneeded(me.folder)]
            assert not left, f"gc leaves {left}"
        if retired:
            here = {(reading.name_of(c.path.name), self._history(c)) for c in spared}
            me.promised = {k: phase for k, phase in me.promised.items() if k in here}

    @staticmethod
    def _is_pinned(found: reading.Checkpoint) -> bool:
        return found.path.with_name(found.path.name + ".pin").exists()

    def _history(self, found: reading.Checkpoint) -> History | None:
        return self.known.histories.get(found.sha256)

    def corrupt(self, which: int, kind: str, where: float) -> None:
        """Damage one of the files of the experiment: flip, truncate, zero or delete."""
        me = self.here
        files = sorted(p for p in me.folder.rglob("*") if p.is_file() and "replaced" not in p.name)
        if not files:
            return
        path = files[which % len(files)]
        data = bytearray(path.read_bytes())
        if kind == "delete" or not data:
            path.unlink()
            if path.suffix == ".pin":
                me.unpin(reading.name_of(path.stem))
        else:
            at = min(int(where * len(data)), len(data) - 1)
            if kind == "flip":
                data[at] ^= 1 << (which % 8)
            elif kind == "truncate":
                del data[at:]
            else:
                data[at : at + 64] = bytes(len(data[at : at + 64]))
            with path.open("r+b") as file:  # in place, as bits rot: links share it
                file.write(data)
                file.truncate()
        if path.name == "lineage.json":
            me.lineage_is_ours = kind == "delete"
            me.accepted = ("", "") if kind == "delete" else me.accepted
        me.config_is_ours &= path.name != "config.yaml"
        me.log_is_ours &= path.name != "run_log.jsonl"
        for experiment in self.experiments:  # nobody can keep what was damaged
            for key in broken_promises(experiment, self.known):
                del experiment.promised[key]
                experiment.pinned.discard(key)

    def fork(
        self,
        which: int,
        *,
        changes: Mapping[str, Any] | None = None,
        ending: tuple[Any, ...] = ("none",),
    ) -> None:
        """Make a new experiment of one of the checkpoints; where that is stopped, complete it."""
        if (source := self._pick(which)) is None:
            return
        new = self._new_folder()
        sets = [f"--set={name}={json.dumps(value)}" for name, value in (changes or {}).items()]
        argv = ["checkpoints", "fork", f"{self.here.folder}@{source.path.name}", str(new), *sets]
        wanted = self._settings_of(source) | dict(changes or {})
        refused = not source.is_intact
        if not refused:
            assert source.manifest is not None
            then = settings_of(self.known.histories[source.sha256])
            refused = is_refused(then, wanted, source.manifest["cursor"], accept=True)
        self._make(argv, new, Ending(*ending), refused=refused)
        if not refused and new.exists():
            self._take_over(source, new, wanted)

    def move(
        self,
        which: int,
        *,
        damage: float | None = None,
        ending: tuple[Any, ...] = ("none",),
    ) -> None:
        """Export one of the checkpoints, perhaps damage the file, and import it elsewhere."""
        if (source := self._pick(which)) is None:
            return
        file, new = self.root / "experiments" / "bundle.tar", self._new_folder()
        argv = ["checkpoints", "export", str(source.path), "--out", str(file)]
        self._make(argv, file, Ending(*ending), refused=not source.is_intact)
        if not file.exists():
            return
        if damage is not None:
            data = bytearray(file.read_bytes())
            data[int(damage * len(data))] ^= 1
            file.write_bytes(data)
        argv = ["checkpoints", "import", str(file), str(new)]
        self._make(argv, new, Ending(*ending), refused=damage is not None)
        file.unlink()
        if damage is None:
            self._take_over(source, new, self._settings_of(source))

    def _pick(self, which: int) -> reading.Checkpoint | None:
        names = self.here.names()
        if not names or len(self.experiments) > 2:
            return None
        found = reading.checkpoint(self.here.folder / "checkpoints" / names[which % len(names)])
        # A fork that has not gone on yet has other settings than its checkpoint.
        return None if found.sha256 == self.here.accepted[1] else found

    def _new_folder(self) -> Path:
        return self.root / "experiments" / f"new{len(self.experiments)}"

    def _settings_of(self, source: reading.Checkpoint) -> dict[str, Any]:
        saved = source.manifest["settings"] if source.manifest is not None else {}
        return self.here.wanted | {k: v for k, v in saved.items() if k in self.here.wanted}

    def _make(self, argv: list[str], made: Path, end: Ending, *, refused: bool) -> None:
        """Run a command that makes a file or folder; the same command completes what was killed."""
        parent = self.here.folder
        before, was_there = reading.tree(parent), made.exists()
        outcome = run(argv, self.root, end)
        shown = f"{argv}: exit status {outcome.status}: {outcome.output[-3000:]}"
        assert "Traceback" not in outcome.output, shown
        assert reading.tree(parent) == before, f"{argv} changed where it was taken from"
        allowed = {1, 2} if refused else {0}
        if outcome.status == 1 and not self.here.lineage_is_ours:
            assert "lineage.json" in outcome.output, shown  # what it says decides what is copied
            refused, allowed = True, {1}
        allowed |= {-9} if end.kind.startswith("kill") else MAY_FAIL.get(end.kind, set())
        assert outcome.status in allowed, shown
        if refused and outcome.status > 0:
            assert was_there or not made.exists(), f"{argv} was refused and left {made}"
        if not refused and outcome.status != 0:
            again = run(argv, self.root, Ending())
            is_there = again.status == 2 and "already" in again.output
            assert again.status == 0 or is_there, f"{argv} again: {again.output[-3000:]}"

    def _take_over(self, source: reading.Checkpoint, new: Path, wanted: dict[str, Any]) -> None:
        parent, me = self.here, self.add(new.name, wanted)
        me.accepted = (relevant(wanted), source.sha256)
        me.log_is_ours = parent.log_is_ours
        for found in reading.checkpoints(new):
            assert found.is_intact, f"{found.path} was made and is damaged"
            assert found.sha256 == source.sha256, f"{found.path} is not what was copied"
            of = self.known.histories[found.sha256]
            me.promised[found.path.name, of] = json.loads(found.cursor)["phase"]
        assert me.promised, f"no checkpoint in {new}"
