"""Finds documents that hold evaluation items. Reads refined shards and the grams of the items;
writes a list of occurrences for each shard, and contaminated.parquet for all of them.

A document is contaminated when it holds a fifth of an item's grams, or LONG of them. Grams that
stand in many documents are
common phrases and count for nothing: tools that take every match for a leak cry wolf (marin #6852).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from groundup.artifacts.arrays import Array, text_buffers
from groundup.artifacts.document import DROPPED, TableWriter
from groundup.refine.decontaminate.evaluation import WIDTH, Grams, write_grams
from groundup.refine.out_of_core.corpus import Corpus
from groundup.refine.out_of_core.scratch import Scratch
from groundup.refine.shard import dropped_rows

CONTAMINATED = "contaminated"

# From which Touvron et al. 2023 ("Llama 2", appendix A.6) no longer call a sample clean.
SHARE = 0.2
# 50 words in a row of a long passage are a quotation of it, whatever share of the passage they are.
LONG = 50 - WIDTH + 1
# In more documents than this, or than a thousandth of all, a gram is a phrase that everybody uses.
# GPT-3 took 10.
COMMON, COMMON_SHARE = 10, 0.001

MATCHED_CHARACTERS = 400


def find_occurrences(
    folder: Path, shard: Path, evaluation: Path, cuts: Path | None = None
) -> dict[str, Any]:
    """Write occurrences.npy, int64 [n, 4]: row, gram, first byte and the byte after the last, for
    one refined shard.

    Args:
        folder: where it is written.
        shard: folder of the refined shard.
        evaluation: folder of the items' grams.
        cuts: what is cut out of the shard's texts.
    """
    corpus, grams = Corpus([("", shard)], {"": cuts} if cuts else {}), Grams.load(evaluation)
    table, row, parts = grams.table(), 0, [np.zeros((0, 4), np.int64)]
    for _, batch in corpus.batches(["text"]):
        for found in grams.find(text_buffers(batch.column("text")), table):
            parts.append(
                np.stack([found.rows + row, found.grams, found.begins, found.ends], axis=1)
            )
        row += len(batch)
    whole = np.concatenate(parts)
    np.save(folder / "occurrences.npy", whole[np.lexsort((whole[:, 1], whole[:, 2], whole[:, 0]))])
    return {"occurrences": len(whole)}


@dataclass(frozen=True)
class Verdict:
    """A contaminated document.

    Attributes:
        row: of the shard.
        item: that it holds the largest part of.
        share: of the item's grams.
        begin: first byte of the longest stretch in common.
        end: the byte after its last.
    """

    row: int
    item: int
    share: float
    begin: int
    end: int


def find_contaminated(
    folder: Path,
    shards: Sequence[tuple[str, Path]],
    occurrences: Mapping[str, Path],
    dropped: Sequence[Path],
    cuts: Mapping[str, Path],
    evaluation: Path,
) -> dict[str, Any]:
    """List the documents that hold evaluation items, with the longest stretch of text in common.

    Args:
        folder: where contaminated.parquet is written, rows in the order of shards and documents.
        shards: refined shards by name and folder, in order.
        occurrences: folder of the occurrences of each shard.
        dropped: lists of documents that are gone already.
        cuts: files of what is cut out of the texts, by shard.
        evaluation: folder of the items' grams.
    """
    corpus, grams = Corpus(shards, cuts), Grams.load(evaluation)
    items = grams.items.select(["id", "source", "origin", "record"]).to_pylist()
    documents, held, size = Counter[str](), set[int](), 0
    with (
        Scratch(folder / ".scratch") as scratch,
        TableWriter(folder / "contaminated.parquet", DROPPED) as out,
    ):
        kept = scratch.kept(corpus, dropped)
        common = common_grams(corpus, occurrences, kept, grams)
        for shard, rows in zip(shards, corpus.spans, strict=True):
            if verdicts := verdicts_on(occurrences[shard[0]], kept[rows], common, grams):
                documents[shard[0].rpartition(".")[0]] += len(verdicts)
                held |= {one.item for one in verdicts}
                size += _write(out, Corpus([shard], cuts), verdicts, items)
    counts = {
        "documents": documents.total(),
        "bytes": size,
        "by_source": dict(sorted(documents.items())),
    }
    return counts | {"items": len(held), "common_phrases": int(common.sum())}


def contaminated_again(
    shards: Sequence[tuple[str, Path]],
    tests: Sequence[Path],
    allowed: Sequence[str],
    dropped: Path,
    cuts: Path | None = None,
) -> Iterator[tuple[str, str, float]]:
    """Look at all texts anew; yield document, item and share of what is contaminated and not on the
    list in `dropped`.

    Args:
        shards: refined shards by name and folder, in order.
        tests: folders of collected evaluation shards, in order.
        allowed: as the recipe lists them.
        dropped: folder of the lists of dropped documents.
        cuts: folder of what is cut out of the texts.
    """
    corpus = Corpus(shards, {name: cuts / f"{name}.npy" for name, _ in shards} if cuts else {})
    with TemporaryDirectory() as name, Scratch(Path(name) / "scratch") as scratch:
        write_grams(evaluation := Path(name), tests, allowed)
        occurrences = _occurrences_again(corpus, evaluation)
        others = [
            path
            for other in ("duplicates", "lines")
            if (path := dropped / f"{other}.parquet").exists()
        ]
        kept = scratch.kept(corpus, others)
        own = dropped / "contaminated.parquet"
        unlisted = scratch.kept(corpus, [own] if own.exists() else [], "unlisted")
        grams = Grams.load(evaluation)
        common = common_grams(corpus, occurrences, kept, grams)
        for (shard, _), rows in zip(shards, corpus.spans, strict=True):
            for one in verdicts_on(occurrences[shard], kept[rows], common, grams):
                if unlisted[rows.start + one.row]:
                    yield (
                        corpus.id_text(rows.start + one.row),
                        str(grams.items["id"][one.item]),
                        one.share,
                    )


def _occurrences_again(corpus: Corpus, evaluation: Path) -> dict[str, Path]:
    """List the occurrences of each shard inside the folder of the grams; return where."""
    folders = {name: evaluation / "occurrences" / name for name, _ in corpus.shards}
    for name, shard in corpus.shards:
        folders[name].mkdir(parents=True)
        find_occurrences(folders[name], shard, evaluation, corpus.cuts.get(name))
    return folders


def common_grams(
    corpus: Corpus, occurrences: Mapping[str, Path], kept: Array, grams: Grams
) -> Array:
    """Return the mask of the grams that stand in so many kept documents that they prove nothing."""
    documents = np.zeros(len(grams.hashes), np.int64)
    for (name, _), rows in zip(corpus.shards, corpus.spans, strict=True):
        found = _occurrences(occurrences[name], kept[rows])
        pairs = np.unique(found[:, 0] * len(documents) + found[:, 1])
        documents += np.bincount(pairs % max(len(documents), 1), minlength=len(documents))
    return documents > max(COMMON, COMMON_SHARE * corpus.rows)


def verdicts_on(occurrences: Path, kept: Array, common: Array, grams: Grams) -> list[Verdict]:
    """Return the contaminated documents of a shard that are on no other list, by row."""
    found = _occurrences(occurrences, kept)
    return judge(found[~common[found[:, 1]]], grams)


def _occurrences(folder: Path, kept: Array) -> Array:
    found = np.load(folder / "occurrences.npy")
    return found[kept[found[:, 0]]]


def judge(found: Array, grams: Grams) -> list[Verdict]:
    """Return the contaminated documents among the occurrences (of a corpus, without common
    phrases), by row.
    """
    pair, found = _by_pair(found, grams)
    held = np.unique(pair * len(grams.hashes) + found[:, 1]) // max(len(grams.hashes), 1)
    pairs, sizes = np.unique(held, return_counts=True)
    rows, items = np.divmod(pairs, max(len(grams.items), 1))
    shares = sizes / np.maximum(grams.items["grams"].to_numpy()[items], 1)
    guilty = np.flatnonzero((shares >= SHARE) | (sizes >= LONG))
    # Of several items the one that is there most; the last of equal rows wins.
    guilty = guilty[np.lexsort((-items[guilty], shares[guilty], rows[guilty]))]
    last = guilty[np.diff(rows[guilty], append=-1) != 0]
    spans = [found[slice(*np.searchsorted(pair, [pairs[k], pairs[k] + 1])), 2:] for k in last]
    return [
        Verdict(int(rows[k]), int(items[k]), float(shares[k]), *_longest(own))
        for k, own in zip(last, spans, strict=True)
    ]


def _by_pair(found: Array, grams: Grams) -> tuple[Array, Array]:
    """Return document and item in one number (row x items + item), ascending, and its occurrence,
    in the order of the text.
    """
    counts = np.diff(grams.starts)[found[:, 1]]
    each = np.repeat(np.arange(len(found)), counts)
    inside = np.arange(len(each)) - np.repeat(np.cumsum(counts) - counts, counts)
    pair = found[each, 0] * len(grams.items) + grams.owners[grams.starts[found[each, 1]] + inside]
    order = np.lexsort((found[each, 2], pair))
    return pair[order], found[each[order]]


def _longest(spans: Array) -> tuple[int, int]:
    """Return begin and end of the longest stretch; spans (ascending) that touch or overlap one
    another are one.
    """
    reach = np.maximum.accumulate(spans[:, 1])
    new = np.flatnonzero(np.concatenate([[True], spans[1:, 0] > reach[:-1]]))
    begins, ends = spans[new, 0], reach[np.append(new[1:], len(spans)) - 1]
    longest = int(np.argmax(ends - begins))
    return int(begins[longest]), int(ends[longest])


def _write(
    out: TableWriter, shard: Corpus, verdicts: Sequence[Verdict], items: Sequence[Mapping[str, Any]]
) -> int:
    """List the contaminated documents of one shard; return the bytes of their texts."""
    by_row, size = {one.row: one for one in verdicts}, 0
    wanted = np.zeros(shard.rows, np.bool_)
    wanted[list(by_row)] = True
    for rows, batch in shard.batches(["id", "source", "origin", "record", "text"], wanted):
        found = [by_row[row] for row in rows.tolist()]
        texts = [text.encode() for text in batch.column("text").to_pylist()]
        details = [
            _detail(text, one, items[one.item]) for text, one in zip(texts, found, strict=True)
        ]
        size += sum(map(len, texts))
        ids = pa.array([items[one.item]["id"] for one in found], pa.string())
        reasons, shares = (
            pa.array([CONTAMINATED] * len(rows)),
            pa.array([one.share for one in found], pa.float64()),
        )
        out.write(dropped_rows(batch, reasons, shares, pa.array(details, pa.string()), ids))
    return size


def _detail(text: bytes, one: Verdict, item: Mapping[str, Any]) -> str:
    matched = " ".join(text[one.begin : one.end].decode("utf-8", "replace").split())
    short = matched[:MATCHED_CHARACTERS] + (" …" if len(matched) > MATCHED_CHARACTERS else "")
    return f"{item['source']}: {item['origin']}#{item['record']}: {short}"
