"""A disk in memory that knows what a power cut may leave of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from itertools import chain, combinations, permutations, product
from pathlib import Path
from typing import BinaryIO

from plora_cl.checkpoint.disk.filesystem import Content, Filesystem, ReadableBytes

Image = dict[Path, bytes]

_MAX_REORDERED = 4
_MAX_EXHAUSTIVE = 6


@dataclass(eq=False)
class File:
    """Content as programs see it, and whether it has reached the disk."""

    data: bytes
    is_durable: bool = False

    def remains(self) -> list[bytes]:
        """Return what a power cut may leave of the content."""
        if self.is_durable:
            return [self.data]
        half = len(self.data) // 2
        zeros, garbage = bytes(len(self.data)), b"\xa5" * len(self.data)
        whole_or_not = [b"", zeros, garbage, self.data]
        torn = [self.data[:half] + rest[half:] for rest in (b"", zeros, garbage)]
        return [*whole_or_not, *torn, garbage[:half] + self.data[half:]]


class OpenFile(io.BytesIO):
    """A file that was opened by a name it may have lost since."""

    def __init__(self, file: File) -> None:
        super().__init__(file.data)
        self.of = file


@dataclass(frozen=True)
class NameChange:
    """``gone`` loses its name, ``path`` gets it; both at once."""

    gone: Path | None
    path: Path | None
    file: File | None

    def apply(self, names: dict[Path, File]) -> dict[Path, File]:
        changed = {path: file for path, file in names.items() if path != self.gone}
        if self.path is not None and self.file is not None:
            changed[self.path] = self.file
        return changed


def nothing(disk: SimulatedDisk) -> None:
    """Let the disk go on."""


class KilledError(BaseException):
    """The process is gone: no Exception, so that nothing catches it."""


def kill_after(operations: int) -> Callable[[SimulatedDisk], None]:
    """Return a ``before_operation`` that lets so many pass and kills the process at the next."""
    left = operations

    def count_down(_: SimulatedDisk) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError

    return count_down


@dataclass
class SimulatedDisk(Filesystem):
    """A `Filesystem` of which the volatile and the durable image are both known.

    Args:
        before_operation: Called before each change, and in the middle of each write.
        flushes_data: Whether writes reach the disk; False for a store that forgets fsync.
        flushes_names: Of which directories names are flushed when asked to.
    """

    before_operation: Callable[[SimulatedDisk], None] = nothing
    flushes_data: bool = True
    flushes_names: Callable[[Path], bool] = lambda _: True
    names_now: dict[Path, File] = field(default_factory=dict)
    names_durable: dict[Path, File] = field(default_factory=dict)
    unflushed: dict[Path, list[NameChange]] = field(default_factory=dict)

    @classmethod
    def holding(cls, image: Mapping[Path, bytes]) -> SimulatedDisk:
        files = {path: File(data, is_durable=True) for path, data in image.items()}
        return cls(names_now=dict(files), names_durable=dict(files))

    def write(self, path: Path, data: Content) -> None:
        self.before_operation(self)
        if path in self.names_now:
            raise FileExistsError(17, "File exists", str(path))
        whole = data if isinstance(data, ReadableBytes) else b"".join(data)
        file = File(bytes(whole))
        self._change(path.parent, NameChange(None, path, file))
        self.before_operation(self)
        file.is_durable = self.flushes_data

    def rename(self, source: Path, target: Path) -> None:
        self.before_operation(self)
        assert source.parent == target.parent
        if self.names_now.get(target) is self.names_now[source]:
            return  # POSIX: between two names of one file, nothing happens
        self._change(source.parent, NameChange(source, target, self.names_now[source]))

    def link(self, file: BinaryIO, source: Path, target: Path) -> None:
        self.before_operation(self)
        assert isinstance(file, OpenFile)
        if target in self.names_now:
            raise FileExistsError(17, "File exists", str(target))
        if source not in self.names_now:
            raise FileNotFoundError(2, "No such file", str(source))
        self._change(target.parent, NameChange(None, target, self.names_now[source]))
        if self.names_now[target] is not file.of:
            raise OSError(116, "Stale file handle", str(source))
        self.before_operation(self)
        file.of.is_durable |= self.flushes_data

    def remove(self, path: Path) -> None:
        self.before_operation(self)
        if path not in self.names_now:
            raise FileNotFoundError(2, "No such file", str(path))
        self._change(path.parent, NameChange(path, None, None))

    def sync_directory(self, path: Path) -> None:
        self.before_operation(self)
        if self.flushes_names(path):
            changes = self.unflushed.pop(path, [])
            self.names_durable = reduce(lambda n, c: c.apply(n), changes, self.names_durable)

    def make_directory(self, path: Path) -> None:
        self.before_operation(self)

    def open(self, path: Path) -> BinaryIO:
        if path not in self.names_now:
            raise FileNotFoundError(2, "No such file", str(path))
        return OpenFile(self.names_now[path])

    def names(self, path: Path) -> tuple[str, ...]:
        below = [p.relative_to(path) for p in self.names_now if p.is_relative_to(path)]
        return tuple(sorted({p.parts[0] for p in below}))

    def size(self, path: Path) -> int | None:
        file = self.names_now.get(path)
        return None if file is None else len(file.data)

    def _change(self, directory: Path, change: NameChange) -> None:
        self.names_now = change.apply(self.names_now)
        self.unflushed.setdefault(directory, []).append(change)

    def after_power_cut(self) -> Iterator[Image]:
        """Yield every image that a power cut at this instant may leave.

        Of the names not flushed any subset may have arrived (of very many: any prefix, any one
        alone, all but any one), of few in any order; content not flushed may be absent, cut off,
        zeros or garbage, in whole or in part, each file for itself.
        """
        per_directory = [list(_subsets(changes)) for changes in self.unflushed.values()]
        for arrived in product(*per_directory):
            changes = chain.from_iterable(arrived)
            names = reduce(lambda n, c: c.apply(n), changes, self.names_durable)
            unsure = {id(file): file for file in names.values() if not file.is_durable}
            for remains in product(*(file.remains() for file in unsure.values())):
                left = dict(zip(unsure, remains, strict=True))
                yield {path: left.get(id(file), file.data) for path, file in names.items()}


def _subsets(changes: list[NameChange]) -> Iterator[tuple[NameChange, ...]]:
    count = len(changes)
    if count <= _MAX_REORDERED:
        yield from chain.from_iterable(permutations(changes, size) for size in range(count + 1))
        return
    if count <= _MAX_EXHAUSTIVE:
        sizes = range(count + 1)
        yield from chain.from_iterable(combinations(changes, size) for size in sizes)
        return
    yield from (tuple(changes[:length]) for length in range(count + 1))
    yield from ((change,) for change in changes)
    yield from (tuple(changes[:i] + changes[i + 1 :]) for i in range(count))
