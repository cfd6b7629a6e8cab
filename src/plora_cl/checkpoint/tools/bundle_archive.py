"""The file of an exported checkpoint: a plain tar archive that any tool opens.

Its bytes follow from the checkpoint alone, and the reader accepts nothing else: each header must
be, byte for byte, the one that the writer makes for the next member. No path, link, device or
repeated member can therefore occur. The last member is the SHA-256 of everything before it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import BinaryIO

from plora_cl.bounded_reading import chunks_of, parse_json
from plora_cl.checkpoint.format.manifest import MAX_MANIFEST_BYTES, ObjectRef
from plora_cl.checkpoint.format.naming import parse_name
from plora_cl.checkpoint.store.run_log import RUN_LOG
from plora_cl.checkpoint.tools.new_experiment import CONFIG
from plora_cl.errors import CorruptCheckpointError, IncompatibleCheckpointError

FORMAT = "plora_cl.bundle"
CONTENTS = "bundle.json"
LONGEST_CONFIG = 1 << 20

_DIGEST = "sha256"
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_DIGEST_BYTES = 2 * _BLOCK + len(_END)


@dataclass(frozen=True, slots=True)
class Contents:
    """The first member; it determines the names and sizes of all others.

    Raises:
        ValueError: A value is none that an export writes.
    """

    checkpoint: str
    checkpoint_bytes: int
    config_bytes: int
    run_log_bytes: int
    objects: list[dict[str, str | int]]
    format: str = FORMAT
    format_version: int = 1

    def __post_init__(self) -> None:
        sizes = (self.checkpoint_bytes, self.config_bytes, self.run_log_bytes)
        digests = [ref.sha256 for ref in self.refs]
        if (
            any(type(number) is not int or number < 0 for number in (*sizes, self.format_version))
            or (self.format, self.format_version) != (FORMAT, 1)
            or self.config_bytes > LONGEST_CONFIG
            or digests != sorted(set(digests))
            or type(self.checkpoint) is not str
            or parse_name(self.checkpoint) is None
        ):
            raise ValueError("it has values that no export writes")

    @property
    def refs(self) -> list[ObjectRef]:
        """The objects, in the order of their digests."""
        return [ObjectRef.from_plain(plain) for plain in self.objects]

    def to_json(self) -> bytes:
        """Return the content of the first member."""
        return json.dumps(asdict(self), sort_keys=True, indent=1).encode() + b"\n"

    def members(self) -> Iterator[tuple[str, int]]:
        """Yield name and size of every member between this one and the digest, in order."""
        yield CONFIG, self.config_bytes
        yield RUN_LOG, self.run_log_bytes
        for ref in self.refs:
            yield object_name(ref), ref.bytes
        yield f"checkpoints/{self.checkpoint}", self.checkpoint_bytes


class BundleReader:
    """An exported checkpoint, open for reading; its structure and digest are verified.

    Args:
        file: Open at its beginning.

    Raises:
        CorruptCheckpointError: It is damaged, or was made to deceive.
        IncompatibleCheckpointError: A later version of the library wrote it.

    Attributes:
        digest: SHA-256 of all members but the last.
        contents: Its first member.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        end = os.fstat(file.fileno()).st_size - _DIGEST_BYTES
        self.digest = _verified_digest(file, end)
        self.contents = _read_contents(file)
        self._members: dict[str, tuple[int, int]] = {}
        for name, size in self.contents.members():
            if size > end or file.read(_BLOCK) != _header(name, size):
                raise CorruptCheckpointError(f"{name} is not where it should be")
            self._members[name] = file.tell(), size
            file.seek(size, os.SEEK_CUR)
            _skip_padding(file, size)
        if file.tell() != end:
            raise CorruptCheckpointError("something follows its last member")

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a member in pieces of bounded size."""
        place, size = self._members[name]
        self._file.seek(place)
        yield from chunks_of(self._file, size, name)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def object_name(ref: ObjectRef) -> str:
    """Return the name of the member of an object."""
    return f"checkpoints/objects/{ref.file_name}"


def _member(name: str, size: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield _header(name, size)
    yield from chunks
    yield _padding(size)


def archived(contents: Contents, members: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    """Return the bytes of the file.

    Args:
        contents: The first member.
        members: The content of each of ``contents.members()``, in pieces.
    """
    text = contents.to_json()

    def chunks() -> Iterator[bytes]:
        yield from _member(CONTENTS, len(text), [text])
        for (name, size), content in zip(contents.members(), members, strict=True):
            yield from _member(name, size, content)

    return with_digest(chunks())


def with_digest(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield ``chunks`` and then the last member."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    yield _digest_member(digest.hexdigest())


def _digest_member(digest: str) -> bytes:
    text = digest.encode() + b"\n"
    return b"".join(_member(_DIGEST, len(text), [text])) + _END


def _verified_digest(bundle: BinaryIO, size: int) -> str:
    """Return the digest of the first ``size`` bytes, which the last member must repeat."""
    if size < _BLOCK:
        raise CorruptCheckpointError("it is too short for an exported checkpoint")
    digest = hashlib.sha256()
    for chunk in chunks_of(bundle, size, "it"):
        digest.update(chunk)
    if bundle.read() != _digest_member(digest.hexdigest()):
        raise CorruptCheckpointError(
            "it is damaged or was not exported by plora-cl: its last member is not its SHA-256"
        )
    bundle.seek(0)
    return digest.hexdigest()


def _read_contents(bundle: BinaryIO) -> Contents:
    header = bundle.read(_BLOCK)
    try:
        size = tarfile.TarInfo.frombuf(header, "utf-8", "strict").size
    except (tarfile.HeaderError, ValueError) as error:
        raise CorruptCheckpointError(f"it does not begin with {CONTENTS}: {error}") from error
    if header != _header(CONTENTS, size) or size > MAX_MANIFEST_BYTES:
        raise CorruptCheckpointError(f"it does not begin with a {CONTENTS} that is small enough")
    text = b"".join(chunks_of(bundle, size, CONTENTS))
    _skip_padding(bundle, size)
    try:
        plain = parse_json(text)
        version = plain.get("format_version") if isinstance(plain, dict) else None
        if type(version) is int and version > 1:
            raise IncompatibleCheckpointError(
                f"bundle version {version}: this library reads version 1; install the version of "
                "plora-cl that wrote it, or a later one"
            )
        contents = Contents(**plain)
    except (ValueError, TypeError) as error:
        raise CorruptCheckpointError(f"{CONTENTS} is not a list of contents: {error}") from error
    if contents.to_json() != text:
        raise CorruptCheckpointError(f"{CONTENTS} is not written as an export writes it")
    return contents


def _skip_padding(bundle: BinaryIO, size: int) -> None:
    padding = _padding(size)
    if bundle.read(len(padding)) != padding:
        raise CorruptCheckpointError("its padding is not empty")
