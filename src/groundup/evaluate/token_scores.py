"""How surprised a model is by each token of a text. Reads and writes nothing.

A text longer than the context is read in windows that advance by half a context, as evaluation does
it: every token is scored once, with at least half a context of text before it (but at the
beginning).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

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
    """One token of a text, and what the model thought of it after reading everything before it.

    Attributes:
        id: the token.
        text: the characters that begin in it, "" where it only goes on with one. All of them
            together are the text.
        log_probability: nats, at most 0.
        rank: how many tokens the model thought more probable; 0 was its first choice.
        alternatives: its most probable tokens, best first, as they decode, each with its
            log-probability in nats.
    """

    id: int
    text: str
    log_probability: float
    rank: int
    alternatives: tuple[tuple[str, float], ...] = ()

    @property
    def bits(self) -> float:
        """The surprise: the bits that an ideal coder would spend on this token under the model."""
        return -self.log_probability / math.log(2)


def score_text(
    model: Transformer, tokenizer: Tokenizer, text: str, alternatives: int = 3
) -> list[TokenScore]:
    """Return the tokens of a text with their scores; an end-of-text token stands before it, as
    before every document.

    Args:
        alternatives: how many of the model's most probable tokens are named at each position.

    Raises:
        GroundupError: the text holds half a surrogate pair, which no UTF-8 has.
    """
    _bytes(text)
    text = tokenizer.normalized(text)
    data, ids = text.encode(), tokenizer.encode(text)
    pieces = share_characters(text, data, tokenizer.token_bytes()[ids])
    stream_T = torch.tensor([tokenizer.end_id, *ids], device=model.device)
    wanted = min(alternatives, tokenizer.vocab_size)
    with evaluating(model):
        found = [
            entry
            for logits, targets in _logits(model, stream_T)
            for entry in _entries(logits, targets, wanted)
        ]
    return [
        TokenScore(
            token, piece, score, rank, tuple((tokenizer.decode([i]), value) for i, value in best)
        )
        for token, piece, (score, rank, best) in zip(ids, pieces, found, strict=True)
    ]


def next_tokens(
    model: Transformer, tokenizer: Tokenizer, text: str, count: int
) -> list[tuple[str, float]]:
    """Return the `count` tokens that the model finds most probable after a text, best first, with
    their log-probabilities.

    Raises:
        GroundupError: the text holds half a surrogate pair, which no UTF-8 has.
    """
    _bytes(text)
    ids = [tokenizer.end_id, *tokenizer.encode(text)][-model.config.context :]
    with evaluating(model):
        x_D = model.hidden(torch.tensor([ids], device=model.device))[0, -1]
        best = torch.log_softmax((model.head_weight @ x_D).float(), dim=0).topk(
            min(count, tokenizer.vocab_size)
        )
    return [
        (tokenizer.decode([i]), value)
        for i, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise GroundupError(
            "the text is no valid Unicode: it holds half a surrogate pair; mend it first"
        ) from None


def share_characters(text: str, data: bytes, sizes: npt.NDArray[np.int64]) -> list[str]:
    """Return the characters of each token of `sizes` bytes: a character belongs to the token that
    holds its first byte.
    """
    begins = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
    before = np.concatenate([[0], np.cumsum(begins)])
    edges = before[np.concatenate([[0], np.cumsum(sizes)])]
    return [
        text[start:end] for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]


def _logits(model: Transformer, stream_T: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the logits [n, V] of a few positions at a time, with the tokens that do follow them."""
    context, length = model.config.context, len(stream_T)
    stride, together = max(1, context // 2), max(1, BATCH_TOKENS // context)
    spans = [(low, min(low + stride, length)) for low in range(1, length, stride)]
    # Each reads the context before its end: first position read, first one scored, end.
    windows = [(max(0, high - context - 1), low, high) for low, high in spans]
    for at in range(0, len(windows), together):
        batch = windows[at : at + together]
        # What is padded on the right is seen by nothing that is scored.
        x_BTD = model.hidden(
            pad_sequence([stream_T[start : high - 1] for start, _, high in batch], batch_first=True)
        )
        x_ND = torch.cat(
            [
                x_TD[low - 1 - start : high - 1 - start]
                for x_TD, (start, low, high) in zip(x_BTD, batch, strict=True)
            ]
        )
        targets_N = stream_T[batch[0][1] : batch[-1][2]]
        for part in chunks(len(x_ND), model.config.vocab_size, model.device.type):
            yield (x_ND[part] @ model.head_weight.T).float(), targets_N[part]


def _entries(
    logits_NV: Tensor, targets_N: Tensor, wanted: int
) -> Iterator[tuple[float, int, list[tuple[int, float]]]]:
    scores_NV = torch.log_softmax(logits_NV, dim=1)
    own_N1 = scores_NV.gather(1, targets_N[:, None])
    ranks = (scores_NV > own_N1).sum(dim=1)
    best = scores_NV.topk(wanted, dim=1)
    for own, rank, order, values in zip(
        own_N1[:, 0].tolist(),
        ranks.tolist(),
        best.indices.tolist(),
        best.values.tolist(),
        strict=True,
    ):
        yield own, rank, list(zip(order, values, strict=True))
