"""A cluster of duplicates: the kept document and all that it suppressed. Reads the view `refine`;
writes nothing.

A near duplicate is dropped for a kept document, an exact one for the first of its kind, which may
itself be a near
duplicate: so the lists are followed up to the kept document, and from there down to the last copy.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.corpus import find_documents, tables
from groundup.artifacts.document import Row, matching
from groundup.errors import GroundupError

# Members that are read and shown; the others are counted.
SHOWN = 20


@dataclass(frozen=True)
class Member:
    """A document that was dropped as a duplicate.

    Attributes:
        row: id, source, origin, record, reason, score (as it was dropped) and the id that it
            duplicates.
        text: as the filters left it.
        similarity: with the document that it was dropped for, and with the kept one, computed anew.
    """

    row: Row
    text: str
    similarity: tuple[float, float]


@dataclass(frozen=True)
class Cluster:
    """The kept document's id and text, the first members in the order of the list, and how many
    there are in all.
    """

    kept: str
    text: str
    members: tuple[Member, ...]
    count: int


def find_cluster(root: Path, document: str, most: int = SHOWN) -> Cluster:
    """Return the cluster that a document belongs to, whether it was kept or dropped.

    Raises:
        GroundupError: it has no duplicates.
    """
    kept = _kept(root, document)
    rows, count = _suppressed(root, [kept], most)
    if not rows:
        raise GroundupError(f"{root}: {document} has no duplicates, or is no document of this run")
    ids = {kept, *(row[name] for row in rows for name in ("id", "duplicate_of"))}
    found = find_documents(tables(root, "refine/documents"), ids, ("id", "text"))
    texts = {name: found[name]["text"] if name in found else "" for name in ids}
    members = [Member(row, texts[row["id"]], _similarities(texts, row, kept)) for row in rows]
    return Cluster(kept, texts[kept], tuple(members), count)


def relatives(root: Path, documents: Collection[str]) -> list[str]:
    """Return the ids of what these documents were dropped for, of what was dropped as a duplicate
    of them, and so on both ways.
    """
    found = _followed(root, documents, "id", "duplicate_of") | _followed(
        root, documents, "duplicate_of", "id"
    )
    own = set(documents)
    return [name for name in found if name not in own]


def _followed(root: Path, documents: Collection[str], here: str, there: str) -> dict[str, None]:
    """Return documents, and what the list leads to from them, from one column to the other, step by
    step.
    """
    found = dict.fromkeys(documents)
    level: Collection[str] = documents
    while level:
        batches = matching(_list(root), here, level, [here, there])
        level = [
            name
            for batch in batches
            for name in batch.column(there).to_pylist()
            if name not in found
        ]
        found |= dict.fromkeys(level)
    return found


def _list(root: Path) -> list[Path]:
    path = root / "refine" / "dropped" / "duplicates.parquet"
    return [path] if path.exists() else []


def _kept(root: Path, document: str) -> str:
    """Follow a document up to the one that is kept; two steps as a rule, and never round in a
    circle.
    """
    above: set[str] = set()
    while document not in above:
        above.add(document)
        batches = matching(_list(root), "id", [document], ["id", "duplicate_of"])
        document = next((batch.column("duplicate_of")[0].as_py() for batch in batches), document)
    return document


def _suppressed(root: Path, documents: Collection[str], most: int) -> tuple[list[Row], int]:
    """Return the first rows of what was dropped for some documents, for those in turn, and so on;
    and how many there are.
    """
    rows: list[Row] = []
    count, seen, level = 0, set(documents), set(documents)
    while level:
        below: set[str] = set()
        for batch in matching(_list(root), "duplicate_of", level):
            rows += batch.slice(0, most - len(rows)).to_pylist()
            count += len(batch)
            # Nothing is dropped for an exact duplicate, so a page that was copied a million times
            # is not remembered.
            below |= set(
                batch.filter(pc.not_equal(batch.column("reason"), "exact_duplicate"))
                .column("id")
                .to_pylist()
            )
        level = below - seen
        seen |= level
    return rows, count


def _similarities(texts: dict[str, str], row: Row, kept: str) -> tuple[float, float]:
    own, winner, first = (texts[name] for name in (row["id"], row["duplicate_of"], kept))
    direct = similarity(own, winner)
    return direct, direct if row["duplicate_of"] == kept else similarity(own, first)


def similarity(one: str, other: str) -> float:
    """Return the Jaccard similarity of the word 5-grams of two texts; what has no word is like
    nothing but itself.
    """
    from groundup.artifacts.arrays import text_buffers
    from groundup.refine.dedup.minhash import jaccard, shingle_sets

    sets, offsets = shingle_sets(text_buffers(pa.array([one, other], pa.string())))
    return 1.0 if one == other else float(jaccard(sets[: offsets[1]], sets[offsets[1] :]))
