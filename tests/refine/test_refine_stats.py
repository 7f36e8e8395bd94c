"""Distributions: bins, histograms and statistics are right, and add up over shards."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.artifacts.arrays import text_buffers
from groundup.artifacts.document import DROPPED, TableWriter
from groundup.refine.filter.statistics import Statistics
from groundup.refine.shard import refine_shard
from groundup.refine.stats import (
    BEGINNING_BYTES,
    EDGES,
    ERROR,
    TEXT_STATS,
    UNKNOWN,
    ZERO,
    bin_codes,
    histogram,
    pack,
    quantiles,
    sum_distributions,
    text_stats,
    unpack,
)

Row = dict[str, Any]
Write = Callable[[Path, Sequence[Row]], Path]
NAMES = list(TEXT_STATS)
# Where a bin is not cut off and zero is not meant.
VALUES = st.floats(2**-10, 2**26.5, exclude_min=True)
TEXTS = st.lists(
    st.text(st.sampled_from("ab é中日\n\t\u00a0\u3000.\r"), max_size=60), min_size=1, max_size=5
)


@given(VALUES)
def test_error_of_a_bin(value: float) -> None:
    """The error is at most ERROR, plus the rounding of the middle; also below zero."""
    for sign in (1.0, -1.0) if value < 2**16 else (1.0,):
        code = int(bin_codes(np.array([sign * value]))[0])
        assert abs(math.log(sign * value / bin_middle(code))) <= math.log(1 + ERROR) + 1e-3


def test_ends_of_the_bins() -> None:
    """Zero, the edges, values beyond the ends, and NaN."""
    assert bin_codes(
        np.array([0.0, 2**-11, -(2**-11), math.inf, -math.inf, math.nan])
    ).tolist() == [
        ZERO,
        ZERO,
        ZERO,
        254,
        0,
        UNKNOWN,
    ]
    assert bin_middle(ZERO) == 0
    assert (bin_codes(EDGES) == np.arange(len(EDGES))).all()
    assert bin_middle(int(bin_codes(np.array([1.0]))[0])) < 1


def bin_middle(code: int) -> float:
    return quantiles(histogram(np.array([code])), [0.5])[0]


@given(st.lists(VALUES, min_size=1, max_size=50), st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]))
def test_error_of_quantiles(values: list[float], share: float) -> None:
    true = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    (found,) = quantiles(histogram(bin_codes(np.array(values))), [share])
    assert abs(math.log(true / found)) <= math.log(1 + ERROR) + 1e-3


@given(st.lists(st.floats(allow_infinity=True), max_size=50), st.integers(0, 50))
def test_histograms_add_up(values: list[float], cut: int) -> None:
    """Parts in any order, and through JSON."""
    codes = bin_codes(np.array(values, np.float64))
    whole, parts = histogram(codes), [histogram(codes[cut:]), histogram(codes[:cut])]
    assert (parts[0] + parts[1] == whole).all()
    assert (unpack(json.loads(json.dumps(pack(whole)))) == whole).all()
    assert quantiles(histogram(np.zeros(0, np.uint8))) == []


def of(*texts: str) -> dict[str, Any]:
    return dict(zip(NAMES, text_stats(text_buffers(pa.array(texts, pa.string()))).T, strict=True))


@given(TEXTS)
def test_words_equal_those_of_the_filters(texts: list[str]) -> None:
    batch = pa.record_batch({"text": pa.array(texts, pa.string())})
    found = of(*texts)
    assert found["words"].tolist() == Statistics(batch)["words"].tolist()
    assert found["bytes"].tolist() == [len(text.encode()) for text in texts]


def test_repetition() -> None:
    """Pages of repeated lines; text behind the beginning is ignored."""
    line = "The same words stand here once more, and once more after that.\n"
    other = "".join(f"{n * n * 7919:x} " for n in range(200))
    found = of(
        line * 50, other, "é" * BEGINNING_BYTES, other + " " * BEGINNING_BYTES + line * 50, ""
    )
    assert found["repeated_lines"][0] == pytest.approx(49 / 50 * (len(line) - 1) / len(line))
    assert found["repeated_lines"][1] == found["repeated_lines"][3] == 0
    assert [math.isnan(found[name][4]) for name in NAMES] == [False, False, True]


ENGLISH = (
    "The quick brown fox jumps over the lazy dog and runs to the river with all of its friends that"
    " have come so far. "
)
GERMAN = (
    "Das ist ein Satz auf Deutsch, der hier nicht gewollt ist und trotzdem noch ein wenig weiter"
    " geht als sonst. "
)


def some_rows(row: Callable[..., Row], count: int = 40) -> list[Row]:
    texts = [
        ENGLISH * 3 + f"Story {n} is at http://x.org/{n} soon.  " + f"word{n} " * n
        for n in range(count)
    ]
    texts[3], texts[5], texts[8], texts[9] = " \u200b\n", "too short", GERMAN * 4, "é" * 9_000
    texts[12] = texts[11]
    return [row(text, number) for number, text in enumerate(texts)]


def refined(folder: Path, collected: Path, *filters: str) -> Path:
    folder.mkdir(parents=True)
    refine_shard(folder, collected, "text", ["en"], filters or ["gopher_quality"], folder)
    return folder


def test_rows_and_steps_of_a_shard(
    tmp_path: Path, row: Callable[..., Row], collected: Write
) -> None:
    """Bins are those of the kept rows; the filters begin with kept and dropped ones."""
    rows = some_rows(row)
    shard = refined(tmp_path / "out", collected(tmp_path / "in", rows))
    told, bins = json.loads((shard / "quality.json").read_text()), np.load(shard / "bins.npy")
    texts = pq.read_table(shard / "documents.parquet")["text"].to_pylist()
    assert bins.shape == (len(NAMES) + len(told["bounds"]), len(texts))
    assert (bins[: len(NAMES)] == bin_codes(np.stack(list(of(*texts).values())))).all()
    few_words = bins[len(NAMES) + list(told["bounds"]).index("few_words")]
    assert (few_words == bins[NAMES.index("words")]).all()
    assert told["bounds"]["few_words"] == [4, None]
    raw = of(*(str(row["text"]) for row in rows))
    for column, name in enumerate(NAMES):
        assert (
            unpack(told["steps"]["collected"]["columns"][column]) == histogram(bin_codes(raw[name]))
        ).all()
    assert told["steps"]["collected"]["documents"] == len(rows)
    assert told["steps"]["collected"]["bytes"] == sum(
        len(str(row["text"]).encode()) for row in rows
    )
    dropped = {reason: entry["documents"] for reason, entry in told["dropped"].items()}
    assert dropped == {"empty": 1, "few_words": 1, "language": 2}
    assert told["steps"]["cleaned"]["documents"] == len(texts) + 3
    bytes_left = sum(len(text.encode()) for text in texts) + sum(
        entry["bytes"] for entry in told["dropped"].values()
    )
    assert told["steps"]["cleaned"]["bytes"] == bytes_left
    assert told["languages"]["en"] == len(texts)
    assert sum(told["languages"].values()) == len(texts) + 3


def test_row_groups_do_not_matter(
    tmp_path: Path, row: Callable[..., Row], collected: Write
) -> None:
    source = collected(tmp_path / "one", some_rows(row))
    (tmp_path / "many").mkdir()
    pq.write_table(
        pq.read_table(source / "documents.parquet"),
        tmp_path / "many" / "documents.parquet",
        row_group_size=7,
    )
    one, many = (refined(tmp_path / f"out-{name}", tmp_path / name) for name in ("one", "many"))
    for name in ("quality.json", "bins.npy"):
        assert (one / name).read_bytes() == (many / name).read_bytes()


def duplicates(path: Path, rows: Sequence[Row]) -> Path:
    with TableWriter(path, DROPPED) as out:
        for row in rows:
            out.add(
                {name: row[name] for name in ("id", "source", "origin", "record")}
                | {"reason": "exact_duplicate"}
            )
    return path


def summed(folder: Path, parts: Sequence[tuple[str, Path]], listed: Path) -> dict[str, Any]:
    folder.mkdir()
    facts = sum_distributions(folder, parts, {"s": "text"}, [listed], {})
    table: dict[str, Any] = json.loads((folder / "quality.json").read_text())["sources"]["s"]
    return table | {"facts": facts["sources"]["s"]}


def test_shards_add_up(tmp_path: Path, row: Callable[..., Row], collected: Write) -> None:
    """One shard, or the same documents in two shards: the same distributions."""
    rows = some_rows(row)
    listed = duplicates(tmp_path / "duplicates.parquet", rows[12:13])
    gone = {str(rows[12]["id"])}
    parts = {"whole": rows, "head": rows[:17], "tail": rows[17:]}
    shards = {
        name: refined(tmp_path / f"out-{name}", collected(tmp_path / name, part))
        for name, part in parts.items()
    }
    one = summed(tmp_path / "one", [("s.a", shards["whole"])], listed)
    assert (
        summed(tmp_path / "two", [("s.b", shards["tail"]), ("s.a", shards["head"])], listed) == one
    )

    table = pq.read_table(shards["whole"] / "documents.parquet").to_pylist()
    kept = [entry["text"] for entry in table if entry["id"] not in gone]
    assert one["steps"]["filtered"]["documents"] == len(table) == len(kept) + 1
    assert one["steps"]["kept"] == {
        "documents": len(kept),
        "bytes": sum(len(text.encode()) for text in kept),
    }
    for name, values in of(*kept).items():
        assert (unpack(one["measures"][name]["kept"]) == histogram(bin_codes(values))).all()
    true = sorted(len(text.encode()) for text in kept)[math.ceil(len(kept) / 2) - 1]
    assert one["measures"]["bytes"]["kept"]["quantiles"][1] == pytest.approx(true, rel=ERROR + 0.01)
    copy = len(next(entry["text"] for entry in table if entry["id"] in gone).encode())
    assert one["dropped"]["exact_duplicate"] == {"documents": 1, "bytes": copy}
    assert one["facts"]["copies"] == copy
    assert one["languages"]["kept"] == {"en": len(kept)}
    assert "collected" not in one["scores"]["few_words"]
    collected_bytes = one["steps"]["collected"]["bytes"]
    assert one["lost"] == pytest.approx(
        1 - (one["steps"]["kept"]["bytes"] + copy) / collected_bytes, abs=1e-6
    )


def test_score_with_the_name_of_a_statistic(
    tmp_path: Path, row: Callable[..., Row], collected: Write
) -> None:
    """Gopher's repeated_lines and the statistic of that name have separate counts."""
    shard = refined(tmp_path / "out", collected(tmp_path / "in", some_rows(row)), "gopher")
    table = summed(
        tmp_path / "sum", [("s.a", shard)], duplicates(tmp_path / "duplicates.parquet", [])
    )
    assert "repeated_lines" in NAMES
    assert "repeated_lines" in table["scores"]
    for name in NAMES:
        for step, packed in table["measures"][name].items():
            assert sum(packed["counts"]) + packed["unknown"] == table["steps"][step]["documents"]
    assert (
        sum(table["scores"]["repeated_lines"]["kept"]["counts"])
        == table["steps"]["kept"]["documents"]
    )


def test_empty_source(tmp_path: Path, collected: Write) -> None:
    """A source without a document is in the table, without quantiles."""
    shard = refined(tmp_path / "out", collected(tmp_path / "in", []))
    table = summed(
        tmp_path / "sum", [("s.a", shard)], duplicates(tmp_path / "duplicates.parquet", [])
    )
    assert table["steps"]["kept"] == {"documents": 0, "bytes": 0}
    assert table["measures"]["bytes"]["kept"]["quantiles"] == []
    assert table["lost"] == 1.0
