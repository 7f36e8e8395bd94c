"""What there is to see of a tokenizer: long and frequent tokens, and a paragraph cut into tokens.
Reads the view `tokenize`.

Returns plain tables for report.json; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from groundup.artifacts.tokenizer import Tokenizer
from groundup.artifacts.tokens import open_shard
from groundup.report.figure import Figure

LONGEST, FREQUENT = 24, 40
# Counting them takes a tenth of a second, and the forty most frequent tokens do not change beyond.
COUNTED_TOKENS = 1 << 22
PARAGRAPH_TOKENS = 160
ORIGIN = "tokenize/shards"


def vocabulary(root: Path, seed: int) -> dict[str, Any]:
    """Return `longest` and `frequent` tokens, and `paragraph`: the pieces of a held-out text."""
    if not (root / "tokenize" / "tokenizer.json").exists():
        return {}
    tokenizer = Tokenizer.load(root / "tokenize")
    sizes, counts = tokenizer.token_bytes(), token_counts(root, tokenizer)
    longest = np.lexsort((np.arange(len(sizes)), -sizes))[:LONGEST]
    frequent = [int(i) for i in np.lexsort((np.arange(len(counts)), -counts)) if counts[i]][
        :FREQUENT
    ]
    return {
        "longest": [
            {"id": int(i), "text": tokenizer.decode([i]), "bytes": int(sizes[i])} for i in longest
        ],
        "frequent": [
            {"id": i, "text": tokenizer.decode([i]), "count": int(counts[i])} for i in frequent
        ],
        "counted": int(counts.sum()),
        "paragraph": pieces(tokenizer, held_out_tokens(root, tokenizer, seed)),
    }


def vocabulary_figures(found: dict[str, Any]) -> Iterator[Figure]:
    """Yield the counts of the most frequent tokens as figures, by id."""
    if found:
        yield Figure("tokens.counted", found["counted"], "tokens", ORIGIN)
        for token in found["frequent"]:
            yield Figure(f"tokens.count.{token['id']}", token["count"], "tokens", ORIGIN)
            yield Figure(
                f"tokens.frequency.{token['id']}",
                token["count"] / found["counted"],
                "share",
                ORIGIN,
            )
        for token in found["longest"]:
            yield Figure(
                f"tokens.bytes.{token['id']}", token["bytes"], "bytes", "tokenize/tokenizer.json"
            )


def _shards(root: Path, split: str) -> list[Path]:
    return sorted((root / "tokenize" / "shards").glob(f"*.{split}.npy"))


def token_counts(root: Path, tokenizer: Tokenizer) -> npt.NDArray[np.int64]:
    """Return how often each id stands in the first training tokens of every shard, in proportion to
    its size.
    """
    shards = [
        open_shard(path, tokenizer.vocab_size, check_ids=False) for path in _shards(root, "train")
    ]
    total = sum(map(len, shards))
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for tokens in shards:
        first = tokens[
            : len(tokens) if total <= COUNTED_TOKENS else len(tokens) * COUNTED_TOKENS // total
        ]
        counts += np.bincount(first, minlength=tokenizer.vocab_size)[: tokenizer.vocab_size]
    return counts


def held_out_tokens(root: Path, tokenizer: Tokenizer, seed: int) -> list[int]:
    """Return the first tokens of a held-out document: the first long one from the seed's shard on,
    or else the longest.
    """
    shards = _shards(root, "validation")
    start = int(np.random.default_rng(seed).integers(max(1, len(shards))))
    found: list[int] = []
    for path in shards[start:] + shards[:start]:
        tokens = open_shard(path, tokenizer.vocab_size, check_ids=False)[:PARAGRAPH_TOKENS].tolist()
        end = tokens.index(tokenizer.end_id) + 1 if tokenizer.end_id in tokens else len(tokens)
        found = max(found, [int(token) for token in tokens[:end]], key=len)
        if len(found) == PARAGRAPH_TOKENS:
            break
    return found


def pieces(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[dict[str, Any]]:
    """Return the pieces of a text with their ids; tokens that share a character stand together."""
    found: list[dict[str, Any]] = []
    pending: list[int] = []
    for token in tokens:
        pending.append(token)
        text = tokenizer.decode(pending)
        # A character may take several tokens; four bytes are the most, so four tokens settle it.
        if not text.endswith("\N{REPLACEMENT CHARACTER}") or len(pending) > 4:
            found.append({"ids": pending, "text": text, "special": text in tokenizer.specials})
            pending = []
    return found
