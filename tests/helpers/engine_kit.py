"""A small model with a real tokenizer, and listeners, for the tests of the engine.

The model computes in float64: the order of additions cannot change which token is best, so
outputs can be compared exactly on any machine.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from groundup.artifacts.tokenizer import Tokenizer
from groundup.engines.own import Engine, Scheduler, SequenceState
from groundup.engines.request import (
    EngineRequest,
    Logprob,
    RequestHandle,
    RequestOutput,
    SamplingParams,
)
from groundup.model.config import ModelConfig
from groundup.model.generate import generate
from groundup.model.sampling import Sampling
from groundup.model.transformer import Transformer
from tests.helpers.bpe import train_bpe
from tests.helpers.hostile import HOSTILE

# Real prose.
LICENSE = (Path(__file__).parents[2] / "LICENSE").read_text(encoding="utf-8")
TOKENIZER = Tokenizer(train_bpe([LICENSE, *HOSTILE], 700))
STRINGS = TOKENIZER.byte_strings()
CONTEXT = 96
WAIT_SECONDS = 60
GREEDY = Sampling(0.0)


def make_model(dtype: torch.dtype = torch.float64, kv_heads: int = 2) -> Transformer:
    """Return a model with random weights: a fresh one starts as the identity and hides mistakes."""
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


def make_request(
    prompt: Sequence[int], max_tokens: int, sampling: Sampling = GREEDY, **params: Any
) -> EngineRequest:
    """Return a request that samples as `sampling` says."""
    return EngineRequest(
        tuple(prompt), SamplingParams(**asdict(sampling), max_tokens=max_tokens, **params)
    )


def generate_alone(request: EngineRequest, model: Transformer = MODEL) -> str:
    """Return the output of `generate`, which knows no batch."""
    params = request.params
    room = min(params.max_tokens, CONTEXT - len(request.prompt_token_ids))
    return TOKENIZER.decode(
        generate(
            model,
            request.prompt_token_ids,
            room,
            params.temperature,
            params.top_k,
            params.top_p,
            params.min_p,
            seed=params.seed,
            stop=params.stop_token_ids,
        )
    )


class Listener:
    """Collects the outputs of one request."""

    def __init__(self) -> None:
        self.outputs: list[RequestOutput] = []
        self.done = threading.Event()

    def __call__(self, output: RequestOutput) -> None:
        assert not self.done.is_set(), "an output after the last one"
        self.outputs.append(output)
        if output.finish_reason:
            self.done.set()

    def wait(self) -> Listener:
        assert self.done.wait(WAIT_SECONDS), "no last output"
        return self

    @property
    def text(self) -> str:
        return "".join(output.text for output in self.outputs)

    @property
    def finish_reason(self) -> str | None:
        return self.outputs[-1].finish_reason if self.outputs else None

    @property
    def num_tokens(self) -> int:
        return sum(output.num_tokens for output in self.outputs)

    @property
    def logprobs(self) -> list[Logprob]:
        return [logprob for output in self.outputs for logprob in output.logprobs]

    @property
    def prompt_logprobs(self) -> list[Logprob]:
        return [logprob for output in self.outputs for logprob in output.prompt_logprobs]


@contextmanager
def running_engine(
    slots: int = 4, queue: int = 64, chunk: int = 0, model: Transformer = MODEL, start: bool = True
) -> Iterator[Engine]:
    """Run an engine while the block lasts."""
    engine = Engine(model, TOKENIZER, slots, queue, chunk)
    if start:
        engine.start()
    try:
        yield engine
    finally:
        engine.close()


def submit_all(engine: Engine, requests: Sequence[EngineRequest]) -> list[Listener]:
    """Submit all requests and wait until they have ended."""
    listeners = [Listener() for _ in requests]
    for request, listener in zip(requests, listeners, strict=True):
        engine.submit(request, listener)
    return [listener.wait() for listener in listeners]


class Steps:
    """A scheduler without a thread, stepped by hand."""

    def __init__(self, slots: int, chunk: int = 0, model: Transformer = MODEL) -> None:
        self.scheduler = Scheduler(model, slots, STRINGS, chunk)
        self.model, self.slots = model, slots

    @property
    def free(self) -> int:
        return self.slots - len(self.scheduler.running)

    def add(self, request: EngineRequest) -> tuple[Listener, RequestHandle]:
        listener = Listener()
        sequence = SequenceState(request, self.model.config, STRINGS, listener)
        self.scheduler.add(sequence)
        return listener, sequence.handle

    def step(self) -> None:
        for sequence in self.scheduler.step():
            sequence.send(sequence.final_output)

    def finish(self) -> None:
        while self.scheduler.running:
            self.step()
