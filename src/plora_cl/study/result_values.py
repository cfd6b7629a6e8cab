"""Values out of result files that somebody may have edited: of the right type, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plora_cl.config.errors import shown


class DamagedError(Exception):
    """A value is missing or of the wrong type; the message is one line."""


def mapping_at(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a mapping from strings.

    Raises:
        DamagedError: It is missing, or is something else.
    """
    value = found.get(name)
    if not isinstance(value, dict):
        raise DamagedError(f"{name} is {shown(value)}; expected a mapping")
    return value


def list_at(found: Mapping[str, Any], name: str) -> list[Any]:
    """Return a list that is not empty.

    Raises:
        DamagedError: It is missing, or is something else.
    """
    value = found.get(name)
    if not isinstance(value, list) or not value:
        raise DamagedError(f"{name} is {shown(value)}; expected a list that is not empty")
    return value


def mappings_at(found: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return a list of mappings that is not empty.

    Raises:
        DamagedError: It is missing, or is something else.
    """
    values = list_at(found, name)
    for value in values:
        if not isinstance(value, dict):
            raise DamagedError(f"{name} holds {shown(value)}; expected mappings")
    return values


def string_at(found: Mapping[str, Any], name: str) -> str:
    """Return a string.

    Raises:
        DamagedError: It is missing, or is something else.
    """
    value = found.get(name)
    if not isinstance(value, str):
        raise DamagedError(f"{name} is {shown(value)}; expected a string")
    return value


def number(value: object, name: str, least: float, most: float) -> float:
    """Return a value that has to be a number.

    Args:
        value: What was found.
        name: What it is called in the message.
        least: Smallest number that it may be.
        most: Largest one.

    Raises:
        DamagedError: It is no number, or out of range.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        return float(value)
    raise DamagedError(f"{name} is {shown(value)}; expected a number from {least:g} to {most:g}")


def number_or_none(value: object, name: str, least: float, most: float) -> float | None:
    """Return what `number` does, or None where None was found."""
    return None if value is None else number(value, name, least, most)
