"""``plora-cl`` in a real process, with a stdout that nobody reads."""

from __future__ import annotations

import os
import subprocess
import sys

PLORA_CL = [sys.executable, "-m", "plora_cl.cli.main"]


def unread(*argv: str) -> tuple[int, str]:
    """Run ``plora-cl`` with a stdout that nobody reads; return exit code and stderr."""
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(
        [*PLORA_CL, *argv], stdout=writes, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writes)
    return done.returncode, done.stderr
