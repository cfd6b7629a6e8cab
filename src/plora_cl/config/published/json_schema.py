"""The settings as a JSON Schema, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any

from plora_cl.config.schema import settings_class

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TITLE = "Settings of plora-cl train"

_BOUNDS = {
    "gt": "exclusiveMinimum",
    "ge": "minimum",
    "lt": "exclusiveMaximum",
    "le": "maximum",
}
"""Bounds that pydantic leaves as they are where another check comes first."""


def settings_schema() -> dict[str, Any]:
    """Return the JSON Schema of a file of settings.

    It says less than `plora_cl.load_settings` checks: neither contradictions between settings nor
    whether tasks and models exist.
    """
    found = _standard(settings_class().model_json_schema())
    return {"$schema": _DIALECT, **found, "title": _TITLE}


def _standard(part: Any) -> Any:
    if isinstance(part, list):
        return [_standard(item) for item in part]
    if not isinstance(part, dict):
        return part
    is_schema = "type" in part or "anyOf" in part
    return {
        _BOUNDS.get(key, key) if is_schema else key: _standard(value)
        for key, value in part.items()
        if not (key == "title" and isinstance(value, str))
    }
