"""JSON as pandas and jq write it, YAML with mistakes, texts in lists and bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.helpers.items import item_from_bytes

from groundup.artifacts.document import Document, Reject
from groundup.collect.readers.records import records
from groundup.collect.readers.records.records import read_records
from groundup.collect.readers.text import text_document

Texts = Callable[..., list[str]]
Read = Callable[..., list[Document | Reject]]
ROWS = [{"text": "one", "n": 1}, {"text": "two", "n": 2}, {"text": "three", "n": 3}]


def told(results: list[Document | Reject]) -> list[str]:
    """Return the texts of documents, and the details of what is listed; check the numbers."""
    assert [result.record for result in results] == list(range(len(results)))
    return [result.text if isinstance(result, Document) else result.detail for result in results]


@pytest.mark.parametrize(
    "layout",
    [
        {"text": {"0": "one", "1": "two", "2": "three"}, "n": {"0": 1, "1": 2, "2": 3}},
        {"n": {"0": 1, "1": 2, "2": 3}, "text": {"0": "one", "1": "two", "2": "three"}},
        {"0": ROWS[0], "1": ROWS[1], "2": ROWS[2]},
        {
            "columns": ["text", "n"],
            "index": [0, 1, 2],
            "data": [["one", 1], ["two", 2], ["three", 3]],
        },
        {
            "schema": {"fields": [{"name": "text", "type": "string"}], "pandas_version": "1.4.0"},
            "data": [{"index": n} | row for n, row in enumerate(ROWS)],
        },
        ROWS,
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_tables_of_pandas(layout: Any, indent: int | None, read: Read) -> None:
    """Each `orient` of DataFrame.to_json gives the rows, in their order."""
    data = json.dumps(layout, indent=indent)
    assert told(read("text", "x.json", data)) == ["one", "two", "three"]


def test_rows_of_pandas_that_do_not_fit(read: Read) -> None:
    """A row of another width is listed; a null or missing value is no text."""
    data = {"columns": ["text", "n"], "index": [0, 1], "data": [["one"], ["two", 2]]}
    results = told(read("text", "x.json", json.dumps(data)))
    assert results == ["a row of 1 values for 2 columns", "two"]
    table = {"n": {"0": 1, "5": 2}, "text": {"0": None, "5": "two"}}
    assert told(read("text", "x.json", json.dumps(table))) == ["its text is null", "two"]


def test_one_object_is_no_table(read: Read) -> None:
    """An object that has a text beside numbered values is a record, as before."""
    data = json.dumps({"scores": {"0": 1, "1": 2}, "text": "A text."})
    assert told(read("text", "x.json", data))[1:] == ["A text."]


def test_a_table_by_columns_is_bounded(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """All columns are held at once; a table that is too long for that is listed."""
    monkeypatch.setattr(records, "MAX_ELEMENT", 2000)
    table = {f"c{c}": {str(n): "x" * 10 for n in range(50)} for c in range(9)}
    (result,) = read("text", "x.json", json.dumps(table))
    assert isinstance(result, Reject) and result.reason == "too-large"


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
@pytest.mark.parametrize(
    ("joint", "indent"), [("\n", 2), ("", 2), ("\n", None), ("\n\x1e", None), ("\n\x1e", 2)]
)
def test_objects_one_after_another(joint: str, indent: int | None, name: str, read: Read) -> None:
    """Objects without an array around them are records, under either name."""
    rows = [{"_id": {"$oid": str(n)}} | row for n, row in enumerate(ROWS)]
    data = joint.join(json.dumps(row, indent=indent) for row in rows)
    data = "\x1e" + data if "\x1e" in joint else data
    assert told(read("text", name, data)) == ["one", "two", "three"]


def test_pages_one_after_another(read: Read) -> None:
    """Each value may be a list of records, or wrap one; the first may be longer than the sample."""
    pages = [{"items": ROWS[:2]}, [ROWS[2]], {"a": ROWS[0], "b": ROWS[1]}]
    pages.append({"text": "Beside a list.", "items": ROWS[:1]})
    data = "".join(json.dumps(page, indent=1) for page in pages)
    expected = ["one", "two", "three", "one", "two", "one", "Beside a list."]
    assert told(read("text", "x.json", data)) == expected
    long = {"text": "x" * 100_000, "n": 0}
    results = told(
        read("text", "x.json", "\n".join(json.dumps(r, indent=1) for r in [long, *ROWS]))
    )
    assert [len(text) for text in results] == [100_000, 3, 3, 5]


def test_damage_in_a_sequence(read: Read) -> None:
    """A value whose brackets match costs itself; what is no value ends the file, and is listed."""
    data = '{"text": "one"} {"text": oops} {"text": "two"} rest'
    assert told(read("text", "x.json", data)) == [
        "one",
        "Expecting value",
        "two",
        "there is more after the end of the JSON",
    ]


@pytest.mark.parametrize("form", ["[{}]", "[\n{}\n]", "[{}\n]\n"])
def test_an_array_named_jsonl(form: str, read: Read) -> None:
    """An array is read as one, whatever its name; lines that are conversations stay lines."""
    rows = ",\n".join(map(json.dumps, ROWS))
    assert told(read("text", "x.jsonl", form.format(rows))) == ["one", "two", "three"]
    assert len(read("text", "x.jsonl", json.dumps(ROWS))) == 3
    talk = json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}])
    assert len(read("conversations", "x.jsonl", talk + "\n" + talk)) == 2


def yaml_list(count: int) -> list[str]:
    return [f"- text: Record {n}.\n  made: 2024-02-{n % 28 + 1:02}\n" for n in range(count)]


def test_a_value_of_yaml_costs_its_record(read: Read) -> None:
    """An impossible date is read as it is written; what cannot be built costs its record."""
    entries = yaml_list(200)
    entries[150] = "- text: Record 150.\n  made: 2024-02-30\n"
    entries[160] = "- text: 2024-02-30\n"
    entries[170] = "- text: !!int many\n"
    results = told(read("text", "x.yaml", "".join(entries)))
    assert results[150] == "Record 150." and results[160] == "2024-02-30"
    assert results[170].startswith("line 340: not YAML: invalid literal for int()")
    assert sum(text.startswith("Record ") for text in results) == 198


def test_a_mistake_in_yaml_costs_its_record(read: Read) -> None:
    """A syntax error in a list, and one in a document, cost the entry and the document."""
    entries = yaml_list(200)
    entries[150] = '- text: "no end\n  made: [1\n'
    results = told(read("text", "x.yaml", "# A list.\n" + "".join(entries)))
    assert len(results) == 200 and results[149] == "Record 149." and results[199] == "Record 199."
    assert results[150].startswith("line 302: not YAML: ")
    pages = [f"%YAML 1.1\n---\ntext: Page {n}.\n" for n in range(9)]
    pages[4] = "---\ntext: [Page 4\n"
    results = told(read("text", "x.yaml", "# Pages.\n" + "...\n".join(pages)))
    assert [n for n in range(9) if results[n] == f"Page {n}."] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert results[4] == "line 20: not YAML: did not find expected ',' or ']'"
    assert len(results) == 9


def test_yaml_of_mistakes_only_takes_linear_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text is parsed whole, by documents and by entries, and no further."""
    sizes = []
    parse = records._yaml_pages

    def count(text: str, line: int) -> Any:
        sizes.append(len(text))
        return parse(text, line)

    monkeypatch.setattr(records, "_yaml_pages", count)
    data = "---\n- [\n- a: ]\n- b\n" * 500
    assert len(list(read_records(item_from_bytes(data.encode(), "x.yaml")))) == 1500
    assert sum(sizes) <= 4 * len(data)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["one", "two"], "one\n\ntwo"),
        (b"caf\xc3\xa9", "café"),
        (b"caf\xe9 and caf\xc3\xa9", "café and café"),
        ([b"one", "two"], "one\n\ntwo"),
        ([], "its text is no text but a list"),
        ([1, 2], "its text is no text but a list of something else than texts"),
        (b"\x89PNG\0\0\0", "its text is no text but bytes that are no text"),
        (None, "its text is null"),
        ({"a": 1}, "its text is no text but a dict"),
    ],
)
def test_texts_in_lists_and_bytes(value: object, text: str) -> None:
    """A list of texts is joined by blank lines, bytes are UTF-8; others say what they are."""
    result = text_document({"n": 1, "text": value}, 0, item_from_bytes(b"", "x.parquet"))
    assert (result.text if isinstance(result, Document) else result.detail) == text
    other = text_document({"text": value, "body": "A body."}, 0, item_from_bytes(b"", "x"))
    assert isinstance(other, Document) and other.text == "A body."
