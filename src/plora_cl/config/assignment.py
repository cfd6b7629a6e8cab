"""``--set dotted.path=value``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plora_cl.config.errors import shown, unknown_setting
from plora_cl.config.fields import setting_fields
from plora_cl.config.yaml_file import parse


def split_assignment(text: str, problems: list[str]) -> tuple[str, object] | None:
    """Return the dotted path and the YAML value of an assignment, or None and a new problem."""
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not path:
        problems.append(f"--set: {text!r}; expected NAME=VALUE, for instance epochs=3")
        return None
    try:
        return path, parse(value)
    except ValueError as error:
        problems.append(f"--set: {path}: {shown(value)} is not a YAML value: {error}")
        return None


def assigned(
    settings: Mapping[str, Any], path: str, value: object, problems: list[str]
) -> dict[str, object]:
    """Return the setting at the head of ``path`` with its new value, or nothing and a new problem.

    Args:
        settings: Values so far, which stay as they are; a setting without one has its default.
        path: Setting, then list positions and keys, joined by dots.
        value: New value at ``path``.
        problems: Gets a line if there is no such place.
    """
    head, *rest = path.split(".")
    fields = setting_fields().model_fields
    if head not in fields:
        problems.append(f"--set: {path}: {unknown_setting(path)}")
        return {}
    current = settings[head] if head in settings else fields[head].default
    try:
        return {head: _changed(current, rest, value, head)}
    except ValueError as error:
        problems.append(f"--set: {path}: {error}")
        return {}


def _changed(current: object, keys: list[str], value: object, walked: str) -> object:
    if not keys:
        return value
    key, *rest = keys
    walked_on = f"{walked}.{key}"
    if isinstance(current, dict):
        return {**current, key: _changed(current.get(key, {}), rest, value, walked_on)}
    if isinstance(current, list | tuple):
        entries = list(current)
        if not key.isascii() or not key.isdigit() or int(key) >= len(entries):
            raise ValueError(f"{walked} has entries 0 to {len(entries) - 1}, not {key!r}")
        entries[int(key)] = _changed(entries[int(key)], rest, value, walked_on)
        return entries
    raise ValueError(f"{walked} is {shown(current)}, which has no parts; set {walked} as a whole")
