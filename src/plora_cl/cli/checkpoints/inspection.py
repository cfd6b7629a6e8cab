"""``plora-cl checkpoints inspect``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from plora_cl.checkpoint.disk.errors import naming, reading
from plora_cl.checkpoint.format.inspection import (
    TensorInfo,
    object_tensors,
    read_content,
    tensors_in,
)
from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.format.sealed_zip import verified_manifest_of
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.checkpoint.tools.new_experiment import lineage_of
from plora_cl.cli.checkpoints.command import RESUMED_FROM, command, locate, target
from plora_cl.cli.checkpoints.contents import score_rows, standing
from plora_cl.cli.command import Answer, argument
from plora_cl.cli.tables import Table
from plora_cl.config.consistency import effectless
from plora_cl.config.precedence import validate
from plora_cl.errors import SettingsError
from plora_cl.folders.recorded import scores, task_names
from plora_cl.wording import counted, shown_bytes


@command(
    "inspect",
    "Show what a checkpoint is: where its run stands, the scores so far, its components and "
    "objects, the settings and the environment it was made with, and where its experiment "
    "comes from. Every byte of the checkpoint file is verified.",
    target(RESUMED_FROM),
    argument("--tensors", action="store_true", help="list every tensor, too"),
    examples=["experiments/demo", "experiments/demo --json"],
    ok="it was shown",
    found="it, or the head of one of its objects, is damaged",
)
def inspect(arguments: Namespace) -> Answer:
    """Show one checkpoint."""
    asked = locate(arguments.target)
    store, entry = asked.store, asked.checkpoint
    with store.opened(entry) as file:
        manifest = verified_manifest_of(file)
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
        "scores": scores(content["state"] if manifest.settings else {}),
        "components": {name: _tensors(tensors_in(part)) for name, part in content["state"].items()},
        "objects": {
            name: _object(store, manifest.objects[name]) for name in sorted(manifest.objects)
        },
        "settings": dict(manifest.settings),
        **({} if manifest.settings else {"identity": content.get("identity", {})}),
        "environment": content.get("environment", {}),
        "lineage": lineage_of(store.directory.parent),
    }
    return Answer(document, _shown(document, tensors=arguments.tensors))


def _object(store: CheckpointStore, ref: ObjectRef) -> dict[str, Any]:
    path = store.objects.path(ref)
    with reading(path), naming(path), store.filesystem.open(path) as file:
        return {**ref.to_plain(), **_tensors(object_tensors(file))}


def _tensors(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    return {
        "tensor_bytes": sum(tensor.bytes for tensor in tensors.values()),
        "tensors": {name: asdict(tensor) for name, tensor in tensors.items()},
    }


def _shown(document: dict[str, Any], *, tensors: bool) -> Iterator[str | Table]:
    settings, cursor = document["settings"], document["cursor"]
    facts = {
        "stands at": standing(cursor, settings),
        "step": cursor["step"],
        "trained tasks": ", ".join(document["trained_tasks"]) or "-",
        "loss": document["loss"],
        "size": shown_bytes(document["file_bytes"]),
        "seed": document["seed"],
        "state digest": document["state_digest"],
    }
    yield Table.of_values(document["path"], facts)
    if measured := score_rows(document["scores"], task_names(settings)):
        numbers = ("accuracy", "macro-F1")
        yield Table("Scores on the test splits", ("measured", "on", *numbers), measured, numbers)
    else:
        yield "Nothing was measured yet"
    parts = [
        (kind, name, part)
        for kind in ("component", "object")
        for name, part in document[f"{kind}s"].items()
        if part["tensors"]
    ]
    rows = [
        (
            *(name, kind, str(len(part["tensors"]))),
            shown_bytes(part.get("bytes", part["tensor_bytes"])),
            part.get("sha256", ""),
        )
        for kind, name, part in parts
    ]
    columns = ("name", "kind", "tensors", "bytes", "sha256")
    yield Table("Parts", columns, rows, ("tensors", "bytes"), spare=["sha256"])
    if tensors:
        rows = [
            (name, tensor, t["dtype"], str([*t["shape"]]), shown_bytes(t["bytes"]))
            for _, name, part in parts
            for tensor, t in part["tensors"].items()
        ]
        columns = ("component", "tensor", "type", "shape", "bytes")
        yield Table("Tensors", columns, rows, ["bytes"])
    idle = _without_effect(settings)
    shown = {**document, "settings": {k: v for k, v in settings.items() if k not in idle}}
    for title in ("settings", "identity", "environment", "lineage"):
        if shown.get(title):
            yield Table.of_values(title.capitalize(), shown[title])
    if idle:
        yield f"{counted(len(idle), 'setting')} without effect hidden; --json has them"
    if not tensors:
        yield "--tensors lists every tensor"


def _without_effect(settings: Mapping[str, Any]) -> Collection[str]:
    try:
        return settings.keys() & effectless(validate(settings))
    except SettingsError:
        return ()  # of a package that is not installed, or of a file that no run has written
