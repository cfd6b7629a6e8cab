"""What a checkpoint contains: the state of a whole run at one instant."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.format.trajectory import UNKNOWN, Trajectory
from plora_cl.checkpoint.snapshot.staging import HostArena, separate_copy
from plora_cl.errors import CheckpointError, IncompatibleCheckpointError
from plora_cl.state import StateDict, Stateful
from plora_cl.state_digest import state_digest


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of every live component at one instant, detached from all of them.

    Attributes:
        state: What changes from step to step, by component.
        objects: What does not: references into the store, by name.
        cursor: What runs next, as `Cursor.state_dict` returns it.
        trained_tasks: Names of the tasks that are complete, in order.
        seed: Of the run.
        loss: Of the last optimizer step; None before the first.
        settings: The resolved settings of the run.
        identity: What decides the result: settings, encoder and data.
        environment: What the run was computed with; see `plora_cl.compute.environment`.
        trajectory: The computation it is an instant of.
    """

    state: Mapping[str, StateDict]
    objects: Mapping[str, ObjectRef]
    cursor: StateDict
    trained_tasks: Sequence[str]
    seed: int
    loss: float | None
    settings: Mapping[str, Any]
    identity: Mapping[str, Any]
    environment: Mapping[str, Any]
    trajectory: Trajectory = UNKNOWN

    @classmethod
    def capture(
        cls,
        components: Mapping[str, Stateful],
        *,
        objects: Mapping[str, ObjectRef],
        cursor: StateDict,
        trained_tasks: Sequence[str],
        seed: int,
        loss: float | None,
        settings: Mapping[str, Any],
        identity: Mapping[str, Any],
        environment: Mapping[str, Any],
        arena: HostArena | None = None,
    ) -> Self:
        """Copy every state to host memory; training may go on as soon as this returns.

        With an ``arena`` the tensors may change only after `HostArena.settle`, and the snapshot
        may be read then. Draws no random number. ``settings``, ``identity`` and ``environment``
        are plain JSON, see `json_copy`, and must not change any more.

        Args:
            components: What changes from step to step, by name.
            objects: References to what does not, by name.
            cursor: What runs next.
            trained_tasks: Names of the tasks that are complete.
            seed: Of the run.
            loss: Of the last optimizer step.
            settings: The resolved settings.
            identity: What decides the result: settings, encoder and data.
            environment: What the run is computed with.
            arena: Memory to copy into; the snapshot is valid until it holds another one.

        Raises:
            TypeError: A state holds neither tensors nor plain values; the message names where.
        """
        states = {name: part.state_dict() for name, part in components.items()}
        return cls(
            state=HostArena().copy(states) if arena is None else arena.hold(states),
            objects=dict(objects),
            cursor=dict(cursor),
            trained_tasks=tuple(trained_tasks),
            seed=seed,
            loss=loss,
            settings=settings,
            identity=identity,
            environment=environment,
        )

    def restore(self, components: Mapping[str, Stateful]) -> None:
        """Load every state into its component, in the order given, and prove that it arrived.

        Components that reset random generators come last, so that nothing draws after them. The
        snapshot stays as it is, whatever the components do with what they were given.

        Raises:
            IncompatibleCheckpointError: Components are missing or left over, or one refuses.
            CheckpointError: The live state of a component is not the one that was loaded.
        """
        if self.state.keys() != components.keys():
            missing = sorted(components.keys() - self.state.keys())
            unexpected = sorted(self.state.keys() - components.keys())
            raise IncompatibleCheckpointError(
                f"state_dict mismatch: the checkpoint lacks {missing}, it has unexpected "
                f"{unexpected}"
            )
        for name, part in components.items():
            try:
                part.load_state_dict(separate_copy(self.state[name]))
            except (KeyError, ValueError, TypeError, RuntimeError) as error:
                raise IncompatibleCheckpointError(
                    f"state_dict mismatch: {name} refuses the state of the checkpoint: {error}"
                ) from error
        for name, part in components.items():
            if state_digest(part.state_dict()) != state_digest(self.state[name]):
                raise CheckpointError(
                    f"the state of {name} was loaded but is not in effect: what {name} holds now "
                    "differs from the checkpoint; this is a defect of its load_state_dict"
                )


def json_copy(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``plain`` as JSON would give it back.

    Raises:
        ValueError: A number is not finite.
        TypeError: Something in it is not plain JSON.
    """
    copy: dict[str, Any] = json.loads(json.dumps(dict(plain), allow_nan=False))
    return copy
