"""Checks of a state that was loaded into an optimizer and its schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_OF_A_PARAMETER = ("step", "exp_avg", "exp_avg_sq")
_VARYING = ("lr", "weight_decay", "initial_lr")
_MOST_STEPS = 2**53  # up to which a float counts exactly


def require_usable(
    optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler
) -> None:
    """Refuse a state that ``load_state_dict`` accepts and the next step fails at.

    Args:
        optimizer: AdamW with any state.
        scheduler: Its schedule.

    Raises:
        ValueError: A value has another kind or shape than a step gives it.
    """
    for number, group in enumerate(optimizer.param_groups):
        _check_group(f"param_groups[{number}]", group, optimizer.defaults)
        for parameter in group["params"]:
            if state := optimizer.state.get(parameter):
                _check_moments(state, parameter)
    _check_schedule(scheduler, groups=len(optimizer.param_groups))


def _check_group(place: str, group: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    for name, default in defaults.items():
        if name not in _VARYING and not _is_alike(group[name], default):
            raise ValueError(f"{place}.{name} is {_shown(group[name])}; expected {default}")
    for name in _VARYING:
        _require_rate(f"{place}.{name}", group[name])


def _check_moments(state: Mapping[str, Any], parameter: nn.Parameter) -> None:
    if set(state) != set(_OF_A_PARAMETER):
        raise ValueError(f"a parameter has {sorted(map(str, state))}; expected {_OF_A_PARAMETER}")
    for name in _OF_A_PARAMETER:
        value, shape = state[name], torch.Size() if name == "step" else parameter.shape
        dtype = torch.float32 if name == "step" else parameter.dtype
        if not isinstance(value, Tensor) or (value.shape, value.dtype) != (shape, dtype):
            raise ValueError(f"{name} is {_shown(value)}; expected {dtype} {list(shape)}")
    if not 0 <= float(state["step"]) <= _MOST_STEPS:
        raise ValueError(f"step is {float(state['step'])}; expected a number of steps")


def _check_schedule(scheduler: torch.optim.lr_scheduler.LRScheduler, *, groups: int) -> None:
    hidden = [name for name in vars(scheduler) if callable(getattr(type(scheduler), name, None))]
    if hidden:
        raise ValueError(f"the schedule has a value in the place of its method {hidden[0]}")
    for name in ("base_lrs", "_last_lr"):
        rates = getattr(scheduler, name)
        if not isinstance(rates, Sequence) or len(rates) != groups:
            raise ValueError(f"{name} is {_shown(rates)}; expected {groups} learning rates")
        for rate in rates:
            _require_rate(name, rate)
    for name in ("last_epoch", "_step_count"):
        steps = getattr(scheduler, name)
        if type(steps) is not int or not 0 <= steps <= _MOST_STEPS:
            raise ValueError(f"{name} is {_shown(steps)}; expected a number of steps")


def _require_rate(name: str, value: object) -> None:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(f"{name} is {_shown(value)}; expected a number")


def _is_alike(value: object, default: object) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and tuple(value) == default
    return type(value) is type(default) and value == default


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {list(value.shape)}"
    return f"a {type(value).__name__}" if isinstance(value, list | tuple | dict) else repr(value)
