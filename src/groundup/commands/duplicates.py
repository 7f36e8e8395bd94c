"""Find the cluster of a document: the kept document and all that were dropped for it.

    kept ← near duplicate ← exact copies of the near duplicate
         ← exact copies of the kept one

A near duplicate is dropped for a kept document. An exact duplicate is dropped for the first of its
copies, which may itself be a near duplicate. So the list is followed up to the kept document, and
from there down to the last copy.
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

# Members whose texts are read and shown; the others are counted.
MAX_MEMBERS = 20


@dataclass(frozen=True)
class Member:
    """A document that was dropped as a duplicate."""

    row: Row  # id, source, origin, record, reason, score (when it was dropped), duplicate_of
    text: str  # as the filters left it
    # With the document it was dropped for, and with the kept one; both computed now.
    similarity: tuple[float, float]


@dataclass(frozen=True)
class Cluster:
    """The id and text of the kept document, the first members, and the number of all members."""

    kept: str
    text: str
    members: tuple[Member, ...]
    count: int


def find_cluster(root: Path, document: str, max_members: int = MAX_MEMBERS) -> Cluster:
    """Return the cluster of a document, whether it was kept or dropped.

    Raises GroundupError if it has no duplicates.
    """
    kept = next(reversed(_followed(root, [document], "id", "duplicate_of")))
    rows: list[Row] = []
    count, reached, level = 0, {kept}, {kept}
    while level:
        below: set[str] = set()
        for batch in matching(_duplicate_list(root), "duplicate_of", level):
            rows += batch.slice(0, max_members - len(rows)).to_pylist()
            count += len(batch)
            # Nothing is dropped for an exact duplicate. So the ids of a page that was copied a
            # million times are not held in memory.
            near = batch.filter(pc.not_equal(batch.column("reason"), "exact_duplicate"))
            below.update(near.column("id").to_pylist())
        level = below - reached
        reached |= level
    if not rows:
        raise GroundupError(f"{root}: {document} has no duplicates, or is no document of this run")
    ids = {kept, *(row[name] for row in rows for name in ("id", "duplicate_of"))}
    documents = find_documents(tables(root, "refine/documents"), ids, ("id", "text"))
    texts = dict.fromkeys(ids, "") | {name: row["text"] for name, row in documents.items()}
    members = []
    for row in rows:
        text, winner = texts[row["id"]], row["duplicate_of"]
        direct = similarity(text, texts[winner])
        with_kept = direct if winner == kept else similarity(text, texts[kept])
        members.append(Member(row, text, (direct, with_kept)))
    return Cluster(kept, texts[kept], tuple(members), count)


def relatives(root: Path, documents: Collection[str]) -> list[str]:
    """Return all ids that the list of duplicates connects with documents, upwards and downwards."""
    above = _followed(root, documents, "id", "duplicate_of")
    below = _followed(root, documents, "duplicate_of", "id")
    given = set(documents)
    return [name for name in above | below if name not in given]


def _followed(root: Path, documents: Collection[str], column: str, target: str) -> dict[str, None]:
    """Return documents and all that the list leads to from them, in the order of the steps."""
    reached = dict.fromkeys(documents)
    level: Collection[str] = documents
    while level:
        batches = matching(_duplicate_list(root), column, level, [column, target])
        targets = [name for batch in batches for name in batch.column(target).to_pylist()]
        level = [name for name in targets if name not in reached]
        reached |= dict.fromkeys(level)
    return reached


def _duplicate_list(root: Path) -> list[Path]:
    path = root / "refine" / "dropped" / "duplicates.parquet"
    return [path] if path.exists() else []


def similarity(text: str, other: str) -> float:
    """Return the Jaccard similarity of the word 5-grams of two texts, 1 if they are equal."""
    from groundup.artifacts.arrays import text_buffers
    from groundup.refine.dedup.minhash import jaccard, shingle_sets

    if text == other:
        return 1.0
    sets, offsets = shingle_sets(text_buffers(pa.array([text, other], pa.string())))
    return float(jaccard(sets[: offsets[1]], sets[offsets[1] :]))
