"""Settings of the learners that everything else is held against."""

from __future__ import annotations

from typing import Any

_PLAIN: dict[str, Any] = {"use_ewc": False, "use_orthogonal": False, "task_adapters": False}

LEARNERS: dict[str, dict[str, Any]] = {
    "fine-tuning": {**_PLAIN, "shared": "all"},
    "sequential LoRA": {**_PLAIN, "shared": "lora"},
    "joint": {**_PLAIN, "shared": "lora", "joint": True},
    "linear": {**_PLAIN, "shared": "none"},
}
