"""What evaluation files say, as n-grams. Reads collect/shard artifacts of kind evaluation; writes
grams.npy, owners.npy, starts.npy and items.parquet.

An item of 13 words or more is known by its 13-grams (Brown et al. 2020, "GPT-3", appendix C), one
of 8 to 12 words by all of it. Shorter ones ("The cat sat on the mat.") are no evidence of anything
and are counted, not looked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.artifacts.arrays import Array, Texts, text_buffers
from groundup.artifacts.document import read_batches
from groundup.refine.clean.clean import clean_texts
from groundup.refine.dedup.minhash import shingle, words
from groundup.refine.kernels import kernel

WIDTH, SHORTEST = 13, 8
# A gram of more items than this is their form ("Choose the best answer to the following question
# …"), not their content.
MOST_ITEMS = 10

_ITEM = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("origin", pa.string()),
        ("record", pa.int64()),
        ("grams", pa.int64()),
    ]
)
# Index of the table that says whether a gram with these upper 24 bits exists: 16 MB, and one
# look-up refuses most words.
_TABLE_BITS = 24


@dataclass(frozen=True)
class Grams:
    """The n-grams of all items.

    Attributes:
        hashes: of the grams, ascending and each once (uint64).
        starts: where the items of each gram begin in `owners` (one longer than `hashes`).
        owners: numbers of items.
        items: rows of items.parquet: id, source, origin, record, and how many grams an item has.
    """

    hashes: Array
    starts: Array
    owners: Array
    items: pa.Table

    @staticmethod
    def load(folder: Path) -> Grams:
        """Read what `write_grams` wrote."""
        hashes, starts, owners = (
            np.load(folder / f"{name}.npy") for name in ("grams", "starts", "owners")
        )
        return Grams(hashes, starts, owners, pq.read_table(folder / "items.parquet"))

    def table(self) -> Array:
        """Return a mask by the upper bits of a hash: False where no gram has them."""
        known = np.zeros(1 << _TABLE_BITS, np.bool_)
        known[self.hashes >> np.uint64(64 - _TABLE_BITS)] = True
        return known

    def find(self, texts: Texts, table: Array) -> Iterator[Found]:
        """Yield where grams stand in texts, one width after the other."""
        hashes, starts, ends, first = words(texts)
        for width in range(SHORTEST, WIDTH + 1):
            at_word = _shingles(hashes, first, width)
            places = np.flatnonzero(table[at_word >> np.uint64(64 - _TABLE_BITS)])
            number = np.searchsorted(self.hashes, at_word[places])
            hit = self.hashes[np.minimum(number, len(self.hashes) - 1)] == at_word[places]
            places, number = places[hit], number[hit]
            rows = np.searchsorted(first, places, side="right") - 1
            origin = texts[0][rows]
            yield Found(rows, number, starts[places] - origin, ends[places + width - 1] - origin)


@dataclass(frozen=True)
class Found:
    """Occurrences of grams: row of the text, number of the gram, first byte and the byte after the
    last.
    """

    rows: Array
    grams: Array
    begins: Array
    ends: Array


@kernel
def _shingles(hashes: Array, first: Array, width: int) -> Array:
    """Return the hash of the shingle that begins at each word, 0 where the text ends before it
    does.
    """
    out = np.zeros(len(hashes), np.uint64)
    for text in range(len(first) - 1):
        for word in range(first[text], first[text + 1] - width + 1):
            out[word] = shingle(hashes, word, first[text + 1], width)
    return out


def write_grams(folder: Path, shards: Sequence[Path], allowed: Sequence[str]) -> dict[str, Any]:
    """Write the grams of all evaluation items.

    Args:
        folder: where they are written.
        shards: folders of collected evaluation shards, in order.
        allowed: texts whose grams are no evidence, as the recipe lists them.
    """
    tables, parts, owners, count, short = (
        [_ITEM.empty_table()],
        [np.zeros(0, np.uint64)],
        [np.zeros(0, np.int64)],
        0,
        0,
    )
    for batch in read_batches(
        [shard / "documents.parquet" for shard in shards],
        ["id", "source", "origin", "record", "text"],
    ):
        grams, offsets = gram_sets(batch.column("text"))
        sizes = np.diff(offsets)
        short += int((sizes == 0).sum())
        parts.append(grams)
        owners.append(np.repeat(np.arange(len(batch)) + count, sizes))
        tables.append(pa.Table.from_arrays([*batch.columns[:4], pa.array(sizes)], schema=_ITEM))
        count += len(batch)
    hashes, starts, owner = _inverted(
        np.concatenate(parts),
        np.concatenate(owners),
        gram_sets(pa.array(list(allowed), pa.string()))[0],
    )
    items = pa.concat_tables(tables)
    items = items.set_column(4, _ITEM.field("grams"), pa.array(np.bincount(owner, minlength=count)))
    for name, array in (("grams", hashes), ("starts", starts), ("owners", owner)):
        np.save(folder / f"{name}.npy", array)
    pq.write_table(items, folder / "items.parquet")
    return {
        "items": count,
        "too_short": short,
        "grams": len(hashes),
        "sources": pc.unique(items["source"]).to_pylist(),
    }


def gram_sets(texts: pa.StringArray) -> tuple[Array, Array]:
    """Return the grams of every text, sorted and each once (uint64), and n + 1 offsets; short texts
    have none.
    """
    cleaned = clean_texts(pc.fill_null(texts, ""), np.zeros(len(texts), np.bool_)).texts
    hashes, _, _, first = words(text_buffers(cleaned))
    sets = [_item_grams(hashes[begin:end]) for begin, end in pairwise(first.tolist())]
    return np.concatenate([np.zeros(0, np.uint64), *sets]), np.cumsum([0, *map(len, sets)])


def _item_grams(hashes: Array) -> Array:
    if len(hashes) < SHORTEST:
        return np.zeros(0, np.uint64)
    width = min(WIDTH, len(hashes))
    found = _shingles(hashes, np.array([0, len(hashes)], np.int64), width)
    return np.unique(found[: len(hashes) - width + 1])


def _inverted(grams: Array, owners: Array, allowed: Array) -> tuple[Array, Array, Array]:
    """Return grams each once, where their items begin, and the items; without the allowed and the
    common ones.
    """
    hashes, number, counts = np.unique(grams, return_inverse=True, return_counts=True)
    wanted = (counts <= MOST_ITEMS) & ~np.isin(hashes, allowed)
    kept = np.flatnonzero(wanted[number])
    order = kept[np.argsort(number[kept], kind="stable")]
    return (
        hashes[wanted],
        np.concatenate([[0], np.cumsum(counts[wanted])]).astype(np.int64),
        owners[order],
    )
