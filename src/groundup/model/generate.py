"""Continues a prompt token by token with a key-value cache; the randomness is its own, seeded."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from groundup.model.kv_cache import Cache
from groundup.model.sampling import Drawing, Sampling, choose
from groundup.model.score import evaluating
from groundup.model.transformer import Transformer


def generate(
    model: Transformer,
    prompt: Sequence[int],
    max_new_tokens: int = 100,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 1,
    stop: Collection[int] = frozenset(),
) -> Iterator[int]:
    """Yield the tokens that continue `prompt`, until `max_new_tokens` or a token of `stop`, which
    is not yielded.

    Temperature 0 takes the most probable token; `top_k` 0, `top_p` 1 and `min_p` 0 cut nothing off.
    A prompt longer than the context is cut on the left. When the context is full, its last half is
    read again and generation goes on from there, so that a text may grow beyond it.

    Raises:
        ValueError: the prompt is empty, or temperature, top_k, top_p or min_p makes no sense.
        FloatingPointError: the model's weights give scores that are not numbers.
    """
    if not prompt:
        raise ValueError("the prompt has no tokens; begin with the end-of-text id")
    drawing = Drawing(Sampling(temperature, top_k, top_p, min_p), seed, model.config.vocab_size)
    tokens = _tokens(model, list(prompt), drawing)
    return itertools.takewhile(
        lambda token: token not in stop, itertools.islice(tokens, max_new_tokens)
    )


def _tokens(model: Transformer, tokens: list[int], drawing: Drawing) -> Iterator[int]:
    context = model.config.context
    cache, unread = _fresh(model), tokens[-context:]
    while True:
        if cache.length + len(unread) > context:
            cache, unread = _fresh(model), tokens[-max(1, context // 2) :]
        token = int(choose(_next_logits(model, unread, cache)[None], [drawing]))
        if token < 0:
            raise FloatingPointError("the model's scores are not numbers")
        yield token
        drawing.saw(token)
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
