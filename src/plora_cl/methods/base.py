"""The interface of a continual-learning method."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from plora_cl.compute.devices import Accelerator
from plora_cl.data.batches import Batch
from plora_cl.data.task import Task
from plora_cl.errors import IncompatibleCheckpointError, MethodError
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import StateDict
from plora_cl.state_digest import state_digest
from plora_cl.units import Unit as Unit
from plora_cl.units import Units
from plora_cl.wording import short

_Group = TypeVar("_Group")


@dataclass(frozen=True)
class MethodSetup:
    """What a run offers to a method that settings switch on.

    Attributes:
        seed: Of the run; derive others from it with `plora_cl.state.derived_seed`.
        tokenizer: Of the encoder.
        max_length: Longest text in tokens.
        accelerator: Device and precision.
        cache_dir: Folder for what can be computed again.
    """

    seed: int
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    accelerator: Accelerator
    cache_dir: Path


class ContinualMethod:
    """One technique against forgetting, as a plug-in of the training loop.

    Every hook does nothing by default; override the ones the technique needs. Hooks return what
    they contribute instead of changing the loop, so methods compose in any number.

    Calling order for each task::

        grow -> check -> start_task -> (draw_extra_batches -> penalty) per step -> finish_task

    What a method remembers is split by how it changes: `state_dict` may change at every step and is
    written into each checkpoint; `memory` changes only in `start_task` and `finish_task` and is
    stored once, shared by all checkpoints.
    """

    name: ClassVar[str]
    """Unique among the methods of a run; letters, digits, - and _."""

    def hyperparameters(self) -> Mapping[str, Any]:
        """Return what the method was made with, as plain JSON; nothing by default.

        They are part of the identity of a run with ``CLTrainer(methods=[...])``: resuming with
        other values is refused, unless the change is accepted. A method that settings switch on
        needs none, because its settings are compared.
        """
        return {}

    def grow(self, model: ContinualClassifier, task: int) -> None:
        """Add parameters for ``task``. Structure only: replayed for every past task on resume."""

    def check(self, model: ContinualClassifier) -> None:
        """Make sure that the method can have an effect on ``model``.

        What follows from settings alone belongs in the contradictions of its `Technique`, which
        are found before anything is loaded.

        Raises:
            MethodError: It cannot; the message names the setting that would change that.
        """

    def start_task(self, model: ContinualClassifier, task: Task) -> Iterable[Unit]:
        """Prepare for ``task``, yielding after each unit of long work; nothing by default.

        At each yield `state_dict` and `memory` hold all that was done, and weights, gradients,
        modes and random generators are as they were, so the run may be saved and stopped there. A
        run that resumes calls it again: it yields the units that are left, none where none is.
        """
        return ()

    def draw_extra_batches(self, batch: Batch) -> Sequence[Batch]:
        """Draw further batches to learn from along with ``batch``; none by default.

        Called once for each micro-batch: a method that has a schedule advances it here, and
        `state_dict` holds where it stands.
        """
        return ()

    def penalty(self, model: ContinualClassifier, task: int) -> Tensor | None:
        """Return a scalar to add to the loss while learning ``task``, already weighted, or None."""
        return None

    def finish_task(self, model: ContinualClassifier, task: Task) -> Iterable[Unit]:
        """Consolidate what ``task`` taught, after its last step; nothing by default.

        Yields as `start_task` does, and like it is called again by a run that resumes, also where
        all of it was done: then it does nothing.
        """
        return ()

    def report(self, model: ContinualClassifier) -> StateDict:
        """Return what the finished tasks of ``model`` say about the method, as plain JSON.

        A pure function of the model and of what the method remembers; nothing by default.
        """
        return {}

    def no_effect_on(self, model: ContinualClassifier) -> Mapping[str, str]:
        """Return what the method cannot influence in ``model``, and why; nothing by default.

        For what is worth a note. A method that cannot influence anything raises in `check`.
        """
        return {}

    def state_dict(self) -> StateDict:
        """Return what may change from step to step; nothing by default."""
        return {}

    def load_state_dict(self, state: StateDict, /) -> None:
        """Restore what `state_dict` returned."""

    def memory(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Return what earlier tasks left behind: groups of named tensors, nothing by default.

        A group of the same tensors is never written again, so one group per task stays cheap; one
        that changed consists of new tensors.
        """
        return {}

    def load_memory(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore what `memory` returned."""


class MethodStack:
    """Several methods as one, applied in the given order."""

    def __init__(self, methods: Sequence[ContinualMethod]) -> None:
        self.methods = {method.name: method for method in methods}

    def grow(self, model: ContinualClassifier, task: int) -> None:
        """Let every method add its parameters for ``task``."""
        for method in self.methods.values():
            method.grow(model, task)

    def check(self, model: ContinualClassifier) -> None:
        """Make sure that every method can have an effect.

        Raises:
            MethodError: One cannot.
        """
        for method in self.methods.values():
            method.check(model)

    def start_task(self, model: ContinualClassifier, task: Task) -> Units[bool]:
        """Let every method prepare for ``task``; return whether there was any unit."""
        found = False
        for method in self.methods.values():
            for unit in _units(method.start_task(model, task), f"{method.name}: start_task"):
                found = True
                yield unit
        return found

    def draw_extra_batches(self, batch: Batch) -> list[Batch]:
        """Draw the further batches of every method.

        Raises:
            MethodError: Something that is drawn is no batch.
        """
        found = []
        for name, method in self.methods.items():
            for extra in method.draw_extra_batches(batch):
                if not isinstance(extra, Batch):
                    raise MethodError(
                        f"{name}: draw_extra_batches returned a {type(extra).__name__} among its "
                        "batches; expected a list of Batch"
                    )
                found.append(extra)
        return found

    def penalties(self, model: ContinualClassifier, task: int) -> dict[str, Tensor]:
        """Return the penalty of each method that has one, by method name.

        Raises:
            MethodError: A penalty is no scalar tensor, or has no gradient towards a trainable one.
        """
        terms: dict[str, Tensor] = {}
        for name, method in self.methods.items():
            term: object = method.penalty(model, task)
            if term is None:
                continue
            if not isinstance(term, Tensor) or term.ndim:
                shape = f" of shape {list(term.shape)}" if isinstance(term, Tensor) else ""
                raise MethodError(
                    f"{name}: penalty returned a {type(term).__name__}{shape}; expected a scalar "
                    "tensor, or None where there is no penalty"
                )
            if not term.requires_grad:
                raise MethodError(
                    f"the penalty of {name} reaches no trainable tensor, so it cannot act on task "
                    f"{task}; switch the method off or make what it protects trainable (`shared`)"
                )
            terms[name] = term
        return terms

    def finish_task(self, model: ContinualClassifier, task: Task) -> Units[None]:
        """Let every method consolidate ``task``."""
        for method in self.methods.values():
            yield from _units(method.finish_task(model, task), f"{method.name}: finish_task")

    def report(self, model: ContinualClassifier) -> StateDict:
        """Return the report of each method and what it has ``no_effect_on``, by method name.

        Raises:
            MethodError: A report is not plain JSON.
        """
        found = {}
        for name, method in self.methods.items():
            report, out_of_reach = method.report(model), method.no_effect_on(model)
            try:
                found[name] = {**report, "no_effect_on": dict(out_of_reach)}
                json.dumps(found[name], sort_keys=True)
            except TypeError as error:
                raise MethodError(
                    f"{name}: report returned {short(report)}; expected a dict of plain JSON: "
                    f"{error}"
                ) from error
        return found

    def notes(self, model: ContinualClassifier) -> list[str]:
        """Return a line for each thing that a method has no effect on."""
        return [
            f"{name} has no effect on {what}: {reason}"
            for name, method in self.methods.items()
            for what, reason in method.no_effect_on(model).items()
        ]

    def state_dict(self) -> StateDict:
        """Return the state of every method under its name."""
        return {name: method.state_dict() for name, method in self.methods.items()}

    def require_plain_states(self) -> None:
        """Raise `MethodError` for a method whose state no checkpoint can hold."""
        for name, method in self.methods.items():
            try:
                state_digest(method.state_dict())
            except TypeError as error:
                raise MethodError(
                    f"{name}: state_dict returned what no checkpoint can hold: {error}; expected "
                    "tensors, numbers, strings, booleans, None, and dicts and lists of those"
                ) from error

    def load_state_dict(self, state: StateDict, /) -> None:
        """Restore every method; the set of methods must match."""
        if state.keys() != self.methods.keys():
            raise IncompatibleCheckpointError(
                f"the checkpoint has methods {sorted(state)}, this run has {sorted(self.methods)}"
            )
        for name, method in self.methods.items():
            method.load_state_dict(state[name])

    def memory(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the memory of every method; group names are ``<method>/<group>``."""
        return {
            f"{name}/{group}": tensors
            for name, method in self.methods.items()
            for group, tensors in method.memory().items()
        }

    def load_memory(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore what `memory` returned."""
        for name, method in self.methods.items():
            method.load_memory(below(f"{name}/", groups))


def below(prefix: str, groups: Mapping[str, _Group]) -> dict[str, _Group]:
    """Return the groups whose names begin with ``prefix``, by what follows it."""
    return {n.removeprefix(prefix): g for n, g in groups.items() if n.startswith(prefix)}


def _units(found: Iterable[Unit] | None, source: str) -> Iterable[Unit]:
    """Return ``found``, what the hook of a method that ``source`` names has returned."""
    if found is None:
        raise MethodError(f"{source} returned None; expected units, or () if there are none")
    return found
