"""The checkpoint file: a PyTorch archive with a manifest inside and a seal at its end.

The seal is the comment of the zip archive, so that every zip reader, PyTorch's included, steps over
it. It says where the manifest lies, and its last 64 characters are the SHA-256 of all that precedes
them: a reader checks every byte before it interprets one.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zipfile
from collections.abc import Iterable
from typing import BinaryIO

from plora_cl.checkpoint.disk.filesystem import ReadableBytes
from plora_cl.checkpoint.format.manifest import MAX_MANIFEST_BYTES, Manifest
from plora_cl.errors import CorruptCheckpointError, IncompatibleCheckpointError

MANIFEST_RECORD = "archive/manifest.json"

_SEAL = re.compile(
    rb"plora-cl seal 1 manifest (?P<offset>[0-9]{20}) (?P<length>[0-9]{10}) "
    rb"(?P<manifest>[0-9a-f]{64}) sha256 (?P<file>[0-9a-f]{64})"
)
_HEX = 64
_SEAL_BYTES = len("plora-cl seal 1 manifest ") + 20 + 1 + 10 + 1 + _HEX + len(" sha256 ") + _HEX
_END_RECORD = struct.Struct("<4s16sH")  # signature, counts and places, length of the comment
_END64_LOCATOR = struct.Struct("<4sIQI")  # signature, disk, place of the record, disks
_END64_RECORD = struct.Struct("<4s36xQQ")  # signature, bytes of the directory, their place
_LOCAL_HEADER_BYTES = 30
_PADDING = struct.Struct("<2sH")  # the extra field that PyTorch aligns records with, and its length
_ALIGNMENT = 64
_MAX_DIRECTORY_BYTES = 1 << 20  # a checkpoint has a dozen records
_EPOCH = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20
_NOT_A_ZIP = (zipfile.BadZipFile, KeyError, ValueError, RuntimeError, EOFError, struct.error)


def seal(
    archive: ReadableBytes, manifest: bytes, records: Iterable[tuple[str, ReadableBytes]] = ()
) -> bytes:
    """Return a zip with the records of ``archive``, then ``records``, ``manifest`` and a seal.

    Equal input gives equal bytes.

    Args:
        archive: A zip as `torch.save` writes it, or nothing.
        manifest: The table of contents, as `Manifest.to_json` writes it.
        records: Names and contents to add; each content begins at a multiple of 64 bytes.
    """
    buffer = io.BytesIO(archive)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as file:
        for name, data in records:
            file.writestr(_record(name, file.start_dir), data)
        file.writestr(_record(MANIFEST_RECORD, file.start_dir), manifest)
        offset = file.start_dir - len(manifest)  # the record added last ends where the list begins
        file.comment = b"\0" * _SEAL_BYTES
    digest = hashlib.sha256(manifest).hexdigest()
    head = f"plora-cl seal 1 manifest {offset:020d} {len(manifest):010d} {digest} sha256 "
    with buffer.getbuffer() as view:
        view[-_SEAL_BYTES:-_HEX] = head.encode()
        view[-_HEX:] = hashlib.sha256(view[:-_HEX]).hexdigest().encode()
    return buffer.getvalue()


def _record(name: str, place: int) -> zipfile.ZipInfo:
    record = zipfile.ZipInfo(name, _EPOCH)
    record.create_system = 3
    begin = place + _LOCAL_HEADER_BYTES + len(name) + _PADDING.size
    padding = -begin % _ALIGNMENT
    record.extra = _PADDING.pack(b"FB", padding) + b"Z" * padding
    return record


def manifest_of(file: BinaryIO) -> Manifest:
    """Return the manifest of an open checkpoint file, reading little more than that.

    The manifest itself is verified, the rest of the file is not.

    Raises:
        CorruptCheckpointError: The manifest is damaged.
        IncompatibleCheckpointError: It was written by a newer version of the format.
    """
    return Manifest.from_json(_locate(file))


def verified_manifest_of(file: BinaryIO) -> Manifest:
    """Verify every byte of an open checkpoint file in constant memory; return its manifest.

    Raises:
        CorruptCheckpointError: A byte is not what was written, or the file was made to deceive.
        IncompatibleCheckpointError: It was written by a newer version of the format.
    """
    manifest = _locate(file)  # first: a huge file without a seal is not worth the time
    _require_intact(file)
    _require_stored(file, manifest)
    return Manifest.from_json(manifest)


def require_seal(file: BinaryIO) -> None:
    """Refuse an open file that does not end in a seal, reading little more than that.

    Raises:
        CorruptCheckpointError: It does not, or its manifest is damaged.
        IncompatibleCheckpointError: It was written by a newer version of the format.
    """
    _locate(file)


def open_sealed(data: bytes) -> Manifest:
    """Verify every byte of a checkpoint file in memory, see `verified_manifest_of`."""
    return verified_manifest_of(io.BytesIO(data))


def _require_intact(file: BinaryIO) -> None:
    left = file.seek(0, io.SEEK_END) - _HEX
    file.seek(0)
    digest = hashlib.sha256()
    while left > 0 and (chunk := file.read(min(left, _CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
    if digest.hexdigest().encode() != file.read(_HEX + 1):
        raise CorruptCheckpointError("the seal is broken: bytes were changed, cut off or added")


def _locate(file: BinaryIO) -> bytes:
    size = file.seek(0, io.SEEK_END)
    end = size - _SEAL_BYTES - _END_RECORD.size
    if end < 0:
        raise CorruptCheckpointError(f"{size} bytes are too few for a checkpoint")
    file.seek(end)
    tail = file.read(_END_RECORD.size + _SEAL_BYTES)
    signature, _, comment_bytes = _END_RECORD.unpack_from(tail)
    sealed = _SEAL.fullmatch(tail, _END_RECORD.size)
    if signature != b"PK\x05\x06" or comment_bytes != _SEAL_BYTES or sealed is None:
        _refuse_other_seals(file, size)
        raise CorruptCheckpointError("it does not end in a seal")
    offset, length = int(sealed["offset"]), int(sealed["length"])
    if length > MAX_MANIFEST_BYTES or offset + length > end:
        raise CorruptCheckpointError(f"a manifest of {length} bytes cannot lie at {offset}")
    file.seek(offset)
    manifest = file.read(length)
    if hashlib.sha256(manifest).hexdigest().encode() != sealed["manifest"]:
        raise CorruptCheckpointError("the manifest is damaged")
    return manifest


def _refuse_other_seals(file: BinaryIO, size: int) -> None:
    # Only an intact file may claim to be of a newer version.
    file.seek(max(0, size - (1 << 16)))
    other = re.search(rb"plora-cl seal (?!1 )([0-9]+) [ -~]*$", file.read())
    if other is not None:
        _require_intact(file)
        raise IncompatibleCheckpointError(
            f"seal version {other[1].decode()}: this library reads version 1; install the version "
            "of plora-cl that wrote it, or a later one"
        )


def _require_stored(file: BinaryIO, manifest: bytes) -> None:
    """Refuse an archive that unpacks to more than its size."""
    size = file.seek(0, io.SEEK_END)
    try:
        _require_small_directory(file, size - _SEAL_BYTES - _END_RECORD.size)
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise CorruptCheckpointError("a record is compressed; checkpoints never are")
            if sum(record.file_size for record in records) > size:
                raise CorruptCheckpointError("its records claim more bytes than the file has")
            names = [record.filename.lower() for record in records]
            if len(set(names)) < len(names):  # PyTorch ignores case, and reads another one
                raise CorruptCheckpointError("two of its records have the same name")
            if archive.read(MANIFEST_RECORD) != manifest:
                raise CorruptCheckpointError(f"{MANIFEST_RECORD} is not the sealed manifest")
    except _NOT_A_ZIP as error:
        raise CorruptCheckpointError(f"it is not a zip archive: {error}") from error


def _require_small_directory(file: BinaryIO, end: int) -> None:
    # `zipfile` reads the whole directory into memory.
    file.seek(end)
    (size,) = struct.unpack_from("<I", file.read(_END_RECORD.size), 12)
    file.seek(max(0, end - _END64_LOCATOR.size))
    signature, _, place, _ = _END64_LOCATOR.unpack(file.read(_END64_LOCATOR.size))
    if signature == b"PK\x06\x07":
        file.seek(min(place, end))
        _, size, _ = _END64_RECORD.unpack(file.read(_END64_RECORD.size))
    if size > _MAX_DIRECTORY_BYTES:
        raise CorruptCheckpointError(f"its list of records has {size} bytes")
