"""``plora-cl checkpoints inspect``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plora_cl.checkpoint.disk.errors import naming, reading
from plora_cl.checkpoint.format import sealed_zip
from plora_cl.checkpoint.format.inspection import (
    TensorInfo,
    object_tensors,
    read_content,
    tensors_in,
)
from plora_cl.checkpoint.format.manifest import Manifest
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.checkpoint.tools.new_experiment import lineage_of
from plora_cl.cli.checkpoints.command import (
    Target,
    add_target,
    command_parser,
    finish,
    locate,
    write_json,
)
from plora_cl.cli.checkpoints.contents import score_rows, scores, standing, task_names
from plora_cl.cli.exit import OK
from plora_cl.errors import CheckpointNotFoundError


def main(argv: Sequence[str]) -> int:
    """Show the checkpoint that ``argv`` names; return the exit code."""
    parser = command_parser(
        "inspect",
        "Show what a checkpoint is: where its run stands, the scores so far, its components and "
        "objects, the settings and the environment it was made with, and where its experiment "
        "comes from. Every byte of the checkpoint file is verified.",
        ["experiments/demo", "experiments/demo@checkpoint_task0_epoch1_batch99.pt --json"],
        ok="it was shown",
        found="it, or the head of one of its objects, is damaged",
    )
    add_target(parser, default="; a folder stands for the one it would be resumed from")
    parser.add_argument("--tensors", action="store_true", help="list every tensor, too")
    arguments = parser.parse_args(argv)
    return finish(
        lambda: _inspect(
            locate(arguments.target), as_json=arguments.json, tensors=arguments.tensors
        )
    )


def _inspect(target: Target, *, as_json: bool, tensors: bool) -> int:
    store, entry = target.store, target.checkpoint
    with (
        reading(entry.path, missing=CheckpointNotFoundError),
        naming(entry.path),
        store.filesystem.open(entry.path) as file,
    ):
        manifest = sealed_zip.verified_manifest_of(file)
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
        "scores": scores(content["state"]),
        "components": {name: _tensors(tensors_in(part)) for name, part in content["state"].items()},
        "objects": {name: _object(store, manifest, name) for name in sorted(manifest.objects)},
        "settings": dict(manifest.settings),
        "environment": content.get("environment", {}),
        "lineage": lineage_of(store.directory.parent),
    }
    if as_json:
        write_json(document)
    else:
        _show(document, tensors=tensors)
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


def _show(document: dict[str, Any], *, tensors: bool) -> None:
    from plora_cl.cli.checkpoints.tables import show_line, show_table, show_values, shown_bytes

    settings = document["settings"]
    show_values(
        document["path"],
        {
            "stands at": standing(document["cursor"], settings),
            "step": document["cursor"]["step"],
            "trained tasks": ", ".join(document["trained_tasks"]) or "-",
            "loss": document["loss"],
            "size": shown_bytes(document["file_bytes"]),
            "seed": document["seed"],
            "state digest": document["state_digest"],
        },
    )
    rows = score_rows(document["scores"], task_names(settings))
    if rows:
        show_table("Scores on the test splits", ("measured", "on", "accuracy ", "macro-F1 "), rows)
    else:
        show_line("Nothing was measured yet")
    parts = {"component": document["components"], "object": document["objects"]}
    show_table(
        "Parts",
        ("name", "kind", "tensors ", "bytes ", "sha256"),
        [
            (
                name,
                kind,
                str(len(part["tensors"])),
                shown_bytes(part.get("bytes", part["tensor_bytes"])),
                part.get("sha256", ""),
            )
            for kind, found in parts.items()
            for name, part in found.items()
            if part["tensors"]
        ],
        spare=("sha256",),
    )
    if tensors:
        show_table(
            "Tensors",
            ("component", "tensor", "type", "shape", "bytes "),
            [
                (name, tensor, t["dtype"], str(t["shape"]), shown_bytes(t["bytes"]))
                for found in parts.values()
                for name, part in found.items()
                for tensor, t in part["tensors"].items()
            ],
        )
    show_values("Settings", settings)
    show_values("Environment", document["environment"])
    if document["lineage"] is not None:
        show_values("Lineage", document["lineage"])
    if not tensors:
        show_line("--tensors lists every tensor")
