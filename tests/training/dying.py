"""Lets a process die in place of a change of the disk."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

CHANGES = ("fsync", "link", "rename", "replace", "truncate", "ftruncate", "unlink", "write")


def die_at(left: int) -> None:
    """Let so many changes of the disk pass, and send SIGKILL to itself instead of the next."""

    def dying(change: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            nonlocal left
            if args[0] not in (1, 2):  # what is shown is not on a disk
                left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*args, **options)

        return counted

    for name in CHANGES:
        setattr(os, name, dying(getattr(os, name)))
