"""``plora-cl checkpoints inspect``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plora_cl.checkpoint import container
from plora_cl.checkpoint.anatomy import TensorInfo, object_tensors, read_content, tensors_in
from plora_cl.checkpoint.disk_errors import naming, reading
from plora_cl.checkpoint.manifest import Manifest
from plora_cl.checkpoint.new_folder import lineage_of
from plora_cl.checkpoint.store import CheckpointStore
from plora_cl.cli.checkpoints.command import (
    Target,
    add_target,
    command_parser,
    finish,
    locate,
    write_json,
)
from plora_cl.cli.exit import OK
from plora_cl.errors import CheckpointNotFoundError


def main(argv: Sequence[str]) -> int:
    """Show the checkpoint that ``argv`` names; return the exit code."""
    parser = command_parser(
        "inspect",
        "Show what is in a checkpoint: its tensors by component, its objects, the settings and "
        "the environment it was made with, and where its experiment comes from. Every byte of the "
        "checkpoint file is verified.",
        ["experiments/demo", "experiments/demo@checkpoint_task0_epoch1_batch99.pt --json"],
        ok="it was shown",
        found="it, or the head of one of its objects, is damaged",
    )
    add_target(parser, default="; a folder stands for its newest checkpoint")
    arguments = parser.parse_args(argv)
    return finish(lambda: _inspect(locate(arguments.target), as_json=arguments.json))


def _inspect(target: Target, *, as_json: bool) -> int:
    store, entry = target.store, target.checkpoint
    with (
        reading(entry.path, missing=CheckpointNotFoundError),
        naming(entry.path),
        store.filesystem.open(entry.path) as file,
    ):
        manifest = container.verified_manifest_of(file)
        content = read_content(file)
        size = file.seek(0, 2)
    document = {
        "path": str(entry.path),
        "file_bytes": size,
        "format_version": manifest.format_version,
        "state_digest": manifest.state_digest,
        "cursor": dict(manifest.cursor),
        "trained_tasks": list(manifest.trained_tasks),
        "seed": manifest.seed,
        "loss": manifest.loss,
        "components": {name: _tensors(tensors_in(part)) for name, part in content["state"].items()},
        "objects": {name: _object(store, manifest, name) for name in sorted(manifest.objects)},
        "settings": dict(manifest.settings),
        "environment": content.get("environment", {}),
        "lineage": lineage_of(store.directory.parent),
    }
    if as_json:
        write_json(document)
    else:
        _show(document)
    return OK


def _object(store: CheckpointStore, manifest: Manifest, name: str) -> dict[str, Any]:
    ref = manifest.objects[name]
    path = store.objects.path(ref)
    with reading(path), naming(path), store.filesystem.open(path) as file:
        return {**ref.to_plain(), **_tensors(object_tensors(file))}


def _tensors(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    return {
        "tensor_bytes": sum(tensor.bytes for tensor in tensors.values()),
        "tensors": {
            name: {"dtype": t.dtype, "shape": list(t.shape), "bytes": t.bytes}
            for name, t in tensors.items()
        },
    }


def _show(document: dict[str, Any]) -> None:
    from plora_cl.cli.checkpoints.tables import show_table, show_values, shown_bytes

    cursor = document["cursor"]
    show_values(
        document["path"],
        {
            "size": shown_bytes(document["file_bytes"]),
            "next": ", ".join(f"{name} {value}" for name, value in cursor.items()),
            "trained tasks": ", ".join(document["trained_tasks"]) or "-",
            "loss": document["loss"],
            "seed": document["seed"],
            "state digest": document["state_digest"],
        },
    )
    show_table(
        "Objects",
        ("name", "tensors ", "bytes ", "sha256"),
        [
            (name, str(len(o["tensors"])), shown_bytes(o["bytes"]), o["sha256"])
            for name, o in document["objects"].items()
        ],
    )
    show_table(
        "Tensors",
        ("component", "tensor", "type", "shape", "bytes "),
        [
            (name, tensor, t["dtype"], str(t["shape"]), shown_bytes(t["bytes"]))
            for name, part in {**document["components"], **document["objects"]}.items()
            for tensor, t in part["tensors"].items()
        ],
    )
    show_values("Settings", document["settings"])
    show_values("Environment", document["environment"])
    if document["lineage"] is not None:
        show_values("Lineage", document["lineage"])
