"""From a run that was begun or resumed to its results."""

from __future__ import annotations

from contextlib import suppress

from plora_cl.checkpoint.store.output_files import recording, write_output
from plora_cl.checkpoint.store.store import CheckpointEntry
from plora_cl.config.locations import RECORD
from plora_cl.config.precedence import dump
from plora_cl.config.record import record
from plora_cl.config.schema import Settings, experiment_folder
from plora_cl.errors import CheckpointError
from plora_cl.evaluation.measurement import FinalScores
from plora_cl.state import StateDict
from plora_cl.training.publishing import publish
from plora_cl.training.reporting import Reporter
from plora_cl.training.run.phases import learn
from plora_cl.training.run.run import Run
from plora_cl.training.task_notes import remedies_for_skew, tell_of_tasks


def finish_run(run: Run, settings: Settings, *, resumed: bool) -> StateDict:
    """Learn what is left, publish the results and return them.

    Args:
        run: A new one, or one that was resumed.
        settings: Those of ``run``.
        resumed: The run log continues; otherwise it starts afresh.

    Raises:
        OutputError: The disk refused a file other than a checkpoint.

    Further errors are those of `learn` and of `publish`.
    """
    parts, folder = run.components, experiment_folder(settings)
    text = record(dump(settings), branch=run.checkpointer.trajectory.branch)
    write_output(folder / RECORD, text, run.disk)
    if not resumed:
        tell_of_tasks(parts.tasks, run.reporter, remedies_for_skew(settings))
        with recording(parts.run_log.path):
            parts.run_log.clear()
    if parts.finished:
        count = len(parts.tasks)
        learned = "its task is" if count == 1 else f"all {count} tasks are"
        run.reporter.message(f"{folder}: {learned} already learned; nothing to train")
    results = publish(run, folder, _scores_at_the_end(run, settings))
    run.forget_scores()
    return results


def _scores_at_the_end(run: Run, settings: Settings) -> FinalScores:
    """Learn what is left, and return the scores that are published."""
    try:
        if not run.components.finished:
            learn(run)
        return run.final_scores(validation=settings.measure_validation)
    except BaseException:
        # The last save is worth more than a fast exit
        try:
            run.checkpointer.flush()
        except CheckpointError:
            _warn_of_loss(run.checkpointer.newest, run.reporter)
        with suppress(OSError):
            run.sync_log()
        raise


def _warn_of_loss(newest: CheckpointEntry | None, reporter: Reporter) -> None:
    start = "begins anew" if newest is None else f"resumes from {newest.path}"
    reporter.message(
        "Warning: that save was the last one, and what was learned since the one before is "
        f"lost; the next start {start}"
    )
