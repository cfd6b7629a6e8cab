"""What is in an experiment folder, read by the documented format alone: the library is not asked.

See docs/checkpoint-format.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAME = re.compile(r"checkpoint_task(\d+)_epoch(\d+)_batch(\d+)\.pt")
_RETIRED = re.compile(r"\.branch\d+$")
_SEAL = re.compile(
    rb"plora-cl seal 1 manifest (\d{20}) (\d{10}) ([0-9a-f]{64}) sha256 ([0-9a-f]{64})"
)
_UNTOLD: dict[str, Any] = {"id": None, "branch": 0, "history": []}


def position(name: str) -> tuple[int, ...] | None:
    """Return what orders checkpoints; None for any other file."""
    found = _NAME.fullmatch(name)
    return tuple(map(int, found.groups())) if found else None


def name_of(file: str) -> str:
    """Return the name that a checkpoint has, or had before it was retired."""
    return _RETIRED.sub("", file)


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint as it lies on the disk.

    Attributes:
        path: Where.
        sha256: Of the file.
        manifest: None where it is damaged.
        objects: The files it needs.
        is_intact: Whether the file and all it needs are.
        is_usable: Whether they are but for the base weights, which a run has from its model.
    """

    path: Path
    sha256: str
    manifest: dict[str, Any] | None
    objects: tuple[Path, ...]
    is_intact: bool
    is_usable: bool

    @property
    def cursor(self) -> str:
        assert self.manifest is not None
        return json.dumps(self.manifest["cursor"], sort_keys=True)

    @property
    def trajectory(self) -> dict[str, Any]:
        assert self.manifest is not None
        return self.manifest.get("trajectory", _UNTOLD)


def checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint file."""
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    seal = _SEAL.fullmatch(data[-193:])
    manifest = data[int(seal[1]) :][: int(seal[2])] if seal else b""
    if seal is None or hashlib.sha256(manifest).hexdigest().encode() != seal[3]:
        return Checkpoint(path, sha256, None, (), False, False)
    plain = json.loads(manifest)
    refs = [ref["sha256"] for ref in plain["objects"].values()]
    objects = {path.parent / "objects" / f"{ref}.safetensors" for ref in refs}
    whole = hashlib.sha256(data[:-64]).hexdigest().encode() == seal[4]
    wrong = {file.stem for file in objects if not is_object(file)} if whole else set(refs)
    base = {plain["objects"]["model/base"]["sha256"]}
    intact, usable = whole and not wrong, whole and wrong <= base
    return Checkpoint(path, sha256, plain, tuple(sorted(objects)), intact, usable)


def is_done(path: Path) -> bool:
    """Tell whether there is a checkpoint at ``path`` with its task learned and measured."""
    found = checkpoint(path) if path.is_file() else None
    plain = found.manifest if found is not None else None
    return plain is not None and plain["cursor"]["phase"] == "done"


def is_within_a_phase(found: Checkpoint) -> bool:
    """Tell whether a checkpoint may have been taken between two units of a phase.

    Its cursor does not say how many of them are done.
    """
    return found.manifest is not None and found.manifest["cursor"]["phase"] not in ("train", "done")


def digest(file: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def is_object(file: Path) -> bool:
    """Tell whether an object is there and is what its name says."""
    return file.is_file() and digest(file) == file.stem


def checkpoints(folder: Path) -> list[Checkpoint]:
    """Return all checkpoints of an experiment under their own names, the oldest first."""
    found = [(position(p.name), p) for p in (folder / "checkpoints").glob("*.pt")]
    return [checkpoint(p) for where, p in sorted((w, p) for w, p in found if w is not None)]


def retired(folder: Path) -> list[Checkpoint]:
    """Return those that were moved aside."""
    files = sorted((folder / "checkpoints").glob("*.pt.branch*"))
    return [checkpoint(p) for p in files if _RETIRED.search(p.name)]


def pinned(folder: Path) -> list[Path]:
    """Return the checkpoints that are pinned, retired ones among them."""
    there = (*checkpoints(folder), *retired(folder))
    return [c.path for c in there if c.path.with_name(c.path.name + ".pin").exists()]


def live(folder: Path) -> list[Checkpoint]:
    """Return all checkpoints, but for those of a run that another one has replaced."""
    return _of_the_new_run(folder, checkpoints(folder))


def named(folder: Path) -> list[Path]:
    """Return what somebody may resume by its path: nothing of a run that another one replaced."""
    found = live(folder)
    is_replaced = len(found) < len(checkpoints(folder))
    return [c.path for c in (*found, *([] if is_replaced else retired(folder)))]


def counting(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints of the present branch and of what led to it, the oldest first."""
    found = _of_the_new_run(folder, checkpoints(folder))
    readable = [c for c in found if c.manifest is not None]
    if not readable:
        return found
    branches = [c.trajectory["branch"] for c in readable]
    head = [c for c in readable if c.trajectory["branch"] == max(branches)][-1].trajectory
    left = {
        (entry["trajectory"], entry["branch"]): position(name_of(entry["checkpoint"]))
        for entry in head["history"]
    }

    def counts(c: Checkpoint) -> bool:
        if c.manifest is None or c.trajectory["branch"] == head["branch"]:
            return True
        until = left.get((c.trajectory["id"], c.trajectory["branch"]))
        here = position(c.path.name)
        return until is not None and here is not None and here <= until

    return [c for c in found if counts(c)]


def _of_the_new_run(folder: Path, found: list[Checkpoint]) -> list[Checkpoint]:
    """Return ``found`` without what is being replaced, once the new run has a checkpoint."""
    replaced = folder / "replaced.json"
    if not replaced.exists():
        return found
    listed = json.loads(replaced.read_text())["checkpoints"]
    new = [c for c in found if listed.get(c.path.name) != c.path.read_bytes()[-64:].hex()]
    return new or found


def newest_usable(folder: Path) -> Checkpoint | None:
    """Return what resuming has to start from."""
    return next((c for c in reversed(counting(folder)) if c.is_usable), None)


def unneeded(folder: Path) -> list[Path]:
    """Return unfinished writes anywhere, and objects that no checkpoint needs."""
    needed = {p for c in (*checkpoints(folder), *retired(folder)) for p in c.objects}
    objects = set((folder / "checkpoints" / "objects").glob("*.safetensors"))
    return sorted([*folder.rglob("*.partial"), *(objects - needed)])


def branch_of(record: Path) -> int | None:
    """Return the branch whose settings a ``config.yaml`` holds; None where there is none."""
    found = (
        re.match(r"# Settings of branch (\d+);", record.read_text()) if record.exists() else None
    )
    return int(found[1]) if found else None


def tree(folder: Path) -> dict[str, str]:
    """Return the digest of each file, by its path; the lock aside."""
    return {
        str(path.relative_to(folder)): digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def undone(found: dict[str, str]) -> dict[str, str]:
    """Return `tree` as it is once a new run that was stopped before it saved is undone."""
    aside = {k.removesuffix(".replaced"): v for k, v in found.items() if k.endswith(".replaced")}
    left = {k: v for k, v in found.items() if not k.endswith(".replaced") and k != "replaced.json"}
    return left | aside
