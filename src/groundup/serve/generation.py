"""From the engine's thread to the event loop: the pieces of one request as they come. Reads jobs;
writes pieces.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial

from groundup.engines.own import Closed, Job, Piece, QueueFull, Ticket
from groundup.serve.errors import ApiError
from groundup.serve.serving import Serving, stopping


class Generation:
    """The completions of one request, submitted together.

    Raises:
        ApiError: the queue has no room for all of them (429), the engine takes none (503) or not
            this one (400).
    """

    def __init__(self, serving: Serving, jobs: Sequence[Job]) -> None:
        self._serving = serving
        self._loop = asyncio.get_running_loop()
        self._began = time.monotonic()
        self._last = [0.0] * len(jobs)
        self._open = len(jobs)
        self._queue: list[tuple[int, Piece]] = []
        self._news = asyncio.Event()
        self._slow = False
        self._tickets: list[Ticket] = []
        try:
            for index, job in enumerate(jobs):
                self._tickets.append(serving.engine.submit(job, partial(self._deliver, index)))
        except (QueueFull, Closed, ValueError) as error:
            self.cancel()
            raise _refusal(serving, error) from None

    async def batches(self) -> AsyncIterator[list[tuple[int, Piece]]]:
        """Yield what has come since the last batch, with the index of its completion, until all
        have ended.

        A batch is empty after a long silence.

        Raises:
            ApiError: the engine failed or stops, the time is up, or the client reads too slowly.
        """
        limits, deadline = self._serving.limits, self._began + self._serving.limits.request_seconds
        while self._open or self._queue:
            left = deadline - time.monotonic()
            if left <= 0:
                message = f"The answer took longer than {limits.request_seconds:g} s."
                raise ApiError(503, message, "too_long", headers={"X-Should-Retry": "false"})
            batch, self._queue = self._queue, []
            self._check(batch)
            if batch or not await self._wait(min(left, limits.silence_seconds)):
                yield batch

    def cancel(self) -> None:
        """End what is not yet ended."""
        for ticket in self._tickets:
            ticket.cancel()

    async def _wait(self, seconds: float) -> bool:
        self._news.clear()
        if self._queue:
            return True
        try:
            async with asyncio.timeout(seconds):
                return await self._news.wait()
        except TimeoutError:
            return False

    def _check(self, batch: list[tuple[int, Piece]]) -> None:
        if self._slow:
            raise ApiError(503, "The client reads too slowly.", "slow_reader")
        ends = {piece.finish for _, piece in batch}
        if "error" in ends:
            raise ApiError(
                500,
                "The model failed on this request; the server's log says more.",
                "engine_failed",
            )
        if "cancelled" in ends:
            raise stopping()

    def _deliver(self, index: int, piece: Piece) -> None:
        """Take a piece on the engine's thread, which must neither wait nor fail for a client's
        sake.
        """
        try:
            self._loop.call_soon_threadsafe(self._arrived, index, piece)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self.cancel()

    def _arrived(self, index: int, piece: Piece) -> None:
        self._measure(index, piece.count)
        self._open -= piece.finish is not None
        self._queue.append((index, piece))
        if len(self._queue) > self._serving.limits.pending * len(self._last):
            self._slow = True
            self.cancel()
        self._news.set()

    def _measure(self, index: int, count: int) -> None:
        if not count:
            return
        now, before = time.monotonic(), self._last[index]
        meters = self._serving.meters
        if before:
            meters.each.observe((now - before) / count)
        else:
            meters.first.observe(now - self._began)
        self._last[index] = now


def _refusal(serving: Serving, error: Exception) -> ApiError:
    if isinstance(error, QueueFull):
        return serving.busy()
    return (
        stopping()
        if isinstance(error, Closed)
        else ApiError(400, str(error)[:200], "invalid_value")
    )
