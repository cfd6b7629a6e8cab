"""Holds the lock of the experiment named on the command line until stdin is closed."""

from __future__ import annotations

import sys
from pathlib import Path

from plora_cl.checkpoint.disk.lock import ExperimentLock

with ExperimentLock.acquire(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
