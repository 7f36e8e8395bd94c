"""Samples the next token of many sequences at once, each by its own parameters and random numbers.

Only the best candidates of a row are sorted, as many as its top_k and top_p can reach.

Shape suffixes: N sequences, V vocabulary, K candidates, B a block of them, M some of the sequences.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

# How many of the best candidates to sort before trying more, and finally the whole vocabulary. For
# 32 rows of 50K entries the best 128 take 4 ms on one core, the best 1,024 take 8, a full sort 180.
# On a GPU a partial sort costs more than it saves.
TOP_CANDIDATES = {"cpu": (128, 1024)}
# Candidates that are summed as one block before one of them is searched for.
BLOCK = 64
# Below this temperature only the best logit has any weight; dividing by less would overflow.
MIN_TEMPERATURE = 1e-6
# Limit of penalties and biases: far beyond any logit, and their sums do not overflow float32.
MAX_BIAS = 1e6


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is sampled.

    Penalties and biases change the logits, then the temperature divides them. Of the `top_k` best
    tokens, the smallest set with `top_p` of their probability remains, and of those the tokens that
    are at least `min_p` times as probable as the best.
    """

    temperature: float = 0.8  # 0 takes the most probable token
    top_k: int = 0  # 0 cuts nothing off
    top_p: float = 1.0  # 1 cuts nothing off
    min_p: float = 0.0  # 0 cuts nothing off (Nguyen et al. 2024, arXiv 2407.01082)
    frequency_penalty: float = 0.0  # subtracted from a token's logit each time it was generated
    presence_penalty: float = 0.0  # subtracted from a token's logit once it was generated
    logit_bias: tuple[tuple[int, float], ...] = ()  # tokens and what is added to their logits

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf or self.top_k < 0:
            negative = "temperature and top_k must not be negative"
            raise ValueError(f"{negative}, and temperature must be finite")
        if not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1:
            raise ValueError("top_p must lie above 0 and at most at 1, min_p between 0 and 1")
        biases = [self.frequency_penalty, self.presence_penalty]
        biases += [bias for _, bias in self.logit_bias]
        # NaN fails this comparison too.
        if not all(abs(bias) <= MAX_BIAS for bias in biases):
            limit = f"{MAX_BIAS:.0f}"
            raise ValueError(f"penalties and biases must lie between -{limit} and {limit}")

    @property
    def ranked(self) -> bool:
        """Whether candidates must be sorted first."""
        return self.top_k > 0 or self.top_p < 1


class SequenceSampler:
    """Sampling state of one sequence: parameters, random numbers, penalties of its own tokens.

    Equal seeds (any integer) and logits give equal text, whatever else is in the batch.
    """

    def __init__(
        self, params: Sampling, seed: int, vocab_size: int, device: torch.device | str = "cpu"
    ) -> None:
        self.params = params
        # As text, since Python takes -1 and 1 for the same seed.
        self._random = random.Random(str(seed))
        self.uniform = self._random.random()
        self._generated: set[int] = set()
        # Added to the logits; None while nothing changes them.
        self.bias_V: Tensor | None = None
        if params.logit_bias or params.frequency_penalty or params.presence_penalty:
            for token, _ in params.logit_bias:
                if not 0 <= token < vocab_size:
                    raise ValueError(f"logit_bias names token {token}; there are {vocab_size}")
            ids = torch.tensor([token for token, _ in params.logit_bias], dtype=torch.long)
            biases = torch.tensor([float(bias) for _, bias in params.logit_bias])
            self.bias_V = torch.zeros(vocab_size).index_add_(0, ids, biases).to(device)

    def accept(self, token: int) -> None:
        """Note the token that the sequence continues with."""
        self.uniform = self._random.random()
        if self.bias_V is not None:
            penalty = self.params.frequency_penalty
            if token not in self._generated:
                penalty += self.params.presence_penalty
            self._generated.add(token)
            self.bias_V[token] -= penalty


def sample(logits_NV: Tensor, samplers: Sequence[SequenceSampler]) -> Tensor:
    """Return the next token of each sequence [N], on the logits' device; -1 if a row is not finite.

    The logits (float32) are changed in place. A row's token depends on that row alone.
    """
    for row, sampler in enumerate(samplers):
        if sampler.bias_V is not None:
            logits_NV[row] += sampler.bias_V
    best_N, tokens_N = logits_NV.max(dim=1)
    # Rows whose candidates need no order, and rows whose candidates do.
    drawn = [row for row, sampler in enumerate(samplers) if sampler.params.temperature > 0]
    if drawn:
        limits = _Limits.of(samplers, logits_NV.device)
        # The best logit becomes 0, so no temperature overflows. In place: fresh pages cost more
        # than the arithmetic.
        weights_NV = logits_NV.sub_(best_N[:, None]).div_(limits.temperature).exp_()
        for ranked in (False, True):
            rows = [row for row in drawn if samplers[row].params.ranked is ranked]
            if len(rows) == len(samplers):
                tokens_N = _draw(weights_NV, limits, ranked)
            elif rows:
                index = torch.tensor(rows, device=logits_NV.device)
                tokens_N[index] = _draw(weights_NV[index], limits.of_rows(index), ranked)
    return torch.where(best_N.isfinite(), tokens_N, -1)


class _Limits(NamedTuple):
    """Parameters and random numbers of some sequences, each a column [N, 1]."""

    any_min_p: bool
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    uniform: Tensor

    @classmethod
    def of(cls, samplers: Sequence[SequenceSampler], device: torch.device) -> _Limits:
        """Collect the limits of the sequences on a device."""
        params = [sampler.params for sampler in samplers]
        rows = [
            [max(p.temperature or 1, MIN_TEMPERATURE) for p in params],
            [min(p.top_k, 1 << 30) or math.inf for p in params],
            [p.top_p for p in params],
            [p.min_p for p in params],
            [sampler.uniform for sampler in samplers],
        ]
        # One transfer to the device: [5, N] → five columns [N, 1].
        columns = torch.tensor(rows, dtype=torch.float64)[:, :, None].to(device)
        temperature, top_k, top_p, min_p, uniform = columns
        any_min_p = any(p.min_p > 0 for p in params)
        return cls(any_min_p, temperature.float(), top_k, top_p, min_p.float(), uniform)

    def of_rows(self, rows: Tensor) -> _Limits:
        """Return the limits of some of the sequences."""
        columns = (self.temperature, self.top_k, self.top_p, self.min_p, self.uniform)
        return _Limits(self.any_min_p, *(column[rows] for column in columns))


def _draw(weights_NV: Tensor, limits: _Limits, ranked: bool) -> Tensor:
    """Return a token of each row [N].

    Without limits that need an order, draws from the whole vocabulary. Otherwise draws from the
    best candidates: few first, then more for rows whose limits reach further.
    """
    if not ranked:
        if limits.any_min_p:
            weights_NV = weights_NV * (weights_NV >= limits.min_p)
        return _pick(weights_NV, limits)
    tokens_N = torch.zeros(len(weights_NV), dtype=torch.long, device=weights_NV.device)
    left = torch.arange(len(weights_NV), device=weights_NV.device)
    for size in TOP_CANDIDATES.get(weights_NV.device.type, ()):
        if size < weights_NV.shape[1] and len(left):
            weights_MV = weights_NV if len(left) == len(weights_NV) else weights_NV[left]
            best, total_M1 = weights_MV.topk(size), weights_MV.sum(dim=1, keepdim=True)
            drawn_M, settled_M = _draw_among(*best, total_M1, limits.of_rows(left))
            tokens_N[left[settled_M]] = drawn_M[settled_M]
            left = left[~settled_M]
    if len(left):
        # Stable: of equal weights the lowest id comes first. topk orders equals otherwise, but not
        # by what else is in the batch.
        weights_MV, ids_MV = weights_NV[left].sort(dim=1, descending=True, stable=True)
        total_M1 = weights_MV.sum(dim=1, keepdim=True)
        tokens_N[left] = _draw_among(weights_MV, ids_MV, total_M1, limits.of_rows(left))[0]
    return tokens_N


def _draw_among(
    weights_NK: Tensor, ids_NK: Tensor, total_N1: Tensor, limits: _Limits
) -> tuple[Tensor, Tensor]:
    """Draw from the K best candidates, best first; `total_N1` is the weight of the vocabulary.

    Returns tokens [N], and whether [N] no further candidate could lie within the limits.
    """
    size = weights_NK.shape[1]
    kept_NK = torch.arange(size, device=weights_NK.device) < limits.top_k
    top_NK = (weights_NK * kept_NK).double()
    mass_N1 = torch.where(limits.top_k.isinf(), total_N1, top_NK.sum(dim=1, keepdim=True))
    # A token stays while the sum before it has not reached top_p; the first always stays.
    before_NK = top_NK.cumsum(dim=1) - top_NK
    kept_NK &= (before_NK < limits.top_p * mass_N1) | (limits.top_p == 1)
    kept_NK &= weights_NK >= limits.min_p
    tokens_N = ids_NK.gather(1, _pick(weights_NK * kept_NK, limits)[:, None])[:, 0]
    # If the last candidate is cut off, all that remain are among these.
    return tokens_N, ~kept_NK[:, -1] & ((limits.top_k <= size) | limits.top_k.isinf())[:, 0]


def _pick(weights_NK: Tensor, limits: _Limits) -> Tensor:
    """Return the candidate [N] at which the cumulative weight passes a random share of the total.

    First finds the block of candidates, then the candidate in it: a sum over everything is many
    times faster than a cumulative sum.
    """
    blocks_NKB = F.pad(weights_NK, (0, -weights_NK.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    block_N1, share_N1 = _search(blocks_NKB.sum(dim=2), limits.uniform)
    inside_NB = blocks_NKB.gather(1, block_N1[:, :, None].expand(-1, -1, BLOCK))[:, 0]
    index_N1 = block_N1 * BLOCK + _search(inside_NB, share_N1)[0]
    # Only weights that are not finite lead into the padding.
    return index_N1[:, 0].clamp(max=weights_NK.shape[1] - 1)


def _search(weights_NK: Tensor, share_N1: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the cumulative weight passes a share of the total [N, 1], and which share of
    the weight there lies before that point [N, 1].
    """
    cumulative_NK = weights_NK.cumsum(dim=1, dtype=torch.float64)
    # A share that rounds to 1 would point behind the last weight.
    target_N1 = cumulative_NK[:, -1:] * share_N1.clamp(0, 1 - 1e-12)
    index_N1 = torch.searchsorted(cumulative_NK, target_N1, right=True)
    index_N1 = index_N1.clamp(max=weights_NK.shape[1] - 1)
    weight_N1 = weights_NK.gather(1, index_N1)
    return index_N1, 1 - (cumulative_NK.gather(1, index_N1) - target_N1) / weight_N1
