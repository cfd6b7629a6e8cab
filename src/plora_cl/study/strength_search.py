"""Choosing settings on the first task of an order, by validation accuracy.

The learning rate is chosen on the first task alone. The strength of a penalty against forgetting
has no effect there, so it is chosen on that task cut in two by its classes. Trials that would
compute the same are run once. No trial uses a test score or a seed of the runs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from plora_cl.checkpoint.store.output_files import write_output
from plora_cl.config.consistency import effectless
from plora_cl.config.precedence import validate
from plora_cl.config.schema import Settings, recordable, settings_class
from plora_cl.data.sources.declaration import parse_task, spelled_out
from plora_cl.data.sources.entry import TaskEntry, task_name
from plora_cl.data.tokens.scan import scan
from plora_cl.errors import StudyError
from plora_cl.methods.registry import techniques
from plora_cl.setting_types import Refers, referring
from plora_cl.study.file import Tuning, tunable
from plora_cl.study.plan import PlannedRun
from plora_cl.study.records import Validation, validation
from plora_cl.study.run_folder import deciding_settings, results_of
from plora_cl.study.same_texts import check_same_sources
from plora_cl.technique import Technique

FOLDER, FILE = "tuning", "tuning.json"

_LEAST_CLASSES = 4

Key = tuple[str, str, str]
"""Method, order, variant."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A run that tries one value of one setting.

    Attributes:
        setting: Name of the setting.
        value: Value that is tried.
        run: The run. Methods whose trials would compute the same share it.
    """

    setting: str
    value: float
    run: PlannedRun


@dataclass(slots=True)
class Choice:
    """The state of tuning.

    Attributes:
        trials: Every trial, by method, order and variant, then in the order in which they run.
        measured: Measurements of finished trials, by the name of their run.
        values: Chosen settings, by method, order and variant.
        notes: Settings that could not be tuned, and why.
        complete: Whether every trial is done; if not, `values` are those of earlier stages.
    """

    trials: dict[Key, list[Trial]] = field(default_factory=dict)
    measured: dict[str, Validation] = field(default_factory=dict)
    values: dict[Key, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    complete: bool = True

    def runs(self) -> list[PlannedRun]:
        """Return the run of every trial, each once."""
        return _distinct(trial for trials in self.trials.values() for trial in trials)


def choose(
    runs: Sequence[PlannedRun],
    tuning: Tuning,
    folder: Path,
    work: Callable[[Sequence[PlannedRun]], None] | None = None,
) -> Choice:
    """Choose the first candidate of each setting that is within one standard error of the best.

    The error is that of an accuracy, ``sqrt(p (1 - p) / n)`` over the ``n`` validation texts of the
    best trial.

    Args:
        runs: Every run of the study, before tuning.
        tuning: Candidate values.
        folder: Folder of the study.
        work: Runs the trials that are not done yet; None uses only finished trials.

    Raises:
        StudyError: A trial has no result after ``work`` returned.
    """
    choice = Choice()
    keys = {(r.method, r.order, r.variant): r for r in runs if not r.is_floor}
    for setting in tunable():
        candidates = getattr(tuning, setting, None)
        if candidates is None:
            continue
        stage: dict[Key, list[Trial]] = {}
        for key, run in keys.items():
            settings = run.settings.model_copy(update=choice.values.get(key, {}))
            weighed = _weighed_by(setting)
            if weighed is not None and not weighed.is_on(settings):
                continue
            if setting in run.own:
                choice.notes.append(
                    f"{setting} keeps {getattr(settings, setting)} in "
                    f"{' '.join(filter(None, (run.method, run.variant)))}: the file gives it there"
                )
                continue
            stage[key] = _trials(settings, setting, candidates, tuning.seed, folder, choice.notes)
        for key, trials in stage.items():
            choice.trials.setdefault(key, []).extend(trials)
        made = _distinct(trial for trials in stage.values() for trial in trials)
        if work is not None:
            work(made)
        missing, damaged = _measure(made, choice)
        if missing or damaged:
            choice.complete = False
            choice.notes += damaged
            if work is not None:
                raise StudyError(_cannot_choose(setting, missing, damaged, folder / FOLDER))
            return choice
        _take_best(stage, choice)
    return choice


def write_choice(choice: Choice, folder: Path) -> None:
    """Write ``tuning.json``: every trial, the chosen values, and the notes."""
    content = {
        "chosen": [
            {"method": m, "order": o, "variant": v, **choice.values.get((m, o, v), {})}
            for m, o, v in choice.trials
        ],
        "trials": [
            {
                "method": m,
                "order": o,
                "variant": v,
                "setting": trial.setting,
                "value": trial.value,
                "validation_accuracy": choice.measured[trial.run.name].accuracy,
                "run": trial.run.name,
            }
            for (m, o, v), trials in choice.trials.items()
            for trial in trials
        ],
        "notes": list(dict.fromkeys(choice.notes)),
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_output(folder / FILE, text.encode())


def _measure(made: Sequence[PlannedRun], choice: Choice) -> tuple[list[str], list[str]]:
    """Add the measurements of finished trials to ``choice``.

    Returns:
        Names of trials without results, and the problems of results that cannot be used.
    """
    missing, damaged = [], []
    for run in made:
        results = results_of(run)
        if results is None:
            missing.append(run.name)
            continue
        try:
            choice.measured[run.name] = validation(run, results)
        except StudyError as error:
            damaged.append(str(error))
    try:
        check_same_sources(choice.measured.values())
    except StudyError as error:
        damaged.append(str(error))
    return missing, damaged


def _cannot_choose(
    setting: str, missing: Sequence[str], damaged: Sequence[str], folder: Path
) -> str:
    reasons = list(damaged)
    if missing:
        reasons.append(
            f"no result of {', '.join(missing)}; their logs are in {folder}; start again when the "
            "cause is removed"
        )
    return f"tuning cannot choose {setting}: {'; '.join(reasons)}"


def _take_best(stage: Mapping[Key, Sequence[Trial]], choice: Choice) -> None:
    """Add the chosen value of each method to ``choice``.

    Source: the rule of one standard error, Breiman et al. 1984, "Classification and Regression
    Trees", section 3.4.3.
    """
    for key, trials in stage.items():
        if trials:
            measured = [choice.measured[trial.run.name] for trial in trials]
            best = max(measured, key=lambda each: each.accuracy)
            error = math.sqrt(best.accuracy * (1 - best.accuracy) / best.texts)
            enough = best.accuracy - error
            chosen = next(t for t, m in zip(trials, measured, strict=True) if m.accuracy >= enough)
            choice.values.setdefault(key, {})[chosen.setting] = chosen.value


def _trials(
    settings: Settings,
    setting: str,
    candidates: Sequence[float],
    seed: int,
    folder: Path,
    notes: list[str],
) -> list[Trial]:
    first = settings.tasks[0]
    tasks: Sequence[Any] = [first]
    weighed = _weighed_by(setting)
    if weighed is not None and weighed.from_second_task:
        halves = _halves(first)
        if halves is None:
            notes.append(
                f"{setting} keeps {getattr(settings, setting)} where {task_name(first)} comes "
                f"first: it takes {_LEAST_CLASSES} classes to cut a task in two"
            )
            return []
        tasks = halves
    return [
        Trial(setting, value, _trial_run(settings, {setting: value, "tasks": tasks}, seed, folder))
        for value in candidates
    ]


def _halves(entry: str | TaskEntry) -> list[dict[str, Any]] | None:
    """Return a task cut in two by its classes, in label order; None if it has too few."""
    whole, name = spelled_out(entry), task_name(entry)
    classes = _class_names(json.dumps(whole))
    if len(classes) < _LEAST_CLASSES:
        return None
    middle = len(classes) // 2
    return [
        {**whole, "name": f"{name}-{part}", "classes": list(names)}
        for part, names in (("first", classes[:middle]), ("second", classes[middle:]))
    ]


@cache
def _class_names(entry: str) -> tuple[str, ...]:
    return scan(parse_task(json.loads(entry))).classes


def _trial_run(
    settings: Settings, changes: Mapping[str, Any], seed: int, folder: Path
) -> PlannedRun:
    values = settings.model_dump(mode="json")
    values |= {"seed": seed, "measure_validation": True, "use_router": False, **changes}
    for name in referring(type(settings), Refers.TASKS):
        values[name] = _of_halves(name, values, settings)
    if len(values["tasks"]) == 1:  # these act from the second task on
        values |= {t.switch: False for t in techniques() if t.from_second_task} | {"joint": False}
    defaults = settings_class()().model_dump(mode="json")
    without_effect = effectless(validate(values))
    values |= {name: defaults[name] for name in without_effect}
    recorded = recordable(validate(values))
    deciding = {name: values[name] for name in deciding_settings() if name in recorded}
    digest = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:10]
    setting = next(iter(changes))
    name = f"{setting}-{changes[setting]:g}-{digest}"
    place = {"experiment_dir": str(folder / FOLDER), "experiment_name": name}
    return PlannedRun("tuning", "", "", seed, None, validate({**values, **place}))


def _of_halves(name: str, values: Mapping[str, Any], settings: Settings) -> Any:
    """Return a setting by task, with its value for the first task under the names of a trial."""
    value, own = values[name], task_name(settings.tasks[0])
    if not isinstance(value, dict):
        return value
    if own not in value:
        return None
    return {task_name(entry): value[own] for entry in values["tasks"]}


def _weighed_by(setting: str) -> Technique | None:
    """Return the technique whose strength ``setting`` is, None for a setting of training."""
    return next((t for t in techniques() if t.strength == setting), None)


def _distinct(trials: Iterable[Trial]) -> list[PlannedRun]:
    return list({trial.run.name: trial.run for trial in trials}.values())
