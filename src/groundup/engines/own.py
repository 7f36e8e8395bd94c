"""Continuous batching: many requests on one model, each joining and leaving between two steps.
Reads jobs; delivers pieces.

    engine = Engine(model, tokenizer, slots=32, queue=64)
    engine.start()
    ticket = engine.submit(Job(prompt, max_tokens=100), deliver=print)
    engine.close(drain_seconds=30)

A thread of its own does the work; `submit` comes from any thread. An answer depends on its job
alone, as far as floating
point allows: the products of a larger batch round differently in their last bits.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque

from groundup.artifacts.tokenizer import Tokenizer
from groundup.engines.jobs import Closed, Finish, Job, Load, Piece, QueueFull, Ticket, TokenScore
from groundup.engines.request import Deliver, Request
from groundup.engines.scheduler import Batch
from groundup.model.transformer import Transformer

__all__ = [
    "Closed",
    "Deliver",
    "Engine",
    "Finish",
    "Job",
    "Load",
    "Piece",
    "QueueFull",
    "Ticket",
    "TokenScore",
]

log = logging.getLogger(__name__)


class Engine:
    """Serves one model.

    Args:
        model: on the device and in the type in which it is to work.
        slots: requests that run at once; their keys and values are allocated here
            (`cache.fitting_slots` chooses).
        queue: requests that may wait beyond those.
        chunk: tokens of prompts that are read in a step; 0 lets the size of the model decide.
    """

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, slots: int, queue: int, chunk: int = 0
    ) -> None:
        # A model may have more ids than its tokenizer, for its sizes' sake; those stand for
        # nothing.
        self._strings = tokenizer.byte_strings()
        self._strings += [b""] * (model.config.vocab_size - len(self._strings))
        self._model, self._slots, self._queue = model, slots, queue
        self._batch = Batch(model, slots, self._strings, chunk)
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._finished: Counter[Finish] = Counter()
        self._changed = threading.Condition()
        self._closing = self._aborting = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def submit(self, job: Job, deliver: Deliver) -> Ticket:
        """Take a job; its pieces go to `deliver`, on the engine's thread, where it must not block.

        The last piece has a `finish`. If `deliver` raises, that request ends and no more pieces
        come.

        Raises:
            ValueError: the job cannot be done.
            QueueFull: as many requests wait as may.
            Closed: the engine is shutting down.
        """
        request = Request(job, self._model.config, self._strings, deliver, self._model.device)
        with self._changed:
            if self._closing:
                raise Closed("the engine is shutting down")
            if len(self._running) + len(self._waiting) >= self._slots + self._queue:
                raise QueueFull(f"{self._slots} requests run and {self._queue} wait")
            self._waiting.append(request)
            self._changed.notify()
        return request.ticket

    def load(self) -> Load:
        """Return how busy the engine is."""
        batch = self._batch
        with self._changed:
            return Load(
                len(self._running),
                len(self._waiting),
                self._slots,
                self._queue,
                batch.prompt_tokens,
                batch.generated_tokens,
                batch.steps,
                dict(self._finished),
            )

    def close(self, drain_seconds: float = 0.0) -> None:
        """Take no more, finish within `drain_seconds` what was taken, cancel the rest, and end the
        thread.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        started = self._thread.ident is not None
        if started:
            self._thread.join(drain_seconds)
        self._aborting = True
        if started:
            self._thread.join()
        else:
            self._admit()

    def _work(self) -> None:
        try:
            while self._admit():
                self._step()
        except Exception:
            log.exception("the engine cannot go on")
            with self._changed:
                self._closing = True
                left = [*self._running, *self._waiting]
                self._waiting.clear()
            self._dismiss(left, "error")

    def _step(self) -> None:
        try:
            ended = self._batch.step()
        except Exception:
            log.exception("a step failed; what ran in it ends")
            self._dismiss(list(self._running), "error")
            self._batch.forget()
        else:
            self._dismiss(ended)

    def _admit(self) -> bool:
        """Wait for work, and give free slots to those that wait; False when there is none left and
        the engine closes.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._running or self._waiting or self._closing)
            for request in [*self._waiting, *self._running] if self._aborting else []:
                request.ticket.cancel()
            gone = [request for request in self._waiting if request.ticket.canceled]
            self._waiting = deque(
                request for request in self._waiting if not request.ticket.canceled
            )
            while self._waiting and len(self._running) < self._slots:
                self._running.append(self._waiting.popleft())
                self._batch.add(self._running[-1])
            going_on = bool(self._running) or not self._closing
        self._dismiss(gone, "cancelled")
        return going_on

    def _dismiss(self, requests: list[Request], finish: Finish = "error") -> None:
        """Count requests that ended (or end now, by `finish`) and only then send their last pieces."""
        for request in requests:
            request.end(finish)
        with self._changed:
            self._running = [request for request in self._running if request not in requests]
            self._finished.update(request.finish for request in requests if request.finish)
        for request in requests:
            request.send_last()
