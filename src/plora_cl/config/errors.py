"""What is wrong with settings, in one line for each problem."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from plora_cl.config.fields import setting_fields
from plora_cl.data.sources.entry import entry_keys
from plora_cl.setting_types import TAGS
from plora_cl.wording import nearest, short, suggestion

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "bool_type": "true or false",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "too_short": "a value that is not empty",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "union_tag_invalid": "a name, a folder or a mapping",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "literal_error": "{expected}",
}
_LOOKS_LIKE_TEXT = "text (in quotes, where YAML takes it for something else)"

Keys: TypeAlias = Mapping[str, Sequence[str]]


def setting_names() -> list[str]:
    """Return the name of every setting, in the order of the schema."""
    return list(setting_fields().model_fields)


def shown(value: object) -> str:
    """Return ``value`` as one short line, the way YAML writes it where that differs."""
    if value is None:
        return "null"
    try:
        return str(value).lower() if isinstance(value, bool) else short(value)
    except ValueError:  # Python does not write out integers of thousands of digits
        return "a number of thousands of digits"


def unknown(name: str, valid: Iterable[str], *, kind: str) -> str:
    """Say that there is no ``kind`` of this name, and which one may have been meant."""
    return f"unknown {kind}; {suggestion(name, valid)}"


_FLAGS = (
    *("accept_changes", "config", "debug", "dry_run", "json", "max_time", "overwrite", "preset"),
    *("quiet", "resume", "set"),
)
"""Flags of ``plora-cl train`` that are not settings."""


def unknown_setting(name: str) -> str:
    """Say that there is no setting of this name, and how to find the one that was meant."""
    if (flag := name.replace("-", "_")) in _FLAGS:
        in_study = "; in the file of a study: base.preset" if flag == "preset" else ""
        return f"is not a setting; use the flag --{flag.replace('_', '-')}{in_study}"
    if hint := _without_blank(name, setting_names()):
        return f"unknown setting; {hint}"
    meant = nearest(name, setting_names())
    way_out = f"did you mean {meant}?" if meant else "`plora-cl train --help` lists them"
    return f"unknown setting; {way_out}"


def located(source: str, path: str, text: str) -> str:
    """Put the source and the dotted path in front; a flag is its own path."""
    is_flag = source.startswith("--") and source != "--set" and "." not in path
    return f"{source}: {text}" if is_flag else f"{source}: {path}: {text}"


def field_problems(error: ValidationError, source: str, keys: Keys | None = None) -> list[str]:
    """Return one line for each setting that is unknown, ill-typed or out of range.

    Args:
        error: Raised by pydantic.
        source: Where the values stand.
        keys: What may stand below each key of the top level, and on that itself below ``""``; the
            settings and the parts of a task if None.
    """
    return [
        located(source, _dotted(details["loc"]), _text(details, keys))
        for details in error.errors()
        if details["type"] != "contradiction"
    ]


def contradiction_problems(error: ValidationError, origins: Mapping[str, str]) -> list[str]:
    """Return one line for each contradiction, at the setting that was given most explicitly.

    Args:
        error: Raised by `Settings`.
        origins: Source of each setting that was given; later sources are more explicit.
    """
    sources = list(dict.fromkeys(origins.values()))
    lines = []
    for details in error.errors():
        for names, text in details.get("ctx", {}).get("found", ()):
            blamed = max(names, key=lambda n: sources.index(origins[n]) if n in origins else -1)
            lines.append(located(origins.get(blamed, "settings"), blamed, text))
    return lines


def _dotted(location: tuple[int | str, ...]) -> str:
    return ".".join(str(p) for p in location if p not in (*TAGS, "[key]"))


def _text(details: ErrorDetails, keys: Keys | None) -> str:
    kind, value = details["type"], details["input"]
    if kind == "missing":
        return "is missing; it has to be given"
    context: dict[str, Any] = details.get("ctx", {})
    if kind in {"extra_forbidden", "invalid_key"}:
        return _unknown_key(details["loc"], keys)
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_type" and value is not None and not isinstance(value, list | tuple | dict):
        return f"{shown(value)}; expected {_LOOKS_LIKE_TEXT}"
    expected = _EXPECTED[kind].format(**context) if kind in _EXPECTED else details["msg"]
    text = f"{shown(value)}; expected {expected}"
    if kind != "literal_error":
        return text
    meant = nearest(str(value), context["expected"].replace("'", " ").split())
    return f"{text}; did you mean {meant}?" if meant else text


def _unknown_key(location: tuple[int | str, ...], keys: Keys | None) -> str:
    parents = {1: "", 2: str(location[0])}
    if keys is not None and parents.get(len(location)) in keys:
        return unknown(str(location[-1]), keys[parents[len(location)]], kind="key")
    if len(location) == 1:
        return unknown_setting(str(location[0]))
    name, valid = str(location[-1]), entry_keys()
    if hint := _without_blank(name, valid):
        return f"unknown part of a task; {hint}"
    return unknown(name, valid, kind="part of a task")


def _without_blank(name: str, valid: Collection[str]) -> str | None:
    """Return what was meant by ``key:value``, which YAML reads as one key; or None."""
    key, colon, value = name.partition(":")
    return f"YAML needs a blank after a colon: {key}: {value}" if colon and key in valid else None
