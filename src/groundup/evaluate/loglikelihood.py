"""Log-probabilities under a model: of continuations after a context, and of each token of a text.

A text longer than the context is read in the windows of perplexity.py.

Shape suffixes: B rows or windows, T positions, N scored positions of all rows, V vocabulary,
D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from groundup.artifacts.questions import ContinuationScore
from groundup.artifacts.tokenizer import Tokenizer
from groundup.errors import GroundupError
from groundup.model.cross_entropy import chunks
from groundup.model.transformer import Transformer, evaluating

# Tokens in one forward pass, and logits that are computed at a time: 256 MB in float32.
BATCH_TOKENS = 8_192
MAX_LOGITS = 1 << 26


@dataclass(frozen=True)
class Continuation:
    """A context and what follows it, each with one id or more."""

    context: Sequence[int]
    target: Sequence[int]


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
    spans = [slice(len(ids) - 1 - length, len(ids) - 1) for ids, length in rows]
    x_ND = torch.cat([x_BTD[row, span] for row, span in enumerate(spans)])
    targets_N = torch.cat([tokens_BT[row, 1:][span] for row, span in enumerate(spans)])
    scores: list[float] = []
    greedy: list[bool] = []
    positions = max(1, MAX_LOGITS // len(model.head_weight))
    for x, targets in zip(x_ND.split(positions), targets_N.split(positions), strict=True):
        logits = (x @ model.head_weight.T).float()
        target_logits = logits.gather(1, targets[:, None]).squeeze(1)
        scores += (target_logits - logits.logsumexp(1)).tolist()
        greedy += (logits.argmax(1) == targets).tolist()
    start = 0
    for _, length in rows:
        part = slice(start, start + length)
        yield ContinuationScore(math.fsum(scores[part]), all(greedy[part]))
        start += length


@dataclass(frozen=True, slots=True)
class TokenScore:
    """One token of a text, and how probable the model found it after everything before it.

    `text` holds the characters that begin in the token, "" if it only continues one; the texts of
    all tokens add up to the text. `alternatives` are the most probable tokens, best first, decoded,
    with their log-probabilities.
    """

    id: int
    text: str
    log_probability: float  # nats, 0 or less
    rank: int  # number of tokens that the model found more probable; 0 was its first choice
    alternatives: tuple[tuple[str, float], ...] = ()

    @property
    def bits(self) -> float:
        """Surprisal: the bits that an ideal coder would spend on this token under the model."""
        return -self.log_probability / math.log(2)


def score_text(
    model: Transformer, tokenizer: Tokenizer, text: str, alternatives: int = 3
) -> list[TokenScore]:
    """Return the tokens of a text with their scores; an end-of-text token precedes the text.

    Raises GroundupError if the text holds half a surrogate pair.
    """
    _check_unicode(text)
    text = tokenizer.normalized(text)
    ids = tokenizer.encode(text)
    pieces = token_texts(text, tokenizer.token_bytes()[ids])
    stream_T = torch.tensor([tokenizer.end_id, *ids], device=model.device)
    best = min(alternatives, tokenizer.vocab_size)
    scores: list[TokenScore] = []
    with evaluating(model):
        for logits_NV, targets_N in _logits(model, stream_T):
            log_probs_NV = torch.log_softmax(logits_NV, dim=1)
            target_N1 = log_probs_NV.gather(1, targets_N[:, None])
            ranks_N = (log_probs_NV > target_N1).sum(dim=1)
            top = log_probs_NV.topk(best, dim=1)
            columns = (target_N1[:, 0], ranks_N, top.indices, top.values)
            rows = zip(*(column.tolist() for column in columns), strict=True)
            for value, rank, tokens, values in rows:
                names = [tokenizer.decode([token]) for token in tokens]
                n = len(scores)
                others = tuple(zip(names, values, strict=True))
                scores.append(TokenScore(ids[n], pieces[n], value, rank, others))
    return scores


def next_tokens(
    model: Transformer, tokenizer: Tokenizer, text: str, count: int
) -> list[tuple[str, float]]:
    """Return the `count` most probable tokens after a text, best first, with log-probabilities.

    Raises GroundupError if the text holds half a surrogate pair.
    """
    _check_unicode(text)
    ids = [tokenizer.end_id, *tokenizer.encode(text)][-model.config.context :]
    with evaluating(model):
        x_D = model.hidden(torch.tensor([ids], device=model.device))[0, -1]
        log_probs_V = torch.log_softmax((model.head_weight @ x_D).float(), dim=0)
        best = log_probs_V.topk(min(count, tokenizer.vocab_size))
    names = [tokenizer.decode([token]) for token in best.indices.tolist()]
    return list(zip(names, best.values.tolist(), strict=True))


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise GroundupError(
            "the text is no valid Unicode: it holds half a surrogate pair; mend it first"
        ) from None


def token_texts(text: str, sizes: npt.NDArray[np.int64]) -> list[str]:
    """Return the characters of each token of `sizes` bytes.

    A character belongs to the token that holds its first byte.
    """
    starts = (np.frombuffer(text.encode(), np.uint8) & 0xC0) != 0x80
    # Number of characters that begin before each byte, then before each token.
    before = np.concatenate([[0], np.cumsum(starts)])
    edges = before[np.concatenate([[0], np.cumsum(sizes)])].tolist()
    return [text[start:end] for start, end in pairwise(edges)]


def _logits(model: Transformer, stream_T: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the logits [N, V] of some positions at a time, and the tokens that follow them."""
    context, length = model.config.context, len(stream_T)
    stride, per_batch = max(1, context // 2), max(1, BATCH_TOKENS // context)
    spans = [(low, min(low + stride, length)) for low in range(1, length, stride)]
    # First position read, first one scored, end: each window reads the context before its end.
    windows = [(max(0, high - context - 1), low, high) for low, high in spans]
    for first in range(0, len(windows), per_batch):
        batch = windows[first : first + per_batch]
        # No scored position attends to the padding, which is on the right.
        rows = [stream_T[start : high - 1] for start, _, high in batch]
        x_BTD = model.hidden(pad_sequence(rows, batch_first=True))
        scored = zip(x_BTD, batch, strict=True)
        x_ND = torch.cat([x_TD[low - 1 - i : high - 1 - i] for x_TD, (i, low, high) in scored])
        targets_N = stream_T[batch[0][1] : batch[-1][2]]
        for part in chunks(len(x_ND), model.config.vocab_size, model.device.type):
            yield (x_ND[part] @ model.head_weight.T).float(), targets_N[part]
