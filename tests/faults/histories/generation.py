"""Random sequences: a seed says everything, and a failing one is made as short as it goes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from faults.histories.references import VARIANTS
from faults.histories.sequence import Action

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
_TRAJECTORY: dict[str, tuple[Any, ...]] = {
    "learning_rate": (0.02,),
    "lambda_ewc": (1.0, 1000.0),
    "weight_decay": (0.1,),
    "epochs": (1, 3),
    "early_stopping_patience": (0, 1),
    "lora_dropout": (0.2,),
    "seed": (7,),
    "ewc_fisher_examples": (6,),
    "batch_size": (6,),
    "gradient_accumulation_steps": (1, 2),
    "lora_r": (4,),
    "tasks": (2, 3),
}
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "keep_last_n_checkpoints": (1, 2, 4),
    "checkpoint_every": (1, 3, 100),
    "async_checkpoint": (True, False),
    "checkpoint_disk_budget": (None, 100_000),
}


def sequence(seed: int, *, longest: int = 9) -> tuple[str, list[Action]]:
    """Return the variant and the actions, at most ``longest`` runs, that belong to ``seed``."""
    draw = random.Random(seed)
    variant = draw.choice(list(VARIANTS))
    actions: list[Action] = []
    for _ in range(draw.randint(min(3, longest), longest)):
        actions.append(_train(draw))
        actions += [_between(draw) for _ in range(draw.choice((0, 0, 1, 1, 2)))]
    return variant, actions


def _train(draw: random.Random) -> Action:
    chosen: dict[str, Any] = {}
    resume = draw.choices(("auto", "yes", "old", "no", "overwrite"), (60, 10, 18, 4, 8))[0]
    if resume != "auto":
        chosen["resume"] = draw.randrange(10) if resume == "old" else resume
    changes = {}
    if draw.random() < 0.3:
        name = draw.choice(list(_TRAJECTORY))
        changes[name] = draw.choice(_TRAJECTORY[name])
    if draw.random() < 0.3:
        name = draw.choice(list(_HARMLESS))
        changes[name] = draw.choice(_HARMLESS[name])
    if changes:
        chosen["changes"] = changes
    if draw.random() < (0.85 if changes else 0.3):
        chosen["accept"] = True
    if not changes and draw.random() < 0.3:
        chosen["bare"] = True
    ending = _ending(draw)
    if ending[0] != "none":
        chosen["ending"] = ending
    return "train", chosen


def _ending(draw: random.Random) -> tuple[Any, ...]:
    kinds = {
        "none": 10, "signal": 20, "time": 5, "kill": 20, "kill saved": 10, "kill disk": 25,
        "kill write": 8, "full": 12, "limit": 6,
    }  # fmt: skip
    kind = draw.choices(list(kinds), list(kinds.values()))[0]
    match kind:
        case "none":
            return ("none",)
        case "signal":
            return kind, draw.randint(1, 60), draw.choice(SIGNALS)
        case "time" | "kill":
            return kind, draw.randint(1, 60)
        case "kill saved":
            return kind, draw.randint(1, 8)
        case "full":
            return kind, draw.randint(1, 80), draw.choice((1, 2, 5, 40, 1000))
        case "limit":
            return kind, draw.choice((0, 300, 1500, 4000, 20_000, 60_000))
    return kind, int(2 ** draw.uniform(0, 7.3))


def _between(draw: random.Random) -> Action:
    name = draw.choices(
        ("pin", "unpin", "look", "gc", "corrupt", "switch", "fork", "move"),
        (20, 8, 8, 10, 22, 12, 12, 8),
    )[0]
    match name:
        case "pin" | "unpin":
            return name, {"which": draw.randrange(10)}
        case "corrupt":
            kind = draw.choice(("flip", "flip", "truncate", "zero", "delete"))
            where = round(draw.random(), 3)
            return name, {"which": draw.randrange(60), "kind": kind, "where": where}
        case "gc":
            return name, {"retired": True} if draw.random() < 0.3 else {}
        case "switch":
            return name, {"to": draw.randrange(4)}
        case "fork" | "move":
            chosen: dict[str, Any] = {"which": draw.randrange(10)}
            if name == "fork" and draw.random() < 0.5:
                setting = draw.choice(("lambda_ewc", "learning_rate", "weight_decay", "batch_size"))
                chosen["changes"] = {setting: draw.choice(_TRAJECTORY[setting])}
            if name == "move" and draw.random() < 0.2:
                chosen["damage"] = round(draw.random() * 0.999, 3)
            ending = _ending(draw)
            if ending[0] in ("kill disk", "kill write", "full", "limit"):
                chosen["ending"] = ending
            return name, chosen
    return name, {}


def shortened(actions: Sequence[Action], fails: Callable[[Sequence[Action]], bool]) -> list[Action]:
    """Return a shortest part of ``actions``, made simpler, that still ``fails``."""
    left = list(actions)
    simpler = True
    while simpler:
        simpler = False
        for at in reversed(range(len(left))):
            name, arguments = left[at]
            tries = [[*left[:at], *left[at + 1 :]]]
            for key in arguments if name == "train" else ():
                less = {k: v for k, v in arguments.items() if k != key}
                tries.append([*left[:at], (name, less), *left[at + 1 :]])
            found = next((t for t in tries if fails(t)), None)
            if found is not None:
                left, simpler = found, True
                break
    return left
