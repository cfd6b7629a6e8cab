"""One checkpoint as one file, to move it to another machine.

A plain tar archive that any tool opens. Its bytes follow from the checkpoint alone, and the reader
accepts nothing else: each header must be, byte for byte, the one that the writer would have made
for the member that is due. So there is no path, link, device or repeated member to be careful with.
The last member is the SHA-256 of all that precedes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from plora_cl.bounded_reading import parse_json
from plora_cl.checkpoint.disk.errors import naming, reading, writing
from plora_cl.checkpoint.disk.filesystem import Filesystem, partial_path
from plora_cl.checkpoint.format.manifest import MAX_MANIFEST_BYTES, Manifest, ObjectRef
from plora_cl.checkpoint.format.naming import parse_name
from plora_cl.checkpoint.format.sealed_zip import verified_manifest_of
from plora_cl.checkpoint.store.run_log import RUN_LOG, run_log_at, run_log_length, run_log_position
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.new_experiment import (
    chunks_of,
    claim,
    committing,
    object_chunks,
    put,
    require_new_file,
    run_log_chunks,
    verified,
)
from plora_cl.errors import CorruptCheckpointError, IncompatibleCheckpointError

ConfigWriter: TypeAlias = Callable[[Manifest], str]
"""Turns the manifest of a checkpoint into the text of ``config.yaml``."""

FORMAT = "plora_cl.bundle"

_CONTENTS, _DIGEST, _CONFIG = "bundle.json", "sha256", "config.yaml"
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_DIGEST_BYTES = 2 * _BLOCK + len(_END)
_LONGEST_CONFIG = 1 << 20
_disk = Filesystem()


@dataclass(frozen=True, slots=True)
class _Contents:
    """What the first member says: everything that decides the headers of the others."""

    checkpoint: str
    checkpoint_bytes: int
    config_bytes: int
    run_log_bytes: int
    objects: list[dict[str, str | int]]
    format: str = FORMAT
    format_version: int = 1

    @property
    def refs(self) -> list[ObjectRef]:
        return [ObjectRef.from_plain(plain) for plain in self.objects]

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, indent=1).encode() + b"\n"


def export_bundle(
    source: CheckpointEntry, out: Path, *, config: str, overwrite: bool = False
) -> int:
    """Write ``source`` with all it needs to the file ``out``; return the number of bytes.

    Args:
        source: A checkpoint; every byte of it and of its objects is verified.
        out: The file, in a folder that is there.
        config: Text of the ``config.yaml`` that goes with it.
        overwrite: A file that is there is replaced, when the new one is complete.

    Raises:
        CheckpointNotFoundError: There is no such checkpoint.
        CorruptCheckpointError: It, or an object of it, is damaged.
        IncompatibleCheckpointError: Its settings are too long for a bundle.
        CheckpointError: Something is at ``out``, its folder is not there, or the disk refused.
    """
    require_new_file(out, overwrite=overwrite)
    store = CheckpointStore(source.path.parent)
    data = store.read(source)
    manifest = store.manifest(source)
    with naming(source.path):
        position = run_log_position(data)
    refs = sorted(set(manifest.objects.values()), key=lambda ref: ref.sha256)
    run_log = run_log_at(_disk, source.path.parent.parent, position)
    contents = _Contents(
        checkpoint=source.name,
        checkpoint_bytes=len(data),
        config_bytes=len(config.encode()),
        run_log_bytes=run_log_length(_disk, run_log, position),
        objects=[ref.to_plain() for ref in refs],
    )
    if contents.config_bytes > _LONGEST_CONFIG:
        raise IncompatibleCheckpointError(
            f"{source.path}: its settings take {contents.config_bytes} bytes as {_CONFIG}, and no "
            f"import reads more than {_LONGEST_CONFIG}; copy the folder of the experiment instead"
        )
    text = contents.to_json()

    def members() -> Iterator[bytes]:
        yield from _member(_CONTENTS, len(text), [text])
        yield from _member(_CONFIG, contents.config_bytes, [config.encode()])
        yield from _member(
            RUN_LOG, contents.run_log_bytes, run_log_chunks(_disk, run_log, position)
        )
        for ref in refs:
            yield from _member(
                _object_name(ref), ref.bytes, object_chunks(_disk, store.objects.path(ref), ref)
            )
        yield from _member(f"checkpoints/{source.name}", len(data), [data])

    put(_disk, out, _with_digest(members()))
    return out.stat().st_size


def import_bundle(
    file: Path, folder: Path, *, config: ConfigWriter, filesystem: Filesystem | None = None
) -> CheckpointEntry:
    """Make ``folder`` an experiment that goes on from the checkpoint in ``file``.

    Args:
        file: What `export_bundle` wrote; every byte is verified before the first is used.
        folder: Of the new experiment.
        config: Turns the manifest of the checkpoint into the text of its ``config.yaml``.
        filesystem: What makes the experiment; the local disk by default.

    Raises:
        CorruptCheckpointError: It is damaged, or was made to deceive.
        IncompatibleCheckpointError: A later version of the library wrote it.
        ExperimentExistsError: ``folder`` holds something else.
        CheckpointError: The disk refused.
    """
    disk = filesystem or _disk
    with reading(file), _disk.open(file) as bundle:
        with naming(file):
            digest = _require_intact(bundle)
            contents = _read_contents(bundle)
            _expect(bundle, _CONFIG, contents.config_bytes)
            _skip(bundle, contents.config_bytes)
        claim(disk, folder, {"bundle": str(file.resolve()), "sha256": digest})
        with naming(file):
            put(disk, folder / RUN_LOG, _content(bundle, RUN_LOG, contents.run_log_bytes))
            _skip_padding(bundle, contents.run_log_bytes)
            store = CheckpointStore(folder / "checkpoints", disk)
            with writing(store.objects.directory):
                store.objects.make_directories()
            for ref in contents.refs:
                name = _object_name(ref)
                chunks = verified(_content(bundle, name, ref.bytes), ref, name)
                put(disk, store.objects.path(ref), chunks)
                _skip_padding(bundle, ref.bytes)
            return _commit(bundle, contents, store, folder, config)


def _commit(
    bundle: BinaryIO,
    contents: _Contents,
    store: CheckpointStore,
    folder: Path,
    config: ConfigWriter,
) -> CheckpointEntry:
    disk = store.filesystem
    entry = CheckpointEntry.at(store.directory / contents.checkpoint)
    waiting = partial_path(entry.path)
    name = f"checkpoints/{contents.checkpoint}"
    try:
        put(disk, waiting, _content(bundle, name, contents.checkpoint_bytes))
        _skip_padding(bundle, contents.checkpoint_bytes)
        if bundle.tell() != os.fstat(bundle.fileno()).st_size - _DIGEST_BYTES:
            raise CorruptCheckpointError("something follows its last member")
        with reading(waiting), disk.open(waiting) as file:
            manifest = verified_manifest_of(file)
        if set(manifest.objects.values()) != set(contents.refs):
            raise CorruptCheckpointError("its objects are not those of its checkpoint")
        put(disk, folder / _CONFIG, config(manifest).encode())
        with committing(disk, entry.path), writing(entry.path):
            store.objects.sync()
            disk.rename(waiting, entry.path)
            disk.sync_directory(store.directory)
    finally:
        with suppress(OSError):
            disk.remove(waiting)
    return entry


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _object_name(ref: ObjectRef) -> str:
    return f"checkpoints/objects/{ref.file_name}"


def _member(name: str, size: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield _header(name, size)
    yield from chunks
    yield _padding(size)


def _with_digest(chunks: Iterable[bytes]) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    yield _digest_member(digest.hexdigest())


def _digest_member(digest: str) -> bytes:
    text = digest.encode() + b"\n"
    return b"".join(_member(_DIGEST, len(text), [text])) + _END


def _require_intact(bundle: BinaryIO) -> str:
    size = os.fstat(bundle.fileno()).st_size - _DIGEST_BYTES
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


def _read_contents(bundle: BinaryIO) -> _Contents:
    header = bundle.read(_BLOCK)
    try:
        size = tarfile.TarInfo.frombuf(header, "utf-8", "strict").size
    except (tarfile.HeaderError, ValueError) as error:
        raise CorruptCheckpointError(f"it does not begin with {_CONTENTS}: {error}") from error
    if header != _header(_CONTENTS, size) or size > MAX_MANIFEST_BYTES:
        raise CorruptCheckpointError(f"it does not begin with a {_CONTENTS} that is small enough")
    text = b"".join(chunks_of(bundle, size, _CONTENTS))
    _skip_padding(bundle, size)
    try:
        plain = parse_json(text)
        if isinstance(plain, dict) and plain.get("format") == FORMAT:
            _require_known(plain.get("format_version"))
        contents = _Contents(**plain)
        canonical = contents.to_json() == text and contents.format == FORMAT
        digests = [ref.sha256 for ref in contents.refs]
    except (ValueError, TypeError) as error:
        raise CorruptCheckpointError(f"{_CONTENTS} is not a list of contents: {error}") from error
    sizes = (contents.checkpoint_bytes, contents.config_bytes, contents.run_log_bytes)
    if (
        not canonical
        or digests != sorted(set(digests))
        or any(type(number) is not int or number < 0 for number in sizes)
        or contents.config_bytes > _LONGEST_CONFIG
        or type(contents.format_version) is not int
        or contents.format_version != 1
        or type(contents.checkpoint) is not str
        or parse_name(contents.checkpoint) is None
    ):
        raise CorruptCheckpointError(f"{_CONTENTS} is not a list of contents")
    return contents


def _require_known(version: Any) -> None:
    if type(version) is int and version > 1:
        raise IncompatibleCheckpointError(
            f"bundle version {version}: this library reads version 1; install the version of "
            "plora-cl that wrote it, or a later one"
        )


def _expect(bundle: BinaryIO, name: str, size: int) -> None:
    total = os.fstat(bundle.fileno()).st_size
    if size > total or bundle.read(_BLOCK) != _header(name, size):
        raise CorruptCheckpointError(f"{name} is not where it should be")


def _content(bundle: BinaryIO, name: str, size: int) -> Iterator[bytes]:
    _expect(bundle, name, size)
    yield from chunks_of(bundle, size, name)


def _skip(bundle: BinaryIO, size: int) -> None:
    for _ in chunks_of(bundle, size, _CONFIG):
        pass
    _skip_padding(bundle, size)


def _skip_padding(bundle: BinaryIO, size: int) -> None:
    padding = _padding(size)
    if bundle.read(len(padding)) != padding:
        raise CorruptCheckpointError("its padding is not empty")
