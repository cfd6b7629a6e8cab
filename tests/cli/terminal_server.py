"""Runs `plora-cl train` on terminals where "y" is typed: reads one JSON request a line.

Imports cost seconds, so they are paid once, and each command runs in a forked child on a
pseudo-terminal of its own. Answers each line with the exit status.
"""

from __future__ import annotations

import json
import os
import pty
import sys
from contextlib import suppress
from pathlib import Path

import transformers.models.bert.modeling_bert  # noqa: F401

import plora_cl.training.trainer  # noqa: F401
from plora_cl.cli.train.command import main

for line in sys.stdin:
    request = json.loads(line)
    child, terminal = pty.fork()
    if child == 0:
        with Path(request["output"]).open("w") as output:
            os.dup2(output.fileno(), 2)
        os._exit(main(request["argv"]))
    os.write(terminal, b"y\n" * 5)
    with suppress(OSError):  # the end of a terminal
        while os.read(terminal, 4096):
            pass
    os.close(terminal)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
