"""Predicts the texts of many requests together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Result = TypeVar("Result")


class QueueFullError(Exception):
    """More texts wait than the queue holds."""


class ClosedError(Exception):
    """The server is shutting down."""


@dataclass(frozen=True, slots=True)
class Job(Generic[Result]):
    """What one request asks for.

    Attributes:
        texts: What to predict.
        tasks: The task of each text; None to infer it.
        answer: Takes the result.
        since: When it was submitted, as `time.monotonic` returns it.
    """

    texts: Sequence[str]
    tasks: Sequence[str | None]
    answer: asyncio.Future[Result]
    since: float


class Batcher(Generic[Result]):
    """One thread predicts; what arrives meanwhile is the next batch.

    So a request never waits for others to arrive: an idle server answers at once, and a busy one
    forms the larger batches the busier it is.

    Args:
        predict: Predicts texts with the task of each; called on a thread of its own, and returns
            a result for any part of its texts through ``part``.
        part: Returns the result of the texts ``first:last`` of a batch.
        batch_texts: Most texts predicted together; a larger request is predicted alone.
        queue_texts: Most texts that wait.
        on_batch: Told the number of texts of each batch and the seconds it took.
    """

    def __init__(
        self,
        predict: Callable[[Sequence[str], Sequence[str | None]], Result],
        part: Callable[[Result, int, int], Result],
        *,
        batch_texts: int,
        queue_texts: int,
        on_batch: Callable[[int, float], None] = lambda texts, seconds: None,
    ) -> None:
        self._predict, self._part = predict, part
        self._batch_texts, self._queue_texts = batch_texts, queue_texts
        self._on_batch = on_batch
        self._jobs: deque[Job[Result]] = deque()
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "predicting")
        self._is_closed = False
        self._work: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Number of texts that wait."""
        return self._waiting

    async def submit(self, texts: Sequence[str], tasks: Sequence[str | None]) -> Result:
        """Return the result of one request.

        Raises:
            QueueFullError: Too many texts wait.
            ClosedError: `close` was called.
        """
        if self._is_closed:
            raise ClosedError
        if self._waiting and self._waiting + len(texts) > self._queue_texts:
            raise QueueFullError
        if self._work is None:
            self._work = asyncio.create_task(self._go_on())
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._jobs.append(Job(texts, tasks, answer, time.monotonic()))
        self._waiting += len(texts)
        self._arrived.set()
        return await answer

    async def close(self) -> None:
        """Answer everything that waits, and take nothing more."""
        self._is_closed = True
        self._arrived.set()
        if self._work is not None:
            await self._work
        self._thread.shutdown()

    async def _go_on(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._jobs:
                await self._answer(self._next_batch())
            if self._is_closed:
                return

    def _next_batch(self) -> list[Job[Result]]:
        batch: list[Job[Result]] = []
        texts = 0
        while self._jobs and (not batch or texts + len(self._jobs[0].texts) <= self._batch_texts):
            job = self._jobs.popleft()
            self._waiting -= len(job.texts)
            if not job.answer.cancelled():  # its client is gone
                batch.append(job)
                texts += len(job.texts)
        return batch

    async def _answer(self, batch: list[Job[Result]]) -> None:
        if not batch:
            return
        texts = [text for job in batch for text in job.texts]
        tasks = [task for job in batch for task in job.tasks]
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._thread, self._predict, texts, tasks)
        except Exception as error:  # noqa: BLE001 - a request fails, not the server
            if len(batch) == 1:
                if not batch[0].answer.done():
                    batch[0].answer.set_exception(error)
                return
            for job in batch:  # one of them is at fault: the others must not fail with it
                await self._answer([job])
            return
        self._on_batch(len(texts), time.perf_counter() - began)
        first = 0
        for job in batch:
            if not job.answer.done():
                job.answer.set_result(self._part(found, first, first + len(job.texts)))
            first += len(job.texts)
