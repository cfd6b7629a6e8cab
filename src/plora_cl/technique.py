"""What the package knows about a technique: its settings, its flags, its rules, how to build it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo

from plora_cl.setting_types import SettingsGroup

_CORE = "plora_cl."


class Contradiction(NamedTuple):
    """Settings that exclude one another.

    Attributes:
        settings: Their names, the one to report first.
        text: What is wrong and the ways out.
    """

    settings: tuple[str, ...]
    text: str


class Effectless(NamedTuple):
    """Settings whose values change nothing.

    Attributes:
        applies: Whether that is so, given all settings.
        reason: Why, for instance ``use_ewc is false``.
        settings: Their names.
    """

    applies: Callable[[Any], bool]
    reason: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Technique:
    """One technique that settings switch on: a `ContinualMethod`, or structure of the model.

    Flags, help, contradictions, notes on settings without effect, learners and the rules of
    resuming follow from this description. It loads no torch: `factory` is imported only when a run
    is built.

    Attributes:
        name: Of the technique; that of its `ContinualMethod`, if it has one.
        title: As messages call it.
        settings: Its settings: a class with a field for each, the switch among them.
        switch: Name of the setting that turns it on, beginning with ``use_``.
        factory: ``module:function`` or ``module:Class.method`` that builds the `ContinualMethod`
            from ``(settings, setup)``, see `plora_cl.methods.base.MethodSetup`; None for a
            technique that the model itself implements.
        flags: Settings with a flag of their own, and the name of its value in the help. The switch
            always has two: ``--use-NAME`` and ``--no-NAME``.
        strength: Setting that weighs it; 0 is refused while it is on, and a study can tune it.
        from_second_task: Whether it acts only from the second task on. Then it is refused in joint
            training, and its settings have no effect on a single task.
        shape_settings: Settings that decide which tensors a run has.
        contradictions: Returns what is wrong with all settings of a run while it is on.
        effectless: Its settings without effect while it is on; where it is off all of them are.
        require_inputs: Makes sure that files and models named by its settings exist; raises a
            `PloraError`. Called while it is on, before anything is loaded.
        order: Position among the methods of a run, where it matters; equal ones keep the order in
            which they are registered.
    """

    name: str
    title: str
    settings: type[SettingsGroup]
    switch: str
    factory: str | None = None
    flags: Mapping[str, str] = field(default_factory=dict)
    strength: str | None = None
    from_second_task: bool = True
    shape_settings: tuple[str, ...] = ()
    contradictions: Callable[[Any], Iterable[Contradiction]] = lambda _: ()
    effectless: tuple[Effectless, ...] = ()
    require_inputs: Callable[[Any], None] = lambda _: None
    order: int = 0

    @property
    def setting_names(self) -> list[str]:
        """Its settings, the switch among them, in the order in which they are declared."""
        inherited = core_fields(self.settings)
        return [name for name in self.settings.model_fields if name not in inherited]

    @property
    def details(self) -> tuple[str, ...]:
        """Its settings without the switch."""
        return tuple(name for name in self.setting_names if name != self.switch)

    @property
    def way_off(self) -> str:
        """How to switch it off, for messages."""
        return f"{self.switch}: false / {no_flag(self.switch)}"

    def is_on(self, settings: object) -> bool:
        """Return whether ``settings`` switch it on."""
        return bool(getattr(settings, self.switch, False))


def core_fields(group: type[SettingsGroup]) -> dict[str, FieldInfo]:
    """Return the fields that ``group`` inherits from groups of this package, as these have them."""
    bases = [
        base
        for base in group.__mro__[1:]
        if issubclass(base, SettingsGroup) and base.__module__.startswith(_CORE)
    ]
    return {name: field for base in reversed(bases) for name, field in base.model_fields.items()}


def no_flag(switch: str) -> str:
    """Return the flag that turns a switch off, for instance ``--no-ewc`` for ``use_ewc``."""
    return f"--no-{switch.removeprefix('use_').replace('_', '-')}"
