"""The log-probability and rank of each token of a text under a model.

A text longer than the context is read in windows that advance by half a context, as in evaluation:
every token is scored once, with half a context or more of text before it (except at the beginning).

Shape suffixes: B windows, T positions, N scored positions of all windows, V vocabulary, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from groundup.artifacts.tokenizer import Tokenizer
from groundup.errors import GroundupError
from groundup.model.cross_entropy import chunks
from groundup.model.score import BATCH_TOKENS, evaluating
from groundup.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class TokenScore:
    """One token of a text, and how probable the model found it after everything before it.

    Attributes:
        id: the token.
        text: the characters that begin in it, "" if it only continues one. The texts of all tokens
            add up to the text.
        log_probability: nats, 0 or less.
        rank: number of tokens that the model found more probable; 0 was its first choice.
        alternatives: the most probable tokens, best first, decoded, with log-probabilities.
    """

    id: int
    text: str
    log_probability: float
    rank: int
    alternatives: tuple[tuple[str, float], ...] = ()

    @property
    def bits(self) -> float:
        """Surprisal: the bits that an ideal coder would spend on this token under the model."""
        return -self.log_probability / math.log(2)


def score_text(
    model: Transformer, tokenizer: Tokenizer, text: str, alternatives: int = 3
) -> list[TokenScore]:
    """Return the tokens of a text with their scores; an end-of-text token precedes the text.

    Args:
        alternatives: number of most probable tokens to name at each position.

    Raises:
        GroundupError: the text holds half a surrogate pair.
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
            ranks = (log_probs_NV > target_N1).sum(dim=1).tolist()
            top = log_probs_NV.topk(best, dim=1)
            for value, rank, tokens, values in zip(
                target_N1[:, 0].tolist(),
                ranks,
                top.indices.tolist(),
                top.values.tolist(),
                strict=True,
            ):
                names = [tokenizer.decode([token]) for token in tokens]
                n = len(scores)
                others = tuple(zip(names, values, strict=True))
                scores.append(TokenScore(ids[n], pieces[n], value, rank, others))
    return scores


def next_tokens(
    model: Transformer, tokenizer: Tokenizer, text: str, count: int
) -> list[tuple[str, float]]:
    """Return the `count` most probable tokens after a text, best first, with log-probabilities.

    Raises:
        GroundupError: the text holds half a surrogate pair.
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
        x_ND = torch.cat(
            [
                x_TD[low - 1 - start : high - 1 - start]
                for x_TD, (start, low, high) in zip(x_BTD, batch, strict=True)
            ]
        )
        targets_N = stream_T[batch[0][1] : batch[-1][2]]
        for part in chunks(len(x_ND), model.config.vocab_size, model.device.type):
            yield (x_ND[part] @ model.head_weight.T).float(), targets_N[part]
