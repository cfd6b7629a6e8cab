"""The settings of a run, and what makes two runs the same."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from plora_cl.config.consistency import contradictions
from plora_cl.config.fields import SettingFields, extended, impacts
from plora_cl.impact import Impact
from plora_cl.methods.registry import added, techniques

_BEFORE = {"use_router": False, "hold_out_validation": "always"}
"""Settings added later whose default is not what was done before."""

EXAMPLE_SETTINGS = (
    *("tasks", "max_train_examples", "max_train_examples_per_class"),
    *("max_eval_examples", "max_validation_examples_per_class"),
)
"""Settings that, with the seed, decide which texts a run learns from and is measured on."""

_SHAPES = (
    *("model_name", "tasks", "shared", "task_adapters"),
    *("joint", "lora_r", "lora_target_modules"),
)


def shape_settings() -> frozenset[str]:
    """Return the settings that decide which tensors a run has and how large they are."""
    return frozenset({*_SHAPES, *(name for t in techniques() for name in t.shape_settings)})


class Settings(SettingFields):
    """The settings of one run: complete, in range and free of contradictions.

    Build them with `plora_cl.config.precedence.resolve` or `validate`, which explain every problem.

    Raises:
        pydantic.ValidationError: A setting is unknown, ill-typed, out of range or contradicts
            another one.
    """

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        found = contradictions(self)
        if found:
            texts = [(list(problem.settings), problem.text) for problem in found]
            message = "; ".join(problem.text for problem in found)
            raise PydanticCustomError("contradiction", "{text}", {"text": message, "found": texts})
        return self


@cache
def settings_class() -> type[Settings]:
    """Return `Settings` with the settings of techniques from installed packages.

    Raises:
        ExtensionError: A package declares a technique that cannot be used.
    """
    return extended(Settings)


def recordable(settings: Settings) -> dict[str, Any]:
    """Return the settings that a run records, as plain JSON values.

    Those of an installed package are recorded only while its technique is on: a run that does not
    use a package can be resumed without it.
    """
    idle = {name for t in added() if not t.is_on(settings) for name in t.setting_names}
    return settings.model_dump(mode="json", exclude=idle)


def identity(settings: Settings) -> dict[str, Any]:
    """Return the settings that decide the result, as plain JSON values.

    Every setting that may change a single bit of the result is in it, except those that only say
    where to look: what is found there is part of the identity of a run instead.
    """
    return {
        name: value
        for name, value in recordable(settings).items()
        if impacts()[name] is not Impact.HARMLESS
    }


def completed(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a checkpoint with those that it does not know yet.

    They get the values that do what was done before there was such a setting.
    """
    return {**settings_class()().model_dump(mode="json"), **as_recorded(saved)}


def compared_form(settings: Settings) -> dict[str, Any]:
    """Return ``settings`` in the form that `completed` gives to recorded ones.

    Settings of an installed package whose technique is off are not recorded: they have their
    defaults in both, so that their values never tell two runs apart.
    """
    return completed(recordable(settings))


def as_recorded(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return every setting that a run recorded, with those whose default has not always held."""
    return {**_BEFORE, **values}


def holds_out(settings: SettingFields) -> bool:
    """Return whether a task without a validation split holds training texts out for it."""
    return (
        settings.hold_out_validation == "always"
        or settings.measure_validation
        or settings.early_stopping_patience > 0
    )


def experiment_folder(settings: Settings) -> Path:
    """Return the folder that holds everything of the experiment."""
    return Path(settings.experiment_dir) / settings.experiment_name
