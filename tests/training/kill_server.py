"""Runs `plora-cl train` in forked children: ``kill_server.py [MODULE...]`` reads JSON requests.

Each line has one. The modules are imported, too, from the working directory if they are there.

Imports cost seconds and a kill only milliseconds, so they are paid once. A child that still runs
after ``kill_after`` seconds, where that is given, gets a SIGKILL; one with ``kill_at`` gives itself
one instead of its ``kill_at``-th change of a disk, counted from 0. A ``script`` is run in place of
the command line. Answers each line with the exit status.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets  # noqa: F401
import peft  # noqa: F401
import transformers.models.bert.modeling_bert  # noqa: F401

import plora_cl.training.trainer  # noqa: F401
from plora_cl.cli.train.command import main

CHANGES = ("fsync", "link", "rename", "replace", "truncate", "ftruncate", "unlink", "write")


def kill_at(left: int) -> None:
    """Let so many changes of the disk pass, and die in place of the next."""

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


sys.path.insert(0, str(Path.cwd()))
for name in sys.argv[1:]:
    importlib.import_module(name)
gc.freeze()  # a collection in a child need not visit what the imports have made
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        with Path(request["output"]).open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        if request.get("kill_at") is not None:
            kill_at(request["kill_at"])
        if "script" in request:
            exec(request["script"], {"__name__": "__main__"})
            os._exit(0)
        os._exit(main(request["argv"]))
    process = os.pidfd_open(child)
    ended, _, _ = select.select([process], [], [], request["kill_after"])
    if not ended:
        os.kill(child, signal.SIGKILL)
    os.close(process)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
