"""Which of four passages comes next? A test that every corpus provides.

The model reads the beginning of a held-out document and scores four passages with the same number
of tokens: the one that follows, and three from other held-out documents of the same source, taken
at the same distance from their beginning. Chance is a quarter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from groundup.evaluate.loglikelihood import Continuation, accuracy, score
from groundup.evaluate.validation_data import Ids, ValidationData
from groundup.model.transformer import Transformer

CHOICES = 4
# Shares of the model's context that are read and chosen from. The names in a long passage would
# give it away.
CONTEXT_SHARE, PASSAGE_SHARE = 1 / 2, 1 / 8


def beginnings(data: ValidationData, source: str, length: int) -> list[Ids]:
    """Return the first `length` tokens of each held-out document of a source that has them."""
    documents: list[Ids] = []
    for stream in data.streams(source, "validation"):
        filters = [
            ("shard", "=", stream.name),
            ("split", "=", "validation"),
            ("length", ">", length),
        ]
        index = pq.read_table(data.folder / "index.parquet", columns=["offset"], filters=filters)
        # Position 0 of a stream is the end-of-text id before its first document.
        starts = np.sort(index["offset"].to_numpy()) + 1
        documents += [stream.slice(start, start + length) for start in starts.tolist()]
    return documents


def make_questions(
    documents: Sequence[Ids], context: int, count: int, seed: int
) -> list[list[Ids]]:
    """Return for each of `count` documents its context, its own passage, and three others.

    Documents and passages are drawn from `seed`; a passage equal to the true one is not used.
    """
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(len(documents), min(count, len(documents)), replace=False))
    questions = []
    for n in chosen:
        passage = documents[n][context:]
        others = [documents[i][context:] for i in random.permutation(len(documents)) if i != n]
        different = [other for other in others[: 4 * CHOICES] if not np.array_equal(other, passage)]
        if len(different) >= CHOICES - 1:
            questions.append([documents[n][:context], passage, *different[: CHOICES - 1]])
    return questions


def evaluate(model: Transformer, data: ValidationData, count: int, seed: int) -> dict[str, Any]:
    """Ask `count` questions, spread over the sources; return accuracies in total and by source.

    `accuracy` takes the passage that gains most from the context: log p(passage | context) - log
    p(passage), the latter after the end-of-text id alone. `likelihood` takes the most probable
    passage, which favors plain ones.
    """
    context = max(1, int(model.config.context * CONTEXT_SHARE))
    passage = max(1, int(model.config.context * PASSAGE_SHARE))
    documents = {source: beginnings(data, source, context + passage) for source in data.shards}
    asked = [source for source, group in documents.items() if len(group) >= CHOICES]
    share = -(-count // len(asked)) if asked else 0
    end = data.tokenizer.end_id
    answers = {
        source: _answer(model, end, make_questions(documents[source], context, share, seed))
        for source in asked
    }
    return {
        "chance": 1 / CHOICES,
        "context_tokens": context,
        "passage_tokens": passage,
        **_accuracies(answers),
        "sources": {source: _accuracies({source: group}) for source, group in answers.items()},
        "sources_with_too_few_documents": [source for source in documents if source not in asked],
    }


def _answer(
    model: Transformer, end: int, questions: Sequence[Sequence[Ids]]
) -> list[tuple[bool, bool]]:
    """Return for each question whether the gain, and whether the likelihood, chooses right."""
    items = []
    for context, *passages in questions:
        targets = [passage.tolist() for passage in passages]
        items += [Continuation([end, *context.tolist()], target) for target in targets]
        items += [Continuation([end], target) for target in targets]
    scores = np.array([item.log_probability for item in score(model, items)])
    with_context, without_context = scores.reshape(len(questions), 2, CHOICES).swapaxes(0, 1)
    # The true passage is choice 0.
    gain = (with_context - without_context).argmax(1) == 0
    likelihood = with_context.argmax(1) == 0
    return list(zip(gain.tolist(), likelihood.tolist(), strict=True))


def _accuracies(answers: Mapping[str, Sequence[tuple[bool, bool]]]) -> dict[str, Any]:
    flat = [answer for group in answers.values() for answer in group]
    gain, likelihood = (sum(answer[column] for answer in flat) for column in (0, 1))
    return {**accuracy(gain, len(flat)), "likelihood": accuracy(likelihood, len(flat))}
