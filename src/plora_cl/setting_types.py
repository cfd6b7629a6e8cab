"""Types of settings and the base of every group of settings; loads neither torch nor numpy."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

from plora_cl.impact import Impact
from plora_cl.wording import half_character

_Entry = TypeVar("_Entry")

TAGS = ("<text>", "<mapping>", "<list>")
"""What pydantic puts into the path of an error for the form that a value has."""

TEXT, MAPPING, LIST = TAGS


class SettingsGroup(BaseModel):
    """Settings that belong together; the settings of a run inherit from every group.

    Each field carries its `Impact` and, where it refers to something, its `Refers` in its metadata.
    The docstring below a field is its help text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Refers(StrEnum):
    """What the value of a setting refers to."""

    PATH = "path"
    """A local file or folder: recorded as an absolute path."""
    MODEL = "model"
    """A pretrained model: a name, or a local path, which is recorded as an absolute one."""
    TASKS = "tasks"
    """Tasks, where the value is a mapping: its keys are their names."""


def impact_of(field: FieldInfo) -> Impact:
    """Return what another value of a setting does to a resumed run; TRAJECTORY unless declared."""
    marks = (mark for mark in field.metadata if isinstance(mark, Impact))
    return next(marks, Impact.TRAJECTORY)


def referring(group: type[BaseModel], to: Refers) -> tuple[str, ...]:
    """Return the names of the settings in ``group`` that refer to ``to``."""
    return tuple(name for name, field in group.model_fields.items() if to in field.metadata)


def as_text(value: object) -> object:
    """Return the text of a path object; other values are returned as they are."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def not_empty(values: tuple[_Entry, ...]) -> tuple[_Entry, ...]:
    """Return ``values``.

    ``Field(min_length=1)`` would also complain about values that are there and of a wrong type.

    Raises:
        ValueError: There are none.
    """
    if not values:
        raise ValueError("is empty; expected at least one entry")
    return values


def _writable(value: str) -> str:
    if half := half_character(value):
        raise ValueError(f"has {half!r}, half of a surrogate pair; expected text")
    return value


def _without_null(value: str) -> str:
    if "\0" in value:
        raise ValueError(f"{value!r}; expected a path, without a null character")
    return value


def _not_a_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()}; expected a number")  # noqa: TRY004 - pydantic's way
    return value


Switch: TypeAlias = Annotated[bool, Field(strict=True)]
"""On or off; text is refused."""
Count: TypeAlias = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Positive: TypeAlias = Annotated[int, Field(strict=True, ge=1, lt=2**31)]
Rank: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=2**16)]
"""Inner size of a low-rank layer."""
Number: TypeAlias = Annotated[
    float, BeforeValidator(_not_a_truth_value), Field(allow_inf_nan=False)
]
NotNegative: TypeAlias = Annotated[Number, Field(ge=0)]
AboveZero: TypeAlias = Annotated[Number, Field(gt=0)]
Ratio: TypeAlias = Annotated[Number, Field(ge=0, le=1)]
Text: TypeAlias = Annotated[
    str, BeforeValidator(as_text), AfterValidator(_writable), Field(min_length=1)
]
"""Text that is not empty; a path object counts as its text."""
Place: TypeAlias = Annotated[
    Text, AfterValidator(_without_null), AfterValidator(os.path.expanduser)
]
"""A path or a name that may be one; ``~`` is expanded."""
