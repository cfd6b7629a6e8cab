"""One more task for a finished experiment.

The task is learned in a working folder beside the experiment, which is a fork of its last
checkpoint. Only when it was learned, and nothing fell by more than was tolerated, does the
experiment take over what is new: objects, run log, settings, checkpoints and results, in this order
and each by one rename. A process that is killed before leaves the experiment as it was, or with
settings and checkpoints that resume to the same end; the same command continues.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plora_cl.checkpoint.disk.filesystem import Filesystem
from plora_cl.checkpoint.disk.lock import ExperimentLock
from plora_cl.checkpoint.format.manifest import Manifest
from plora_cl.checkpoint.store.hard_links import link_verified
from plora_cl.checkpoint.store.output_files import RESULTS, write_output
from plora_cl.checkpoint.store.run_log import RUN_LOG
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.fork import fork
from plora_cl.checkpoint.tools.new_experiment import lineage_of, put
from plora_cl.checkpoint.tools.verification import resume_point
from plora_cl.config.locations import RECORD, found_again
from plora_cl.config.precedence import dump, validate
from plora_cl.config.record import manifest_with_settings, record
from plora_cl.config.schema import Settings, completed, recordable
from plora_cl.errors import (
    CheckpointNotFoundError,
    IncompatibleCheckpointError,
    SettingsError,
    TrainingError,
)
from plora_cl.state import StateDict
from plora_cl.training.reporting import Reporter
from plora_cl.training.setting_changes import is_finished
from plora_cl.training.stopping import StopRequest
from plora_cl.training.trainer import CLTrainer

_SUFFIX = ".adding"


@dataclass(frozen=True, slots=True)
class Added:
    """What came of a new task.

    Attributes:
        name: Of the task.
        accuracy: Its accuracy on its test split, in [0, 1].
        changes: By earlier task its accuracy before and after.
        results: What ``final_results.json`` holds now.
    """

    name: str
    accuracy: float
    changes: Mapping[str, tuple[float, float]]
    results: StateDict


def add_task(
    folder: str | Path,
    task: str | Mapping[str, Any],
    *,
    tolerance: float | None = None,
    accept_changes: bool = False,
    reporter: Reporter | None = None,
    stop: StopRequest | None = None,
) -> Added:
    """Let a finished experiment learn one more task.

    Earlier tasks are measured again wherever their scores may have changed: because weights that
    they use did, or because the machine or a library did, which ``accept_changes`` has to allow.

    Args:
        folder: Of the experiment.
        task: The task, as an entry of the setting ``tasks``.
        tolerance: Most that the accuracy of an earlier task may fall, in [0, 1]; with a larger
            fall the experiment stays as it was. None accepts any.
        accept_changes: Continue although data, machine or libraries differ from those in the
            checkpoint.
        reporter: Receives the progress.
        stop: Polled between units of work.

    Raises:
        TrainingError: An earlier task fell by more than ``tolerance``; nothing was changed.
        CheckpointNotFoundError: There is no experiment.
        SettingsError: It is not finished, has this task already, or learns its tasks jointly.
        IncompatibleCheckpointError: Something differs that was not accepted.
        RunStoppedError: That was requested; the same call continues.
    """
    if tolerance is not None and not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance is {tolerance}; expected a number in [0, 1]")
    home = Path(folder).absolute()
    with ExperimentLock.acquire(home) as lock:
        source, manifest = _finished(home)
        work = home.with_name(home.name + _SUFFIX)
        settings = _with_task(manifest, task, home, work)
        began = _begin(source, work, settings)
        trainer = CLTrainer.from_settings(settings, reporter=reporter, stop=stop)
        try:
            results = trainer.train_sequence(resume=True, accept_changes=accept_changes)
        except IncompatibleCheckpointError:
            if began:
                shutil.rmtree(work)  # nothing was learned in it
            raise
        added = _compared(results)
        _require_within(tolerance, added, home, work)
        _take_over(work, home, settings, lock.filesystem)
        shutil.rmtree(work)
    return added


def _finished(home: Path) -> tuple[CheckpointEntry, Manifest]:
    """Return the last checkpoint of a finished experiment, and its manifest."""
    source = resume_point(CheckpointStore(home / "checkpoints"))
    if source is None:
        raise CheckpointNotFoundError(f"no experiment in {home}: it has no checkpoint")
    manifest = manifest_with_settings(source)
    tasks = manifest.settings["tasks"]
    if not is_finished(manifest.cursor, len(tasks)) and not _is_taken_over(home):
        raise SettingsError(
            [f"{home}: it has not learned all of its {len(tasks)} tasks; resume it first"]
        )
    return source, manifest


def _is_taken_over(home: Path) -> bool:
    """Tell whether an earlier call was killed while the experiment took over what is new."""
    return lineage_of(home.with_name(home.name + _SUFFIX)) is not None


def _with_task(
    manifest: Manifest, task: str | Mapping[str, Any], home: Path, work: Path
) -> Settings:
    saved = found_again(completed(manifest.settings), home)
    entry = str(Path(task).absolute()) if isinstance(task, str) and Path(task).is_dir() else task
    if saved["joint"]:
        raise SettingsError(["joint: the experiment learned its tasks together; start a new one"])
    tasks = [known for known in saved["tasks"] if known != entry]
    place = {"experiment_dir": str(work.parent), "experiment_name": work.name}
    return validate({**saved, **place, "tasks": [*tasks, entry]}, source=f"{home} with {task}")


def _begin(source: CheckpointEntry, work: Path, settings: Settings) -> bool:
    """Make the working folder, unless an earlier call did; return whether it is new."""
    if CheckpointStore(work / "checkpoints").entries():
        return False
    with ExperimentLock.acquire(work) as lock:
        fork(
            source,
            work,
            settings=recordable(settings),
            accepted=[],
            config=dump(settings),
            filesystem=lock.filesystem,
        )
    return True


def _compared(results: StateDict) -> Added:
    names = [task["name"] for task in results["tasks"]]
    before, after = results["accuracy_matrix"][-2:]
    changes = {name: (before[column], after[column]) for column, name in enumerate(names[:-1])}
    return Added(names[-1], after[-1], changes, results)


def _require_within(tolerance: float | None, added: Added, home: Path, work: Path) -> None:
    """Remove the working folder and refuse a fall of more than ``tolerance``."""
    if tolerance is None:
        return
    falls = [
        f"{name} {before:.3f} -> {after:.3f}"
        for name, (before, after) in added.changes.items()
        if before - after > tolerance
    ]
    if falls:
        shutil.rmtree(work)
        raise TrainingError(
            f"learning {added.name} lowered {', '.join(falls)}, by more than {tolerance:g}: "
            f"{home} stays as it was; use a larger tolerance, or settings that share less"
        )


def _take_over(work: Path, home: Path, settings: Settings, disk: Filesystem) -> None:
    """Let the experiment have what was learned in the working folder; may be called again."""
    theirs, own = CheckpointStore(work / "checkpoints"), CheckpointStore(home / "checkpoints", disk)
    put(disk, home / RUN_LOG, (work / RUN_LOG).read_bytes())
    entries = theirs.entries()
    branch = theirs.manifest(entries[-1]).trajectory.branch
    here = {"experiment_dir": str(home.parent), "experiment_name": home.name}
    text = record(dump(settings.model_copy(update=here)), branch=branch)
    write_output(home / RECORD, text, disk)
    for entry in entries:
        manifest = theirs.manifest(entry)
        for ref in manifest.refs:
            source, target = theirs.objects.path(ref), own.objects.path(ref)
            if not own.objects.has(ref) and not link_verified(disk, source, target, ref):
                put(disk, target, theirs.objects.get(ref))
        own.commit(entry.name, theirs.read(entry), manifest)
    for name in RESULTS:
        write_output(home / "results" / name, (work / "results" / name).read_bytes(), disk)
