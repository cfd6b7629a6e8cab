"""Ways to save the same training: this library, the naive ones, and the limit of the machine."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Protocol

import torch

from plora_cl.checkpoint.snapshot.loading import load
from plora_cl.checkpoint.store.store import CheckpointStore
from saves.subject import Subject
from saves.timing import sync, sync_tree, tree_bytes


class Way(Protocol):
    """One way to save.

    Attributes:
        name: In the table.
        note: What the figures include or leave out.
    """

    name: str
    note: str

    def step(self) -> None:
        """Change what training changes from one save to the next."""
        ...

    def save(self) -> None:
        """Save, and return when training may go on: the stall."""
        ...

    def finish(self) -> float:
        """Return the instant, by `time.perf_counter`, at which the last save was durable."""
        ...

    def written(self) -> int:
        """Return the bytes of the files of the last save."""
        ...

    def kept(self, saves: int) -> int:
        """Return the bytes on disk if ``saves`` saves like the last one stay."""
        ...

    def load(self) -> None:
        """Read the last save and apply it."""
        ...


class Ours:
    """This library. `save` waits for the copy, as if no forward pass came in between."""

    def __init__(self, subject: Subject, name: str, note: str) -> None:
        self.subject, self.name, self.note = subject, name, note
        self._begun = 0

    @property
    def under_way(self) -> bool:
        """Whether a save is not durable yet."""
        return self.subject.said.count < self._begun

    def step(self) -> None:
        """See `Way`."""
        self.subject.step()

    def save(self) -> None:
        """See `Way`."""
        self.begin()
        self.subject.settle()

    def begin(self) -> None:
        """Begin to save; `Subject.settle` before the next step."""
        self._begun += 1
        self.subject.save()

    def finish(self) -> float:
        """See `Way`."""
        self.subject.checkpointer.flush()
        return self.subject.said.at

    def written(self) -> int:
        """See `Way`."""
        return self._store().entries()[-1].path.stat().st_size

    def kept(self, saves: int) -> int:
        """See `Way`; what stays the same is there once."""
        return saves * self.written() + tree_bytes(self._store().objects.directory)

    def load(self) -> None:
        """See `Way`; every byte is verified, the base is in memory."""
        self.load_with({self.subject.checkpointer.base_digest})

    def load_with(self, known: set[str]) -> None:
        """Read the last save but for the objects ``known``, verify and apply it."""
        store = self._store()
        self.subject.parts.restore(load(store, store.entries()[-1], is_known=known.__contains__))

    def _store(self) -> CheckpointStore:
        return CheckpointStore(self.subject.checkpoints)


class InFolders:
    """A way that writes a folder for each save and flushes nothing; the last folder stays."""

    name = ""
    note = ""

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject, self.folder = subject, folder
        self.saves = 0
        folder.mkdir(parents=True)

    @property
    def path(self) -> Path:
        """The folder of the last save."""
        return self.folder / f"checkpoint-{self.saves}"

    def step(self) -> None:
        """See `Way`; also removes the save before the last, so that the disk does not fill."""
        shutil.rmtree(self.folder / f"checkpoint-{self.saves - 1}", ignore_errors=True)
        self.subject.step()

    def finish(self) -> float:
        """See `Way`: flushes every file and folder."""
        sync_tree(self.path)
        return time.perf_counter()

    def written(self) -> int:
        """See `Way`."""
        return tree_bytes(self.path)

    def kept(self, saves: int) -> int:
        """See `Way`."""
        return saves * self.written()


class Naive(InFolders):
    """One `torch.save` of everything."""

    name = "naive torch.save of everything"
    note = "flushed by this script"

    def save(self) -> None:
        """See `Way`."""
        self.saves += 1
        self.path.mkdir()
        torch.save(self.subject.everything(), self.path / "everything.pt")

    def load(self) -> None:
        """See `Way`; nothing is verified."""
        state = torch.load(self.path / "everything.pt", weights_only=True)
        self.subject.model.load_state_dict(state["model"])
        self.subject.optimizer.load_state_dict(state["optimizer"])
        self.subject.scheduler.load_state_dict(state["scheduler"])


class NaiveChanges(InFolders):
    """One `torch.save` of what changes from step to step, and of nothing else."""

    name = "torch.save of what changes"
    note = "flushed by this script; what stays the same is not there at all"

    def save(self) -> None:
        """See `Way`."""
        self.saves += 1
        self.path.mkdir()
        torch.save(self.subject.live(), self.path / "changes.pt")

    def load(self) -> None:
        """See `Way`; nothing is verified."""
        state = torch.load(self.path / "changes.pt", weights_only=True)
        for name, part in self.subject.parts.live().items():
            part.load_state_dict(state[name])


class Limit:
    """A copy of as many bytes as change, then write, flush, rename and flush the folder."""

    name = "limit: memcpy, write + fsync + rename"
    note = "no format, no digest; load is a plain read"

    def __init__(self, changing: int, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._source, self._target = torch.rand(changing // 4), torch.zeros(changing // 4)
        self._path = folder / "bytes"

    def step(self) -> None:
        """See `Way`."""
        self._source.add_(1e-3)

    def save(self) -> None:
        """See `Way`."""
        self._target.copy_(self._source)

    def finish(self) -> float:
        """See `Way`."""
        partial = self._path.with_suffix(".partial")
        partial.write_bytes(self._target.numpy().data)
        sync(partial)
        partial.replace(self._path)
        sync(self._path.parent)
        return time.perf_counter()

    def written(self) -> int:
        """See `Way`."""
        return self._target.nbytes

    def kept(self, saves: int) -> int:
        """See `Way`."""
        return saves * self.written()

    def load(self) -> None:
        """See `Way`."""
        self._path.read_bytes()
