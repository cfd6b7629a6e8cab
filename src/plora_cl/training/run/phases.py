"""How a run learns: stage by stage, each phase by phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from plora_cl.compute.finite import StepResult
from plora_cl.data.notes import largest_share
from plora_cl.data.task import Task
from plora_cl.errors import CheckpointError
from plora_cl.state import Phase
from plora_cl.training.reporting import StepReport, TaskScore
from plora_cl.training.run.loop import train_epoch
from plora_cl.training.run.run import Run


def learn(run: Run) -> None:
    """Learn every task, from the position of the cursor on.

    Raises:
        RunStoppedError: That was requested; everything done so far is saved or can be redone.
        TrainingError: A loss, a penalty, a gradient, a weight or a logit is not finite.
        MethodError: A method cannot have an effect.
        DataError: The tokens of a task changed while it was learned.
        CheckpointError: The last checkpoint could not be written.
        ExperimentMovedError: The folder no longer belongs to the run; also raised by `Run.save`.
    """
    with run.in_effect():
        parts = run.components
        if parts.optimization is None:
            parts.begin_task()
        for note in parts.methods.notes(parts.model):
            run.reporter.message(f"Note: {note}")
        _finish_stage(run)
        while not parts.finished:
            row = parts.cursor.task
            if parts.matrix.scores(row, row + 1) is None:  # appended since this task was learned
                run.go_through(
                    run.measurement.test(row, parts.tasks[row + 1], step=parts.cursor.step)
                )
            parts.cursor.next_task()
            parts.begin_task()
            _finish_stage(run)
        _make_last_save_durable(run)


def _finish_stage(run: Run) -> None:
    parts, cursor, stage = run.components, run.components.cursor, run.components.stage
    of_epoch = -(-len(stage.stream) // parts.plan.accumulation)
    done = cursor.epoch * of_epoch + cursor.batch // parts.plan.accumulation
    is_trained = cursor.phase not in (Phase.PREPARE, Phase.TRAIN, Phase.VALIDATE)
    left = 0 if is_trained else max(parts.plan.epochs * of_epoch - done, 0)
    index = parts.stages.index(stage)
    run.reporter.task_started(index, len(parts.stages), stage.name, left, done)
    while cursor.phase is not Phase.DONE:
        with parts.costs.measure(stage.name, cursor.phase.value):
            _ACTIONS[cursor.phase](run)
        run.checkpointer.settle()  # the next phase changes what this one has saved


def _prepare(run: Run) -> None:
    parts = run.components
    if parts.cursor.step == 0:
        run.go_through(run.measurement.untrained(parts.tasks))
    had_units = run.go_through(parts.methods.start_task(parts.model, parts.task))
    parts.cursor.phase = Phase.TRAIN
    if had_units:
        run.save()


def _train(run: Run) -> None:
    parts = run.components
    assert parts.optimization is not None
    if parts.cursor.epoch >= parts.plan.epochs:  # fewer are planned than when the task began
        _end_training(run)
        return
    optimizer = parts.optimization.optimizer
    # A save between two steps holds weights and moments, which the optimizer alone changes
    with optimizer.register_step_pre_hook(lambda *_: run.checkpointer.settle()):
        train_epoch(
            parts.model,
            parts.optimization,
            parts.methods,
            parts.stream,
            parts.cursor,
            accumulation=parts.plan.accumulation,
            after_batch=partial(_after_batch, run),
            after_step=partial(_after_step, run),
        )


def _after_batch(run: Run) -> None:
    if run.stop.requested:
        run.save_in_training()
        run.checkpointer.settle()  # at once: the next batch adds to the gradients that were saved
        run.stop.check()


def _after_step(run: Run, result: StepResult) -> None:
    parts = run.components
    cursor, stage = parts.cursor, parts.stage
    epoch, batch = parts.last_done()
    parts.loss = result.loss
    parts.costs.count(stage.name, steps=1, examples=result.examples)
    position = {"step": cursor.step, "task": cursor.task, "epoch": epoch, "batch": batch}
    parts.run_log.append({"event": "step", **position, **result.record()})
    run.reporter.step(
        StepReport(
            task=cursor.task,
            epoch=epoch,
            epochs=parts.plan.epochs,
            batch=batch,
            batches=len(stage.stream),
            loss=result.loss,
            examples=result.examples,
        )
    )
    epoch_ended = cursor.batch == 0
    if epoch_ended:
        cursor.phase = parts.phase_after_batch()
    stopping = run.stop.requested
    if epoch_ended or stopping or run.checkpointer.due(cursor.step):
        run.save_in_training()
    if stopping:
        run.stop.check()


def _validate(run: Run) -> None:
    parts = run.components
    found = run.go_through(run.measurement.validate(parts.stage.tasks, parts.cursor))
    accuracy, f1 = (sum(scores) / len(scores) for scores in zip(*found, strict=True))
    stop = parts.early_stopping.update(accuracy, f1, parts.model.trainable())
    parts.under_way.clear()
    if stop or parts.cursor.epoch >= parts.plan.epochs:
        _end_training(run)
    else:
        parts.cursor.phase = Phase.TRAIN


def _end_training(run: Run) -> None:
    """Continue with the weights of the best epoch, if validation has chosen one."""
    parts, stopping = run.components, run.components.early_stopping
    if stopping.has_chosen:
        batch = parts.cursor.batch if parts.cursor.phase is Phase.TRAIN else 0
        verdict = stopping.verdict(parts.cursor.epoch, parts.plan.epochs, batch)
        run.reporter.message(f"{parts.stage.name}: {verdict}")
        stopping.restore_best(parts.model.trainable())
    parts.cursor.phase = Phase.CONSOLIDATE


def _consolidate(run: Run) -> None:
    parts = run.components
    cursor = parts.cursor
    parts.model.eval()  # once, instead of for each unit
    run.go_through(parts.methods.finish_task(parts.model, parts.task))
    run.go_through(run.measurement.learn_routes(parts.tasks[: cursor.task + 1]))
    report = parts.methods.report(parts.model)
    parts.run_log.append(
        {"event": "methods", "step": cursor.step, "task": cursor.task, "report": report}
    )
    cursor.phase = Phase.EVALUATE
    run.save()


def _evaluate(run: Run) -> None:
    parts = run.components
    row = parts.cursor.task
    for task in parts.tasks[: row + 2]:  # one more: forward transfer to the next task
        run.go_through(run.measurement.test(row, task, step=parts.cursor.step))
    for task in parts.stage.tasks:
        task.require_unchanged()
    parts.cursor.phase = Phase.DONE
    run.save()
    tasks = parts.tasks[: row + 1]
    run.reporter.task_finished({task.name: _score(run, row, task) for task in tasks})


def _score(run: Run, row: int, task: Task) -> TaskScore:
    accuracy, f1 = run.components.matrix.scores(row, task.index) or (None, None)
    return TaskScore(accuracy, f1, largest_share(task.test.labels))


_ACTIONS: Mapping[Phase, Callable[[Run], None]] = {
    Phase.PREPARE: _prepare,
    Phase.TRAIN: _train,
    Phase.VALIDATE: _validate,
    Phase.CONSOLIDATE: _consolidate,
    Phase.EVALUATE: _evaluate,
}


def _make_last_save_durable(run: Run) -> None:
    try:
        run.checkpointer.flush()
    except CheckpointError:
        run.save()
        run.checkpointer.flush()
