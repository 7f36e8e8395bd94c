"""Find documents that hold items of evaluation files, by n-grams of words.

An item of at least 13 words is identified by its 13-grams (Brown et al. 2020, "GPT-3", appendix C),
one of 8 to 12 words by one n-gram of all of them. Shorter items ("The cat sat on the mat.") prove
nothing; they are counted, but not searched.

A document is contaminated if it holds a fifth of an item's n-grams, or LONG of them. N-grams that
many documents hold are common phrases and are ignored: tools that take every match for a leak raise
false alarms (marin #6852).

The n-grams of all items are stored as

    grams.npy        uint64      hashes, ascending and unique
    starts.npy       int64       for each n-gram, where its items begin in owners.npy
    owners.npy       int64       rows of items.parquet
    items.parquet    id, source, origin and record of each item, and its number of n-grams
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.artifacts.arrays import Array, Texts, text_buffers
from groundup.artifacts.document import DROPPED, TableWriter, dropped_rows, read_batches
from groundup.refine.clean.pipeline import clean_texts
from groundup.refine.dedup.minhash import hash_shingles, words
from groundup.refine.kernels import kernel
from groundup.refine.out_of_core import DocumentTable, Scratch
from groundup.runtime.run import build_step

CONTAMINATED = "contaminated"
# Words of an n-gram, and of the shortest item that is searched.
MAX_WORDS, MIN_WORDS = 13, 8
# An n-gram of more items is their form ("Choose the best answer to the following question …"), not
# their content.
MAX_ITEMS = 10
# From this share on, Touvron et al. 2023 ("Llama 2", appendix A.6) do not call a sample clean.
MIN_SHARE = 0.2
# 50 consecutive words of a long item are a quotation, whatever share of the item they are.
LONG = 50 - MAX_WORDS + 1
# An n-gram in more documents than this, and than a thousandth of all, is a common phrase. GPT-3
# took 10.
COMMON, COMMON_SHARE = 10, 0.001
MATCHED_CHARACTERS = 400

_ITEM = pa.schema(
    {name: pa.string() for name in ("id", "source", "origin")}
    | {name: pa.int64() for name in ("record", "grams")}
)
# The prefilter is indexed by the upper bits of a hash: 16 MB, and one lookup rejects most words.
_PREFILTER_BITS = 24


# N-grams of evaluation items


class EvaluationGrams:
    """The n-grams of all items: the files that the top of this module describes."""

    def __init__(self, hashes: Array, starts: Array, owners: Array, items: pa.Table) -> None:
        self.hashes, self.starts, self.owners, self.items = hashes, starts, owners, items
        # Mask by the upper bits of a hash: False where no n-gram has them.
        self.prefilter = np.zeros(1 << _PREFILTER_BITS, np.bool_)
        self.prefilter[hashes >> np.uint64(64 - _PREFILTER_BITS)] = True

    @staticmethod
    def load(folder: Path) -> EvaluationGrams:
        """Read what `write_grams` wrote."""
        names = ("grams", "starts", "owners")
        hashes, starts, owners = (np.load(folder / f"{name}.npy") for name in names)
        return EvaluationGrams(hashes, starts, owners, pq.read_table(folder / "items.parquet"))

    def find(self, texts: Texts) -> Iterator[Array]:
        """Yield the n-grams that occur in texts, for one n after the other.

        As int64 [m, 4]: row of the text, index of the n-gram, first byte, end.
        """
        hashes, starts, ends, first = words(texts)
        for width in range(MIN_WORDS, MAX_WORDS + 1):
            at_word = _word_grams(hashes, first, width)
            places = np.flatnonzero(self.prefilter[at_word >> np.uint64(64 - _PREFILTER_BITS)])
            grams = np.searchsorted(self.hashes, at_word[places])
            hit = self.hashes[np.minimum(grams, len(self.hashes) - 1)] == at_word[places]
            places, grams = places[hit], grams[hit]
            rows = np.searchsorted(first, places, side="right") - 1
            offset = texts[0][rows]
            begins, stops = starts[places] - offset, ends[places + width - 1] - offset
            yield np.stack([rows, grams, begins, stops], axis=1)


@kernel
def _word_grams(hashes: Array, first: Array, width: int) -> Array:
    """Return the hash of the n-gram at each word; 0 where the text ends before the n-gram does."""
    out = np.zeros(len(hashes), np.uint64)
    for text in range(len(first) - 1):
        begin, end = first[text], first[text + 1]
        if end - begin >= width:
            hash_shingles(hashes[begin:end], width, out[begin : end - width + 1])
    return out


@build_step("refine/evaluation", version=3)
def write_grams(folder: Path, shards: Sequence[Path], allowed: Sequence[str]) -> dict[str, Any]:
    """Write the n-grams of all evaluation items, which are in the collected `shards`.

    The n-grams of `allowed` texts prove nothing, and are left out.
    """
    tables, count, short = [_ITEM.empty_table()], 0, 0
    parts, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    paths = [shard / "documents.parquet" for shard in shards]
    for batch in read_batches(paths, ["id", "source", "origin", "record", "text"]):
        grams, offsets = gram_sets(batch.column("text"))
        sizes = np.diff(offsets)
        short += int((sizes == 0).sum())
        parts.append(grams)
        owners.append(np.repeat(np.arange(len(batch)) + count, sizes))
        tables.append(pa.Table.from_arrays([*batch.columns[:4], pa.array(sizes)], schema=_ITEM))
        count += len(batch)
    # From pairs of n-gram and item to the items of each n-gram, without forms and allowed texts.
    grams = np.concatenate(parts)
    hashes, inverse, counts = np.unique(grams, return_inverse=True, return_counts=True)
    exempt = gram_sets(pa.array(list(allowed), pa.string()))[0]
    used = (counts <= MAX_ITEMS) & ~np.isin(hashes, exempt)
    kept = np.flatnonzero(used[inverse])
    owner = np.concatenate(owners)[kept[np.argsort(inverse[kept], kind="stable")]]
    np.save(folder / "grams.npy", hashes[used])
    starts = np.concatenate([[0], np.cumsum(counts[used])]).astype(np.int64)
    np.save(folder / "starts.npy", starts)
    np.save(folder / "owners.npy", owner)
    per_item = pa.array(np.bincount(owner, minlength=count))
    items = pa.concat_tables(tables).set_column(4, _ITEM.field("grams"), per_item)
    pq.write_table(items, folder / "items.parquet")
    sources = pc.unique(items["source"]).to_pylist()
    return {"items": count, "too_short": short, "grams": int(used.sum()), "sources": sources}


def gram_sets(texts: pa.StringArray) -> tuple[Array, Array]:
    """Return the n-grams of items, sorted and unique (uint64), and n + 1 offsets."""
    cleaned = clean_texts(pc.fill_null(texts, ""), np.zeros(len(texts), np.bool_)).texts
    hashes, _, _, first = words(text_buffers(cleaned))
    sets = [np.zeros(0, np.uint64)]
    for begin, end in pairwise(first.tolist()):
        width, of_item = min(MAX_WORDS, end - begin), np.array([0, end - begin], np.int64)
        grams = np.zeros(0, np.uint64)
        if end - begin >= MIN_WORDS:
            grams = _word_grams(hashes[begin:end], of_item, width)[: end - begin - width + 1]
        sets.append(np.unique(grams))
    return np.concatenate(sets), np.cumsum([len(grams) for grams in sets])


# Contaminated documents


@build_step("refine/occurrences", version=2)
def find_occurrences(
    folder: Path, shard: Path, evaluation: Path, cuts: Path | None = None
) -> dict[str, Any]:
    """Write occurrences.npy of one shard, int64 [n, 4]: row, n-gram, first byte, end.

    Folders are those of the refined shard and of the items' n-grams; `cuts` is the shard's file.
    """
    table = DocumentTable([("", shard)], {"": cuts} if cuts else {})
    grams = EvaluationGrams.load(evaluation)
    parts = [np.zeros((0, 4), np.int64)]
    for rows, batch in table.batches(["text"]):
        for matches in grams.find(text_buffers(batch.column("text"))):
            matches[:, 0] += rows[0]
            parts.append(matches)
    whole = np.concatenate(parts)
    np.save(folder / "occurrences.npy", whole[np.lexsort((whole[:, 1], whole[:, 2], whole[:, 0]))])
    return {"occurrences": len(whole)}


class ContaminatedDocument(NamedTuple):
    """Row of a document, the item of which it holds the largest share, and their longest match."""

    row: int
    item: int
    share: float
    begin: int
    end: int


@build_step("refine/contaminated", version=3)
def find_contaminated(
    folder: Path,
    shards: Sequence[tuple[str, Path]],
    occurrences: Mapping[str, Path],
    dropped: Sequence[Path],
    cuts: Mapping[str, Path],
    evaluation: Path,
) -> dict[str, Any]:
    """List the documents that hold evaluation items, with the longest stretch in common.

    Writes contaminated.parquet (DROPPED schema, in the order of rows). `occurrences` and
    `evaluation` are folders of the steps before; documents listed in `dropped` are left out.
    """
    table, grams = DocumentTable(shards, cuts), EvaluationGrams.load(evaluation)
    items = grams.items.select(["id", "source", "origin", "record"]).to_pylist()
    documents, held, size = Counter[str](), set[int](), 0
    with (
        Scratch(folder / ".scratch") as scratch,
        TableWriter(folder / "contaminated.parquet", DROPPED) as out,
    ):
        kept = scratch.kept(table, dropped)
        # Number of documents that hold each n-gram.
        counts = np.zeros(len(grams.hashes), np.int64)
        for (name, _), rows in zip(shards, table.spans, strict=True):
            _count_documents(_load_occurrences(occurrences[name], kept[rows]), counts)
        common = counts > max(COMMON, COMMON_SHARE * table.rows)
        for shard, rows in zip(shards, table.spans, strict=True):
            if contaminated := _contaminated(occurrences[shard[0]], kept[rows], common, grams):
                documents[shard[0].rpartition(".")[0]] += len(contaminated)
                held |= {document.item for document in contaminated}
                size += _write(out, DocumentTable([shard], cuts), contaminated, items)
    return {
        "documents": documents.total(),
        "bytes": size,
        "by_source": dict(sorted(documents.items())),
        "items": len(held),
        # At least: of a document that holds several items, the one with the largest share counts.
        "items_by_source": dict(sorted(Counter(items[item]["source"] for item in held).items())),
        "common_phrases": int(common.sum()),
    }


def _count_documents(hits: Array, counts: Array) -> None:
    """Add the documents of a shard that hold each n-gram to `counts`."""
    pairs = np.unique(hits[:, 0] * len(counts) + hits[:, 1])
    counts += np.bincount(pairs % max(len(counts), 1), minlength=len(counts))


def find_unlisted(
    shards: Sequence[tuple[str, Path]],
    tests: Sequence[Path],
    allowed: Sequence[str],
    dropped: Path,
    cuts: Path | None = None,
) -> Iterator[tuple[str, str, float]]:
    """Search all texts again; yield document, item and share of what is not on the list.

    `dropped` and `cuts` are folders of the view; `tests` are collected shards.
    """
    files = {name: cuts / f"{name}.npy" for name, _ in shards} if cuts else {}
    others = [path for path in dropped.glob("*.parquet") if path.stem in ("duplicates", "lines")]
    listed = dropped / f"{CONTAMINATED}.parquet"
    known = pq.read_table(listed)["id"] if listed.exists() else pa.array([], pa.string())
    with TemporaryDirectory() as name:
        write_grams(folder := Path(name), tests, allowed)
        occurrences = {}
        for shard, path in shards:
            occurrences[shard] = folder / "occurrences" / shard
            occurrences[shard].mkdir(parents=True)
            find_occurrences(occurrences[shard], path, folder, files.get(shard))
        find_contaminated(folder, shards, occurrences, others, files, folder)
        found = pq.read_table(folder / listed.name).select(["id", "duplicate_of", "score"])
        found = found.filter(pc.invert(pc.is_in(found["id"], known)))
        yield from zip(*found.to_pydict().values(), strict=True)


def _load_occurrences(folder: Path, kept: Array) -> Array:
    hits = np.load(folder / "occurrences.npy")
    return hits[kept[hits[:, 0]]]


def _contaminated(
    occurrences: Path, kept: Array, common: Array, grams: EvaluationGrams
) -> list[ContaminatedDocument]:
    """Return the contaminated documents among the kept ones of a shard, by row."""
    hits = _load_occurrences(occurrences, kept)
    hits = hits[~common[hits[:, 1]]]
    # Each occurrence once for every item of its n-gram, ordered by document and item. `pair` is
    # document and item as one number.
    counts = np.diff(grams.starts)[hits[:, 1]]
    each = np.repeat(np.arange(len(hits)), counts)
    within = np.arange(len(each)) - np.repeat(np.cumsum(counts) - counts, counts)
    owner = grams.owners[grams.starts[hits[each, 1]] + within]
    pair = hits[each, 0] * len(grams.items) + owner
    order = np.lexsort((hits[each, 2], pair))
    pair, hits = pair[order], hits[each[order]]
    # Distinct n-grams of each pair.
    held = np.unique(pair * len(grams.hashes) + hits[:, 1]) // max(len(grams.hashes), 1)
    pairs, sizes = np.unique(held, return_counts=True)
    rows, items = np.divmod(pairs, max(len(grams.items), 1))
    shares = sizes / np.maximum(grams.items["grams"].to_numpy()[items], 1)
    above = np.flatnonzero((shares >= MIN_SHARE) | (sizes >= LONG))
    # Of several items, the one with the largest share: the last of each row in this order.
    above = above[np.lexsort((-items[above], shares[above], rows[above]))]
    documents = []
    for k in above[np.diff(rows[above], append=-1) != 0]:
        # The longest stretch of spans (ascending); those that touch or overlap are joined.
        spans = hits[slice(*np.searchsorted(pair, [pairs[k], pairs[k] + 1])), 2:]
        reach = np.maximum.accumulate(spans[:, 1])
        new = np.flatnonzero(np.append(True, spans[1:, 0] > reach[:-1]))
        begins, ends = spans[new, 0], reach[np.append(new[1:], len(spans)) - 1]
        longest, row, item = int(np.argmax(ends - begins)), int(rows[k]), int(items[k])
        stretch = int(begins[longest]), int(ends[longest])
        documents.append(ContaminatedDocument(row, item, float(shares[k]), *stretch))
    return documents


def _write(
    out: TableWriter,
    shard: DocumentTable,
    documents: Sequence[ContaminatedDocument],
    items: Sequence[Mapping[str, Any]],
) -> int:
    """List the contaminated documents of one shard; return the bytes of their texts."""
    by_row, size = {document.row: document for document in documents}, 0
    listed = np.zeros(shard.rows, np.bool_)
    listed[list(by_row)] = True
    for rows, batch in shard.batches(["id", "source", "origin", "record", "text"], listed):
        columns = []
        for row, text in zip(rows.tolist(), batch.column("text").to_pylist(), strict=True):
            document, data = by_row[row], text.encode()
            size, item = size + len(data), items[document.item]
            match = " ".join(data[document.begin : document.end].decode("utf-8", "replace").split())
            short = match[:MATCHED_CHARACTERS] + (" …" if len(match) > MATCHED_CHARACTERS else "")
            detail = f"{item['source']}: {item['origin']}#{item['record']}: {short}"
            columns.append((CONTAMINATED, document.share, detail, item["id"]))
        out.write(dropped_rows(batch, *map(pa.array, zip(*columns, strict=True))))
    return size
