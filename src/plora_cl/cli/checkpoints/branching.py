"""``plora-cl checkpoints fork``, ``export`` and ``import``."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plora_cl.checkpoint.disk.errors import naming
from plora_cl.checkpoint.disk.lock import ExperimentLock
from plora_cl.checkpoint.format.manifest import Manifest
from plora_cl.checkpoint.snapshot.compatibility import (
    SettingChange,
    require_acceptable,
    require_unchanged,
)
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools import fork as forking
from plora_cl.checkpoint.tools.bundle import export_bundle, import_bundle
from plora_cl.checkpoint.tools.fork import accepted_by_fork, settings_by_fork
from plora_cl.cli.checkpoints.command import command, locate
from plora_cl.cli.command import Answer, argument
from plora_cl.cli.train.resume_path import resume_hint
from plora_cl.config.assignment import assigned, split_assignment
from plora_cl.config.precedence import dump, validate
from plora_cl.config.record import manifest_with_settings
from plora_cl.config.schema import EXAMPLE_SETTINGS, Settings, recordable, shape_settings
from plora_cl.errors import CheckpointError, SettingsError
from plora_cl.methods.registry import techniques
from plora_cl.setting_types import Refers, referring
from plora_cl.training.setting_changes import earlier_to_fork, is_finished, setting_changes
from plora_cl.wording import shown_bytes

_NOT_IN_MANIFEST = frozenset(
    {"model_name", "max_length", "seed", "early_stopping_metric", *EXAMPLE_SETTINGS}
    | {"hold_out_validation", "measure_validation", "early_stopping_patience"}
)
"""Settings whose effect shows only in weights, texts and state."""

_FORKED_AFRESH = "a fork resumes what was learned; start a new run to change them"


@command(
    "fork",
    "Make a new experiment that resumes from a checkpoint, with other settings if you like.",
    argument(
        "source",
        metavar="FOLDER[@CHECKPOINT.pt]",
        help="by default the one that the run would resume from",
    ),
    argument("folder", metavar="NEW-FOLDER", type=Path),
    argument(
        "--set",
        dest="assignments",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="change a setting; the value is YAML (repeatable)",
    ),
    examples=["experiments/a experiments/b --set lambda_ewc=1000"],
)
def fork(arguments: Namespace) -> Answer:
    """Fork a checkpoint."""
    source = locate(arguments.source).checkpoint
    manifest = manifest_with_settings(source)
    folder = arguments.folder.absolute()
    values = {**manifest.settings, **settings_by_fork(source)}
    settings = _settings(values, folder, arguments.assignments)
    accepted = _acceptable(source, manifest, settings)
    with ExperimentLock.acquire(folder) as lock:
        made = forking.fork(
            source,
            folder,
            settings=recordable(settings),
            accepted=[change.difference for change in accepted],
            config=dump(settings),
            filesystem=lock.filesystem,
        )
    return Answer(
        {
            "checkpoint": str(made.entry.path),
            "parent": str(source.path),
            "changed": [change.key for change in accepted],
            "linked_objects": made.linked,
            "copied_object_bytes": made.copied_bytes,
        },
        [
            f"Forked {source.path} to {made.entry.path}",
            f"Objects: {made.linked} shared by hard links, {shown_bytes(made.copied_bytes)} copied",
            *(f"Changed from here on: {change.difference}" for change in accepted),
            resume_hint(folder),
        ],
    )


@command(
    "export",
    "Write a checkpoint with all it needs to one file, to move it to another machine.",
    argument("source", metavar="CHECKPOINT", help="FOLDER[@CHECKPOINT.pt] or a file"),
    argument("--out", metavar="FILE", type=Path, required=True, help="a new file"),
    argument("--overwrite", action="store_true", help="replace FILE if it exists"),
    examples=["experiments/a --out a.tar"],
)
def export(arguments: Namespace) -> Answer:
    """Export a checkpoint."""
    source = locate(arguments.source).checkpoint
    manifest = manifest_with_settings(source)
    if accepted_by_fork(source.path.parent.parent, source):
        raise CheckpointError(
            f"{source.path} was forked to resume with other settings, and has not yet: resume "
            "it first, or export the checkpoint it was forked from"
        )
    size = export_bundle(
        source,
        arguments.out,
        config=dump(validate(manifest.settings)),
        overwrite=arguments.overwrite,
    )
    return Answer(
        {"checkpoint": str(source.path), "file": str(arguments.out), "bytes": size},
        [f"Exported {source.path} to {arguments.out} ({shown_bytes(size)})"],
    )


@command(
    "import",
    "Make a new experiment of a file that `export` wrote; every byte is verified.",
    argument("file", metavar="FILE", type=Path),
    argument("folder", metavar="NEW-FOLDER", type=Path),
    examples=["a.tar experiments/b"],
)
def import_(arguments: Namespace) -> Answer:
    """Import an exported checkpoint."""
    folder = arguments.folder.absolute()

    def config(manifest: Manifest) -> str:
        # A run writes nowhere but into the new folder and the user's own cache.
        return dump(_settings({**manifest.settings, "cache_dir": None}, folder, []))

    with ExperimentLock.acquire(folder) as lock:
        entry = import_bundle(arguments.file, folder, config=config, filesystem=lock.filesystem)
    settings = validate(CheckpointStore(entry.path.parent).manifest(entry).settings)
    # What a run loads that is not in its checkpoint.
    idle = {name for t in techniques() if not t.is_on(settings) for name in t.setting_names}
    names = {"tasks", *referring(type(settings), Refers.MODEL)} - idle
    named = settings.model_dump(mode="json", include=names)
    return Answer(
        {"checkpoint": str(entry.path), "file": str(arguments.file), "named": named},
        [
            f"Imported {entry.path}",
            "Resuming loads what its settings name; change it in config.yaml if you do not "
            "trust it:",
            *(f"  {name}: {json.dumps(value)}" for name, value in named.items()),
            resume_hint(folder),
        ],
    )


def _acceptable(
    source: CheckpointEntry, manifest: Manifest, settings: Settings
) -> list[SettingChange]:
    """Return the changes of what is computed from here on, as resuming the fork will find them.

    Raises:
        IncompatibleCheckpointError: The fork could not be resumed.
    """
    found = setting_changes(manifest.settings, manifest.cursor, settings)
    accepted = _require_possible(found)
    if any(change.key in _NOT_IN_MANIFEST for change in found):
        found = _with_contents(source, settings)
        accepted = _require_possible(found)
    if is_finished(manifest.cursor, len(settings.tasks)):
        require_unchanged(found, way_out=lambda refused: earlier_to_fork(source, settings, refused))
    return accepted


def _require_possible(changes: Sequence[SettingChange]) -> list[SettingChange]:
    return require_acceptable(
        changes, accept=True, shape_settings=shape_settings(), way_out=_FORKED_AFRESH
    )


def _with_contents(source: CheckpointEntry, settings: Settings) -> list[SettingChange]:
    """Return all differences except those of the machine; weights and texts are compared too."""
    # Takes seconds: not needed for most changes.
    from plora_cl.checkpoint.snapshot.codec import decode
    from plora_cl.training.build import build_run
    from plora_cl.training.reporting import Reporter
    from plora_cl.training.resuming import ENVIRONMENT, differences
    from plora_cl.training.stopping import StopRequest

    run = build_run(settings, Reporter(), StopRequest())
    with naming(source.path):
        snapshot = decode(CheckpointStore(source.path.parent).read(source))
    found = differences(snapshot, run, settings)
    return [change for change in found if not change.key.startswith(ENVIRONMENT)]


def _settings(saved: Mapping[str, Any], folder: Path, assignments: Sequence[str]) -> Settings:
    problems: list[str] = []
    values = dict(saved)
    for path, value in filter(None, [split_assignment(text, problems) for text in assignments]):
        head = path.partition(".")[0]
        if head in ("experiment_dir", "experiment_name"):
            problems.append(f"--set: {path}: the new folder is given as NEW-FOLDER")
        else:
            values |= assigned(values, path, value, problems)
    if problems:
        raise SettingsError(problems)
    here = {"experiment_dir": str(folder.parent), "experiment_name": folder.name}
    return validate({**values, **here}, source="--set" if assignments else "checkpoint")
