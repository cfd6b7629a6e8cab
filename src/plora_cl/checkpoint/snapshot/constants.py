"""Tensors that stay as they are: stored once, as objects that checkpoints share."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, TypeAlias

from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.format.tensor_object import object_ref
from plora_cl.state import TensorPart

_Versions: TypeAlias = dict[str, tuple[int, int]]
"""By name the identity of a tensor, and how often it was written to."""


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
        """Return the names of the groups whose tensors were written to since they were noted."""
        return [name for name, part in self.parts.items() if _versions(part) != self.versions[name]]


def begin_hashing(part: TensorPart) -> Future[ObjectRef]:
    """Hash constant tensors on a thread, while the caller reads other things."""
    thread = ThreadPoolExecutor(1, "hashing")
    reference = thread.submit(lambda: object_ref(part.state_dict()))
    thread.shutdown(wait=False)
    return reference


def _versions(part: TensorPart) -> _Versions:
    # Whoever keeps the part keeps its tensors, so that no other tensor gets the identity of one.
    return {name: (id(tensor), tensor._version) for name, tensor in part.state_dict().items()}
