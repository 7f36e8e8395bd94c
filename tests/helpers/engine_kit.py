"""A small model with a real tokenizer, and listeners: what the tests of the engine share.

The model works in float64: there, the order in which products are added up cannot change which
token is best, so answers can be compared exactly on any machine.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from groundup.artifacts.tokenizer import Tokenizer
from groundup.engines.jobs import Job, Piece, Ticket, TokenScore
from groundup.engines.own import Engine
from groundup.engines.request import Request
from groundup.engines.scheduler import Batch
from groundup.model.config import ModelConfig
from groundup.model.generate import generate
from groundup.model.transformer import Transformer
from groundup.tokenize.train_bpe import train_bpe
from tests.helpers.hostile import HOSTILE

# Real prose.
LICENSE = (Path(__file__).parents[2] / "LICENSE").read_text(encoding="utf-8")
TOKENIZER = Tokenizer(train_bpe([LICENSE, *HOSTILE], 700))
STRINGS = TOKENIZER.byte_strings()
CONTEXT = 96
WAIT_SECONDS = 60


def make_model(dtype: torch.dtype = torch.float64, kv_heads: int = 2) -> Transformer:
    """Return a model whose every weight is drawn at random: fresh ones begin as the identity, which
    hides mistakes.
    """
    config = ModelConfig(
        TOKENIZER.vocab_size,
        3,
        width=48,
        heads=4,
        kv_heads=kv_heads,
        head_width=16,
        feed_forward=64,
        context=CONTEXT,
    )
    model = Transformer(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.25)
    return model.to(dtype).eval()


MODEL = make_model()


def prompts(count: int, longest: int = CONTEXT // 2) -> list[tuple[int, ...]]:
    """Return prompts of many lengths, cut from real prose."""
    ids = TOKENIZER.encode(LICENSE)
    lengths = [1 + (n * n * 7) % longest for n in range(count)]
    return [tuple(ids[n * 61 : n * 61 + length]) for n, length in enumerate(lengths)]


def plain(job: Job, model: Transformer = MODEL) -> str:
    """Return the answer by `generate`, one request and no batch."""
    s = job.sampling
    room = min(job.max_tokens, CONTEXT - len(job.prompt))
    return TOKENIZER.decode(
        generate(
            model,
            job.prompt,
            room,
            s.temperature,
            s.top_k,
            s.top_p,
            s.min_p,
            seed=job.seed,
            stop=job.stop_ids,
        )
    )


class Listener:
    """Collects the pieces of one answer."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.done = threading.Event()

    def __call__(self, piece: Piece) -> None:
        assert not self.done.is_set(), "a piece after the last one"
        self.pieces.append(piece)
        if piece.finish:
            self.done.set()

    def wait(self) -> Listener:
        assert self.done.wait(WAIT_SECONDS), "no answer"
        return self

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def finish(self) -> str | None:
        return self.pieces[-1].finish if self.pieces else None

    @property
    def count(self) -> int:
        return sum(piece.count for piece in self.pieces)

    @property
    def tokens(self) -> list[TokenScore]:
        return [score for piece in self.pieces for score in piece.tokens]

    @property
    def prompt(self) -> list[TokenScore]:
        return [score for piece in self.pieces for score in piece.prompt]


@contextmanager
def engine(
    slots: int = 4, queue: int = 64, chunk: int = 0, model: Transformer = MODEL, start: bool = True
) -> Iterator[Engine]:
    """Run an engine and end it."""
    found = Engine(model, TOKENIZER, slots, queue, chunk)
    if start:
        found.start()
    try:
        yield found
    finally:
        found.close()


def answers(of: Engine, jobs: Sequence[Job]) -> list[Listener]:
    """Submit all jobs at once and wait for their answers."""
    listeners = [Listener() for _ in jobs]
    for job, listener in zip(jobs, listeners, strict=True):
        of.submit(job, listener)
    return [listener.wait() for listener in listeners]


class Steps:
    """A batch without a thread, stepped by hand."""

    def __init__(self, slots: int, chunk: int = 0, model: Transformer = MODEL) -> None:
        self.batch = Batch(model, slots, STRINGS, chunk)
        self.model, self.slots = model, slots

    @property
    def free(self) -> int:
        return self.slots - len(self.batch.running)

    def add(self, job: Job) -> tuple[Listener, Ticket]:
        listener = Listener()
        request = Request(job, self.model.config, STRINGS, listener)
        self.batch.add(request)
        return listener, request.ticket

    def step(self) -> None:
        for request in self.batch.step():
            request.send_last()

    def finish(self) -> None:
        while self.batch.running:
            self.step()
