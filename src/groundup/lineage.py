"""From a token to its document and back: what was kept, what was dropped and why.

Reads the views `collect/`, `refine/` and `tokenize/` of a run; writes nothing.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from groundup.document import DOCUMENT, DROPPED
from groundup.errors import GroundupError
from groundup.store import Store

EXAMPLES = 20
LINES = 100
PREVIEW = 400


def overview(root: Path) -> str:
    """Return a table of what each source gave, what was dropped for which reason, and what was kept."""
    lines = ["source                     collected     kept   train  validation"]
    kept = _kept_by_source(root)
    for source, count in sorted(_count(root, "collect/documents", "source").items()):
        train, validation = kept.get(source, (0, 0))
        lines.append(f"{source:24} {count:11,} {train + validation:8,} {train:7,} {validation:11,}")
    lines += ["", "dropped for               documents"]
    for reason, count in sorted(dropped_by_reason(root).items(), key=lambda item: (-item[1], item[0])):
        lines.append(f"{reason:24} {count:11,}")
    return "\n".join([*lines, "", f"groundup inspect {root} --dropped REASON shows examples"])


def dropped_by_reason(root: Path) -> dict[str, int]:
    """Return how many records each reason dropped, from reading to deduplication."""
    return dict(_count(root, "collect/dropped", "reason") + _count(root, "refine/dropped", "reason"))


def describe_dropped(root: Path, reason: str) -> str:
    """Show up to twenty random (but always the same) records that were dropped for `reason`, with their text."""
    table = pa.concat_tables(_select(root, folder, "reason", reason) for folder in ("collect/dropped", "refine/dropped"))
    if table.num_rows == 0:
        known = ", ".join(sorted(dropped_by_reason(root))) or "none"
        raise GroundupError(f'{root}: nothing was dropped for "{reason}"; the reasons of this run are: {known}')
    chosen = np.sort(np.random.default_rng(0).permutation(table.num_rows)[:EXAMPLES])
    rows = table.take(pa.array(chosen)).to_pylist()
    texts = raw_texts(root, [row["id"] for row in rows])
    blocks = [_dropped_block(row, texts.get(row["id"], "")) for row in rows]
    return "\n\n".join([f"{table.num_rows:,} dropped for {reason}; {len(rows)} of them:", *blocks])


def _dropped_block(row: dict[str, Any], text: str) -> str:
    score = "" if row["score"] is None else f"  score {row['score']:.3g}"
    of = f"  duplicate of {row['duplicate_of']}" if row["duplicate_of"] else ""
    detail = f"\n  {row['detail']}" if row["detail"] else ""
    preview = f"\n  | {_preview(text)}" if text else ""
    return f"{row['id']}  {row['source']}: {row['origin']}#{row['record']}{score}{of}{detail}{preview}"


def describe_document(root: Path, document: str) -> str:
    """Tell where a document came from, what happened to it and where its tokens are."""
    collected = _select(root, "collect/documents", "id", document).to_pylist()
    drops = [row for folder in ("collect/dropped", "refine/dropped") for row in _select(root, folder, "id", document).to_pylist()]
    if not collected and not drops:
        raise GroundupError(f"{root}: there is no document {document}; ids are 32 hexadecimal digits")
    row = (collected or drops)[0]
    lines = [f"{document}  {row['source']}: {row['origin']}#{row['record']}"]
    if collected:
        lines.append(f"  kind {row['kind']}, group {row['group']!r}, license {row['license'] or 'not stated'}")
    for drop in drops:
        lines.append(f"  dropped: {drop['reason']}" + (f" (duplicate of {drop['duplicate_of']})" if drop["duplicate_of"] else ""))
    for place in _index_rows(root, document):
        end = place["offset"] + place["length"]
        lines.append(f"  tokens {place['offset']:,} to {end:,} of shards/{place['shard']}.{place['split']}.npy")
    if collected:
        lines.append(f"  | {_preview(row['text'])}")
    return "\n".join(lines)


def describe_duplicates(root: Path, document: str) -> str:
    """Show what was dropped as a duplicate of a document (or what it was dropped for), with the differing words."""
    path = root / "refine" / "dropped" / "duplicates.parquet"
    table = pq.read_table(path) if path.exists() else pa.table({"id": [], "duplicate_of": []})
    same = pc.or_(pc.equal(table["duplicate_of"], document), pc.equal(table["id"], document))
    rows = table.filter(same).to_pylist()
    if not rows:
        raise GroundupError(f"{root}: {document} has no duplicates")
    texts = raw_texts(root, [row[name] for row in rows for name in ("id", "duplicate_of")])
    lines = []
    for row in rows:
        lines.append(f"{row['id']}  {row['source']}: {row['origin']}#{row['record']}  {row['reason']}, similarity {row['score']:.3f}")
        lines += _differences(texts.get(row["duplicate_of"], ""), texts.get(row["id"], ""))
    return "\n".join(lines)


def _differences(kept: str, dropped: str, most: int = 10) -> list[str]:
    # The first 2,000 words are enough for a person, and difflib is quadratic.
    diff = difflib.unified_diff(kept.split()[:2000], dropped.split()[:2000], lineterm="", n=0)
    words = [line for line in diff if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    more = [f"    and {len(words) - most} more"] if len(words) > most else []
    return [f"    {word}" for word in words[:most]] + more


def describe_token(root: Path, number: int) -> str:
    """Tell from which document training token `number` comes; tokens are counted over the train shards by name."""
    index = _index(root)
    train = index.filter(pc.equal(index["split"], "train")).sort_by([("shard", "ascending"), ("offset", "ascending")])
    ends = np.cumsum(train["length"].to_numpy())
    if not len(ends) or number >= ends[-1]:
        raise GroundupError(f"{root}: there are {int(ends[-1]) if len(ends) else 0:,} training tokens; {number:,} is beyond them")
    row = int(np.searchsorted(ends, number, side="right"))
    within = number - (int(ends[row - 1]) if row else 0)
    document = train["id"][row].as_py()
    return f"token {number:,} is token {within:,} of {describe_document(root, document)}"


def describe_lines(root: Path, source: str = "") -> str:
    """Show the lines that a source (or any) repeats and that were cut, the most frequent first, each with a document that held it."""
    if Store(root).view("refine") is None:
        raise GroundupError(f"{root}: there is no run here with refined documents; `groundup run RECIPE --out {root}` makes one")
    path = root / "refine" / "lines.parquet"
    if not path.exists():
        raise GroundupError(f"{root}: no line was looked for; [refine] repeated_lines is 0, or no source is of a kind that repeats lines")
    table = pq.read_table(path)
    found = table.filter(pc.equal(table["source"], source)) if source else table
    if source and found.num_rows == 0:
        known = ", ".join(sorted(pc.unique(table["source"]).to_pylist())) or "none"
        raise GroundupError(f'{root}: nothing was cut from "{source}"; sources that repeat lines: {known}')
    order = [("documents", "descending"), ("source", "ascending"), ("hash", "ascending")]
    rows = found.take(pc.select_k_unstable(found, LINES, order)).to_pylist()
    lines = [f"{row['documents']:9,}  {row['source']:20} {row['example']}  {_preview(row['text'])}" for row in rows]
    head = f"{found.num_rows:,} lines were cut because their source repeats them" + (
        f"; {len(rows)} of them" if len(rows) < len(found) else ""
    )
    return "\n".join([head, f"{'documents':>9}  {'source':20} {'one of them':32}  line", *lines])


def _index(root: Path) -> pa.Table:
    path = root / "tokenize" / "index.parquet"
    if not path.exists():
        raise GroundupError(f"{root}: it has no tokens yet; `groundup run RECIPE --out {root} --until tokenize` makes them")
    return pq.read_table(path)


def _index_rows(root: Path, document: str) -> list[dict[str, Any]]:
    path = root / "tokenize" / "index.parquet"
    return pq.read_table(path, filters=[("id", "==", document)]).to_pylist() if path.exists() else []


def _dataset(root: Path, folder: str) -> ds.Dataset:
    """Open a folder of a view; one that is not there yet is empty, but a run has collected something."""
    if Store(root).view("collect") is None:
        raise GroundupError(f"{root}: there is no run here with collected documents; `groundup run RECIPE --out {root}` makes one")
    schema = DROPPED if folder.endswith("dropped") else DOCUMENT
    return ds.dataset(sorted(str(path) for path in (root / folder).glob("*.parquet")), schema=schema, format="parquet")


def _select(root: Path, folder: str, column: str, value: str) -> pa.Table:
    return _dataset(root, folder).to_table(filter=ds.field(column) == value)


def _count(root: Path, folder: str, column: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for batch in _dataset(root, folder).to_batches(columns=[column]):
        for entry in pc.value_counts(batch.column(0)).to_pylist():
            counts[entry["values"]] += entry["counts"]
    return counts


def raw_texts(root: Path, ids: Sequence[str]) -> dict[str, str]:
    """Return the text of documents as they were collected, by id; an id that no document has is left out."""
    table = _dataset(root, "collect/documents").to_table(
        columns=["id", "text"], filter=ds.field("id").isin(pa.array(sorted(set(ids)), pa.string()))
    )
    return dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))


def _kept_by_source(root: Path) -> dict[str, tuple[int, int]]:
    counts: Counter[tuple[str, int]] = Counter()
    for path in sorted((root / "refine" / "split").glob("*.npy")):
        source = path.stem.rpartition(".")[0]
        split = np.load(path)
        counts.update({(source, code): int((split == code).sum()) for code in (1, 2)})
    return {source: (counts[source, 1], counts[source, 2]) for source, _ in counts}


def _preview(text: str) -> str:
    short = text[:PREVIEW] + (" …" if len(text) > PREVIEW else "")
    return short.replace("\n", "\n  | ")
