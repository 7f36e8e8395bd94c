"""Continues a prompt token by token with a key-value cache; the randomness is its own, seeded."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.model.cache import Cache
from groundup.model.score import evaluating
from groundup.model.transformer import Transformer


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn: temperature first, then the `top_k` best, then the smallest set that holds `top_p` of the rest."""

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature >= 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError("temperature and top_k must not be negative, and top_p must lie between 0 and 1")

    def choose(self, logits_V: Tensor, generator: torch.Generator) -> int:
        """Draw a token; temperature 0 takes the most probable one."""
        if self.temperature == 0:
            return int(logits_V.argmax())
        values, order = torch.sort(logits_V / self.temperature, descending=True, stable=True)
        if self.top_k:
            values, order = values[: self.top_k], order[: self.top_k]
        probabilities = torch.softmax(values, dim=0)
        # A token stays while what stands before it has not reached top_p; the first always does.
        before = probabilities.cumsum(0) - probabilities
        kept = probabilities * (before < self.top_p)
        return int(order[torch.multinomial(kept, 1, generator=generator)])


def generate(
    model: Transformer,
    prompt: Sequence[int],
    max_new_tokens: int = 100,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 1,
    stop: Collection[int] = frozenset(),
) -> Iterator[int]:
    """Yield the tokens that continue `prompt`, until `max_new_tokens` or a token of `stop`, which is not yielded.

    Temperature 0 takes the most probable token; `top_k` 0 and `top_p` 1 cut nothing off. A prompt longer than the
    context is cut on the left. When the context is full, its last half is read again and generation goes on from there,
    so that a text may grow beyond it.

    Raises:
        ValueError: the prompt is empty, or temperature, top_k or top_p makes no sense.
    """
    if not prompt:
        raise ValueError("the prompt has no tokens; begin with the end-of-text id")
    sampling = Sampling(temperature, top_k, top_p)
    tokens = _tokens(model, list(prompt), sampling, torch.Generator().manual_seed(seed))
    return itertools.takewhile(lambda token: token not in stop, itertools.islice(tokens, max_new_tokens))


def _tokens(model: Transformer, tokens: list[int], sampling: Sampling, generator: torch.Generator) -> Iterator[int]:
    context = model.config.context
    cache, unread = _fresh(model), tokens[-context:]
    while True:
        if cache.length + len(unread) > context:
            cache, unread = _fresh(model), tokens[-max(1, context // 2) :]
        token = sampling.choose(_next_logits(model, unread, cache), generator)
        yield token
        tokens.append(token)
        unread = [token]


def _fresh(model: Transformer) -> Cache:
    return Cache(model.config, device=model.device, dtype=model.head_weight.dtype)


def _next_logits(model: Transformer, tokens: Sequence[int], cache: Cache) -> Tensor:
    with evaluating(model):
        x_BTD = model.hidden(torch.tensor([tokens], device=model.device), cache)
        logits: Tensor = x_BTD[0, -1] @ model.head_weight.T
        # On the CPU whatever the device, so that one seed draws alike everywhere.
        return logits.float().cpu()
