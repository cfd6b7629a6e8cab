"""Runs `plora-cl train` in forked children: ``kill_server.py`` reads one JSON argv a line.

Imports cost seconds and a kill only milliseconds, so they are paid once. A child that still runs
after ``kill_after`` seconds, where that is given, gets a SIGKILL. Answers each line with the exit
status.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from pathlib import Path

import datasets  # noqa: F401
import peft  # noqa: F401
import transformers.models.bert.modeling_bert  # noqa: F401

import plora_cl.training.trainer  # noqa: F401
from plora_cl.cli.train import main

for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        with Path(request["output"]).open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os._exit(main(request["argv"]))
    process = os.pidfd_open(child)
    ended, _, _ = select.select([process], [], [], request["kill_after"])
    if not ended:
        os.kill(child, signal.SIGKILL)
    os.close(process)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
