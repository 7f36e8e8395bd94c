"""Log-probabilities under a model: of continuations after a context, and of each token of a text.

A text longer than the context is read in the windows of perplexity.py.

Shape suffixes: B rows, T positions, N scored positions of all rows, V vocabulary, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from groundup.artifacts.questions import ContinuationScore
from groundup.artifacts.tokenizer import Tokenizer
from groundup.errors import GroundupError
from groundup.evaluate.perplexity import BATCH_TOKENS, sliding_windows
from groundup.evaluate.validation_data import Ids, Stream
from groundup.model.cross_entropy import chunks
from groundup.model.transformer import Transformer, evaluating

# Ids, and the number of them at the end that are scored.
Row = tuple[Sequence[int] | Ids, int]


@dataclass(frozen=True)
class Continuation:
    """A context and what follows it, each with one id or more."""

    context: Sequence[int]
    target: Sequence[int]


@torch.no_grad()
def score(model: Transformer, continuations: Sequence[Continuation]) -> list[ContinuationScore]:
    """Score continuations in batches of about equal length.

    A context that is too long loses its beginning; a target longer than the model's context loses
    its end.
    """
    rows: list[Row] = []
    for item in continuations:
        target = list(item.target)[: model.config.context]
        # One id more than the context: the last id is predicted, not read.
        context = list(item.context)[-(model.config.context + 1 - len(target)) :]
        rows.append((context + target, len(target)))
    scores: dict[int, ContinuationScore] = {}
    for batch in _batches([len(ids) for ids, _ in rows]):
        nats: list[float] = []
        greedy: list[bool] = []
        for logits_NV, targets_N in _logits(model, [rows[i] for i in batch]):
            target_logits_N = logits_NV.gather(1, targets_N[:, None]).squeeze(1)
            nats += (target_logits_N - logits_NV.logsumexp(1)).tolist()
            greedy += (logits_NV.argmax(1) == targets_N).tolist()
        start = 0
        for i in batch:
            part = slice(start, start + rows[i][1])
            scores[i] = ContinuationScore(math.fsum(nats[part]), all(greedy[part]))
            start = part.stop
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


def _logits(model: Transformer, rows: Sequence[Row]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the logits [N, V] of the scored ids of all rows and these ids, some at a time.

    Only their positions go through the output head.
    """
    tokens = [torch.as_tensor(ids, device=model.device) for ids, _ in rows]
    # No scored position attends to the padding, which is on the right.
    x_BTD = model.hidden(pad_sequence([row_T[:-1] for row_T in tokens], batch_first=True))
    # Position t predicts token t + 1.
    spans = [slice(len(ids) - 1 - count, len(ids) - 1) for ids, count in rows]
    x_ND = torch.cat([x_TD[span] for x_TD, span in zip(x_BTD, spans, strict=True)])
    targets_N = torch.cat([row_T[1:][span] for row_T, span in zip(tokens, spans, strict=True)])
    for part in chunks(len(x_ND), len(model.head_weight), model.device.type):
        yield (x_ND[part] @ model.head_weight.T).float(), targets_N[part]


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
    stream, context = Stream("", np.array(ids, np.uint32), tokenizer.end_id), model.config.context
    windows = sliding_windows([stream], max(1, context // 2))
    rows = [(window.row(context), window.high - window.low) for window in windows]
    per_batch, best = max(1, BATCH_TOKENS // context), min(alternatives, tokenizer.vocab_size)
    scores: list[TokenScore] = []
    with evaluating(model):
        batches = (rows[i : i + per_batch] for i in range(0, len(rows), per_batch))
        for logits_NV, targets_N in chain.from_iterable(_logits(model, batch) for batch in batches):
            log_probs_NV = torch.log_softmax(logits_NV, dim=1)
            target_N1 = log_probs_NV.gather(1, targets_N[:, None])
            ranks_N = (log_probs_NV > target_N1).sum(dim=1)
            top = log_probs_NV.topk(best, dim=1)
            columns = (target_N1[:, 0], ranks_N, top.indices, top.values)
            for value, rank, tokens, values in zip(*map(Tensor.tolist, columns), strict=True):
                n, names = len(scores), [tokenizer.decode([token]) for token in tokens]
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
        wrong = "it holds half a surrogate pair; mend it first"
        raise GroundupError(f"the text is no valid Unicode: {wrong}") from None


def token_texts(text: str, sizes: npt.NDArray[np.int64]) -> list[str]:
    """Return the characters of each token of `sizes` bytes.

    A character belongs to the token that holds its first byte.
    """
    starts = (np.frombuffer(text.encode(), np.uint8) & 0xC0) != 0x80
    # Number of characters that begin before each byte, then before each token.
    before = np.concatenate([[0], np.cumsum(starts)])
    edges = before[np.concatenate([[0], np.cumsum(sizes)])].tolist()
    return [text[start:end] for start, end in pairwise(edges)]
