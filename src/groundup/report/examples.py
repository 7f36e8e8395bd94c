"""Chooses a few documents to show: kept and dropped ones by source, dropped ones by reason,
duplicates beside what they duplicate.

Reads the views `collect` and `refine`, and of texts only the row groups that hold the chosen ones;
writes nothing.
The choice is the same at every call: the first ids at or after a place in the order of ids that the
seed gives.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.corpus import RefinedShard, find_documents
from groundup.artifacts.document import read_batches
from groundup.report.figure import Figure
from groundup.report.formatting import cut
from groundup.report.run_files import Row, number

KEPT_EACH, LEFT_OUT_EACH, DROPPED_EACH, PAIRS_EACH = 2, 3, 2, 3
DUPLICATES = ("near_duplicate", "exact_duplicate")
# Reasons and sources beyond these are counted in the tables and not shown.
MOST, MOST_SOURCES = 24, 60
DROPPED_COLUMNS = ["id", "source", "origin", "record", "reason", "score", "duplicate_of", "detail"]


def examples(root: Path, seed: int) -> dict[str, list[Row]]:
    """Return `kept` and `left_out` of each source, `dropped` for each reason, `duplicates`: rows
    with what there is to show.
    """
    return {
        "kept": kept(root, seed),
        "left_out": left_out(root, seed),
        "dropped": dropped(root, seed),
        "duplicates": duplicates(root, seed),
    }


def first_ids(ids: pa.Array | pa.ChunkedArray, seed: int, most: int) -> list[str]:
    """Return the first ids at or after the seed's place, going round; ids are hashes, so this is a
    random choice.
    """
    place = hashlib.blake2b(str(seed).encode(), digest_size=16).hexdigest()
    after = ids.filter(pc.greater_equal(ids, place))
    chosen = _smallest(after, most)
    return chosen + (
        _smallest(ids.filter(pc.less(ids, place)), most - len(chosen)) if len(chosen) < most else []
    )


def _smallest(ids: pa.Array | pa.ChunkedArray, most: int) -> list[str]:
    found: list[str] = (
        ids.take(pc.select_k_unstable(ids, most, [("", "ascending")])).to_pylist()
        if len(ids) and most
        else []
    )
    return found


def kept(root: Path, seed: int) -> list[Row]:
    """Return documents of each source that went into tokens."""
    chosen: dict[str, list[tuple[str, Path]]] = {}
    for path in sorted((root / "refine" / "documents").glob("*.parquet")):
        shard = RefinedShard(root / "refine", path.stem)
        columns = [batch.column("id") for batch in shard.batches(["id"])]
        ids = pa.chunked_array(columns, pa.string())
        source = chosen.setdefault(shard.source, [])
        source += [(name, path) for name in first_ids(ids, seed, KEPT_EACH)]
    rows = []
    for pairs in list(chosen.values())[:MOST_SOURCES]:
        best = set(first_ids(pa.array([name for name, _ in pairs], pa.string()), seed, KEPT_EACH))
        for name, path in pairs:
            rows += (
                [_shown(row) for row in find_documents([path], {name}).values()]
                if name in best
                else []
            )
    return rows


def left_out(root: Path, seed: int) -> list[Row]:
    """Return documents of each source that refine dropped, for whatever reason."""
    rows = _chosen_rows(_lists(root, "refine"), seed, LEFT_OUT_EACH, lambda source: True, "source")
    texts = _texts(root, rows, "id")
    return [_dropped(row) | {"text": cut(texts.get(row["id"], ""))} for row in rows]


def dropped(root: Path, seed: int) -> list[Row]:
    """Return records that each reason dropped, duplicates apart; text only where one had been read."""
    rows = _chosen_rows(
        _lists(root, "collect", "refine"),
        seed,
        DROPPED_EACH,
        lambda reason: reason not in DUPLICATES,
    )
    texts = _texts(root, rows, "id")
    return [_dropped(row) | {"text": cut(texts.get(row["id"], ""))} for row in rows]


def duplicates(root: Path, seed: int) -> list[Row]:
    """Return duplicates beside the documents that stand for them."""
    rows = _chosen_rows(
        _lists(root, "collect", "refine"), seed, PAIRS_EACH, lambda reason: reason in DUPLICATES
    )
    texts = _texts(root, rows, "id")
    counterparts = find_documents(_shards(root, "collect"), {row["duplicate_of"] for row in rows})
    found = []
    for row in rows:
        other = counterparts.get(row["duplicate_of"], {})
        found.append(
            _dropped(row)
            | {
                "text": cut(texts.get(row["id"], "")),
                "kept": _shown(other) if other else None,
            }
        )
    return found


def _lists(root: Path, *stages: str) -> list[Path]:
    return [
        path for stage in stages for path in sorted((root / stage / "dropped").glob("*.parquet"))
    ]


def _chosen_rows(
    paths: Sequence[Path], seed: int, most: int, wanted: Callable[[str], bool], by: str = "reason"
) -> list[Row]:
    """Return the chosen rows of each wanted reason (or source), the most frequent one first."""
    ids: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    for batch in read_batches(paths, ["id", by]):
        for entry in pc.value_counts(batch.column(by)).to_pylist():
            group = entry["values"]
            if wanted(group):
                counts[group] += entry["counts"]
                of_group = batch.column("id").filter(pc.equal(batch.column(by), group))
                ids[group] = first_ids(
                    pa.array(ids.get(group, []) + first_ids(of_group, seed, most), pa.string()),
                    seed,
                    most,
                )
    order = sorted(ids, key=lambda group: (-counts[group], group))[
        : MOST if by == "reason" else MOST_SOURCES
    ]
    # A document may be listed more than once, for reasons of different stages.
    places = {
        (group, name): (n, m) for n, group in enumerate(order) for m, name in enumerate(ids[group])
    }
    rows: dict[tuple[str, str], Row] = {}
    names = pa.array(sorted({name for _, name in places}), pa.string())
    for batch in read_batches(paths, DROPPED_COLUMNS):
        for row in batch.filter(pc.is_in(batch.column("id"), names)).to_pylist():
            rows.setdefault((row[by], row["id"]), row)
    return [rows[key] for key in sorted(rows.keys() & places.keys(), key=lambda key: places[key])]


def _shards(root: Path, stage: str, sources: Iterable[str] | None = None) -> list[Path]:
    wanted = set(sources) if sources is not None else None
    paths = sorted((root / stage / "documents").glob("*.parquet"))
    return [path for path in paths if wanted is None or path.stem.rpartition(".")[0] in wanted]


def _texts(root: Path, rows: Sequence[Row], column: str) -> dict[str, str]:
    found = find_documents(
        _shards(root, "collect", {row["source"] for row in rows}), {row[column] for row in rows}
    )
    return {name: row["text"] or "" for name, row in found.items()}


def _shown(row: Row) -> Row:
    names = ("id", "source", "origin", "record", "license", "language")
    return {name: row.get(name) for name in names} | {"text": cut(row["text"] or "")}


def _dropped(row: Row) -> Row:
    names = ("id", "source", "origin", "record", "reason", "detail")
    return {name: row[name] for name in names} | {"score": number(row["score"])}


def spoken(root: Path) -> Iterator[Figure]:
    """Kept documents by language and by license, as the documents themselves have them."""
    counts: dict[str, Counter[str]] = {"language": Counter(), "license": Counter()}
    for path in sorted((root / "refine" / "documents").glob("*.parquet")):
        shard = RefinedShard(root / "refine", path.stem)
        for batch in shard.batches(list(counts)):
            for name, counter in counts.items():
                key = f"@{shard.source}" if name == "license" else ""
                for entry in pc.value_counts(batch.column(name)).to_pylist():
                    counter[(entry["values"] or "") + key] += entry["counts"]
    for name, counter in counts.items():
        for value, count in sorted(counter.items()):
            yield Figure(f"documents.{name}.{value}", count, "documents", "refine/documents")
