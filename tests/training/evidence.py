"""Everything about a finished run that must not depend on how often it was stopped."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from plora_cl.checkpoint.snapshot.codec import decode
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.state_digest import state_digest

TIMED = {"costs", "run_log"}
"""Components that hold wall-clock times, and the log that is compared as a file."""


def evidence(experiment: Path) -> dict[str, Any]:
    """Return digests of weights, optimizer, Fisher information, matrices and run log."""
    store = CheckpointStore(experiment / "checkpoints")
    found: dict[str, Any] = {}
    for entry in store.entries():
        snapshot = decode(store.read(entry))
        for name, state in snapshot.state.items():
            if name not in TIMED:
                found[f"{entry.path.name}/{name}"] = state_digest(state)
        for name, ref in snapshot.objects.items():
            found[f"{entry.path.name}/{name}"] = ref.sha256
    log = (experiment / "results" / "run_log.jsonl").read_bytes()
    found["run_log"] = hashlib.sha256(log).hexdigest()
    results = json.loads((experiment / "results" / "final_results.json").read_text())
    found["accuracy"] = results["accuracy_matrix"]
    found["f1"] = results["f1_matrix"]
    return found
