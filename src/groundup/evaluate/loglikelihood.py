"""How probable a continuation is after a context. Reads ids; returns log-probabilities. Benchmarks
and passages use it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from groundup.model.transformer import Transformer

# Tokens in one forward pass.
BATCH_TOKENS = 8_192


@dataclass(frozen=True)
class Continuation:
    """A context and what follows it, both at least one id long."""

    context: Sequence[int]
    target: Sequence[int]


@dataclass(frozen=True)
class Scored:
    """Log-probability (nats) of a target, and whether each of its tokens was the most probable one."""

    log_probability: float
    greedy: bool


@torch.no_grad()
def score(model: Transformer, items: Sequence[Continuation]) -> list[Scored]:
    """Score continuations in batches of about equal length.

    A context that is too long loses its beginning; a target longer than the context loses its end,
    as only so much can be read at once. Only the positions of the targets go through the output
    head.
    """
    rows = [_row(item, model.config.context) for item in items]
    order = sorted(range(len(items)), key=lambda i: len(rows[i][0]))
    found: list[Scored | None] = [None] * len(items)
    start = 0
    while start < len(order):
        # Rows are sorted, so the widest of a batch is its last: grow it while it fits.
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * len(rows[order[stop]][0]) <= BATCH_TOKENS:
            stop += 1
        batch = order[start:stop]
        for index, scored in zip(batch, _score_batch(model, [rows[i] for i in batch]), strict=True):
            found[index] = scored
        start = stop
    return [scored for scored in found if scored is not None]


def _row(item: Continuation, context: int) -> tuple[list[int], int]:
    """Return the ids to read, at most `context` + 1, and how many of them at the end are the
    target.
    """
    target = list(item.target)[:context]
    return (list(item.context)[-(context + 1 - len(target)) :] + target, len(target))


def _score_batch(model: Transformer, rows: Sequence[tuple[list[int], int]]) -> list[Scored]:
    width = max(len(ids) for ids, _ in rows)
    tokens_BT = torch.tensor(
        [ids + [0] * (width - len(ids)) for ids, _ in rows], device=model.device
    )
    x_BTD = model.hidden(tokens_BT[:, :-1])
    # Position t predicts token t + 1.
    places = [slice(len(ids) - 1 - count, len(ids) - 1) for ids, count in rows]
    x_ND = torch.cat([x_BTD[row, place] for row, place in enumerate(places)])
    wanted_N = torch.cat(
        [tokens_BT[row, place.start + 1 : place.stop + 1] for row, place in enumerate(places)]
    )
    scores, hits = _score_positions(x_ND, model.head_weight, wanted_N)
    return _by_row(scores, hits, [count for _, count in rows])


def _score_positions(
    x_ND: torch.Tensor, head_weight: torch.Tensor, wanted_N: torch.Tensor
) -> tuple[list[float], list[bool]]:
    scores: list[float] = []
    hits: list[bool] = []
    # A quarter of a gigabyte of logits at most.
    rows = max(1, (1 << 26) // len(head_weight))
    for x, wanted in zip(x_ND.split(rows), wanted_N.split(rows), strict=True):
        logits = (x @ head_weight.T).float()
        own = logits.gather(1, wanted[:, None]).squeeze(1)
        scores += (own - logits.logsumexp(1)).tolist()
        hits += (logits.argmax(1) == wanted).tolist()
    return scores, hits


def _by_row(scores: Sequence[float], hits: Sequence[bool], counts: Sequence[int]) -> list[Scored]:
    found, start = [], 0
    for count in counts:
        part = slice(start, start + count)
        found.append(Scored(math.fsum(scores[part]), all(hits[part])))
        start += count
    return found


def wilson(right: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson (1927) 95 % interval of a share; it stays within 0 and 1 and holds for
    small counts.
    """
    if count == 0:
        return 0.0, 1.0
    share, square = right / count, z * z / count
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def accuracy(right: int, count: int) -> dict[str, float | int | list[float]]:
    """Return a share of right answers with its 95 % interval."""
    return {
        "accuracy": right / count if count else math.nan,
        "right": right,
        "n": count,
        "interval": list(wilson(right, count)),
    }
