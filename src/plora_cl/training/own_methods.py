"""Methods that a user passes to `CLTrainer`, and what they add to the identity of a run."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

from plora_cl.checkpoint.snapshot.compatibility import SettingChange, value_changes
from plora_cl.checkpoint.snapshot.snapshot import json_copy
from plora_cl.errors import MethodError
from plora_cl.impact import Impact
from plora_cl.methods.base import ContinualMethod

Hyperparameters: TypeAlias = dict[str, Any]
"""Those of each method, as plain JSON, by the name of the method."""

IDENTITY = "methods"
"""The key in the identity of a run that holds the `Hyperparameters`."""


def require_distinct_names(
    methods: Sequence[ContinualMethod], reserved: Collection[str]
) -> Sequence[ContinualMethod]:
    """Return ``methods`` if their names are valid and distinct.

    Args:
        methods: Those of the user.
        reserved: Names of the methods that settings can switch on.

    Raises:
        MethodError: A name is missing, is not an identifier, or is used twice.
    """
    seen = set(reserved)
    for method in methods:
        kind = type(method).__name__
        if not isinstance(method, ContinualMethod):
            raise MethodError(
                f"methods: {method!r} is a {kind}; expected a list of ContinualMethod instances"
            )
        name = getattr(method, "name", None)
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
            raise MethodError(
                f"methods: the name of {kind} is {name!r}; expected letters, digits, - and _, "
                "beginning with a letter: set the class attribute `name`"
            )
        if name in reserved:
            raise MethodError(
                f"methods: {kind} has the name {name!r}, which belongs to a method that settings "
                "switch on; choose another name"
            )
        if name in seen:
            raise MethodError(
                f"methods: two methods have the name {name!r}; give each its own name"
            )
        seen.add(name)
    return tuple(methods)


def copies(methods: Sequence[ContinualMethod]) -> list[ContinualMethod]:
    """Return a copy of each method for one run; the originals stay as they are.

    Raises:
        MethodError: A method cannot be copied.
    """
    found = []
    for method in methods:
        try:
            found.append(copy.deepcopy(method))
        except Exception as error:
            raise MethodError(
                f"methods: {method.name} cannot be copied ({error}), and each run learns with a "
                "copy; define `__deepcopy__`, or create what cannot be copied in `grow`"
            ) from error
    return found


def methods_identity(methods: Sequence[ContinualMethod]) -> dict[str, Hyperparameters]:
    """Return what the identity of a run says of ``methods``: nothing without any.

    Raises:
        MethodError: Hyper-parameters are not plain JSON.
    """
    found = {method.name: _plain(method) for method in methods}
    return {IDENTITY: found} if found else {}


def method_changes(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[SettingChange]:
    """Return how the methods of two runs differ.

    Another set of methods is structural; another hyper-parameter changes the trajectory.

    Args:
        saved: Identity of the checkpoint.
        current: Identity of this run.
    """
    before, now = saved.get(IDENTITY, {}), current.get(IDENTITY, {})
    found = []
    for name in sorted({*before, *now}):
        if name in before and name in now:
            prefix = f"{IDENTITY}.{name}."
            found += value_changes(before[name], now[name], {}, prefix=prefix)
        else:
            reason = (
                "pass it: CLTrainer(methods=[...])"
                if name in before
                else "the run of the checkpoint learned without it"
            )
            was, here = (repr(of[name]) if name in of else "nothing" for of in (before, now))
            found.append(SettingChange(Impact.STRUCTURAL, f"{IDENTITY}.{name}", was, here, reason))
    return found


def _plain(method: ContinualMethod) -> Hyperparameters:
    values = method.hyperparameters()
    try:
        return json_copy(values, "hyperparameters")
    except (TypeError, ValueError) as error:
        raise MethodError(
            f"methods: hyperparameters() of {method.name} returned {values!r}; expected plain JSON "
            f"with finite numbers: {error}"
        ) from error
