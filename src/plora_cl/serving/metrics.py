"""What a server counts, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server.

    Attributes:
        registry: Holds them all.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self._requests = Counter(
            "plora_cl_requests", "Requests", ["path", "status"], registry=registry
        )
        self._seconds = Histogram(
            "plora_cl_request_seconds", "Seconds from request to answer", registry=registry
        )
        self._texts = Counter("plora_cl_texts", "Texts predicted", registry=registry)
        self._batch = Histogram(
            "plora_cl_batch_texts", "Texts predicted together", buckets=_BATCHES, registry=registry
        )
        self._batch_seconds = Histogram(
            "plora_cl_batch_seconds", "Seconds that a batch took", registry=registry
        )
        self._swaps = Counter(
            "plora_cl_checkpoints", "Newer checkpoints taken up, or not", ["ok"], registry=registry
        )
        self._queue = Gauge("plora_cl_waiting_texts", "Texts that wait", registry=registry)

    def predicted(self, texts: int, seconds: float) -> None:
        """Count a batch."""
        self._texts.inc(texts)
        self._batch.observe(texts)
        self._batch_seconds.observe(seconds)

    def swapped(self, succeeded: bool) -> None:
        """Count an attempt to take up a newer checkpoint."""
        self._swaps.labels(str(succeeded).lower()).inc()

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Report the number of waiting texts at each scrape."""
        self._queue.set_function(waiting)

    def requested(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.observe(seconds)


class Observe:
    """ASGI middleware that counts answers."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            # A path that the client makes up is no label
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.requested(path, status, time.perf_counter() - began)
