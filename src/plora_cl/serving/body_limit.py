"""Refuses request bodies that are too long, before they are in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_DRAINED = 16  # times the limit


class BodyLimit:
    """ASGI middleware that answers 413 to a body of more than ``most_bytes``.

    A body without an announced length is counted while it arrives.
    """

    def __init__(self, app: ASGIApp, *, most_bytes: int) -> None:
        self._app, self._most = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        problem = f"the body has more than {self._most} bytes"
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self._most:
            await self._drain(receive)
            await JSONResponse({"detail": problem}, status_code=413)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._most:
                if message.get("more_body"):
                    await self._drain(receive)
                raise HTTPException(413, problem)
            return message

        await self._app(scope, counted, send)

    async def _drain(self, receive: Receive) -> None:
        """Read what still comes, within bounds: a client that is sending reads no answer."""
        left = _DRAINED * self._most
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if not message.get("more_body"):
                return
