"""``plora-cl checkpoints fork``, ``export`` and ``import``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from plora_cl.checkpoint.bundle import export_bundle, import_bundle
from plora_cl.checkpoint.manifest import Manifest
from plora_cl.checkpoint.store import CheckpointEntry, CheckpointStore
from plora_cl.cli.checkpoints.command import locate, resume_hint
from plora_cl.cli.exit import exit_code
from plora_cl.cli.parser import Parser
from plora_cl.config.assignment import assign, split_assignment
from plora_cl.config.schema import SHAPE_SETTINGS, Settings, completed, identity
from plora_cl.config.sources import dump, validate
from plora_cl.errors import CorruptCheckpointError, SettingsError

DAMAGED = 1

_FIXED = SHAPE_SETTINGS | {"seed", "max_length", "max_train_examples", "max_eval_examples"}
_STATE = frozenset(
    {"use_ewc", "ewc_mode", "use_orthogonal", "use_replay", "replay_tuning", "precision"}
)
_STEPS = frozenset({"batch_size", "gradient_accumulation_steps"})
_OPTIMIZER = ("learning_rate", "weight_decay")
_SOURCES = ("model_name", "tasks", "device")


def fork_main(argv: Sequence[str]) -> int:
    """Run ``fork`` with ``argv``; return the exit code."""
    parser = _parser(
        "fork",
        "Make a new experiment that goes on from a checkpoint, with other settings if you like.",
        "plora-cl checkpoints fork experiments/a@checkpoint_task0_epoch1_batch74.pt experiments/b "
        "--set lambda_ewc=1000",
    )
    parser.add_argument(
        "source",
        metavar="FOLDER[@CHECKPOINT.pt]",
        help="by default the one that the run would be resumed from",
    )
    parser.add_argument("folder", metavar="NEW-FOLDER", type=Path)
    parser.add_argument(
        "--set",
        dest="assignments",
        metavar="PATH=VALUE",
        action="append",
        default=[],
        help="change a setting; the value is YAML (repeatable)",
    )
    arguments = parser.parse_args(argv)
    return _exit_code(lambda: _fork(arguments))


def export_main(argv: Sequence[str]) -> int:
    """Run ``export`` with ``argv``; return the exit code."""
    parser = _parser(
        "export",
        "Write a checkpoint with all it needs to one file, to move it to another machine.",
        "plora-cl checkpoints export experiments/a --out a.tar",
    )
    parser.add_argument("source", metavar="CHECKPOINT", help="FOLDER[@CHECKPOINT.pt] or a file")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="a new file")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it is there")
    arguments = parser.parse_args(argv)
    return _exit_code(lambda: _export(arguments))


def import_main(argv: Sequence[str]) -> int:
    """Run ``import`` with ``argv``; return the exit code."""
    parser = _parser(
        "import",
        "Make a new experiment of a file that `export` wrote; every byte is verified.",
        "plora-cl checkpoints import a.tar experiments/b",
    )
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument("folder", metavar="NEW-FOLDER", type=Path)
    arguments = parser.parse_args(argv)
    return _exit_code(lambda: _import(arguments))


def _parser(command: str, description: str, example: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"plora-cl checkpoints {command}",
        description=description,
        epilog=f"example:\n  {example}\n\nexit codes:\n  0  done\n  1  damage found\n  2  refused",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    return parser


def _exit_code(command: Callable[[], None]) -> int:
    damaged = False

    def noting_damage() -> None:
        nonlocal damaged
        try:
            command()
        except CorruptCheckpointError:
            damaged = True
            raise

    code = exit_code(noting_damage)
    return DAMAGED if damaged else code


def _fork(arguments: argparse.Namespace) -> None:
    source = _source(arguments.source)
    manifest = CheckpointStore(source.path.parent).manifest(source)
    folder = arguments.folder.absolute()
    settings = _settings(manifest, folder, arguments.assignments)
    changed = _changed(manifest, settings)
    _require_possible(manifest, changed)

    from plora_cl.checkpoint.fork import fork  # imports torch: not needed to refuse

    made = fork(
        source,
        folder,
        settings=settings.model_dump(mode="json"),
        identity=identity(settings),
        config=dump(settings),
    )
    notes = _delayed(manifest, changed)
    _show(
        arguments,
        {
            "checkpoint": str(made.entry.path),
            "parent": str(source.path),
            "changed": sorted(changed),
            "linked_objects": made.linked,
            "copied_object_bytes": made.copied_bytes,
            "notes": notes,
        },
        [
            f"Forked {source.path} to {made.entry.path}",
            f"Objects: {made.linked} shared by hard links, {made.copied_bytes} bytes copied",
            *(f"Note: {note}" for note in notes),
            resume_hint(folder),
        ],
    )


def _export(arguments: argparse.Namespace) -> None:
    source = _source(arguments.source)
    manifest = CheckpointStore(source.path.parent).manifest(source)
    size = export_bundle(
        source,
        arguments.out,
        config=dump(validate(manifest.settings)),
        overwrite=arguments.overwrite,
    )
    _show(
        arguments,
        {"checkpoint": str(source.path), "file": str(arguments.out), "bytes": size},
        [f"Exported {source.path} to {arguments.out} ({size} bytes)"],
    )


def _import(arguments: argparse.Namespace) -> None:
    folder = arguments.folder.absolute()
    entry = import_bundle(
        arguments.file, folder, config=lambda manifest: dump(_imported(manifest, folder))
    )
    named = _named(validate(CheckpointStore(entry.path.parent).manifest(entry).settings))
    _show(
        arguments,
        {"checkpoint": str(entry.path), "file": str(arguments.file), "named": named},
        [
            f"Imported {entry.path}",
            "Going on loads what its settings name; change it in config.yaml if you do not "
            "trust it:",
            *(f"  {name}: {json.dumps(value)}" for name, value in named.items()),
            resume_hint(folder),
        ],
    )


def _imported(manifest: Manifest, folder: Path) -> Settings:
    """Return settings that write nowhere but into ``folder`` and the user's own cache."""
    return _settings(
        replace(manifest, settings={**manifest.settings, "cache_dir": None}), folder, []
    )


def _named(settings: Settings) -> dict[str, Any]:
    """Return what a run loads that is not in its checkpoint; `json.dumps` makes it printable."""
    names = ["model_name", "tasks", *(["generation_model"] if settings.use_replay else [])]
    return settings.model_dump(mode="json", include=set(names))


def _show(arguments: argparse.Namespace, plain: dict[str, Any], lines: list[str]) -> None:
    print(json.dumps(plain, indent=2) if arguments.json else "\n".join(lines), file=sys.stdout)


def _source(text: str) -> CheckpointEntry:
    return locate(text).checkpoint


def _settings(manifest: Manifest, folder: Path, assignments: Sequence[str]) -> Settings:
    problems: list[str] = []
    values = dict(manifest.settings)
    for path, value in filter(None, [split_assignment(text, problems) for text in assignments]):
        head = path.partition(".")[0]
        if head in ("experiment_dir", "experiment_name"):
            problems.append(f"--set: {path}: the new folder is given as NEW-FOLDER")
            continue
        try:
            values[head] = assign(values.get(head), path, value)
        except ValueError as error:
            problems.append(f"--set: {path}: {error}")
    if problems:
        raise SettingsError(problems)
    here = {"experiment_dir": str(folder.parent), "experiment_name": folder.name}
    return validate({**values, **here}, source="--set" if assignments else "checkpoint")


def _changed(manifest: Manifest, settings: Settings) -> set[str]:
    plain = settings.model_dump(mode="json", include={*identity(settings), *_SOURCES})
    saved = completed(manifest.settings)
    return {name for name in plain if saved[name] != plain[name]}


def _require_possible(manifest: Manifest, changed: set[str]) -> None:
    cursor = manifest.cursor
    problems = [
        f"--set: {name}: decides the shapes, the data or the random numbers of what was already "
        "learned; start a new run to change it"
        for name in sorted(changed & _FIXED)
    ]
    problems += [
        f"--set: {name}: decides what the state of the checkpoint consists of; start a new run to "
        "change it"
        for name in sorted(changed & _STATE)
    ]
    if cursor["phase"] != "done":
        problems += [
            f"--set: {name}: the checkpoint lies inside a task, whose steps it counts; fork the "
            "last checkpoint of a task to change it"
            for name in sorted(changed & _STEPS)
        ]
    if problems:
        raise SettingsError(problems)


def _delayed(manifest: Manifest, changed: set[str]) -> list[str]:
    if manifest.cursor["phase"] == "done":
        return []
    return [
        f"{name} applies from the next task on: the optimizer of the present one keeps its own"
        for name in _OPTIMIZER
        if name in changed
    ]
