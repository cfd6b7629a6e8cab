"""A run whose supervisor may die: ``python -m plora_cl.cli.supervised train|floor CONFIG``."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence

from plora_cl.cli.signals import is_stopping


def main(argv: Sequence[str] | None = None) -> int:
    """Run what ``argv`` says, by default that of the process; return the exit code."""
    kind, config = sys.argv[1:] if argv is None else argv
    threading.Thread(target=_end_with_supervisor, name="supervisor", daemon=True).start()
    if kind == "train":
        from plora_cl.cli.train import main as train

        return train(["--config", config, "--resume", "auto"])
    from plora_cl.cli.floor import main as floor

    return floor(["--config", config])


def _end_with_supervisor() -> None:
    # A byte asks to stop. A signal that reached every process of a job did so already, and a
    # second one would end this one without saving.
    if os.read(0, 1):
        if not is_stopping():
            os.kill(os.getpid(), signal.SIGTERM)
        # This read returns when the last process that could write has ended, even by SIGKILL.
        os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main())
