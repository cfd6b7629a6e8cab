"""The methods of a run, as its settings switch them on."""

from __future__ import annotations

from contextlib import nullcontext
from pkgutil import resolve_name

from plora_cl.errors import ExtensionError, PloraError
from plora_cl.extensions import blaming
from plora_cl.methods.base import ContinualMethod, MethodSetup
from plora_cl.methods.registry import BUILT_IN, active, origin
from plora_cl.setting_types import SettingsGroup
from plora_cl.technique import Technique
from plora_cl.wording import short


def methods_of(settings: SettingsGroup, setup: MethodSetup) -> list[ContinualMethod]:
    """Build the method of each technique that ``settings`` switch on, in their order.

    Raises:
        ExtensionError: A factory cannot be imported, fails, or returns something else.
        PloraError: A method cannot be built with these settings.
    """
    ordered = sorted(active(settings), key=lambda technique: technique.order)
    return [
        _built(technique, technique.factory, settings, setup)
        for technique in ordered
        if technique.factory is not None
    ]


def _built(
    technique: Technique, factory: str, settings: SettingsGroup, setup: MethodSetup
) -> ContinualMethod:
    its_factory = f"{origin(technique)}: its factory {factory!r}"
    with blaming(f"{its_factory} cannot be imported"):
        build = resolve_name(factory)
    is_ours = technique in BUILT_IN  # what fails there is a defect: its traceback is wanted
    with nullcontext() if is_ours else blaming(its_factory, may_raise=(PloraError, MemoryError)):
        method = build(settings, setup)
    if not isinstance(method, ContinualMethod) or method.name != technique.name:
        raise ExtensionError(
            f"{its_factory} returned {short(method)}; expected a ContinualMethod with the name "
            f"{technique.name!r}, that of the technique"
        )
    return method
