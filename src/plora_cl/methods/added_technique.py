"""Checks on the functions of a technique of another package; loads no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from plora_cl.errors import ExtensionError, PloraError
from plora_cl.extensions import blaming
from plora_cl.technique import Contradiction, Effectless, Technique
from plora_cl.wording import short


def held_to_contract(technique: Technique, origin: str) -> Technique:
    """Return ``technique`` with functions that raise an `ExtensionError` where they are wrong.

    Args:
        technique: Of another package.
        origin: The package and its entry point, for messages.
    """

    def contradictions(settings: Any) -> Iterable[Contradiction]:
        with blaming(f"{origin}: its contradictions"):
            found = list(technique.contradictions(settings))
        for each in found:
            if problem := _problem_of(each, {*type(settings).model_fields}):
                raise ExtensionError(f"{origin}: its contradictions yield {short(each)}; {problem}")
        return found

    def checked(rule: Effectless) -> Effectless:
        def applies(settings: Any) -> bool:
            with blaming(f"{origin}: its rule on settings without effect ({rule.reason})"):
                return bool(rule.applies(settings))

        return rule._replace(applies=applies)

    def require_inputs(settings: Any) -> None:
        with blaming(f"{origin}: its require_inputs", may_raise=(PloraError, MemoryError)):
            technique.require_inputs(settings)

    return replace(
        technique,
        contradictions=contradictions,
        effectless=tuple(map(checked, technique.effectless)),
        require_inputs=require_inputs,
    )


def _problem_of(found: object, known: set[str]) -> str | None:
    parts: tuple[Any, ...] = found if isinstance(found, Contradiction) else ((), None)
    names, text = parts
    if not isinstance(text, str):
        return "expected plora_cl.technique.Contradiction(settings, text)"
    if not isinstance(names, tuple) or not names or not known.issuperset(names):
        return "expected a tuple of names of settings, at least one"
    return None
