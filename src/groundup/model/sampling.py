"""Draws the next token of many texts at once, each by its own settings and its own random numbers.
Reads logits only.

Shape suffixes: N texts, V vocabulary, K candidates.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

# How many of the best candidates are looked at, before the next look or the whole vocabulary. For
# 32 rows of 50K entries the best 128 take 4 ms of one core, the best 1,024 take 8, all in order
# 180. On a GPU a look costs more than it saves.
LOOKS = {"cpu": (128, 1024)}
# Candidates that are summed together before one of them is looked for.
BLOCK = 64
# Below this temperature only what equals the best has any weight; smaller ones would divide to
# infinity.
COLDEST = 1e-6
# Of penalties and biases: far beyond any logit, and no float32 overflows from adding it up.
LARGEST = 1e6


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn. The order of the fields is the order in which they act, but for the
    temperature.

    Penalties and bias change the logits; temperature divides them; of the `top_k` best stays the
    smallest set that holds `top_p` of their probability, and of those what is at least `min_p`
    times as probable as the best.

    Attributes:
        temperature: 0 takes the most probable token.
        top_k: 0 cuts nothing off.
        top_p: 1 cuts nothing off.
        min_p: 0 cuts nothing off (Nguyen et al. 2024, arXiv 2407.01082).
        frequency_penalty: taken from a token's logit for each time that it was generated.
        presence_penalty: taken from a token's logit once it was generated.
        logit_bias: pairs of token and what is added to its logit.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf or self.top_k < 0:
            raise ValueError(
                "temperature and top_k must not be negative, and temperature must be finite"
            )
        if not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1:
            raise ValueError("top_p must lie above 0 and at most at 1, min_p between 0 and 1")
        if not all(
            abs(x) <= LARGEST
            for x in (
                self.frequency_penalty,
                self.presence_penalty,
                *(bias for _, bias in self.logit_bias),
            )
        ):
            raise ValueError(
                f"penalties and biases must lie between -{LARGEST:.0f} and {LARGEST:.0f}"
            )

    @property
    def ranked(self) -> bool:
        """Whether candidates must be put in order first."""
        return self.top_k > 0 or self.top_p < 1


class Drawing:
    """One text that is being drawn: its settings, its random numbers, and what its own tokens do to
    the logits.

    Args:
        vocab_size: biases must name ids below it.
        seed: any integer; the same seed and the same logits give the same text, whatever is drawn
            beside it.

    Raises:
        ValueError: a bias names no token.
    """

    def __init__(
        self, sampling: Sampling, seed: int, vocab_size: int, device: torch.device | str = "cpu"
    ) -> None:
        self.sampling = sampling
        # As text, since Python takes -1 and 1 for the same seed.
        self._random = random.Random(str(seed))
        self.uniform = self._random.random()
        self._seen: set[int] = set()
        self.bias_V: Tensor | None = None
        if sampling.logit_bias or sampling.frequency_penalty or sampling.presence_penalty:
            self.bias_V = _biases(sampling.logit_bias, vocab_size).to(device)

    def saw(self, token: int) -> None:
        """Take note of the token that the text goes on with."""
        self.uniform = self._random.random()
        if self.bias_V is not None:
            first = token not in self._seen
            self._seen.add(token)
            self.bias_V[token] -= self.sampling.frequency_penalty + (
                self.sampling.presence_penalty if first else 0
            )


def _biases(pairs: Sequence[tuple[int, float]], vocab_size: int) -> Tensor:
    """Return what is added to each logit [V]."""
    for token, _ in pairs:
        if not 0 <= token < vocab_size:
            raise ValueError(f"logit_bias names token {token}; there are {vocab_size}")
    ids, values = (
        torch.tensor([token for token, _ in pairs], dtype=torch.long),
        torch.tensor([float(bias) for _, bias in pairs]),
    )
    return torch.zeros(vocab_size).index_add_(0, ids, values)


def choose(logits_NV: Tensor, drawings: Sequence[Drawing]) -> Tensor:
    """Return the next token of each text [N], on the logits' device; -1 where the logits are not
    numbers.

    The logits (float32) are changed in place. A row's token depends on that row alone.
    """
    for row, drawing in enumerate(drawings):
        if drawing.bias_V is not None:
            logits_NV[row] += drawing.bias_V
    best_N, tokens_N = logits_NV.max(dim=1)
    drawn = [d.sampling.temperature > 0 for d in drawings]
    if any(drawn):
        limits = _Limits.of(drawings, logits_NV)
        # The best logit becomes 0, so that no temperature makes a number overflow. In place: fresh
        # pages cost more than sums.
        weights_NV = logits_NV.sub_(best_N[:, None]).div_(limits.temperature).exp_()
        for ranked, draw in ((False, _draw_plain), (True, _draw_ranked)):
            rows = [
                row for row, d in enumerate(drawings) if drawn[row] and d.sampling.ranked is ranked
            ]
            if len(rows) == len(drawings):
                tokens_N = draw(weights_NV, limits)
            elif rows:
                index = torch.tensor(rows, device=logits_NV.device)
                tokens_N[index] = draw(weights_NV[index], limits[index])
    return torch.where(best_N.isfinite(), tokens_N, -1)


@dataclass(frozen=True, slots=True)
class _Limits:
    """Settings and random numbers of some texts, each a column [N, 1]."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    uniform: Tensor
    any_min_p: bool

    @classmethod
    def of(cls, drawings: Sequence[Drawing], like: Tensor) -> _Limits:
        rows = [
            (
                max(s.temperature or 1, COLDEST),
                min(s.top_k, 1 << 30) or math.inf,
                s.top_p,
                s.min_p,
                d.uniform,
            )
            for d in drawings
            for s in (d.sampling,)
        ]
        columns = torch.tensor(rows, dtype=torch.float64).T[:, :, None].to(like.device)
        return cls(
            columns[0].float(),
            columns[1],
            columns[2],
            columns[3].float(),
            columns[4],
            any(row[3] > 0 for row in rows),
        )

    def __getitem__(self, rows: Tensor) -> _Limits:
        return _Limits(
            self.temperature[rows],
            self.top_k[rows],
            self.top_p[rows],
            self.min_p[rows],
            self.uniform[rows],
            self.any_min_p,
        )


def _draw_plain(weights_NV: Tensor, limits: _Limits) -> Tensor:
    """Draw where nothing is cut off but what is improbable beside the best."""
    return _pick(
        weights_NV * (weights_NV >= limits.min_p) if limits.any_min_p else weights_NV, limits
    )


def _draw_ranked(weights_NV: Tensor, limits: _Limits) -> Tensor:
    """Draw from the best candidates: few first, more for the rows whose limits lie further down."""
    tokens_N = torch.zeros(len(weights_NV), dtype=torch.long, device=weights_NV.device)
    left = torch.arange(len(weights_NV), device=weights_NV.device)
    for size in LOOKS.get(weights_NV.device.type, ()):
        if size < weights_NV.shape[1] and len(left):
            weights_MV = weights_NV if len(left) == len(weights_NV) else weights_NV[left]
            found_M, settled_M = _draw_among(
                *weights_MV.topk(size), weights_MV.sum(dim=1, keepdim=True), limits[left]
            )
            tokens_N[left[settled_M]] = found_M[settled_M]
            left = left[~settled_M]
    if len(left):
        # Among equals the lowest id first; the shorter looks order them otherwise, but never by the
        # neighbors.
        weights_MV, ids_MV = weights_NV[left].sort(dim=1, descending=True, stable=True)
        tokens_N[left] = _draw_among(
            weights_MV, ids_MV, weights_MV.sum(dim=1, keepdim=True), limits[left]
        )[0]
    return tokens_N


def _draw_among(
    weights_NK: Tensor, ids_NK: Tensor, total_N1: Tensor, limits: _Limits
) -> tuple[Tensor, Tensor]:
    """Return a token [N] of the best candidates, and for which rows [N] no other candidate could
    have come in.
    """
    size = weights_NK.shape[1]
    kept_NK = _kept(weights_NK, total_N1, limits)
    found_N = ids_NK.gather(1, _pick(weights_NK * kept_NK, limits)[:, None])[:, 0]
    # Where the last candidate is cut off, all that stay are among these.
    return found_N, ~kept_NK[:, -1] & ((limits.top_k <= size) | limits.top_k.isinf())[:, 0]


def _kept(weights_NK: Tensor, total_N1: Tensor, limits: _Limits) -> Tensor:
    """Return which candidates [N, K], best first, lie within the limits; `total_N1` is the weight
    of the whole vocabulary.
    """
    kept_NK = torch.arange(weights_NK.shape[1], device=weights_NK.device) < limits.top_k
    held_NK = (weights_NK * kept_NK).double()
    mass_N1 = torch.where(limits.top_k.isinf(), total_N1, held_NK.sum(dim=1, keepdim=True))
    # A token stays while what stands before it has not reached top_p; the first always does.
    before_NK = held_NK.cumsum(dim=1) - held_NK
    return (
        kept_NK
        & ((before_NK < limits.top_p * mass_N1) | (limits.top_p == 1))
        & (weights_NK >= limits.min_p)
    )


def _pick(weights_NK: Tensor, limits: _Limits) -> Tensor:
    """Return the candidate [N] at which the running sum of the weights passes a random share of
    their total.

    First the block of candidates is found, then the one in it: a sum over everything is many times
    faster than a running sum.
    """
    blocks_NKB = F.pad(weights_NK, (0, -weights_NK.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    block_N1, share_N1 = _find(blocks_NKB.sum(dim=2), limits.uniform)
    inside_NB = blocks_NKB.gather(1, block_N1[:, :, None].expand(-1, -1, BLOCK))[:, 0]
    found_N1 = block_N1 * BLOCK + _find(inside_NB, share_N1)[0]
    # Only weights that are not numbers lead into the padding.
    return found_N1[:, 0].clamp(max=weights_NK.shape[1] - 1)


def _find(weights_NK: Tensor, share_N1: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the running sum passes a share of the total, and which share of that weight is
    left behind then.
    """
    running_NK = weights_NK.cumsum(dim=1, dtype=torch.float64)
    # A share that rounds to the whole would point behind the last weight.
    target_N1 = running_NK[:, -1:] * share_N1.clamp(0, 1 - 1e-12)
    place_N1 = torch.searchsorted(running_NK, target_N1, right=True).clamp(
        max=weights_NK.shape[1] - 1
    )
    weight_N1 = weights_NK.gather(1, place_N1)
    return place_N1, 1 - (running_NK.gather(1, place_N1) - target_N1) / weight_N1
