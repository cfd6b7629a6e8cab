"""Tensors that stay as they are: stored once, as objects that checkpoints share."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, TypeAlias

import torch
from torch import Tensor

from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.format.tensor_object import object_ref, require_storable
from plora_cl.errors import CheckpointError
from plora_cl.state import TensorPart

log = logging.getLogger(__name__)

Tensors: TypeAlias = TensorPart | Mapping[str, Tensor]

_Version: TypeAlias = tuple[int, int, int, torch.dtype, torch.Size]
_Versions: TypeAlias = dict[str, _Version]
"""By name what shows most writes to a tensor at little cost."""


@dataclass(frozen=True, slots=True)
class Constants:
    """Named groups of tensors, as they are from one save to a later one.

    Attributes:
        parts: The groups, by object name.
        versions: By group, which tensors it had when it was noted, and their versions.
    """

    parts: Mapping[str, TensorPart]
    versions: Mapping[str, _Versions]

    @classmethod
    def noted(cls, parts: Mapping[str, TensorPart]) -> Self:
        """Return ``parts`` with the present versions of their tensors."""
        return cls(parts, {name: _versions(part) for name, part in parts.items()})

    def shares(self, name: str, other: Constants) -> bool:
        """Return whether a group is the same in ``other``: the same tensors, not written to."""
        return name in self.versions and self.versions[name] == other.versions[name]

    def changed(self) -> list[str]:
        """Return the tensors that were written to since they were noted, as group and name.

        Writes to the memory of a tensor that PyTorch does not count, such as in-place operations
        on ``tensor.data`` or a NumPy view, are not seen.
        """
        return [
            f"{group}/{name}"
            for group, part in self.parts.items()
            if (now := _versions(part)) != self.versions[group]
            for name in {**self.versions[group], **now}
            if now.get(name) != self.versions[group].get(name)
        ]


class HashedConstants:
    """Constants that a run must not write to; each save, and then their hash, shows if it did.

    Args:
        groups: By object name; hashed on threads of their own.

    Attributes:
        parts: The groups.
        refs: By group the reference to its object.

    Raises:
        TypeError: A tensor cannot be stored; the message names it.
        ValueError: The name of a group is empty, or has a slash.
    """

    def __init__(self, groups: Mapping[str, Tensors]) -> None:
        if not isinstance(groups, Mapping):
            raise TypeError(
                f"constants is a {type(groups).__name__}; expected a dict, such as "
                "{'base': split_module(module)[1]}"
            )
        for name, group in groups.items():
            require_name("constants", name)
            if not isinstance(group, TensorPart | Mapping):
                raise TypeError(
                    f"constants {name} is a {type(group).__name__}; expected a dict of tensors by "
                    "name, or split_module(module)[1]"
                )
        self.parts = {
            name: group if isinstance(group, TensorPart) else TensorPart(group)
            for name, group in groups.items()
        }
        for name, part in self.parts.items():
            require_storable(part.state_dict(), f"constants {name}")
        self._noted = Constants.noted(self.parts)
        self.refs = {name: begin_hashing(part) for name, part in self.parts.items()}
        self._rewritten: list[str] = []
        self._is_hash_due = False

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each group."""
        return {name: ref.result().sha256 for name, ref in self.refs.items()}

    def saved(self) -> Constants:
        """Return what a save refers to."""
        self._is_hash_due = True
        return self._noted

    def require_unchanged(self) -> None:
        """Refuse constants that were seen to be written to; costs microseconds.

        Raises:
            CheckpointError: The message names them.
        """
        _refuse(self._rewritten or self._noted.changed())

    def require_saved_unchanged(self) -> None:
        """Refuse constants that were written to before the last save; reads all if there was one.

        Raises:
            CheckpointError: The message names them.
        """
        if self._is_hash_due:
            again = {name: begin_hashing(part) for name, part in self.parts.items()}
            digests = self.digests()
            self._rewritten = [n for n, ref in again.items() if ref.result().sha256 != digests[n]]
            self._is_hash_due = False
        _refuse(self._rewritten)


def require_name(what: str, name: object) -> None:
    """Refuse a ``name`` that messages, in which slashes separate names, could not tell apart.

    Raises:
        TypeError: It is no str.
        ValueError: It is empty, or has a slash.
    """
    if not isinstance(name, str):
        raise TypeError(f"{what} {name!r}: the name is a {type(name).__name__}; expected a str")
    if not name or "/" in name:
        raise ValueError(f"{what} {name!r}: expected a name with at least one letter and no slash")


def _refuse(changed: list[str]) -> None:
    if changed:
        message = (
            f"constants that never change were written to: {', '.join(changed)}; pass what changes "
            "as components. Checkpoints refer to the values from before: a run resumed from "
            "them may differ from this one"
        )
        log.error("%s", message)
        raise CheckpointError(message)


def begin_hashing(part: TensorPart) -> Future[ObjectRef]:
    """Hash constant tensors on a thread, while the caller reads other things.

    Where no thread can be started they are hashed on return.
    """
    thread = ThreadPoolExecutor(1, "hashing")
    try:
        reference = thread.submit(lambda: object_ref(part.state_dict()))
    except RuntimeError:  # the interpreter exits, or the system has no thread to give
        reference = Future()
        reference.set_result(object_ref(part.state_dict()))
    thread.shutdown(wait=False)
    return reference


def _versions(part: TensorPart) -> _Versions:
    # Whoever keeps the part keeps its tensors, so that no other tensor gets the identity of one.
    return {name: _version(tensor) for name, tensor in part.state_dict().items()}


def _version(tensor: Tensor) -> _Version:
    # Assigning `tensor.data` changes no counter.
    return id(tensor), tensor._version, tensor.data_ptr(), tensor.dtype, tensor.shape
