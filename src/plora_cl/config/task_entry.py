"""How one entry of ``tasks`` is written."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag
from typing_extensions import TypedDict

from plora_cl.setting_types import LIST, MAPPING, TEXT, Text


def _form(value: object) -> str:
    if isinstance(value, dict):
        return MAPPING
    return LIST if isinstance(value, list | tuple) else TEXT


_OneText = Annotated[Text, Tag(TEXT)]
_TextColumn = Annotated[
    _OneText | Annotated[list[Text], Field(min_length=1), Tag(LIST)], Discriminator(_form)
]


PLACES = ("path", "hub", "packaged")


class TaskSource(TypedDict, total=False):
    """A task with its place and columns spelled out; exactly one place is given.

    Attributes:
        name: Name of the task, unique in the stream; by default the last part of its place.
        path: Local folder.
        hub: Data set id on the hub.
        packaged: Name of a data set of the quickstart.
        text_column: Column of the text, or several to join.
        label_column: Column of the class.
        splits: What the place calls the train, validation and test splits.
        classes: The only classes to take; by default all.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    name: Text
    path: Text
    hub: Text
    packaged: Text
    text_column: _TextColumn
    label_column: Text
    splits: dict[Literal["train", "validation", "test"], Text]
    classes: Annotated[list[Text], Field(min_length=2)]


def _one_place(source: TaskSource) -> TaskSource:
    places = [place for place in PLACES if place in source]
    if len(places) != 1:
        given = " and ".join(places) or "none"
        raise ValueError(f"needs exactly one of {', '.join(PLACES)}; given: {given}")
    return source


TaskEntry: TypeAlias = Annotated[
    _OneText | Annotated[TaskSource, AfterValidator(_one_place), Tag(MAPPING)],
    Discriminator(_form),
]
"""A name or folder, or a `TaskSource`."""


def task_name(entry: str | TaskSource) -> str:
    """Return the name that an entry gives to its task: by default the last part of its place."""
    if isinstance(entry, str):
        return PurePath(entry).name
    place = entry.get("path") or entry.get("hub") or entry.get("packaged") or ""
    return entry.get("name") or PurePath(place).name
