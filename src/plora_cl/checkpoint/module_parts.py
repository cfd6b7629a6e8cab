"""The tensors of a user's components: which change, and where they are computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from plora_cl.checkpoint.format.pickle_gate import MAX_DEPTH
from plora_cl.errors import CheckpointError, IncompatibleCheckpointError
from plora_cl.state import StateDict, Stateful, TensorPart

_EXTRA_STATE = "_extra_state"  # the key under which nn.Module saves it


def split_module(module: nn.Module) -> tuple[TensorPart, TensorPart]:
    """Return what changes in ``module`` and what does not.

    Both parts look their tensors up in ``module`` at each call, and load in place.

    Returns:
        Parameters with ``requires_grad``, persistent buffers, and what `get_extra_state` of its
        modules returns; and all other parameters.

    The first part refuses to be saved or loaded (`CheckpointError`) once a parameter or buffer was
    added, removed, frozen or unfrozen: split a module after the last such change.
    """
    return _TrainedPart(module), _FrozenPart(module)


class _TrainedPart(TensorPart):
    """What changes in a module; read from it at each call, since a buffer may be assigned to."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._kinds = _members(module).kinds

    def state_dict(self) -> StateDict:
        """Return the live tensors and the extra states, by name.

        Raises:
            CheckpointError: The module has other members than when it was split.
        """
        members = self._members()
        extra = {name: owner.get_extra_state() for name, owner in members.extra.items()}
        return {**members.trained, **members.buffers, **extra}

    def load_state_dict(self, state: StateDict, /) -> None:
        """Copy tensors in place and set the extra states.

        Raises:
            IncompatibleCheckpointError: Names, shapes or dtypes differ.
            CheckpointError: The module has other members than when it was split.
        """
        members = self._members()
        if missing := sorted(members.extra.keys() - state.keys()):
            raise IncompatibleCheckpointError(
                f"state_dict mismatch: the checkpoint lacks the extra state {', '.join(missing)}"
            )
        tensors = {name: value for name, value in state.items() if name not in members.extra}
        TensorPart({**members.trained, **members.buffers}).load_state_dict(tensors)
        for name, owner in members.extra.items():
            owner.set_extra_state(state[name])

    def _members(self) -> _Members:
        members = _members(self._module)
        if members.kinds != self._kinds:
            raise CheckpointError(_changed(type(self._module).__name__, self._kinds, members.kinds))
        return members


class _FrozenPart(TensorPart):
    """What does not change in a module."""

    def __init__(self, module: nn.Module) -> None:
        # It keeps the tensors: one that replaces them cannot get the identity of one of them.
        super().__init__(_members(module).frozen)
        self._places = {name: _place(module, name) for name in self._tensors}

    def state_dict(self) -> StateDict:
        """Return the tensors that the module holds now, by name."""
        found = ((name, owner._parameters.get(key)) for name, (owner, key) in self._places.items())
        return {name: tensor for name, tensor in found if tensor is not None}

    def load_state_dict(self, state: StateDict, /) -> None:
        """See `TensorPart.load_state_dict`."""
        TensorPart(self.state_dict()).load_state_dict(state)


def _place(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    prefix, _, key = name.rpartition(".")
    return module.get_submodule(prefix), key


class _Members(NamedTuple):
    """What a module consists of, by name.

    Attributes:
        trained: Parameters with ``requires_grad``.
        frozen: Other parameters.
        buffers: Those that are persistent.
        extra: Modules that have an extra state.
        kinds: Which of these each name is.
    """

    trained: dict[str, Tensor]
    frozen: dict[str, Tensor]
    buffers: dict[str, Tensor]
    extra: dict[str, nn.Module]
    kinds: dict[str, str]


def _members(module: nn.Module) -> _Members:
    # One pass over the modules, since each save makes it while training waits.
    found = _Members({}, {}, {}, {}, {})
    seen: set[int] = set()  # what two modules share counts once, under its first name
    for prefix, part in module.named_modules():
        path = f"{prefix}." if prefix else ""
        for key, parameter in part._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                is_trained = parameter.requires_grad
                (found.trained if is_trained else found.frozen)[path + key] = parameter
                found.kinds[path + key] = "trained" if is_trained else "frozen"
        for key, buffer in part._buffers.items():
            is_saved = buffer is not None and key not in part._non_persistent_buffers_set
            if is_saved and id(buffer) not in seen:
                seen.add(id(buffer))
                found.buffers[path + key] = buffer
                found.kinds[path + key] = "a buffer"
        if type(part).get_extra_state is not nn.Module.get_extra_state:
            found.extra[path + _EXTRA_STATE] = part
            found.kinds[path + _EXTRA_STATE] = "an extra state"
    return found


def _changed(module: str, was: Mapping[str, str], now: Mapping[str, str]) -> str:
    changed = sorted(name for name in {**was, **now} if was.get(name) != now.get(name))
    name, others = changed[0], len(changed) - 1
    more = f" ({others} more changed)" if others else ""
    return (
        f"{module}: {name} was {was.get(name, 'absent')} when split_module() was called and is "
        f"{now.get(name, 'absent')} now{more}; call split_module() after the last such change, and "
        "make another CheckpointManager with its parts"
    )


def device_of(parts: Iterable[Stateful]) -> str:
    """Return the device that the run is computed on: the first one that is not the CPU."""
    devices = (tensor.device for part in parts for tensor in _tensors_in(part.state_dict()))
    return str(next((device for device in devices if device.type != "cpu"), torch.device("cpu")))


def _tensors_in(node: object, levels: int = MAX_DEPTH) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, Mapping | list | tuple) and levels:  # a save refuses deeper nesting
        for value in node.values() if isinstance(node, Mapping) else node:
            yield from _tensors_in(value, levels - 1)
