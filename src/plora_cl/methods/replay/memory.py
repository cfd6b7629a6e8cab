"""Groups of tensors that replay remembers, one for each task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from torch import Tensor

from plora_cl.methods.base import below

Group: TypeAlias = Mapping[str, Tensor]


def named(prefix: str, groups: Mapping[int, Group]) -> dict[str, Group]:
    """Return the groups of tasks under names that begin with ``prefix``."""
    return {f"{prefix}{task}": group for task, group in groups.items()}


def by_task(prefix: str, groups: Mapping[str, Group]) -> dict[int, Group]:
    """Return what `named` was given, in the order of tasks; ``groups`` may hold others."""
    return dict(sorted((int(task), group) for task, group in below(prefix, groups).items()))
