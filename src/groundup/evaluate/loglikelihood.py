"""Log-probabilities under a model: of continuations after a context, and of each token of a text.

A text longer than the context is read in the windows of perplexity.py.

Shape suffixes: B rows, T positions, N scored positions of all rows, V vocabulary, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
from groundup.model.packed_attention import PackedAttention
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
    """Score continuations in batches of about equal length; equal beginnings are read once.

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
    for batch in _batches(_trees(rows, model.config.context)):
        scores.update(_score_batch(model, batch, rows))
    return [scores[i] for i in range(len(rows))]


@dataclass
class _Tree:
    """Rows that are read together; what several of them begin with is read once.

    the cat sat   nodes  0 1 2       the last node of a row predicts what follows it
    the cat ran   nodes  0 1 3
    """

    tokens: list[int] = field(default_factory=list)  # by node
    positions: list[int] = field(default_factory=list)  # by node
    paths: dict[int, Ids] = field(default_factory=dict)  # row → its nodes
    is_branched: bool = False

    def add(self, row: int, ids: Sequence[int], shared: Ids) -> Ids:
        """Add a row that begins with the nodes `shared`; return all of its nodes."""
        new = np.arange(len(self.tokens), len(self.tokens) + len(ids) - len(shared))
        self.is_branched |= bool(len(new)) and len(shared) < len(self.tokens)
        self.tokens += ids[len(shared) :]
        self.positions += range(len(shared), len(ids))
        self.paths[row] = np.concatenate([shared, new])
        return self.paths[row]

    def mask(self, width: int) -> npt.NDArray[np.bool_]:
        """Return which nodes [width] each node sees: those before it in its rows, and itself."""
        # Padding sees itself, since nothing at all would be NaN.
        sees = np.eye(width, dtype=np.bool_)
        for path in self.paths.values():
            # Rows that share a node share what is before it.
            sees[path[:, None], path] |= np.tri(len(path), dtype=np.bool_)
        return sees


def _trees(rows: Sequence[Row], context: int) -> list[_Tree]:
    """Return the rows as trees of at most `context` nodes, ordered by their size.

    Rows that have less than half of their tokens in common are read apart: they would only widen
    the attention of each other.
    """
    inputs = [list(ids[:-1]) for ids, _ in rows]
    trees, before, path = list[_Tree](), list[int](), np.empty(0, np.int64)
    for row in sorted(range(len(rows)), key=inputs.__getitem__):
        ids = inputs[row]
        pairs = enumerate(zip(before, ids, strict=False))
        same = next((n for n, (a, b) in pairs if a != b), min(len(before), len(ids)))
        if not trees or 2 * same < len(ids) or len(trees[-1].tokens) + len(ids) - same > context:
            trees.append(_Tree())
            same = 0
        before, path = ids, trees[-1].add(row, ids, path[:same])
    return sorted(trees, key=lambda tree: (tree.is_branched, len(tree.tokens)))


def _batches(trees: Sequence[_Tree]) -> Iterator[list[_Tree]]:
    """Yield trees of about equal size, as many together as BATCH_TOKENS allows."""
    batch: list[_Tree] = []
    for tree in trees:
        is_other = bool(batch) and batch[0].is_branched != tree.is_branched
        # Trees are sorted, so the last one is as wide as its batch.
        if is_other or (batch and (len(batch) + 1) * len(tree.tokens) > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(tree)
    if batch:
        yield batch


def _score_batch(
    model: Transformer, batch: Sequence[_Tree], rows: Sequence[Row]
) -> Iterator[tuple[int, ContinuationScore]]:
    """Yield the rows of a batch with their scores; only what is scored goes through the head."""
    width = len(batch[-1].tokens)
    padded = [tree.tokens + [0] * (width - len(tree.tokens)) for tree in batch]
    positions_BT = packed = None
    if batch[0].is_branched:
        places = [tree.positions + [0] * (width - len(tree.positions)) for tree in batch]
        positions_BT = torch.tensor(places, device=model.device)
        masks = np.stack([tree.mask(width) for tree in batch])
        packed = PackedAttention.from_mask(torch.from_numpy(masks)[:, None].to(model.device))
    tokens_BT = torch.tensor(padded, device=model.device)
    x_ND = model.hidden(tokens_BT, positions_BT=positions_BT, packed=packed).flatten(0, 1)
    # Nodes that predict the targets of all rows, and these targets.
    counts = {row: rows[row][1] for tree in batch for row in tree.paths}
    ends = [
        n * width + path[-counts[row] :]
        for n, tree in enumerate(batch)
        for row, path in tree.paths.items()
    ]
    nodes, which = np.unique(np.concatenate(ends), return_inverse=True)
    targets = np.concatenate([list(rows[row][0])[-count:] for row, count in counts.items()])
    nats, greedy = np.empty(len(targets)), np.empty(len(targets), np.bool_)
    for part in chunks(len(nodes), len(model.head_weight), model.device.type):
        span = np.flatnonzero((which >= part.start) & (which < part.stop))
        ids = torch.from_numpy(nodes[part]).to(model.device)
        logits_UV = (x_ND[ids] @ model.head_weight.T).float()
        node = torch.from_numpy(which[span] - part.start).to(model.device)
        target = torch.from_numpy(targets[span]).to(model.device)
        nats[span] = (logits_UV[node, target] - logits_UV.logsumexp(1)[node]).cpu().numpy()
        greedy[span] = (logits_UV.argmax(1)[node] == target).cpu().numpy()
    start = 0
    for row, count in counts.items():
        own = slice(start, start + count)
        yield row, ContinuationScore(math.fsum(nats[own]), bool(greedy[own].all()))
        start += count


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
