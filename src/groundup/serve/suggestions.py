"""Beginnings that suit what a model was trained on. Reads held-out documents of the refine view;
writes nothing.
"""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from groundup.artifacts.corpus import RefinedShard, refined_shards
from groundup.errors import StoreError

# A corpus may have thousands of shards; the first ones of each source do.
SHARDS = 3
LONGEST = 90


def suggestions(root: Path, count: int = 6) -> list[dict[str, str]]:
    """Return short texts to begin with: {text, kind: its source, mode: chat or complete}; none if
    the data is gone.

    For each mode there are up to `count`, one of each source in turn. In a chat it is what somebody
    said first in a conversation, else how a document goes on for a few words.
    """
    shards: dict[str, list[RefinedShard]] = {}
    with contextlib.suppress(StoreError):
        for shard in refined_shards(root):
            shards.setdefault(shard.source, []).append(shard)
    return [one for mode in ("chat", "complete") for one in _of_mode(shards, mode, count)]


def _of_mode(
    shards: dict[str, list[RefinedShard]], mode: str, count: int
) -> Iterator[dict[str, str]]:
    found = [
        [(text, source) for text in islice(_beginnings(of_source[:SHARDS], mode), count)]
        for source, of_source in shards.items()
    ]
    in_turn = [pair for turn in zip_longest(*found) for pair in turn if pair is not None]
    for text, source in islice(dict(in_turn).items(), count):
        yield {"text": text, "kind": source, "mode": mode}


def _beginnings(shards: list[RefinedShard], mode: str) -> Iterator[str]:
    for shard in shards:
        for batch in shard.batches(["text", "turns"], "validation"):
            for document in batch.to_pylist():
                text = _beginning(document, mode)
                if text:
                    yield text


def _beginning(document: dict[str, Any], mode: str) -> str:
    turns = document["turns"] or []
    if (mode == "chat") != bool(turns):
        return ""
    if turns:
        said = _clean(next((turn["content"] for turn in turns if turn["role"] == "user"), ""))
        return said if 3 <= len(said) <= LONGEST else ""
    # The first line that is a sentence rather than a title, cut in its middle, where a model can go
    # on.
    lines = (_clean(line) for line in document["text"][:4000].split("\n"))
    line = next((line for line in lines if len(line) >= 60 and line[0].isalnum()), "")
    return line[: LONGEST // 2].rpartition(" ")[0]


def _clean(text: str) -> str:
    """Return one line without control characters, marks of direction, and what cannot be shown."""
    return " ".join(
        "".join(char if unicodedata.category(char)[0] != "C" else " " for char in text).split()
    )
