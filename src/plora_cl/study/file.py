"""The YAML file of ``plora-cl study``: methods x orders x variants x seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
)

from plora_cl.config.errors import field_problems, shown, unknown
from plora_cl.config.learners import LEARNERS
from plora_cl.config.streams import expanded
from plora_cl.config.yaml_file import read_mapping
from plora_cl.data.sources.entry import AnyEntry
from plora_cl.errors import SettingsError
from plora_cl.methods.registry import techniques
from plora_cl.setting_types import not_empty

LIKE = "like"
"""Key of a user-defined method: the learner whose settings it starts from."""

_Entry = TypeVar("_Entry")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*")


def _folder_name(value: str) -> str:
    if not _NAME.fullmatch(value) or "__" in value:
        raise ValueError(
            f"{value!r}; expected letters, digits and . + _ - without two underscores in a row, "
            "since it becomes part of a folder's name"
        )
    return value


def _named_methods(value: object) -> object:
    """Turn the list of methods, some a name and some ``{name: settings}``, into a mapping."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping) or not isinstance(value, list | tuple):
        return value
    found: dict[object, object] = {}
    for entry in value:
        if not isinstance(entry, str | Mapping):
            text = f"{shown(entry)}; expected a name or {{name: {{settings}}}}"
            raise ValueError(text)  # noqa: TRY004 - pydantic's way
        named = entry if isinstance(entry, Mapping) else {entry: {LIKE: entry}}
        for name, settings in named.items():
            if name in found:
                raise ValueError(f"{name!r} is listed twice; keep one")
            found[name] = settings
    return found


def _known_learners(value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for name, settings in value.items():
        learner = settings.get(LIKE)
        if name in LEARNERS and learner != name:
            raise ValueError(
                f"{name}: has the name of a learner and does not start from it; write like: "
                f"{name}, or take another name"
            )
        if learner is not None and (not isinstance(learner, str) or learner not in LEARNERS):
            what = unknown(str(learner), LEARNERS, kind="learner")
            raise ValueError(
                f"{name}: {what}, or {{{name}: {{...settings}}}} for a method of your own"
            )
    return value


def _distinct(values: tuple[_Entry, ...]) -> tuple[_Entry, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"{list(values)}; expected each one once")
    return values


def _listed_orders(value: object) -> object:
    """Turn the name of a stream, or a list of them, into orders of the same names."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        return value
    for name in names:
        if not isinstance(name, str):
            text = f"{shown(name)}; expected the name of a stream, or {{name: [tasks]}}"
            raise ValueError(text)  # noqa: TRY004 - pydantic's way
    return {name: name for name in _distinct(tuple(names))}


_Stream = Annotated[tuple[AnyEntry, ...], BeforeValidator(expanded), AfterValidator(not_empty)]
_Name = Annotated[str, Field(min_length=1), AfterValidator(_folder_name)]
_Overrides = dict[str, Any]
_Count = Annotated[int, Field(strict=True, ge=1)]
_Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
_Candidates = Annotated[
    tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...],
    AfterValidator(not_empty),
    AfterValidator(_distinct),
]


class Tuning(BaseModel):
    """Candidate values, chosen by validation accuracy on the first task of an order."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    learning_rate: _Candidates | None = None
    """Peak learning rates to try."""
    seed: _Seed = 0
    """Seed of every trial; must differ from the seeds of the runs."""


def tunable() -> tuple[str, ...]:
    """Return the settings that tuning can choose, in the order in which it chooses them."""
    return ("learning_rate", *(t.strength for t in techniques() if t.strength is not None))


@cache
def tuning_class() -> type[Tuning]:
    """Return `Tuning` with the strength of every technique."""
    strengths: dict[str, Any] = dict.fromkeys(tunable()[1:], (_Candidates | None, None))
    return create_model("Tuning", __base__=Tuning, **strengths)


def _tuned(value: object) -> object:
    return value if value is None else tuning_class().model_validate(value)


class StudyFile(BaseModel):
    """Methods, orders, variants and seeds. A run is one combination of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: _Name
    """Folder below experiment_dir; it holds one folder for each run."""
    base: _Overrides = {}
    """Settings of every run; the key preset names packaged settings to start from."""
    tasks: dict[str, AnyEntry] = {}
    """Short names of tasks for use in orders."""
    orders: Annotated[
        dict[_Name, _Stream],
        BeforeValidator(_listed_orders),
    ] = {}
    """Streams in learning order: lists of tasks, or names of streams."""
    methods: Annotated[
        dict[_Name, _Overrides],
        Field(min_length=1),
        BeforeValidator(_named_methods),
        AfterValidator(_known_learners),
    ]
    """Names of learners, or mappings {name: {settings}}, where like names a learner."""
    variants: dict[_Name, _Overrides] = {}
    """A further factor. A method on which no variant has an effect runs once."""
    seeds: Annotated[tuple[_Seed, ...], AfterValidator(not_empty), AfterValidator(_distinct)]
    """Seeds; runs of the same seed and order learn from the same examples."""
    jobs: _Count = 1
    """Runs at a time."""
    threads_per_job: _Count = 1
    """Threads of each run."""
    baseline: str | None = None
    """Method that the others are compared with, pair by pair."""
    tune: Annotated[Tuning | None, BeforeValidator(_tuned)] = None
    """Candidate values; every method gets the same number of trials."""


def read_study(path: Path) -> StudyFile:
    """Return the study in a YAML file.

    Raises:
        SettingsError: It cannot be read, or something in it is unknown, ill-typed or
            contradictory.
    """
    values = read_mapping(path)
    try:
        study = StudyFile.model_validate(values)
    except ValidationError as error:
        keys = {"": list(StudyFile.model_fields), "tune": [*tunable(), "seed"]}
        raise SettingsError(field_problems(error, str(path), keys)) from error
    problems = _contradictions(study)
    if problems:
        raise SettingsError([f"{path}: {problem}" for problem in problems])
    return study


def _contradictions(study: StudyFile) -> list[str]:
    found = []
    if study.baseline is not None and study.baseline not in study.methods:
        text = unknown(study.baseline, study.methods, kind="method")
        found.append(f"baseline: {study.baseline!r}: {text}")
    if study.tune is not None and study.tune.seed in study.seeds:
        found.append(
            f"tune.seed: {study.tune.seed} is one of the seeds of the runs: values would be chosen "
            "by the results that they are later measured by; take another"
        )
    if not isinstance(study.base.get("preset", ""), str):
        found.append(f"base.preset: {shown(study.base['preset'])}; expected a name")
    if study.tasks and not study.orders:
        found.append(
            f"tasks: there are no orders to use {', '.join(study.tasks)}; list them in orders"
        )
    return found + _not_theirs(study)


def _not_theirs(study: StudyFile) -> list[str]:
    """Return the settings that a method, a variant or the base may not give."""
    places = {
        "base": study.base,
        **{f"methods.{name}": values for name, values in study.methods.items()},
        **{f"variants.{name}": values for name, values in study.variants.items()},
    }
    found = [
        f"{place}.{name}: every run has its own; use seeds and name"
        for place, values in places.items()
        for name in ("seed", "experiment_name")
        if name in values
    ]
    del places["base"]
    return found + [
        f"{place}.{name}: is the same for every run; use {instead}"
        for place, values in places.items()
        for name, instead in (("experiment_dir", "base.experiment_dir"), ("tasks", "orders"))
        if name in values
    ]
