"""Test clusters of duplicates: their members, their similarities, and their bound."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from groundup.artifacts.document import DOCUMENT, DROPPED, TableWriter
from groundup.commands.duplicates import MAX_MEMBERS, find_cluster, relatives, similarity
from groundup.errors import GroundupError

TEXT = "one two three four five six seven eight nine ten"


def name(number: int) -> str:
    return f"{number:032x}"


def drop(number: int, of: int, reason: str, score: float) -> dict[str, object]:
    row = {
        "id": name(number),
        "source": "web",
        "origin": f"{number}.html",
        "record": 0,
        "reason": reason,
        "score": score,
    }
    return row | {"duplicate_of": name(of), "detail": ""}


def write(root: Path, texts: dict[int, str], drops: pa.Table) -> Path:
    """Write the two tables of the view refine that a cluster is read from."""
    for folder in ("documents", "dropped"):
        (root / "refine" / folder).mkdir(parents=True)
    with TableWriter(root / "refine/documents/web.1.parquet", DOCUMENT) as writer:
        for number, text in texts.items():
            writer.add({"id": name(number), "text": text, "source": "web"})
    pq.write_table(drops, root / "refine/dropped/duplicates.parquet")
    return root


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """5 is kept; 3 is a near duplicate of 5, 4 a copy of 3, 6 a copy of 5; 8 is another cluster."""
    texts = {
        3: f"{TEXT} more",
        4: f"{TEXT} more",
        5: TEXT,
        6: TEXT,
        7: "other words",
        8: "other words",
    }
    near, exact = "near_duplicate", "exact_duplicate"
    rows = [
        drop(4, 3, exact, 1.0),
        drop(3, 5, near, 0.5),
        drop(6, 5, exact, 1.0),
        drop(8, 7, exact, 1.0),
    ]
    return write(tmp_path, texts, pa.Table.from_pylist(rows, DROPPED))


@pytest.mark.parametrize("document", [3, 4, 5, 6])
def test_every_member_leads_to_the_whole_cluster(run: Path, document: int) -> None:
    cluster = find_cluster(run, name(document))
    assert (cluster.kept, cluster.text, cluster.count) == (name(5), TEXT, 3)
    assert {member.row["id"] for member in cluster.members} == {name(3), name(4), name(6)}


def test_similarities_are_computed_from_the_texts(run: Path) -> None:
    """Compares with Python sets of 5-grams: 6 of one text, 7 of the other; the list says 0.5."""
    grams = [
        {tuple(text.split()[n : n + 5]) for n in range(len(text.split()) - 4)}
        for text in (TEXT, f"{TEXT} more")
    ]
    true = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
    members = {member.row["id"]: member.similarity for member in find_cluster(run, name(5)).members}
    assert members[name(3)] == pytest.approx((true, true))
    assert members[name(4)] == pytest.approx((1.0, true))
    assert members[name(6)] == (1.0, 1.0)
    assert similarity("a", "b") == similarity("", "a") == 0.0 and similarity("?", "?") == 1.0


def test_a_document_without_duplicates_is_an_error(run: Path) -> None:
    with pytest.raises(
        GroundupError, match=re.escape("has no duplicates, or is no document of this run")
    ):
        find_cluster(run, name(99))


def test_a_cluster_of_100_000_shows_the_first_members(tmp_path: Path) -> None:
    count = 100_000
    ids = pa.array([name(n) for n in range(1, count + 1)])
    constant = {
        "source": "web",
        "origin": "x.html",
        "record": 0,
        "reason": "exact_duplicate",
        "score": 1.0,
        "detail": "",
    }
    columns = {
        field: pa.array([value] * count)
        for field, value in (constant | {"duplicate_of": name(0)}).items()
    } | {"id": ids}
    write(
        tmp_path,
        dict.fromkeys(range(MAX_MEMBERS + 1), TEXT),
        pa.table(columns).select(DROPPED.names).cast(DROPPED),
    )
    cluster = find_cluster(tmp_path, name(500))
    assert (len(cluster.members), cluster.count, cluster.kept) == (MAX_MEMBERS, count, name(0))


def test_relatives_lead_upwards_and_downwards(run: Path) -> None:
    assert relatives(run, [name(5)]) == [name(3), name(6), name(4)]
    assert relatives(run, [name(4)]) == [name(3), name(5)]
    assert relatives(run, [name(5), name(3)]) == [name(4), name(6)]
    assert relatives(run, []) == []
