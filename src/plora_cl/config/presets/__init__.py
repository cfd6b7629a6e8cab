"""Settings that come with the library, one YAML file each."""

from __future__ import annotations

from importlib import resources
from typing import Any

from plora_cl.config.errors import unknown
from plora_cl.config.yaml_file import parse_mapping
from plora_cl.errors import SettingsError


def preset_names() -> list[str]:
    """Return the names of all presets."""
    files = resources.files(__name__).iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def read_preset(name: str, *, source: str = "preset") -> dict[str, Any]:
    """Return the settings of a preset; ``source`` says in messages where its name stands.

    Raises:
        SettingsError: There is no preset of that name.
    """
    names = preset_names()
    if name not in names:
        text = unknown(name, names, kind="preset")
        listed = "" if "there are" in text else f" (there are {', '.join(names)})"
        raise SettingsError([f"{source}: {name!r}: {text}{listed}"])
    return parse_mapping(_content(name), f"preset {name}")


def preset_title(name: str) -> str:
    """Return the first line of the file of a preset: what it is, and how long it takes."""
    return _content(name).partition("\n")[0].removeprefix("# ")


def _content(name: str) -> str:
    return resources.files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
