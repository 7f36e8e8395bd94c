"""One sample of each kind of text, never chosen by hand.

The prompt begins with a line of a held-out document of that kind; document and line are drawn with
the seed of the run, and sampling uses seed 1. With each sample stands the longest run of tokens
that it shares with the training text, which tells memorized text from new text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from groundup.evaluate.memorization import longest_shared_run
from groundup.evaluate.validation_data import Ids, Stream, ValidationData
from groundup.model.generate import generate
from groundup.model.transformer import Transformer

PROMPT_TOKENS = 24
SAMPLING = {"temperature": 0.8, "top_k": 0, "top_p": 0.95, "seed": 1}


@dataclass(frozen=True)
class Prompt:
    """Tokens of a held-out document, from the beginning of one of its lines."""

    document: str
    source: str
    ids: Ids


def samples(
    model: Transformer, data: ValidationData, kinds: Mapping[str, str], tokens: int, seed: int
) -> list[dict[str, Any]]:
    """Return one sample of `tokens` tokens for each kind of text; `kinds` maps source → kind."""
    by_kind: dict[str, list[str]] = {}
    for source in data.shards:
        by_kind.setdefault(kinds.get(source, "text"), []).append(source)
    train = data.all_streams("train")
    prompts = {kind: choose_prompt(data, by_kind[kind], seed) for kind in sorted(by_kind)}
    return [
        {"kind": kind, **_sample(model, data, prompt, tokens, train)}
        for kind, prompt in prompts.items()
        if prompt is not None
    ]


def choose_prompt(data: ValidationData, sources: list[str], seed: int) -> Prompt | None:
    """Draw a held-out document of these sources and one of its lines; None if all are too short."""
    filters = [
        ("source", "in", sources),
        ("split", "=", "validation"),
        ("length", ">", PROMPT_TOKENS),
    ]
    columns = ["shard", "id", "source", "offset", "length"]
    rows = pq.read_table(data.folder / "index.parquet", columns=columns, filters=filters)
    if not len(rows):
        return None
    random = np.random.default_rng(seed)
    # Sorted by id, so that the choice does not depend on the order of shards.
    row = rows.sort_by("id").slice(int(random.integers(len(rows))), 1).to_pylist()[0]
    start = row["offset"] + 1
    tokens = data.stream(row["shard"], "validation").slice(start, start + row["length"] - 1)
    starts = _line_starts(data, tokens[: 1 - PROMPT_TOKENS])
    line = int(starts[random.integers(len(starts))])
    return Prompt(row["id"], row["source"], tokens[line : line + PROMPT_TOKENS])


def _line_starts(data: ValidationData, tokens: Ids) -> Ids:
    """Return the positions where lines begin: 0, and after tokens that end with a line break."""
    distinct, inverse = np.unique(tokens, return_inverse=True)
    texts = [data.tokenizer.decode([token]) for token in distinct.tolist()]
    breaks = np.array([text.endswith("\n") for text in texts], np.bool_)[inverse]
    return np.append(0, np.flatnonzero(breaks[:-1]) + 1).astype(np.int64)


def _sample(
    model: Transformer, data: ValidationData, prompt: Prompt, tokens: int, train: Sequence[Stream]
) -> dict[str, Any]:
    """Generate a sample; describe it and the longest run that it shares with the training text."""
    tokenizer = data.tokenizer
    start = [tokenizer.end_id, *prompt.ids.tolist()]
    stop = {tokenizer.end_id}
    ids = list(generate(model, start, tokens, stop=stop, **SAMPLING))  # type: ignore[arg-type]
    run = longest_shared_run(ids, train, model.config.vocab_size)
    overlap = {"tokens": 0, "text": "", "document": "", "shard": ""}
    if run.length:
        shared = data.stream(run.shard, "train").tokens[run.start : run.start + run.length]
        overlap = {
            "tokens": run.length,
            "text": tokenizer.decode(shared),
            "document": document_at(data, run.shard, run.start),
            "shard": run.shard,
        }
    return {
        "source": prompt.source,
        "document": prompt.document,
        "prompt": tokenizer.decode(prompt.ids),
        "text": tokenizer.decode(ids),
        "tokens": len(ids),
        "ended": len(ids) < tokens,
        "sampling": SAMPLING,
        "overlap": overlap,
    }


def document_at(data: ValidationData, shard: str, position: int) -> str:
    """Return the id of the training document that holds the token at `position` of a shard."""
    filters = [("shard", "=", shard), ("split", "=", "train"), ("offset", "<=", position)]
    path = data.folder / "index.parquet"
    rows: pa.Table = pq.read_table(path, columns=["id", "offset"], filters=filters)
    return str(rows.sort_by("offset")["id"][len(rows) - 1].as_py())
