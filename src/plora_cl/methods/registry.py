"""Every technique: a built-in one is a line here, another package's one an entry point.

Loads no torch: what a technique computes is imported when a run is built.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from typing import get_type_hints

from pydantic import TypeAdapter, ValidationError

from plora_cl.errors import ExtensionError
from plora_cl.extensions import METHODS, Extension, extensions
from plora_cl.impact import Impact
from plora_cl.methods.added_settings import group_problem, problem_of
from plora_cl.methods.added_technique import held_to_contract
from plora_cl.methods.ewc.settings import EWC, EwcSettings
from plora_cl.methods.olora.settings import OLORA, OloraSettings
from plora_cl.methods.replay.settings import REPLAY, ReplaySettings
from plora_cl.model.lateral_settings import LATERAL, LateralSettings
from plora_cl.setting_types import SettingsGroup, impact_of
from plora_cl.technique import Technique
from plora_cl.wording import kind_of

BUILT_IN = (EWC, OLORA, REPLAY, LATERAL)


class TechniqueSettings(LateralSettings, ReplaySettings, OloraSettings, EwcSettings):
    """The settings of every built-in technique; the last base comes first in a record."""


@cache
def techniques() -> tuple[Technique, ...]:
    """Return every technique: the built-in ones, then those of installed packages.

    Raises:
        ExtensionError: A package declares a technique that cannot be used.
    """
    return (*BUILT_IN, *added())


@cache
def added() -> tuple[Technique, ...]:
    """Return the techniques of installed packages.

    Raises:
        ExtensionError: A package declares a technique that cannot be used.
    """
    found: list[Technique] = []
    for extension in extensions(METHODS):
        earlier = [*BUILT_IN, *found]
        if problem := _problem(extension, {technique.name for technique in earlier}):
            raise ExtensionError(f"{extension.origin}: {problem}")
        found.append(held_to_contract(extension.value, extension.origin))
    return tuple(found)


def active(settings: SettingsGroup) -> list[Technique]:
    """Return the techniques that ``settings`` switch on.

    Raises:
        ExtensionError: A package declares a technique that cannot be used.
    """
    return [technique for technique in techniques() if technique.is_on(settings)]


def origin(technique: Technique) -> str:
    """Return which package declares ``technique``, and where, for messages."""
    origins = [each.origin for each in extensions(METHODS) if each.value.name == technique.name]
    return next(iter(origins), technique.title)


def _problem(extension: Extension, taken: Collection[str]) -> str | None:
    """Return what is wrong with a technique of another package, None if it can be used."""
    technique = extension.value
    if not isinstance(technique, Technique):
        return f"is {kind_of(technique)}; expected a plora_cl.technique.Technique"
    for attribute, kind in get_type_hints(Technique).items():
        try:
            TypeAdapter(kind).validate_python(getattr(technique, attribute), strict=True)
        except ValidationError as error:
            return f"its {problem_of(error, attribute)}"
    name, switch = technique.name, technique.switch
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name) or name in taken:
        return f"its name {name!r} is taken, or is not made of lower-case letters, digits, - and _"
    named = {switch, *technique.flags, *technique.shape_settings}
    named |= {name for rule in technique.effectless for name in rule.settings}
    named |= {technique.strength} if technique.strength is not None else set()
    if unknown := sorted(named - {*technique.setting_names}):
        return f"{name} names {', '.join(unknown)}, and its settings have no such field"
    if not switch.startswith("use_"):
        return f"the switch of {name} is {switch!r}; expected a name that begins with use_"
    if problem := group_problem(technique.settings):
        return problem
    fields = technique.settings.model_fields
    if fields[switch].default is not False or impact_of(fields[switch]) is not Impact.STRUCTURAL:
        return (
            f"{switch} has to be off by default and Impact.STRUCTURAL, so that a package changes "
            "no run that does not use it"
        )
    return None
