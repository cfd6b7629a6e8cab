"""Histories that nothing ever interrupted, to hold others against."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import tiny
from faults.histories.child import Ending, run
from plora_cl.training.trainer import CLTrainer

History = tuple[tuple[str, str], ...]
"""Where settings changed (a cursor as JSON; empty at the start), and what they were from there on
(as JSON, of those in `RELEVANT`)."""

RELEVANT = (
    "tasks",
    "seed",
    "epochs",
    "batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "weight_decay",
    "lora_dropout",
    "lora_r",
    "lambda_ewc",
    "ewc_fisher_examples",
    "early_stopping_patience",
)
"""Settings that sequences vary and that decide the result."""

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"use_router": False},
    "routed": {"epochs": 1},
    "accumulating": {
        "gradient_accumulation_steps": 2,
        "early_stopping_patience": 1,
        "use_router": False,
        "async_checkpoint": False,
    },
    "cumulative": {
        "use_router": False,
        "composition": "cumulative",
        "use_orthogonal": True,
        "lambda_ortho": 0.1,
        "epochs": 1,
        "checkpoint_every": 1,
    },
    "sequential": {
        "use_router": False,
        "task_adapters": False,
        "shared": "lora",
        "early_stopping_patience": 2,
        "async_checkpoint": False,
        "keep_last_n_checkpoints": 1,
    },
}
"""What the experiments of one sequence are like at first."""


@dataclass(frozen=True)
class Reference:
    """How a history ends, and what each of its checkpoints holds, by cursor."""

    checkpoints: Mapping[str, Mapping[str, str]]
    log: bytes
    results: Mapping[str, Any]


class Bench:
    """The encoder, the tasks and the references of a whole session of tests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tasks = [str(p) for p in tiny.make_tasks(root / "tasks", train=12, test=6)]
        self._encoder = tiny.make_encoder(root / "encoder", hidden_size=8, layers=1)
        self._references: dict[tuple[str, History], Reference] = {}
        # What is imported and compiled here is there in each child.
        for resume in (False, True):
            warm = CLTrainer(
                **self.settings("routed"), experiment_dir=str(root / "warm"), experiment_name="run"
            )
            warm.train_sequence(resume=resume)
        gc.freeze()  # a collection in a child would copy all that was imported

    def settings(self, variant: str) -> dict[str, Any]:
        """Return the settings that experiments of ``variant`` start with."""
        return {
            "model_name": str(self._encoder),
            "tasks": self.tasks[:2],
            "cache_dir": str(self.root / "cache"),
            "device": "cpu",
            "seed": 42,
            "epochs": 2,
            "batch_size": 4,
            "gradient_accumulation_steps": 1,
            "learning_rate": 0.01,
            "weight_decay": 0.01,
            "max_length": 16,
            "lora_r": 2,
            "lora_alpha": 4,
            "lora_dropout": 0.05,
            "lambda_ewc": 100.0,
            "ewc_fisher_examples": 4,
            "router_examples": 6,
            "early_stopping_patience": 0,
            "checkpoint_every": 2,
            "keep_last_n_checkpoints": 2,
            "checkpoint_disk_budget": None,
            "async_checkpoint": True,
            **VARIANTS[variant],
        }

    def reference(self, variant: str, history: History) -> Reference:
        """Return how ``history`` ends where nothing but its own changes interrupts it."""
        key = (variant, history)
        if key not in self._references:
            self._references[key] = self._run(variant, history)
        return self._references[key]

    def _run(self, variant: str, history: History) -> Reference:
        root = self.root / "reference"
        shutil.rmtree(root, ignore_errors=True)
        (root / "experiments").mkdir(parents=True)
        found: dict[str, Mapping[str, str]] = {}
        cuts = [cursor for cursor, _ in history[1:]]
        for (_, changed), cut in zip(history, [*cuts, ""], strict=True):
            settings = self.settings(variant) | json.loads(changed)
            settings |= {"checkpoint_every": 1, "async_checkpoint": False}
            argv = train_argv(root, "run", settings, ["--resume", "auto", "--accept-changes"])
            outcome = run(argv, root, Ending("cursor", detail=cut))
            if (outcome.status == 0) == bool(cut):
                raise AssertionError(f"no reference of {history}: {outcome}")
            saved = outcome.noted("saved")
            found |= {save["cursor"]: save["digests"] for save in saved}
        results = root / "experiments" / "run" / "results"
        return Reference(
            found,
            (results / "run_log.jsonl").read_bytes(),
            comparable((results / "final_results.json").read_bytes()),
        )


def comparable(results: bytes) -> dict[str, Any]:
    """Return what ``final_results.json`` holds, but for times and the numbers of branches."""
    found = json.loads(results)
    left = found.pop("trajectory")["history"]
    found["changes"] = [(entry["step"], entry["changes"]) for entry in left if entry["changes"]]
    return {k: v for k, v in found.items() if k not in ("wall_clock_seconds", "identity")}


def train_argv(
    root: Path, name: str, settings: Mapping[str, Any] | None, flags: Sequence[str]
) -> list[str]:
    """Return a command that trains in ``root/experiments/name``; None: with what is recorded."""
    argv = ["train", "--experiment-dir", str(root / "experiments"), "--experiment-name", name]
    if settings is not None:
        config = root / "settings.yaml"
        config.write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
        argv += ["--config", str(config)]
    return [*argv, *flags]
