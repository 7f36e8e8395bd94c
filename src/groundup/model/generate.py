"""Generates text token by token with a key-value cache, from a seed of its own."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence

import torch

from groundup.model.kv_cache import SlotCache
from groundup.model.sampling import Sampling, SequenceSampler, sample
from groundup.model.transformer import Transformer, evaluating


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
    """Yield the tokens that continue `prompt`, up to `max_new_tokens` or the first token of `stop`.

    The stop token is not yielded. Temperature 0 takes the most probable token; `top_k` 0, `top_p` 1
    and `min_p` 0 cut nothing off. A prompt longer than the context is cut on the left. When the
    context is full, its last half is read again, so a text may grow beyond the context.

    Raises ValueError if the prompt is empty or a parameter is out of range, and FloatingPointError
    if the model's logits are not finite.
    """
    if not prompt:
        raise ValueError("the prompt has no tokens; begin with the end-of-text id")
    params = Sampling(temperature, top_k, top_p, min_p)
    sampler = SequenceSampler(params, seed, model.config.vocab_size)
    tokens = itertools.islice(_continue(model, list(prompt), sampler), max_new_tokens)
    return itertools.takewhile(lambda token: token not in stop, tokens)


def _continue(model: Transformer, tokens: list[int], sampler: SequenceSampler) -> Iterator[int]:
    context = model.config.context
    cache = SlotCache(model.config, 1, model.head_weight)
    read, unread = 0, tokens[-context:]
    while True:
        if read + len(unread) > context:
            read, unread = 0, tokens[-max(1, context // 2) :]
        rows = cache.rows([0], [read], [len(unread)])
        with evaluating(model):
            x_BTD = model.hidden(torch.tensor([unread], device=model.device), rows)
            # On the CPU on every device, so one seed draws the same tokens everywhere.
            logits_V = (x_BTD[0, -1] @ model.head_weight.T).float().cpu()
        token = int(sample(logits_V[None], [sampler]))
        if token < 0:
            raise FloatingPointError("the model's scores are not numbers")
        yield token
        sampler.accept(token)
        tokens.append(token)
        read, unread = read + len(unread), [token]
