"""Hard links: one file on the disk for an object of several experiments.

A link is the same bytes, so that an object is verified through the file that gets the name. Nothing
in this library changes a file under its final name: a replaced object is a new file, and the other
experiments keep the old one.
"""

from __future__ import annotations

import errno
import hashlib
import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from plora_cl.checkpoint.disk.filesystem import Filesystem, partial_path
from plora_cl.checkpoint.format.manifest import ObjectRef

SHARED_FROM_BYTES = 1 << 20
"""Smaller objects are written: searching for them would cost more than it saves."""

_CHUNK = 1 << 20
_ORDINARY = (
    *(errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOSYS),
    *(errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOENT, errno.ESTALE),
)

log = logging.getLogger(__name__)


def link_from_sibling(filesystem: Filesystem, path: Path, ref: ObjectRef) -> bool:
    """Link the object ``ref`` of a sibling experiment to ``path``; tell whether that worked.

    Siblings are ``../*/checkpoints/objects``, seen from the experiment. They are searched by name
    and size: one listing, and only what is linked is read.

    Args:
        filesystem: What performs the operations.
        path: Of the object, in ``<experiment>/checkpoints/objects``.
        ref: The object; a small one is not searched for.
    """
    if ref.bytes < SHARED_FROM_BYTES:
        return False
    siblings = _siblings(filesystem, path.absolute(), ref)
    return any(link_verified(filesystem, sibling, path, ref) for sibling in siblings)


def link_verified(filesystem: Filesystem, source: Path, target: Path, ref: ObjectRef) -> bool:
    """Link the object ``ref`` at ``source`` to ``target`` too, replacing that.

    The name appears once every byte is verified, and is durable once its directory is flushed.

    Returns:
        Whether that worked. It does not, and leaves ``target`` as it was, where the object is
        damaged or not a regular file of this user, or where the disk refuses.
    """
    partial = partial_path(target)
    try:
        with filesystem.open(source) as file:
            filesystem.link(file, source, partial)
            if not holds(file, ref):
                log.warning("%s is damaged: it is not shared with %s", source, target)
                return False
            filesystem.rename(partial, target)
    except OSError as error:
        level = logging.DEBUG if error.errno in _ORDINARY else logging.WARNING
        log.log(level, "%s is not shared with %s: %s", source, target, error)
        return False
    else:
        return True
    finally:
        with suppress(OSError):  # a rename between two names of one file does nothing
            filesystem.remove(partial)


def holds(file: BinaryIO, ref: ObjectRef) -> bool:
    """Tell whether the rest of ``file`` is the object ``ref``, in constant memory.

    Raises:
        OSError: The disk refused.
    """
    digest, left = hashlib.sha256(), ref.bytes + 1  # one more: a longer file is another one
    while left and (chunk := file.read(min(left, _CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
    return left == 1 and digest.hexdigest() == ref.sha256


def _siblings(filesystem: Filesystem, path: Path, ref: ObjectRef) -> Iterator[Path]:
    own = path.parent.parent.parent
    inside = path.relative_to(own)
    if inside.parts[:-1] != ("checkpoints", "objects"):
        return
    try:
        names = filesystem.names(own.parent)
    except OSError as error:
        log.debug("%s cannot be searched: %s", own.parent, error)
        return
    for sibling in (own.parent / name / inside for name in names if name != own.name):
        with suppress(OSError):  # not a folder, or not ours to look into
            if filesystem.size(sibling) == ref.bytes:
                yield sibling
