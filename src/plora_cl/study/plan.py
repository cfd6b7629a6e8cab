"""The runs of a study and the settings of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plora_cl.config.consistency import effectless, ineffective
from plora_cl.config.fields import SettingFields
from plora_cl.config.learners import FLOOR, LEARNERS
from plora_cl.config.precedence import layered
from plora_cl.config.presets import read_preset
from plora_cl.config.schema import EXAMPLE_SETTINGS, Settings, experiment_folder
from plora_cl.data.sources.declaration import parse_tasks, spelled_out
from plora_cl.errors import DataError, SettingsError
from plora_cl.study.file import LIKE, StudyFile

Overrides = Mapping[str, Any]
Chosen = Mapping[tuple[str, str, str], Overrides]
"""Values chosen by tuning, by method, order and variant."""

NO_VARIANT = ""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        method: Name of the method in the study.
        order: Name of the order.
        variant: Name of the variant; empty if there are none or none has an effect.
        seed: Seed of the run.
        learner: Name of the learner that the method starts from; None if it starts from none.
        settings: Complete settings, its folder included.
        own: Settings that the method or the variant gives; these are not tuned.
    """

    method: str
    order: str
    variant: str
    seed: int
    learner: str | None
    settings: Settings
    own: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.settings.experiment_name

    @property
    def folder(self) -> Path:
        """Folder of its experiment."""
        return experiment_folder(self.settings)

    @property
    def is_floor(self) -> bool:
        """Whether it is the floor, which learns without an encoder."""
        return self.learner == FLOOR


def run_name(method: str, order: str, variant: str, seed: int) -> str:
    """Return the name of a run's folder."""
    return "__".join(filter(None, (method, order, variant, f"seed{seed}")))


def study_folder(study: StudyFile) -> Path:
    """Return the folder that holds everything of a study."""
    parent = study.base.get("experiment_dir", SettingFields().experiment_dir)
    return Path(str(parent)).expanduser() / study.name


def planned_runs(study: StudyFile, source: str, chosen: Chosen | None = None) -> list[PlannedRun]:
    """Return every run. All methods of one seed come before the next seed.

    Args:
        study: Methods, orders, variants and seeds.
        source: The file of the study, for messages.
        chosen: Values that tuning chose.

    Raises:
        SettingsError: The settings of a run are wrong; each problem is listed once.
    """
    planner = _Planner(study, source, chosen or {})
    if planner.problems:
        raise SettingsError(list(planner.problems))
    runs = [
        run
        for seed in study.seeds
        for order in planner.orders
        for method in study.methods
        for run in planner.variants_of(method, order, seed)
    ]
    if planner.problems:
        raise SettingsError([f"{text} (in {run})" for text, run in planner.problems.items()])
    return runs


def notes_on(study: StudyFile, runs: Sequence[PlannedRun]) -> list[str]:
    """Return one line for each setting of a method that has no effect on any of its runs."""
    found: dict[str, list[str]] = {}
    for run in runs:
        lines = ineffective(run.settings, study.methods[run.method])
        earlier = found.setdefault(run.method, lines)
        found[run.method] = [line for line in earlier if line in lines]
    return [f"methods.{method}: {line}" for method, lines in found.items() for line in lines]


def _what_acts(run: PlannedRun) -> dict[str, Any]:
    """Return the settings that decide what a run computes."""
    settings = run.settings.model_dump(mode="json")
    if run.is_floor:
        return {name: settings[name] for name in EXAMPLE_SETTINGS}
    idle = {*effectless(run.settings), "experiment_name"}
    return {name: value for name, value in settings.items() if name not in idle}


class _Planner:
    def __init__(self, study: StudyFile, source: str, chosen: Chosen) -> None:
        self._study, self._source, self._chosen = study, source, chosen
        self.problems: dict[str, str] = {}
        self.orders = self._orders()
        self._check_tasks()
        self._base = {key: value for key, value in study.base.items() if key != "preset"}
        preset = study.base.get("preset")
        self._preset = (
            read_preset(preset, source=f"{source}: base.preset") if preset is not None else {}
        )

    def variants_of(self, method: str, order: str, seed: int) -> list[PlannedRun]:
        """Return the runs of a method: one for each variant that makes a difference."""
        variants = self._study.variants
        if not variants:
            return self._run(method, order, NO_VARIANT, seed)
        names = variants if self._differ(method, order, seed) else (NO_VARIANT,)
        return [run for variant in names for run in self._run(method, order, variant, seed)]

    def _differ(self, method: str, order: str, seed: int) -> bool:
        """Return whether any variant has an effect, before anything is tuned."""
        try:
            without, *others = (
                self._planned(method, order, variant, seed, tuned=False)
                for variant in (NO_VARIANT, *self._study.variants)
            )
        except SettingsError:
            return True  # a variant completes the method, or its problem must be reported
        return any(_what_acts(run) != _what_acts(without) for run in others)

    def _run(self, method: str, order: str, variant: str, seed: int) -> list[PlannedRun]:
        try:
            return [self._planned(method, order, variant, seed)]
        except SettingsError as error:
            for problem in error.problems:
                self.problems.setdefault(problem, run_name(method, order, variant, seed))
            return []

    def _planned(
        self, method: str, order: str, variant: str, seed: int, *, tuned: bool = True
    ) -> PlannedRun:
        own = self._study.methods[method]
        learner = own.get(LIKE)
        sources: Sequence[tuple[str, Overrides]] = [
            ("preset", self._preset),
            (f"{self._source}: base", self._base),
            (f"{self._source}: orders.{order}", self.orders[order]),
            (f"{self._source}: learner {learner}", LEARNERS[learner] if learner else {}),
            (
                f"{self._source}: methods.{method}",
                {key: value for key, value in own.items() if key != LIKE},
            ),
            (f"{self._source}: variants.{variant}", self._study.variants.get(variant, {})),
            ("tuning", self._chosen.get((method, order, variant), {}) if tuned else {}),
            (
                f"{self._source}: name",
                {
                    "seed": seed,
                    "experiment_dir": str(study_folder(self._study)),
                    "experiment_name": run_name(method, order, variant, seed),
                },
            ),
        ]
        given = {*own, *self._study.variants.get(variant, {})} - {LIKE}
        return PlannedRun(method, order, variant, seed, learner, layered(sources), frozenset(given))

    def _orders(self) -> dict[str, Overrides]:
        if not self._study.orders:
            return {"tasks": {}}
        return {
            name: {"tasks": [self._task(entry) for entry in order]}
            for name, order in self._study.orders.items()
        }

    def _check_tasks(self) -> None:
        for name, order in self.orders.items():
            if "tasks" not in order:
                continue
            try:
                parse_tasks(order["tasks"], self._study.tasks)
            except DataError as error:
                self.problems.setdefault(f"{self._source}: orders.{name}: {error}", name)

    def _task(self, entry: Any) -> Any:
        known = self._study.tasks.get(entry) if isinstance(entry, str) else None
        return entry if known is None else {"name": entry, **spelled_out(known)}
