"""A save over an existing name, with rotation, after an older run: every kind of operation."""

from __future__ import annotations

from pathlib import Path

from checkpoint.samples import sealed
from plora_cl.checkpoint.format.naming import checkpoint_name
from plora_cl.checkpoint.store.retention import collect_garbage, rotate
from plora_cl.checkpoint.store.store import CheckpointStore


def older_run(directory: Path, padding: str = "") -> None:
    """Commit two checkpoints, ``older`` and ``old``."""
    store = CheckpointStore(directory)
    objects = {text: store.objects.put(text.encode()) for text in ("base", "old" + padding)}
    store.commit(checkpoint_name(0, 0, 1), sealed(note="older", objects=objects))
    store.commit(checkpoint_name(0, 0, 2), sealed(note="old", objects=objects))


def save(store: CheckpointStore, padding: str = "") -> None:
    """Commit ``new`` over ``old``, and let ``older`` go."""
    objects = {text: store.objects.put(text.encode()) for text in ("base", "new" + padding)}
    entry = store.commit(checkpoint_name(0, 0, 2), sealed(note="new", objects=objects))
    rotate(store, entry, 1)
    collect_garbage(store)


def newest_note(directory: Path) -> str:
    """Return the content of the newest checkpoint; every byte of every checkpoint is verified."""
    store = CheckpointStore(directory)
    notes = [""]
    for entry in store.entries():
        store.read(entry)
        manifest = store.manifest(entry)
        for text, ref in manifest.objects.items():
            assert store.objects.get(ref) == text.encode()
        notes.append(manifest.settings["note"])
    return notes[-1]


def partial_files(directory: Path) -> list[Path]:
    return list(directory.rglob("*.partial"))
