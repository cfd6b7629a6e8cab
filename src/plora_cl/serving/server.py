"""The process that listens: a socket, signals, and a shutdown that loses no request."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from plora_cl.errors import PloraError

if TYPE_CHECKING:
    from fastapi import FastAPI

_GRACE = 30  # seconds


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that accepts connections.

    Raises:
        PloraError: The address is taken, or not one of this machine.
    """
    try:
        return socket.create_server((host, port), backlog=2048)
    except (OSError, OverflowError) as error:
        raise PloraError(
            f"cannot listen on {host}:{port}: {error}; choose another --port, or 0 for any"
        ) from error


def serve(app: FastAPI, listener: socket.socket) -> None:
    """Answer requests until SIGTERM or SIGINT, then finish those that came; a second one ends all.

    Args:
        app: The application.
        listener: Where requests come from.
    """
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=_GRACE
    )
    _Server(config).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends with exit code 0 after a signal; uvicorn would raise the signal again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        earlier = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
