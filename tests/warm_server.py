"""Imports modules and forks processes that have them: ``warm_server.py SOCKET MODULES``.

A message on the socket is a JSON request with the standard streams of the process and a pipe for
its exit status. A request for modules is answered by a process that imports them and serves, too.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
import types
from contextlib import suppress
from typing import Any

MESSAGE = 1 << 20


def serve(channel: socket.socket) -> dict[str, Any]:
    """Fork a process for each request; return, in that process, what it is to run."""
    gc.collect()
    gc.freeze()  # a collection in a child need not visit what the imports have made
    children: dict[int, tuple[int, int]] = {}
    while True:
        ready, _, _ = select.select([channel.fileno(), *children], [], [])
        for ended in children.keys() & set(ready):
            pid, status = children.pop(ended)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            with suppress(BrokenPipeError):  # nobody waits for it any more
                os.write(status, str(code).encode())
            os.close(status)
            os.close(ended)
        if channel.fileno() not in ready:
            continue
        message, streams, _, _ = socket.recv_fds(channel, MESSAGE, 4)
        if not message:
            for pid, _ in children.values():
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            for open_fd in (channel.detach(), *children, *(s for _, s in children.values())):
                os.close(open_fd)
            return become(json.loads(message), streams)
        for stream in streams[:3]:
            os.close(stream)
        children[os.pidfd_open(pid)] = (pid, streams[3])
        channel.send(str(pid).encode())


def become(request: dict[str, Any], streams: list[int]) -> dict[str, Any]:
    """Take the place of a new interpreter: its streams, session, folder, variables and path."""
    if request["new_session"]:
        os.setsid()
    for number, stream in enumerate(streams[:3]):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = request.get("argv", sys.argv)
    sys.path[:0] = request["path"]
    stdin, stdout, stderr = (
        io.TextIOWrapper(buffer, line_buffering=buffer.isatty())
        for buffer in (
            io.BufferedReader(io.FileIO(0, closefd=False)),
            io.BufferedWriter(io.FileIO(1, "w", closefd=False)),
            io.BufferedWriter(io.FileIO(2, "w", closefd=False)),
        )
    )
    stdout.reconfigure(write_through="PYTHONUNBUFFERED" in os.environ)
    stderr.reconfigure(line_buffering=True, errors="backslashreplace")
    sys.stdin, sys.stdout, sys.stderr = stdin, stdout, stderr
    return request


def run(program: str) -> int:
    """Run ``program`` as the interpreter does; return the exit status.

    What is left to do then is to free memory, object by object, for most of a second.
    """
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    code: object = 0
    try:
        exec(compile(program, "<program>", "exec"), main.__dict__)
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - all that a program may raise
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        code = 120
    return code or 0


if __name__ == "__main__":
    channel, modules = socket.socket(fileno=int(sys.argv[1])), json.loads(sys.argv[2])
    while True:
        for name in modules:
            importlib.import_module(name)
        request = serve(channel)
        if "program" in request:
            break
        channel, modules = socket.socket(fileno=os.dup(0)), request["modules"]
    os._exit(run(request["program"]))
