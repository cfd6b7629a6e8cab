"""The settings of a run, and what makes two runs the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from plora_cl.config.consistency import contradictions
from plora_cl.config.fields import SettingFields

HARMLESS_SETTINGS = frozenset(
    {
        "experiment_dir",
        "experiment_name",
        "checkpoint_every",
        "keep_last_n_checkpoints",
        "async_checkpoint",
        "checkpoint_disk_budget",
        "cache_dir",
    }
)
"""Settings that change where a run is kept and how often, never what it computes."""

SHAPE_SETTINGS = frozenset(
    {"model_name", "tasks", "shared", "lora_r", "lora_target_modules", "use_lateral"}
)
"""Settings that decide which tensors a run has and how large they are."""


class Settings(SettingFields):
    """The settings of one run: complete, in range and free of contradictions.

    Build them with `plora_cl.config.sources.resolve` or `validate`, which explain every problem.

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


def identity(settings: Settings) -> dict[str, Any]:
    """Return what must be equal for a run to be continued, as plain JSON values.

    Every setting that may change a single bit of the result is in it.
    """
    return settings.model_dump(mode="json", exclude=set(HARMLESS_SETTINGS))


def experiment_folder(settings: Settings) -> Path:
    """Return the folder that holds everything of the experiment."""
    return Path(settings.experiment_dir) / settings.experiment_name
