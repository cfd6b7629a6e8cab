"""What a checkpoint contains: the state of a whole run at one instant."""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Self

import torch
from torch import Tensor
from torch.optim import Optimizer

from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.format.pickle_gate import MAX_DEPTH
from plora_cl.checkpoint.format.torch_archive import require_readable
from plora_cl.checkpoint.format.trajectory import UNKNOWN, Trajectory
from plora_cl.checkpoint.snapshot.compatibility import moved_generators
from plora_cl.checkpoint.snapshot.staging import HostStaging, separate_copy
from plora_cl.errors import CheckpointError, IncompatibleCheckpointError
from plora_cl.state import StateDict, Stateful, require_same_names
from plora_cl.state_digest import state_digest
from plora_cl.wording import kind_of

log = logging.getLogger(__name__)

_REFUSALS = (
    LookupError, ValueError, TypeError, RuntimeError, AttributeError, AssertionError,
)  # fmt: skip
"""What `load_state_dict` of a component raises where a state is not one of its own."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What every checkpoint of a run says of it; plain JSON that must not change.

    Attributes:
        seed: Of the run.
        settings: The resolved settings; empty for a run that has none.
        identity: What decides the result, for instance settings, encoder and data.
        environment: What the run is computed with; see `plora_cl.compute.environment`.
    """

    seed: int
    settings: Mapping[str, Any]
    identity: Mapping[str, Any]
    environment: Mapping[str, Any]

    @classmethod
    def recorded(
        cls,
        *,
        seed: int,
        settings: Mapping[str, Any],
        identity: Mapping[str, Any],
        environment: Mapping[str, Any],
    ) -> Self:
        """Return facts with copies of the mappings, as JSON gives them back.

        Raises:
            ValueError: A number is not finite.
            TypeError: Something in them is not plain JSON, or a key is not a str.
            CheckpointError: No reader would accept something in them in a checkpoint.
        """
        return cls(
            seed,
            settings=json_copy(settings, "settings"),
            identity=json_copy(identity, "identity"),
            environment=json_copy(environment, "environment"),
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of every live component at one instant, detached from all of them.

    Attributes:
        state: What changes from step to step, by component.
        objects: What does not: references into the store, by name.
        cursor: What runs next, as `Cursor.state_dict` returns it.
        trained_tasks: Names of the tasks that are complete, in order.
        loss: Of the last optimizer step; None before the first.
        facts: What is the same in every checkpoint of the run.
        trajectory: The computation it is an instant of.
    """

    state: Mapping[str, StateDict]
    objects: Mapping[str, ObjectRef]
    cursor: StateDict
    trained_tasks: Sequence[str]
    loss: float | None
    facts: RunFacts
    trajectory: Trajectory = UNKNOWN

    @classmethod
    def capture(
        cls,
        components: Mapping[str, Stateful],
        *,
        cursor: StateDict,
        trained_tasks: Sequence[str],
        loss: float | None,
        facts: RunFacts,
        trajectory: Trajectory,
        staging: HostStaging,
    ) -> Self:
        """Note every state, without references to objects; draws no random number.

        The tensors may change, and the snapshot may be read, after `HostStaging.complete`.

        Args:
            components: What changes from step to step, by name.
            cursor: What runs next.
            trained_tasks: Names of the tasks that are complete.
            loss: Of the last optimizer step.
            facts: What the checkpoint says of its run.
            trajectory: The computation it is an instant of.
            staging: Memory to copy into; the snapshot is valid until the next `HostStaging.begin`.

        Raises:
            TypeError: A state holds neither tensors nor plain values; the message names where.
            CheckpointError: A state is nested endlessly.
        """
        # Components may make tensors now, such as the states of random generators.
        with torch.inference_mode(False):
            states = {name: part.state_dict() for name, part in components.items()}
            try:
                state = staging.begin(states)
            except RecursionError:
                require_readable(states)
                raise
        return cls(
            state=state,
            objects={},
            cursor=dict(cursor),
            trained_tasks=tuple(trained_tasks),
            loss=loss,
            facts=facts,
            trajectory=trajectory,
        )

    def with_moved_generators(self, live: Sequence[Any], environment: Mapping[str, Any]) -> Self:
        """Return it with random generators for the CUDA devices that are present now.

        CUDA is initialized where the checkpoint has generators of CUDA devices: a process that
        uses CUDA only after it has resumed draws from the restored ones.

        Args:
            live: The states of their generators; empty where CUDA is not initialized.
            environment: Of the run that is resumed.
        """
        saved = self.state.get("random")
        if saved is None:
            return self  # `restore` names all that it lacks
        if saved["cuda"] and not live:
            if torch.cuda.is_available():
                torch.cuda.init()
                live = torch.cuda.get_rng_state_all()
            else:
                log.warning(
                    "random generators of %d CUDA devices are in the checkpoint and not restored: "
                    "this process has no CUDA device",
                    len(saved["cuda"]),
                )
        cuda = moved_generators(
            saved["cuda"],
            live,
            before=self.facts.environment.get("device_index", 0),
            now=environment["device_index"],
        )
        return replace(self, state={**self.state, "random": {**saved, "cuda": cuda}})

    @torch.inference_mode(False)  # else components would get tensors that cannot be trained
    def restore(self, components: Mapping[str, Stateful]) -> None:
        """Load every state into its component, in the order given, and verify the result.

        Components that reset random generators come last, so that nothing draws after them.
        Components get copies: what they do to them does not change the snapshot.

        Raises:
            IncompatibleCheckpointError: Components are missing or left over, or one refuses.
            CheckpointError: The live state of a component is not the one that was loaded.
        """
        require_same_names(self.state, components)
        for name, part in components.items():
            fresh = part.state_dict()
            try:
                part.load_state_dict(_in_types_of(fresh, separate_copy(self.state[name])))
                if isinstance(part, Optimizer):
                    _undo_casts(part.state_dict(), self.state[name])
            except _REFUSALS as error:
                raise IncompatibleCheckpointError(
                    f"state_dict mismatch: {name} refuses the state of the checkpoint: {error}"
                ) from error
        for name, part in components.items():
            if state_digest(part.state_dict()) != state_digest(self.state[name]):
                raise CheckpointError(
                    f"the state of {name} was loaded but is not in effect: what {name} holds now "
                    "differs from the checkpoint; this is a defect of its load_state_dict"
                )


def _in_types_of(fresh: Any, saved: Any) -> Any:
    """Return ``saved``, of dicts and lists, with the types that ``fresh`` has in the same places.

    Checkpoints hold dicts and lists alone, but components rely on what they gave, for instance
    `MultiStepLR` on a Counter, and modules on the versions in an attribute of their OrderedDict.
    """
    if isinstance(saved, dict) and isinstance(fresh, Mapping):
        items = {key: _in_types_of(fresh.get(key), value) for key, value in saved.items()}
        if type(fresh) is dict or not isinstance(fresh, dict):
            return items
        mapping = copy.copy(fresh)
        mapping.clear()
        for key, value in items.items():
            mapping[key] = value
        return mapping
    if isinstance(saved, list) and isinstance(fresh, list | tuple):
        items_of = zip_longest(fresh[: len(saved)], saved)
        values = [_in_types_of(there, value) for there, value in items_of]
        if isinstance(fresh, tuple):
            return fresh._make(values) if hasattr(fresh, "_make") else type(fresh)(values)
        return values
    return saved


def _undo_casts(live: Any, saved: Any) -> None:
    """Put saved tensors back where `Optimizer.load_state_dict` has cast them.

    It gives every tensor but ``step`` the dtype of its parameter: NAdam and ASGD hold others.
    """
    if not isinstance(live, dict | list):
        return
    for key, value in saved.items() if isinstance(saved, dict) else enumerate(saved):
        there = live[key]
        if isinstance(value, dict | list):
            _undo_casts(there, value)
        elif isinstance(value, Tensor) and there.dtype != value.dtype:
            live[key] = value.to(there.device, copy=True)


def json_copy(plain: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a copy of ``plain`` as JSON would give it back.

    Args:
        plain: Dicts, lists, strings, numbers, booleans and None.
        name: Of ``plain`` in messages.

    Raises:
        ValueError: A number is not finite, or it is nested endlessly.
        TypeError: It is no dict, something in it is not plain JSON, or a key is not a str.
        CheckpointError: No reader would accept it in a checkpoint.
    """
    if not isinstance(plain, Mapping):
        raise TypeError(f"{name} is {kind_of(plain)}; expected a dict")
    try:
        _require_json(plain, name)
    except RecursionError as error:
        raise ValueError(f"{name} is nested endlessly; expected plain JSON") from error
    copy: dict[str, Any] = json.loads(json.dumps(dict(plain), allow_nan=False))
    require_readable(copy, f"/{name}", MAX_DEPTH - 1)
    return copy


def _require_json(node: Any, path: str) -> None:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if not isinstance(key, str):  # as text, the keys 1 and "1" would become one
                raise TypeError(
                    f"the key {key!r} of {path} is {kind_of(key)}; JSON has only str "
                    f"keys: pass {str(key)!r}"
                )
            _require_json(value, f"{path}/{key}")
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            _require_json(value, f"{path}/{index}")
    elif isinstance(node, float) and not math.isfinite(node):
        raise ValueError(f"{path} is {node}; expected a finite number")
    elif not isinstance(node, str | int | float | None):
        raise TypeError(
            f"{path} is {kind_of(node)}; expected plain JSON: a dict, list, str, int, "
            "float, bool or None"
        )
