"""From settings to methods: what a factory of another package may do wrong."""

from __future__ import annotations

from typing import Any, cast

import pytest

from plora_cl.errors import ExtensionError, ModelError
from plora_cl.methods import registry
from plora_cl.methods.base import ContinualMethod, MethodSetup
from plora_cl.methods.building import methods_of
from plora_cl.setting_types import SettingsGroup
from plora_cl.technique import Technique

NUMBER = 3


class Mine(ContinualMethod):
    name = "mine"


class Impostor(ContinualMethod):
    name = "ewc"


class Settings(SettingsGroup):
    use_mine: bool = True


def build(settings: Any, setup: Any) -> ContinualMethod:
    return Mine()


def build_another(settings: Any, setup: Any) -> ContinualMethod:
    return Impostor()


def build_none(settings: Any, setup: Any) -> None:
    return None


def fail(settings: Any, setup: Any) -> ContinualMethod:
    raise KeyError("boom")


def refuse(settings: Any, setup: Any) -> ContinualMethod:
    raise ModelError("the model is not there; download it")


def methods(monkeypatch: pytest.MonkeyPatch, factory: str | None) -> list[ContinualMethod]:
    technique = Technique(
        name="mine", title="my package", settings=Settings, switch="use_mine", factory=factory
    )
    monkeypatch.setattr(registry, "techniques", lambda: (technique,))
    return methods_of(Settings(), cast("MethodSetup", None))


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("no_such_module:build", " cannot be imported: ModuleNotFoundError: No module named"),
        (f"{__name__}:nobody", " cannot be imported: AttributeError: module"),
        (f"{__name__}:NUMBER", ": TypeError: 'int' object is not callable; repair or uninstall"),
        (f"{__name__}:fail", ": KeyError: 'boom'; repair or uninstall the package"),
        (f"{__name__}:build_none", " returned None; expected a ContinualMethod with the name"),
        (f"{__name__}:build_another", "expected a ContinualMethod with the name 'mine', that of"),
        (f"{__name__}:Mine.name", ": TypeError: 'str' object is not callable"),
    ],
)
def test_a_factory_that_cannot_be_used_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, factory: str, reason: str
) -> None:
    with pytest.raises(ExtensionError) as caught:
        methods(monkeypatch, factory)
    assert str(caught.value).startswith(f"my package: its factory {factory!r}")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_factory_builds_or_says_itself_why_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    (method,) = methods(monkeypatch, f"{__name__}:build")
    assert isinstance(method, Mine)
    assert methods(monkeypatch, None) == []
    with pytest.raises(ModelError, match="the model is not there; download it"):
        methods(monkeypatch, f"{__name__}:refuse")
