"""How one entry of ``tasks`` is written and checked; loads neither numpy nor pyarrow."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WrapValidator,
)
from pydantic_core import InitErrorDetails
from typing_extensions import TypedDict

from plora_cl.data.sources.added import AddedSource
from plora_cl.data.sources.base import Columns, TaskSource
from plora_cl.data.sources.frames import FRAMES
from plora_cl.errors import ExtensionError
from plora_cl.extensions import SOURCES, extensions
from plora_cl.setting_types import LIST, MAPPING, TEXT, Text
from plora_cl.wording import kind_of

PLACES = ("path", "hub", "packaged")
"""Keys that say where a task is; installed packages add others, see `added_places`."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What an entry says of a task.

    Attributes:
        name: Of the task.
        where: Value of the key that says where it is, for instance the path of a folder.
        text_column: Columns of the text; None where the entry does not say.
        label_column: Column of the class; None where the entry does not say.
        splits: What the place calls the train, validation and test splits, where it is not that.
    """

    name: str
    where: str
    text_column: tuple[str, ...] | None = None
    label_column: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)

    def columns(self, default: Columns | None = None) -> Columns:
        """Return the columns of the entry, with those of ``default`` where it does not say."""
        usual = default or Columns()
        return Columns(self.text_column or usual.text, self.label_column or usual.label)


Opener: TypeAlias = Callable[[Declared], TaskSource]
"""Returns the source of a task. Nothing is read yet."""


@cache
def added_places() -> Mapping[str, Opener]:
    """Return how tasks are opened that installed packages know, by the key of their place.

    Raises:
        ExtensionError: A package declares a source that cannot be used.
    """
    found: dict[str, Opener] = {}
    for name, origin, value in extensions(SOURCES):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in (*_known_keys(), FRAMES, *found):
            raise ExtensionError(
                f"{origin}: the name is taken, or is not made of lower-case letters, digits and _"
            )
        if not callable(value):
            raise ExtensionError(
                f"{origin}: is {kind_of(value)}; expected a callable that takes a "
                "plora_cl.data.sources.entry.Declared and returns a TaskSource"
            )
        found[name] = partial(AddedSource.opened, value, origin)
    return found


def split_place(text: str) -> tuple[str, str] | None:
    """Return key and value of an entry like ``KEY:VALUE`` whose key an installed package added."""
    key, colon, where = text.partition(":")
    is_key = colon and where and re.fullmatch(r"[a-z][a-z0-9_]*", key)
    return (key, where) if is_key and key in added_places() else None


def entry_keys() -> list[str]:
    """Return the keys that an entry may have."""
    return [*_known_keys(), *added_places()]


def place_of(entry: Mapping[str, Any]) -> str:
    """Return the key that says where a valid entry's task is."""
    return next(key for key in (*PLACES, FRAMES, *added_places()) if key in entry)


def task_name(entry: str | Mapping[str, Any]) -> str:
    """Return the name that an entry gives to its task: by default the last part of its place."""
    if isinstance(entry, str):
        added = split_place(entry)
        where = added[1] if added else entry
    elif "name" in entry:
        return str(entry["name"])
    else:
        where = str(entry[place_of(entry)])
    return PurePath(where).name or Path(where).expanduser().resolve().name


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError(f"{value!r}; expected text that is not blank")
    return value


def _distinct(values: list[str]) -> list[str]:
    if len(set(values)) < 2:
        raise ValueError(f"{values}; expected at least two class names")
    return values


def _form(value: object) -> str:
    if isinstance(value, dict):
        return MAPPING
    return LIST if isinstance(value, list | tuple) else TEXT


_Name: TypeAlias = Annotated[Text, AfterValidator(_not_blank)]
_OneText = Annotated[_Name, Tag(TEXT)]
_Digest: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_TextColumn = Annotated[
    _OneText | Annotated[list[_Name], Field(min_length=1), Tag(LIST)], Discriminator(_form)
]


class TaskEntry(TypedDict, total=False):
    """A task with its place and columns spelled out; exactly one place is given.

    Attributes:
        name: Name of the task, unique in the stream; by default the last part of its place.
        path: Local folder.
        hub: Data set id on the hub.
        packaged: Name of a data set of the quickstart.
        text_column: Column of the text, or several to join.
        label_column: Column of the class.
        frames: SHA-256 of data that a program passes as pandas frames, `datasets` or records.
        splits: What the place calls the train, validation and test splits.
        classes: The only classes to take; by default all.
    """

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    name: _Name
    path: _Name
    hub: _Name
    packaged: _Name
    text_column: _TextColumn
    label_column: _Name
    frames: _Digest
    splits: dict[Literal["train", "validation", "test"], _Name]
    classes: Annotated[list[_Name], AfterValidator(_distinct)]


def _known_keys() -> list[str]:
    return [key for key in TaskEntry.__annotations__ if key != FRAMES]  # no person writes it


def _with_known_keys(value: Any, handler: Callable[[Any], TaskEntry]) -> TaskEntry:
    """Validate an entry, with the places that installed packages add."""
    entry = handler(value)
    unknown = [key for key in entry if key not in TaskEntry.__annotations__]
    if strange := [key for key in unknown if key not in added_places()]:
        problems: list[InitErrorDetails] = [
            {"type": "extra_forbidden", "loc": (str(key),), "input": value[key]} for key in strange
        ]
        raise ValidationError.from_exception_data("task", problems)
    for key in unknown:
        where = value[key]
        if not isinstance(where, str) or not where.strip():
            raise ValueError(f"{key} is {where!r}; expected text that is not blank")
    places = [key for key in (*PLACES, FRAMES, *unknown) if key in entry]
    if len(places) != 1:
        expected = ", ".join((*PLACES, *added_places()))
        given = " and ".join(places) or "none"
        raise ValueError(f"needs exactly one of {expected}; given: {given}")
    if FRAMES in entry and ("name" not in entry or "splits" in entry):
        raise ValueError(f"{FRAMES} needs a name, and takes no splits")
    return entry


AnyEntry: TypeAlias = Annotated[
    _OneText | Annotated[TaskEntry, WrapValidator(_with_known_keys), Tag(MAPPING)],
    Discriminator(_form),
]
"""A name, a folder or a `TaskEntry`."""
