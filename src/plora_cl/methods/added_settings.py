"""What is wrong with the settings that another package declares; loads no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from plora_cl.extensions import told
from plora_cl.setting_types import SettingsGroup
from plora_cl.technique import core_fields
from plora_cl.wording import short


def group_problem(group: type[SettingsGroup]) -> str | None:
    """Return why the settings of a run cannot inherit from ``group``, None if they can.

    A package may add settings. It may not change those of others, nor how they are checked, and a
    default of its own has to survive a record.
    """
    return next(_problems(group), None)


def problem_of(error: ValidationError, *path: str) -> str:
    """Return the first problem that pydantic found in what is at ``path``, in one line."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, (*path, *first["loc"])))
    return f"{place} is {short(first['input'])}: {first['msg']}"


def _problems(group: type[SettingsGroup]) -> Iterator[str]:
    inherited = core_fields(group)
    for name, field in inherited.items():
        if _meaning(group.model_fields[name]) != _meaning(field):
            yield f"its settings redefine {name!r}, which is not theirs; give it another name"
    if group.model_config != SettingsGroup.model_config:
        yield "its settings have a model_config of their own; remove it"
    yield from _decorated(group, {*group.model_fields} - {*inherited})
    for name in group.model_fields:
        if name not in inherited:
            yield from _of_field(name, group.model_fields[name])
    try:
        given = group()
        read_back = group.model_validate(given.model_dump(mode="json", warnings=False))
    except ValidationError as error:
        yield f"the default of {problem_of(error)}"
    except Exception as error:  # noqa: BLE001 - a validator of the package raises anything
        yield f"its settings do not take their own defaults: {told(error)}"
    else:
        for name in group.model_fields:
            before, after = getattr(given, name), getattr(read_back, name)
            if before != after:
                yield f"the default of {name} is {short(before)} and reads back as {short(after)}"


def _of_field(name: str, field: FieldInfo) -> Iterator[str]:
    if hasattr(SettingsGroup, name):
        yield f"its setting {name!r} has the name of an attribute of every model; rename it"
    if field.is_required() or field.default_factory is not None:
        yield f"its setting {name!r} has no default; give it a fixed value"
        return
    try:
        json.dumps(field.default, allow_nan=False)
    except (TypeError, ValueError) as error:
        yield (
            f"the default of {name} is {short(field.default)}, which no record can hold "
            f"({error}); expected text, finite numbers, null, or lists and mappings of these"
        )


def _decorated(group: type[SettingsGroup], own: set[str]) -> Iterator[str]:
    found = group.__pydantic_decorators__
    for kind in (found.validators, found.field_validators, found.field_serializers):
        for function, decorator in kind.items():
            if others := sorted({*decorator.info.fields} - own):
                yield (
                    f"its {function} checks or changes {', '.join(map(repr, others))}, which is "
                    "not a setting of its own"
                )
    whole = (found.model_validators, found.root_validators, found.model_serializers)
    for function in [name for kind in (*whole, found.computed_fields) for name in kind]:
        yield (
            f"its {function} acts on all settings of every run; write it as contradictions of the "
            "Technique"
        )


def _meaning(field: FieldInfo) -> tuple[object, ...]:
    return field.annotation, field.default, field.default_factory, field.metadata
