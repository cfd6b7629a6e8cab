"""Which calls of a `CheckpointManager` are accepted, and with which arguments."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, SupportsIndex, TypeVar

from plora_cl.checkpoint.snapshot.constants import require_name
from plora_cl.errors import CheckpointError
from plora_cl.plain_numbers import plain_index

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Calls:
    """What may be called now.

    Attributes:
        running: Name of the method that runs; None where none does.
        is_closed: Whether `close` was called.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._process = folder, os.getpid()
        self.running: str | None = None
        self.is_closed = False
        self._is_restored_in_part = False

    @property
    def is_forked(self) -> bool:
        """Whether this process is a child, made by ``os.fork``, of the one that made the object."""
        return os.getpid() != self._process

    def require(self, name: str) -> None:
        """Refuse a call of method ``name`` that is out of order.

        Raises:
            CheckpointError: Another call runs, the manager is closed, or this is a forked child.
        """
        if self.is_forked:
            raise CheckpointError(
                f"{self._folder}: {name}() was called in a forked child, which cannot continue the "
                f"run of its parent (process {self._process}): leave saving to the parent"
            )
        if self.is_closed:
            raise CheckpointError(
                f"{self._folder}: {name}() was called after close(): make another CheckpointManager"
            )
        if self.running is not None:
            raise CheckpointError(
                f"{self._folder}: {name}() was called while {self.running}() runs, by a signal "
                "handler or on another thread: let the handler set a flag, and call "
                f"{name}() in the training loop where the flag is set"
            )

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Note that components change together; after an error `require_whole` refuses them."""
        self._is_restored_in_part = True
        yield
        self._is_restored_in_part = False

    def require_whole(self) -> None:
        """Refuse components that the last `restoring` has left half changed.

        Raises:
            CheckpointError: It did.
        """
        if self._is_restored_in_part:
            raise CheckpointError(
                f"{self._folder}: the last resume() failed when some components were restored and "
                "others were not: call resume() with a checkpoint that all of them load, or build "
                "the components again and make another CheckpointManager"
            )


class _HasCalls(Protocol):
    _calls: Calls


_Caller = TypeVar("_Caller", bound=_HasCalls)


def one_at_a_time(
    method: Callable[Concatenate[_Caller, _Arguments], _Result],
) -> Callable[Concatenate[_Caller, _Arguments], _Result]:
    """Refuse calls of ``method`` that are out of order; see `Calls.require`."""

    @functools.wraps(method)
    def alone(caller: _Caller, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        caller._calls.require(method.__name__)
        try:  # it begins before the name is noted, so that no interrupt leaves the name there
            caller._calls.running = method.__name__
            return method(caller, *args, **kwargs)
        finally:
            caller._calls.running = None

    return alone


def at_least(name: str, value: SupportsIndex, least: int) -> int:
    """Return argument ``value`` as an integer.

    Raises:
        TypeError: It is no integer.
        ValueError: It is below ``least``.
    """
    number = plain_index(name, value)
    if number < least:
        raise ValueError(f"{name} is {number}; expected at least {least}")
    return number


def require_components(components: object, *, reserved: str) -> None:
    """Refuse components that could not be saved.

    Args:
        components: What the user passed: ``Stateful`` objects by name.
        reserved: The name of a component that is not the user's.

    Raises:
        TypeError: They are no dict, a name is no str, or a component has no ``state_dict`` or
            ``load_state_dict``.
        ValueError: There are none, one has the reserved name, or a name is empty or has a slash.
    """
    if not isinstance(components, Mapping):
        kind = type(components).__name__
        raise TypeError(f"components is a {kind}; expected a dict, such as {{'model': model}}")
    if reserved in components:
        raise ValueError(f"component {reserved!r}: the name is taken by the random generators")
    if not components:
        raise ValueError(
            "components is empty; expected what changes in training, such as {'model': model}"
        )
    for name, part in components.items():
        require_name("component", name)
        for method in ("state_dict", "load_state_dict"):
            if not callable(getattr(part, method, None)):
                raise TypeError(
                    f"component {name!r} is a {type(part).__name__}, which has no {method}(); "
                    "expected, for instance, a module or an optimizer"
                )
