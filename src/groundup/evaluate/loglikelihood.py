"""The log-probability of a continuation after a context, for benchmarks and next-passage questions.

Shape suffixes: B rows, T positions, N scored positions of all rows, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.model.transformer import Transformer

# Tokens in one forward pass, and logits that are computed at a time: 256 MB in float32.
BATCH_TOKENS = 8_192
MAX_LOGITS = 1 << 26


@dataclass(frozen=True)
class Continuation:
    """A context and what follows it, each with one id or more."""

    context: Sequence[int]
    target: Sequence[int]


@dataclass(frozen=True)
class ContinuationScore:
    """Log-probability (nats) of a target, and whether greedy decoding would produce it."""

    log_probability: float
    greedy: bool


@torch.no_grad()
def score(model: Transformer, continuations: Sequence[Continuation]) -> list[ContinuationScore]:
    """Score continuations in batches of about equal length.

    A context that is too long loses its beginning; a target longer than the model's context loses
    its end. Only the positions of the targets go through the output head.
    """
    rows: list[tuple[list[int], int]] = []
    for item in continuations:
        target = list(item.target)[: model.config.context]
        # One id more than the context: the last id is predicted, not read.
        context = list(item.context)[-(model.config.context + 1 - len(target)) :]
        rows.append((context + target, len(target)))
    scores: dict[int, ContinuationScore] = {}
    for batch in _batches([len(ids) for ids, _ in rows]):
        scores |= zip(batch, _score_batch(model, [rows[i] for i in batch]), strict=True)
    return [scores[i] for i in range(len(rows))]


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the rows of each batch: sorted by length, and as many as BATCH_TOKENS allows."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        # Rows are sorted, so the last one is as wide as its batch.
        if batch and (len(batch) + 1) * lengths[row] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _score_batch(
    model: Transformer, rows: Sequence[tuple[list[int], int]]
) -> Iterator[ContinuationScore]:
    """Score rows of (ids, number of ids at the end that are the target)."""
    width = max(len(ids) for ids, _ in rows)
    padded = [ids + [0] * (width - len(ids)) for ids, _ in rows]
    tokens_BT = torch.tensor(padded, device=model.device)
    x_BTD = model.hidden(tokens_BT[:, :-1])
    # Position t predicts token t + 1.
    spans = [(len(ids) - 1 - length, len(ids) - 1) for ids, length in rows]
    x_ND = torch.cat([x_BTD[row, start:stop] for row, (start, stop) in enumerate(spans)])
    targets_N = torch.cat(
        [tokens_BT[row, start + 1 : stop + 1] for row, (start, stop) in enumerate(spans)]
    )
    scores, greedy = _score_positions(x_ND, model.head_weight, targets_N)
    start = 0
    for _, length in rows:
        part = slice(start, start + length)
        yield ContinuationScore(math.fsum(scores[part]), all(greedy[part]))
        start += length


def _score_positions(
    x_ND: Tensor, head_weight: Tensor, targets_N: Tensor
) -> tuple[list[float], list[bool]]:
    scores: list[float] = []
    greedy: list[bool] = []
    positions = max(1, MAX_LOGITS // len(head_weight))
    for x, targets in zip(x_ND.split(positions), targets_N.split(positions), strict=True):
        logits = (x @ head_weight.T).float()
        target_logits = logits.gather(1, targets[:, None]).squeeze(1)
        scores += (target_logits - logits.logsumexp(1)).tolist()
        greedy += (logits.argmax(1) == targets).tolist()
    return scores, greedy


def wilson(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson (1927) 95 % interval of a share, which also holds for small n."""
    if n == 0:
        return 0.0, 1.0
    share, square = right / n, z * z / n
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / n + square / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def accuracy(right: int, n: int) -> dict[str, float | int | list[float]]:
    """Return a share of right answers with its 95 % interval."""
    share = right / n if n else math.nan
    return {"accuracy": share, "right": right, "n": n, "interval": list(wilson(right, n))}
