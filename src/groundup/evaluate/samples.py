"""One sample for each kind of text, never chosen by hand. Reads the model and the tokens; returns
texts.

The prompt begins with a line of a held-out document of that kind, both drawn with the seed of the
run; the sample is the first one of seed 1. Beside it stands the longest run of tokens that it
shares with the training text, so that one sees what is written and what is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from groundup.evaluate.memorization import Overlap, longest_overlap
from groundup.evaluate.validation_data import HeldOut, Ids, Stream
from groundup.model.generate import generate
from groundup.model.transformer import Transformer

PROMPT_TOKENS = 24
SAMPLING = {"temperature": 0.8, "top_k": 0, "top_p": 0.95, "seed": 1}


@dataclass(frozen=True)
class Prompt:
    """The tokens of a held-out document from the beginning of one of its lines on."""

    document: str
    source: str
    ids: Ids


def choose_prompt(held_out: HeldOut, sources: list[str], seed: int) -> Prompt | None:
    """Draw a held-out document of these sources, and one of its lines; None when no document is
    long enough.
    """
    wanted = [
        ("source", "in", sources),
        ("split", "=", "validation"),
        ("length", ">", PROMPT_TOKENS),
    ]
    rows = pq.read_table(
        held_out.folder / "index.parquet",
        columns=["shard", "id", "source", "offset", "length"],
        filters=wanted,
    )
    if not len(rows):
        return None
    random = np.random.default_rng(seed)
    # By id, so that the choice does not depend on the order of shards.
    row = rows.sort_by("id").slice(int(random.integers(len(rows))), 1).to_pylist()[0]
    start = row["offset"] + 1
    tokens = held_out.stream(row["shard"], "validation").slice(start, start + row["length"] - 1)
    lines = line_starts(held_out, tokens[: 1 - PROMPT_TOKENS])
    at = int(lines[random.integers(len(lines))])
    return Prompt(row["id"], row["source"], tokens[at : at + PROMPT_TOKENS])


def line_starts(held_out: HeldOut, tokens: Ids) -> Ids:
    """Return where lines of a document begin: at 0, and after every token that ends with a line
    break.
    """
    kinds, inverse = np.unique(tokens, return_inverse=True)
    breaks = np.array(
        [held_out.tokenizer.decode([int(kind)]).endswith("\n") for kind in kinds], np.bool_
    )[inverse]
    return np.append(0, np.flatnonzero(breaks[:-1]) + 1).astype(np.int64)


def samples(
    model: Transformer, held_out: HeldOut, kinds: Mapping[str, str], tokens: int, seed: int
) -> list[dict[str, Any]]:
    """Return one sample of `tokens` tokens for each kind of text; `kinds` maps a source to its
    kind.
    """
    by_kind: dict[str, list[str]] = {}
    for source in held_out.shards:
        by_kind.setdefault(kinds.get(source, "text"), []).append(source)
    prompts = {
        kind: choose_prompt(held_out, sources, seed) for kind, sources in sorted(by_kind.items())
    }
    train = held_out.all_streams("train")
    return [
        {"kind": kind, **_sample(model, held_out, prompt, tokens, train)}
        for kind, prompt in prompts.items()
        if prompt is not None
    ]


def _sample(
    model: Transformer, held_out: HeldOut, prompt: Prompt, tokens: int, train: Sequence[Stream]
) -> dict[str, Any]:
    tokenizer = held_out.tokenizer
    start = [tokenizer.end_id, *prompt.ids.tolist()]
    stop = {tokenizer.end_id}
    ids = list(generate(model, start, tokens, stop=stop, **SAMPLING))  # type: ignore[arg-type]
    overlap = longest_overlap(ids, train, model.config.vocab_size)
    return {
        "source": prompt.source,
        "document": prompt.document,
        "prompt": tokenizer.decode(prompt.ids),
        "text": tokenizer.decode(ids),
        "tokens": len(ids),
        "ended": len(ids) < tokens,
        "sampling": SAMPLING,
        "overlap": _describe(held_out, overlap),
    }


def _describe(held_out: HeldOut, overlap: Overlap) -> dict[str, Any]:
    """Return an overlap with its text and the training document that holds it."""
    if not overlap.length:
        return {"tokens": 0, "text": "", "document": "", "shard": ""}
    tokens = held_out.stream(overlap.shard, "train").tokens[
        overlap.start : overlap.start + overlap.length
    ]
    document = document_at(held_out, overlap.shard, overlap.start)
    return {
        "tokens": overlap.length,
        "text": held_out.tokenizer.decode(tokens),
        "document": document,
        "shard": overlap.shard,
    }


def document_at(held_out: HeldOut, shard: str, position: int) -> str:
    """Return the id of the training document that holds the token at `position` of a shard."""
    wanted = [("shard", "=", shard), ("split", "=", "train"), ("offset", "<=", position)]
    rows: pa.Table = pq.read_table(
        held_out.folder / "index.parquet", columns=["id", "offset"], filters=wanted
    )
    return str(rows.sort_by("offset")["id"][len(rows) - 1].as_py())
