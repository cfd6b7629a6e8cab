"""Every technique: a built-in one is a line here, another package's one an entry point.

Loads no torch: what a technique computes is imported when a run is built.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import cache
from pkgutil import resolve_name
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from plora_cl.errors import ExtensionError
from plora_cl.extensions import METHODS, Extension, extensions, told
from plora_cl.impact import Impact
from plora_cl.methods.added_settings import group_problem, problem_of
from plora_cl.methods.ewc.settings import EWC, EwcSettings
from plora_cl.methods.olora.settings import OLORA, OloraSettings
from plora_cl.methods.replay.settings import REPLAY, ReplaySettings
from plora_cl.model.lateral_settings import LATERAL, LateralSettings
from plora_cl.setting_types import impact_of
from plora_cl.technique import Technique
from plora_cl.wording import short

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
        found.append(extension.value)
    return tuple(found)


def origin(technique: Technique) -> str:
    """Return which package declares ``technique``, and where, for messages."""
    origins = [each.origin for each in extensions(METHODS) if each.value is technique]
    return next(iter(origins), technique.title)


def factory_of(technique: Technique) -> Callable[..., Any] | None:
    """Import what builds the method of ``technique``; None if the model itself implements it.

    Raises:
        ExtensionError: It cannot be imported.
    """
    if technique.factory is None:
        return None
    try:
        found: Callable[..., Any] = resolve_name(technique.factory)
    except (Exception, SystemExit) as error:  # code of another package raises anything
        raise ExtensionError(
            f"{origin(technique)}: its factory {technique.factory!r} cannot be imported: "
            f"{told(error)}; repair or uninstall the package"
        ) from error
    if not callable(found):
        raise ExtensionError(
            f"{origin(technique)}: its factory {technique.factory!r} is {short(found)}; expected a "
            "callable that takes the settings and a MethodSetup"
        )
    return found


def _problem(extension: Extension, taken: Collection[str]) -> str | None:
    """Return what is wrong with a technique of another package, None if it can be used."""
    technique = extension.value
    if not isinstance(technique, Technique):
        return f"is a {type(technique).__name__}; expected a plora_cl.technique.Technique"
    for attribute, kind in get_type_hints(Technique).items():
        try:
            TypeAdapter(kind).validate_python(getattr(technique, attribute), strict=True)
        except ValidationError as error:
            return f"its {problem_of(error, attribute)}"
    name, switch = technique.name, technique.switch
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name) or name in taken:
        return f"its name {name!r} is taken, or is not made of lower-case letters, digits, - and _"
    named = {switch, *technique.flags, *technique.shape_settings}
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
