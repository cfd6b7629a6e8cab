"""Packages of the extra ``quickstart``: their files are read, they are never imported."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from plora_cl.errors import ModelError


def packaged_path(setting: str, name: str, packaged: Mapping[str, tuple[str, str, str]]) -> Path:
    """Return the path of a packaged model.

    Args:
        setting: The setting that names it, for messages.
        name: The value of that setting.
        packaged: For each name the distribution, its package and a path in that.

    Raises:
        ModelError: There is no such model, or the package that carries it is not installed.
    """
    if name not in packaged:
        raise ModelError(f"{setting}: unknown {name!r}; packaged: {', '.join(packaged)}")
    distribution, package, path = packaged[name]
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"{setting}: {name!r} comes with a package: {how_to_install(distribution)}"
        )
    return Path(spec.submodule_search_locations[0]) / path


def how_to_install(package: str) -> str:
    """Return the commands that install ``package`` without what it depends on itself.

    Args:
        package: One of the extra.
    """
    try:
        stated = metadata.requires("plora-cl") or []
    except metadata.PackageNotFoundError:  # run from a folder that was never installed
        stated = []
    wanted = (text.partition(";")[0].strip() for text in stated)
    pinned = next((text for text in wanted if text.startswith(f"{package}==")), package)
    return f"pip install --no-deps {pinned}, or uv sync --extra quickstart in a clone"
