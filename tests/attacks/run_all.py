"""Runs every attack in a forked child of its own; prints ``{"name", "code", "output"}`` a line."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
import traceback
from pathlib import Path

from attacks.trial import refused

NAMES = sorted(
    path.stem
    for path in Path(__file__).parent.glob("*.py")
    if path.stem not in ("run_all", "trial", "test_attacks")
)


def run(name: str) -> dict[str, object]:
    """Return how the attack ended: its exit code, and what it printed."""
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                output.write(refused(importlib.import_module(f"attacks.{name}").attack))
                code = 0
            except BaseException:  # noqa: BLE001 - the parent reports it
                output.write(traceback.format_exc())
            output.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        return {"name": name, "code": code, "output": output.read()}


if __name__ == "__main__":
    for name in NAMES:
        print(json.dumps(run(name)), flush=True)
