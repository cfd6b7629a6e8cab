"""Small checkpoints, with and without tensors."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from plora_cl.checkpoint.disk.filesystem import ReadableBytes
from plora_cl.checkpoint.format import sealed_zip
from plora_cl.checkpoint.format.manifest import Manifest, ObjectRef
from plora_cl.checkpoint.format.sealed_zip import manifest_of, verified_manifest_of
from plora_cl.checkpoint.format.trajectory import UNKNOWN, Trajectory


def manifest(
    *,
    note: str = "",
    objects: Mapping[str, ObjectRef] | None = None,
    task: int = 0,
    phase: str = "train",
    trajectory: Trajectory = UNKNOWN,
) -> Manifest:
    cursor = {"task": task, "phase": phase, "epoch": 1, "batch": 3, "step": 7}
    return Manifest(
        cursor=cursor,
        trained_tasks=["news"],
        seed=42,
        loss=0.5,
        objects=dict(objects or {}),
        settings={"lora_r": 8, "note": note},
        state_digest="0" * 64,
        trajectory=trajectory,
    )


def archive(payload: bytes = b"\x80\x02N.", compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip laid out as PyTorch lays it out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr(zipfile.ZipInfo("archive/data.pkl"), payload, compression)
    return buffer.getvalue()


def sealed(
    *,
    note: str = "",
    objects: Mapping[str, ObjectRef] | None = None,
    task: int = 0,
    phase: str = "train",
    trajectory: Trajectory = UNKNOWN,
) -> bytes:
    """Return a checkpoint file whose content is ``note`` and whose objects are ``objects``."""
    described = manifest(note=note, objects=objects, task=task, phase=phase, trajectory=trajectory)
    return seal(archive(pickle.dumps(note, 2)), described)


def seal(
    archive: bytes, manifest: Manifest, records: Iterable[tuple[str, ReadableBytes]] = ()
) -> bytes:
    return sealed_zip.seal(archive, manifest.to_json(), records)


def read_manifest(path: Path, *, verify: bool = False) -> Manifest:
    with path.open("rb") as file:
        return verified_manifest_of(file) if verify else manifest_of(file)
