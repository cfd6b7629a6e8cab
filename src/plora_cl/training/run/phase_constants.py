"""What stays as it is for as long as a phase lasts, and whether it is the same in the next one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, TypeAlias

from plora_cl.state import Cursor, TensorPart

_Versions: TypeAlias = dict[str, tuple[int, int]]
"""By name which tensor it is, and how often it was written to."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Components that stay as they are throughout one phase of one task."""

    task: int
    phase: str
    constant: Mapping[str, TensorPart]
    versions: Mapping[str, _Versions]

    @classmethod
    def begun(cls, cursor: Cursor, constant: Mapping[str, TensorPart]) -> Self:
        """Return the moment of ``cursor``, with the tensors as they are now."""
        versions = {name: _versions(part) for name, part in constant.items()}
        return cls(cursor.task, cursor.phase.value, constant, versions)

    def has(self, name: str, other: Moment) -> bool:
        """Tell whether a group is the same here, tensor for tensor and untouched, as there."""
        return name in self.versions and self.versions[name] == other.versions[name]


def _versions(part: TensorPart) -> _Versions:
    # Whoever keeps the part keeps the tensors, so that no other one gets the identity of one.
    return {name: (id(tensor), tensor._version) for name, tensor in part.state_dict().items()}
