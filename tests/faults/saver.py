"""A process that saves in the folder given, for `strace` to interfere with; imports no PyTorch."""

from __future__ import annotations

import sys
from pathlib import Path

from faults.scenario import save
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.errors import CheckpointError

if __name__ == "__main__":
    try:
        save(CheckpointStore(Path(sys.argv[1])))
    except CheckpointError as error:
        print(error)
        sys.exit(3)
