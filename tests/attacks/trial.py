"""Builds a hostile checkpoint beside an honest older one, and shows that it is refused.

The process may take `ALLOWANCE` more address space than it has once everything is imported, and the
memory it did take is measured. A file named `CANARY` would show that something was executed.
"""

from __future__ import annotations

import io
import os
import pickle
import resource
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from checkpoint.components import Holder, capture
from checkpoint.samples import seal
from plora_cl.checkpoint.format.manifest import Manifest, ObjectRef
from plora_cl.checkpoint.format.naming import checkpoint_name
from plora_cl.checkpoint.format.sealed_zip import open_sealed
from plora_cl.checkpoint.format.tensor_object import encode_object
from plora_cl.checkpoint.snapshot.codec import encode
from plora_cl.checkpoint.snapshot.loading import load, newest_usable
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.errors import CheckpointError

ALLOWANCE = 1 << 30
"""Address space above what the imports take, in bytes."""
MOST = 96
"""Resident memory above what the imports take, in MiB, that a refusal may need."""
CANARY = "executed"

Attack = Callable[[Path], Path]
"""Puts a hostile file into a folder of checkpoints; returns the checkpoint to load."""


def newest(folder: Path) -> Path:
    return folder / checkpoint_name(0, 0, 9)


def honest(objects: Mapping[str, ObjectRef] | None = None) -> bytes:
    return encode(capture({"model": Holder(torch.ones(4))}, objects=objects))


def manifest(objects: Mapping[str, ObjectRef] | None = None) -> Manifest:
    return open_sealed(honest(objects))


def archive(pickled: bytes, *more: tuple[str, bytes]) -> bytes:
    """Return a PyTorch archive around ``pickled``, with further records."""
    buffer = io.BytesIO()
    records = [("data.pkl", pickled), ("version", b"3\n"), ("byteorder", b"little"), *more]
    with zipfile.ZipFile(buffer, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about duplicate names
        for name, content in records:
            file.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def tensor_pickle(elements: int, size: int) -> bytes:
    """Return a pickle of one float tensor that claims ``elements`` stored and ``size`` in shape."""

    def plain(value: Any) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(("
        + plain("storage")
        + b"ctorch\nFloatStorage\n"
        + plain("0")
        + plain("cpu")
        + plain(elements)
        + b"tQ"
        + plain(0)
        + plain((size,))
        + plain((1,))
        + b"\x89ccollections\nOrderedDict\n)RtR."
    )


def write_sealed(folder: Path, torch_archive: bytes) -> Path:
    """Write ``torch_archive`` under an intact seal and the manifest of an honest checkpoint."""
    path = newest(folder)
    path.write_bytes(seal(torch_archive, manifest()))
    return path


def refer_to(folder: Path, ref: ObjectRef) -> Path:
    """Write a checkpoint, honest but for its only object."""
    path = newest(folder)
    path.write_bytes(honest({"base": ref}))
    return path


def refused(attack: Attack) -> str:
    """Return how ``attack`` is refused.

    Raises:
        AssertionError: It is accepted, or takes too much memory, or is not skipped.
    """
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        folder = Path(scratch) / "checkpoints"
        store = CheckpointStore(folder)
        base = store.objects.put(encode_object({"weight": torch.ones(4)}))
        older = store.commit(checkpoint_name(0, 0, 1), honest({"base": base}))
        load(store, older)
        path = _made_elsewhere(attack, folder)
        before = _limit_memory()
        try:
            load(CheckpointStore(folder), CheckpointEntry.at(path))
        except CheckpointError as error:
            message = f"{type(error).__name__}: {error}"
        else:
            raise AssertionError("it was accepted")
        taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
        assert taken < MOST, f"it took {taken} MiB"
        assert not list(Path(scratch).rglob(CANARY)), "it was executed"
        if "CorruptCheckpointError" in message:
            found = newest_usable(CheckpointStore(folder))
            assert found is not None
            assert found.entry == older
        return message.replace(f"{folder}/", "")


def _made_elsewhere(attack: Attack, folder: Path) -> Path:
    """Return what ``attack`` returns, run in a child: what it takes must not hide what is taken."""
    answer = folder.parent / "path"
    child = os.fork()
    if child == 0:
        answer.write_text(str(attack(folder)))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return Path(answer.read_text())


def _limit_memory() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ALLOWANCE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(attack: Attack) -> None:
    print(refused(attack))
    sys.exit(0)
