"""``--set dotted.path=value``."""

from __future__ import annotations

from plora_cl.config.errors import setting_names, shown, unknown
from plora_cl.config.yaml_file import parse


def split_assignment(text: str, problems: list[str]) -> tuple[str, object] | None:
    """Return the dotted path and the YAML value of an assignment, or None and a new problem."""
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not path:
        problems.append(f"--set: {text!r}; expected dotted.path=value")
        return None
    try:
        return path, parse(value)
    except ValueError as error:
        problems.append(f"--set: {path}: {shown(value)} is not a YAML value: {error}")
        return None


def assign(current: object, path: str, value: object) -> object:
    """Return what the setting at the head of ``path`` becomes.

    Args:
        current: Its value so far; left as it is.
        path: Setting, then list positions and keys, joined by dots.
        value: What to put there.

    Raises:
        ValueError: The path leads nowhere; the message says where it ends.
    """
    head, *rest = path.split(".")
    if head not in setting_names():
        raise ValueError(unknown(path, setting_names()))
    return _changed(current, rest, value, head)


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
