"""Records with columns of any name: templates, titles, metadata, and which column is the text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.helpers.items import item_from_bytes

from groundup.artifacts.document import Document, Reject
from groundup.collect.readers.records import columnar
from groundup.collect.readers.records.columns import propose_columns
from groundup.collect.readers.registry import read_item
from groundup.collect.stage import _key_settings
from groundup.recipe import Source

PROSE = "It was late in the year, and nobody in the village had seen the harvest come in. " * 3


def read(rows: list[Any], **settings: str) -> list[Document | Reject]:
    data = "\n".join(map(json.dumps, rows)).encode() + b"\n"
    settings = {"path": "x", "kind": "text"} | settings
    return list(read_item(item_from_bytes(data, "x.jsonl"), Source(**settings)))  # type: ignore[arg-type]


def texts(rows: list[Any], **settings: str) -> list[str]:
    results = read(rows, **settings)
    return [it.text if isinstance(it, Document) else f"{it.reason}: {it.detail}" for it in results]


def test_a_column_or_a_template_is_the_text() -> None:
    """Values inside others, JSON in a text, lists, numbers and doubled braces."""
    row = {
        "Abstract": "Rain.",
        "meta": '{"who": {"name": "Ann"}, "tags": ["a", "b"]}',
        "parts": [{"body": "one"}, {"body": "two"}],
        "a.b": "dotted",
        "n": 3,
    }
    for setting, text in (
        ("abstract", "Rain."),
        ("meta.who.name", "Ann"),
        ("{Abstract}\n\n{meta.who.name}, {n}", "Rain.\n\nAnn, 3"),
        ("{parts.body}", "one\n\ntwo"),
        ("{parts.1.body}", "two"),
        ("{meta.tags}", "a\n\nb"),
        ("{a.b}", "dotted"),
        ("{{x}} = {n}", "{x} = 3"),
        ("{nobody}", 'no-text: no column "nobody" among Abstract, meta, parts, a.b, n'),
        ("{n.deeper}", 'no-text: no column "n.deeper" among Abstract, meta, parts, a.b, n'),
    ):
        assert texts([row], text=setting) == [text]


def test_a_column_that_half_of_the_records_lack_costs_those() -> None:
    rows = [{"id": n, "summary": PROSE} if n % 2 else {"id": n} for n in range(6)]
    told = texts(rows, text="summary")
    assert told[1::2] == [PROSE] * 3
    assert set(told[0::2]) == {'no-text: no column "summary" among id'}
    assert texts([{"summary": None}], text="summary") == ["no-text: its summary is null"]


def test_title_group_and_language_of_named_columns() -> None:
    row = {"name": "Rain", "summary": PROSE, "thread": 7, "iso": "de-AT", "title": "No"}
    settings = {"text": "summary", "title": "name", "group": "thread", "language": "iso"}
    assert read([row], **settings) == [Document(f"Rain\n\n{PROSE}", 0, "7", "", "de")]
    # A template says itself what comes first.
    assert texts([row], text="{summary}") == [PROSE]


def test_a_title_comes_first_once() -> None:
    assert texts([{"title": "Rain ", "text": PROSE}]) == [f"Rain\n\n{PROSE}"]
    for text in ("Rain\nIt fell.", "# RAIN\n\nIt fell.", "  Rain  fell."):
        assert texts([{"title": "Rain", "text": text}]) == [text]
    assert texts([{"title": "long " * 100, "text": PROSE}]) == [PROSE]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("{title", 'text: "{" at character 1 is not closed'),
        ("title}", 'text: "}" at character 6 closes nothing'),
        ("{a}{}", 'text: "{}" names no column'),
        ("{a..b}", 'text: "{a..b}" names no column'),
        ("{{a}}", "text: it names no column"),
    ],
)
def test_mistakes_are_found_when_the_recipe_is_loaded(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as raised:
        Source(path="x", text=setting)
    assert message in str(raised.value)


def test_the_columns_are_in_the_key_only_where_they_are_set() -> None:
    plain = _key_settings(Source(path="x"), Path())
    assert not {"text", "title", "group", "language"} & plain.keys()
    named = _key_settings(Source(path="x", text="{a}", group="g"), Path())
    assert named == plain | {"text": "{a}", "group": "g"}


def test_only_the_columns_of_the_settings_are_decoded(tmp_path: Path) -> None:
    table = pa.table({"Body": [PROSE], "text": ["no"], "image": [b"x"], "thread": ["t"]})
    path = tmp_path / "x.parquet"
    pq.write_table(table, path)
    rows = dict(columnar.read_columnar(item_from_bytes(path.read_bytes(), "x.parquet"), {"body"}))
    assert rows[0] == {"Body": PROSE, "text": None, "image": None, "thread": None}
    source = Source(path="x", text="{body}", group="thread")
    (document,) = read_item(item_from_bytes(path.read_bytes(), "x.parquet"), source)
    assert document == Document(PROSE, 0, "t")


def test_a_table_of_ten_thousand_columns_is_read_without_them(tmp_path: Path) -> None:
    """Each row has the columns that are used and the first others, however wide the table is."""
    table = pa.table({f"c{n}": ["x"] for n in range(10_000)} | {"story": [PROSE]})
    path = tmp_path / "wide.parquet"
    pq.write_table(table, path)
    item = item_from_bytes(path.read_bytes(), "wide.parquet")
    ((_, row),) = columnar.read_columnar(item, {"story"})
    assert isinstance(row, dict)
    assert (len(row), row["story"]) == (columnar.MAX_UNUSED + 1, PROSE)
    item = item_from_bytes(path.read_bytes(), "wide.parquet")
    (reject,) = read_item(item, Source(path="x", text="nothing"))
    assert isinstance(reject, Reject)
    assert reject.detail == 'no column "nothing" among c0, c1, c2, c3, c4, c5, c6, c7'


LAYOUTS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    # name → row, its text, its group in a source of web pages, its language
    "FineWeb": (
        {
            "text": PROSE,
            "id": "<urn:uuid:39147604>",
            "dump": "CC-MAIN-2013-20",
            "url": "http://www.a.org/b",
            "file_path": "s3://commoncrawl/x.warc.gz",
            "language": "en",
            "language_score": 0.98,
            "token_count": 50,
        },
        *(PROSE, "a.org", "en"),
    ),
    "C4": (
        {"text": PROSE, "timestamp": "2019-04-25", "url": "https://a.org/b"},
        PROSE,
        "a.org",
        "",
    ),
    "RedPajama": (
        {"text": PROSE, "meta": {"url": "https://a.org/b", "language": "en", "title": "Rain"}},
        *(f"Rain\n\n{PROSE}", "a.org", "en"),
    ),
    "RedPajama of the Hub": (
        {"text": PROSE, "meta": '{"url": "https://a.org/b", "language": "en"}', "red_pajama": "c4"},
        *(PROSE, "a.org", "en"),
    ),
    "RedPajama-V2": (
        {
            "raw_content": PROSE,
            "doc_id": "2022-49/1/en.json.gz/0",
            "meta": '{"url": "http://a.org/b", "source_domain": "a.org", "language": "de"}',
            "quality_signals": '{"ccnet_length": [[0, 7, 7.0]]}',
        },
        *(PROSE, "a.org", "de"),
    ),
    "Dolma": (
        {
            "id": "1",
            "text": PROSE,
            "source": "common-crawl",
            "added": "2023-04-11",
            "created": "2020-01-17",
            "metadata": {"url": "https://a.org/b", "length": 7},
        },
        *(PROSE, "a.org", ""),
    ),
    "The Pile": (
        {"text": PROSE, "meta": {"pile_set_name": "Pile-CC"}},
        *(PROSE, "x.jsonl#0", ""),
    ),
    "SlimPajama": (
        {"text": PROSE, "meta": '{"redpajama_set_name": "RedPajamaC4"}', "__index_level_0__": 4},
        *(PROSE, "x.jsonl#0", ""),
    ),
    "Wikipedia": (
        {"id": "12", "url": "https://en.wikipedia.org/wiki/Rain", "title": "Rain", "text": PROSE},
        *(f"Rain\n\n{PROSE}", "en.wikipedia.org", ""),
    ),
    "OpenWebText": ({"text": PROSE}, PROSE, "x.jsonl#0", ""),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts_need_no_setting(layout: str) -> None:
    row, text, group, language = LAYOUTS[layout]
    assert read([row], kind="web") == [Document(text, 0, group, "", language)]


def test_published_sets_of_code_keep_their_text() -> None:
    """No title comes before source code; the license may be in JSON."""
    row = {"content": "print(1)\n", "path": "a.py", "repo_name": "o/n", "license": "mit"}
    (document,) = read([row | {"language": "Python", "heading": "A"}], kind="code")
    assert document == Document("print(1)\n", 0, "o/n", "mit", "python")
    meta = json.dumps({"repo_name": "o/n", "license": "mit"})
    assert read([{"text": "x = 1", "meta": meta}]) == [Document("x = 1", 0, "o/n", "mit")]


def test_the_column_of_most_prose_is_proposed() -> None:
    """Ids, addresses, base64, numbers and short labels are no prose; nested values may be."""
    noise = {
        "id": "9f0c2ab71d44" * 40,
        "url": "https://a.org/" + "a/" * 400,
        "image": "iVBORw0KGgo" * 300,
        "vector": " ".join(str(n / 7) for n in range(300)),
        "n": 3,
        "label": "a good one",
    }
    rows = [noise | {"name": f"The story of row {n}", "summary": PROSE} for n in range(9)]
    assert propose_columns(rows) == "summary"
    assert propose_columns([noise] * 9) is None
    tags = {
        "hidden": ["checked_out", "version", "modified_by", "time"],
        "tags": "view a:b c:d.e up",
    }
    assert propose_columns([tags] * 9) is None
    # Protects: a blank to fill in was tried by every way to split it, which takes years.
    blank = [noise | {"summary": f"{PROSE} The capital is {'_' * 60}?"}] * 9
    assert propose_columns(blank) == "summary"
    nested = [noise | {"data": json.dumps({"body": PROSE}), "note": "a short note"}] * 3
    assert propose_columns(nested) == "data.body"
    assert texts(nested[:1], text="data.body") == [PROSE]
    assert (
        propose_columns([{"a": "Es regnet.", "b": "昨日の夜は雨が降っていたので家にいた。"}]) == "b"
    )
    wide = [{f"c{n}": "x" for n in range(10_000)} | {"story": PROSE}] * 3
    assert propose_columns(wide) == "story"
