"""A run of a study, under a supervisor that may die: ``python -m {module} train|floor CONFIG``."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from plora_cl.cli.signals import ask_to_stop


def main(argv: Sequence[str] | None = None) -> int:
    """Run with ``argv``, by default that of the process; return the exit code."""
    kind, config = sys.argv[1:] if argv is None else argv
    threading.Thread(target=_end_with_supervisor, name="supervisor", daemon=True).start()
    if kind == "train":
        from plora_cl.cli.train.command import main as train

        return train(["--config", config, "--resume", "auto"])
    from plora_cl.cli.train.floor import planned

    return planned(Path(config))


def _end_with_supervisor() -> None:
    # A byte asks to stop; the end of input says that the supervisor has ended, even by SIGKILL.
    # Neither counts as a signal: a signal sent to every process of a job would otherwise be the
    # second one, which ends a run without saving.
    asked = os.read(0, 1)
    ask_to_stop()
    if asked:
        os.read(0, 1)
        os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main())
