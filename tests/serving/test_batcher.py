from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from plora_cl.serving.batcher import Batcher, ClosedError, QueueFullError


def batcher(
    gate: threading.Event | None = None, *, batch: int = 8, queue: int = 20
) -> tuple[Batcher[list[str]], list[int]]:
    """Return a batcher that shouts texts when ``gate`` is open, and the sizes of its batches."""
    sizes: list[int] = []

    def shout(texts: Sequence[str], _: Sequence[str | None]) -> list[str]:
        if gate is not None:
            assert gate.wait(30)
        if "bad" in texts:
            raise ValueError("bad")
        sizes.append(len(texts))
        return [text.upper() for text in texts]

    made: Batcher[list[str]] = Batcher(
        shout, lambda all_, a, b: all_[a:b], batch_texts=batch, queue_texts=queue
    )
    return made, sizes


async def ask(to: Batcher[list[str]], *texts: str) -> list[str]:
    return await to.submit(texts, [None] * len(texts))


def test_what_arrives_while_a_batch_is_predicted_is_the_next_batch() -> None:
    async def scenario() -> None:
        gate = threading.Event()
        made, sizes = batcher(gate)
        first = asyncio.create_task(ask(made, "a"))
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(ask(made, f"t{n}", f"u{n}")) for n in range(6)]
        await asyncio.sleep(0.05)
        assert made.waiting == 12
        gate.set()
        assert await first == ["A"]
        assert await asyncio.gather(*rest) == [[f"T{n}", f"U{n}"] for n in range(6)]
        assert sizes == [1, 8, 4]
        assert made.waiting == 0
        await made.close()

    asyncio.run(scenario())


def test_a_request_that_fails_takes_no_other_down() -> None:
    async def scenario() -> None:
        gate = threading.Event()
        made, _ = batcher(gate)
        asked = [asyncio.create_task(ask(made, text)) for text in ("a", "b", "bad", "c")]
        await asyncio.sleep(0.05)
        gate.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [found[0], found[1], found[3]] == [["A"], ["B"], ["C"]]
        assert isinstance(found[2], ValueError)
        await made.close()

    asyncio.run(scenario())


def test_a_full_queue_refuses_and_a_large_request_is_predicted_alone() -> None:
    async def scenario() -> None:
        gate = threading.Event()
        made, sizes = batcher(gate, queue=10)
        running = asyncio.create_task(ask(made, "a"))
        await asyncio.sleep(0.05)
        large = asyncio.create_task(ask(made, *("x" * 30)))
        await asyncio.sleep(0.05)
        with pytest.raises(QueueFullError):
            await ask(made, "b")
        gate.set()
        await running
        assert len(await large) == 30
        assert sizes == [1, 30]
        await made.close()

    asyncio.run(scenario())


def test_closing_answers_what_waits_and_takes_nothing_more() -> None:
    async def scenario() -> None:
        gate = threading.Event()
        made, _ = batcher(gate)
        asked = [asyncio.create_task(ask(made, str(n))) for n in range(5)]
        gone = asked.pop()
        await asyncio.sleep(0.05)
        gone.cancel()
        closing = asyncio.create_task(made.close())
        await asyncio.sleep(0.05)
        with pytest.raises(ClosedError):
            await ask(made, "late")
        gate.set()
        await closing
        assert await asyncio.gather(*asked) == [[str(n)] for n in range(4)]

    asyncio.run(scenario())
