"""What other installed packages add, declared as entry points; looked up when it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from typing import Any, NamedTuple

from plora_cl.errors import ExtensionError

METHODS, SOURCES = "plora_cl.methods", "plora_cl.sources"


class Extension(NamedTuple):
    """What one entry point declares.

    Attributes:
        name: Of the entry point.
        origin: The entry point and its package, for messages.
        value: What it refers to.
    """

    name: str
    origin: str
    value: Any


@cache
def extensions(group: str) -> tuple[Extension, ...]:
    """Return what installed packages declare in ``group``, sorted by package and name.

    Raises:
        ExtensionError: A package cannot be imported.
    """
    found = sorted(metadata.entry_points(group=group), key=lambda e: (_package(e), e.name))
    return tuple(_loaded(entry) for entry in found)


def _loaded(entry: metadata.EntryPoint) -> Extension:
    origin = f"package {_package(entry)}, entry point {entry.group}: {entry.name} = {entry.value}"
    with blaming(f"{origin}: cannot be imported"):
        return Extension(entry.name, origin, entry.load())


@contextmanager
def blaming(what: str, *, may_raise: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Report in one line what code of another package raises within the ``with`` block.

    Args:
        what: The package and what failed, the start of the message.
        may_raise: Errors that the code is entitled to: they are raised as they are.

    Raises:
        ExtensionError: It raised another error, of any kind.
    """
    try:
        yield
    except may_raise:
        raise
    except (Exception, SystemExit) as error:
        raise ExtensionError(f"{what}: {told(error)}; repair or uninstall the package") from error


def told(error: BaseException) -> str:
    """Return type and first line of an error that code of another package raised."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _package(entry: metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "unknown"
