"""Which of four passages comes next? Reads held-out documents; returns an accuracy.

The model reads the beginning of a held-out document and scores four passages of equally many
tokens: the one that follows, and three taken at the same distance from the beginning of other
held-out documents of the same source. Nothing has to be written for such a test, it exists for
every corpus, and chance is a quarter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from groundup.evaluate.loglikelihood import Continuation, Scored, accuracy, score
from groundup.evaluate.validation_data import HeldOut, Ids
from groundup.model.transformer import Transformer

CHOICES = 4
# Of the model's context: half is read, an eighth is to be recognized. A long passage gives itself
# away by its names.
CONTEXT_SHARE, PASSAGE_SHARE = 1 / 2, 1 / 8


def beginnings(held_out: HeldOut, source: str, length: int) -> list[Ids]:
    """Return the first `length` tokens of each held-out document of a source that is so long, in
    order.
    """
    found = []
    for stream in held_out.streams(source, "validation"):
        wanted = [
            ("shard", "=", stream.name),
            ("split", "=", "validation"),
            ("length", ">", length),
        ]
        index = pq.read_table(held_out.folder / "index.parquet", columns=["offset"], filters=wanted)
        offsets = index["offset"].to_numpy()
        # Position 0 of a stream is the end-of-text id in front of it.
        found += [
            stream.slice(int(offset) + 1, int(offset) + 1 + length) for offset in np.sort(offsets)
        ]
    return found


def questions(documents: Sequence[Ids], context: int, count: int, seed: int) -> list[list[Ids]]:
    """Return for each of `count` documents its beginning, its own passage, and those of three
    others.

    Which documents, and which three, is drawn from `seed`; passages equal to the true one are no
    choice.
    """
    random = np.random.default_rng(seed)
    asked = np.sort(random.choice(len(documents), min(count, len(documents)), replace=False))
    found = []
    for number in asked:
        own = documents[number]
        others = [documents[i][context:] for i in random.permutation(len(documents)) if i != number]
        others = [
            other for other in others[: 4 * CHOICES] if not np.array_equal(other, own[context:])
        ]
        if len(others) >= CHOICES - 1:
            found.append([own[:context], own[context:], *others[: CHOICES - 1]])
    return found


def evaluate(model: Transformer, held_out: HeldOut, count: int, seed: int) -> dict[str, Any]:
    """Ask about `count` passages, spread evenly over the sources, and return accuracies in all and
    by source.

    `accuracy` takes the passage that gains most from the context: log p(passage | context) - log
    p(passage), the second after nothing but the end-of-text id. `likelihood` takes the most
    probable one, which favours plain passages.
    """
    context = max(1, int(model.config.context * CONTEXT_SHARE))
    passage = max(1, int(model.config.context * PASSAGE_SHARE))
    documents = {
        source: beginnings(held_out, source, context + passage) for source in held_out.shards
    }
    able = [source for source, found in documents.items() if len(found) >= CHOICES]
    share = -(-count // len(able)) if able else 0
    right = {
        source: _ask(
            model, held_out.tokenizer.end_id, questions(documents[source], context, share, seed)
        )
        for source in able
    }
    return {
        "chance": 1 / CHOICES,
        "context_tokens": context,
        "passage_tokens": passage,
        **_total(right),
        "sources": {source: _total({source: answers}) for source, answers in right.items()},
        "sources_with_too_few_documents": [source for source in documents if source not in able],
    }


def _ask(model: Transformer, end: int, asked: Sequence[Sequence[Ids]]) -> list[tuple[bool, bool]]:
    """Return for each question whether gain and whether likelihood choose right."""
    items = []
    for context, *passages in asked:
        items += [Continuation([end, *context.tolist()], passage.tolist()) for passage in passages]
        items += [Continuation([end], passage.tolist()) for passage in passages]
    scores = _values(score(model, items)).reshape(len(asked), 2, CHOICES)
    gain = (scores[:, 0] - scores[:, 1]).argmax(1) == 0
    likelihood = scores[:, 0].argmax(1) == 0
    return list(zip(gain.tolist(), likelihood.tolist(), strict=True))


def _values(scored: Sequence[Scored]) -> Any:
    return np.array([one.log_probability for one in scored])


def _total(right: Mapping[str, Sequence[tuple[bool, bool]]]) -> dict[str, Any]:
    answers = [answer for group in right.values() for answer in group]
    gain, likelihood = (sum(answer[column] for answer in answers) for column in (0, 1))
    return {**accuracy(gain, len(answers)), "likelihood": accuracy(likelihood, len(answers))}
