"""Encodings, records and JSON streams, against plain reference implementations."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples
from tests.helpers.items import item_from_bytes

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import decode, detect_encoding, is_binary, repair_text
from groundup.collect.files.streams import DamagedError
from groundup.collect.readers import text
from groundup.collect.readers.records import records
from groundup.collect.readers.records.records import JsonWindow
from groundup.collect.readers.registry import read_item
from groundup.recipe import KINDS, Source

Texts = Callable[..., list[str]]
Read = Callable[..., list[Document | Reject]]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _window(data: bytes) -> JsonWindow:
    return JsonWindow(io.BufferedReader(io.BytesIO(data)), "utf-8")


@pytest.mark.parametrize(
    "codec",
    ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "cp1252", "latin-1"],
)
def test_encodings_of_western_text(codec: str) -> None:
    """Every Unicode encoding, with or without BOM, and single-byte Latin decode correctly."""
    sentence = (
        "Le cœur déçu mais l'âme plutôt naïve".replace("œ", "oe")
        + ", voilà. "
        + "It was the best of times. " * 10
    )
    assert decode(sentence.encode(codec)).lstrip("\ufeff") == sentence


@pytest.mark.parametrize(
    ("codec", "sentence"),
    [
        ("iso-8859-2", "V letošním roce se škola zúčastnila soutěže žáků základních škol."),
        (
            "cp1250",
            (
                "Az őszi időszakban többször is előfordult, hogy a nagyobb esőzések után megáradt a"
                " folyó."
            ),
        ),
        ("cp1254", "Bu yıl öğrencilerin büyük çoğunluğu sınavı başarıyla geçti."),
        ("koi8-r", "В этом году большинство учеников успешно сдали экзамен."),
        ("euc-jp", "今年はほとんどの生徒が試験に合格しました。"),
    ],
)
def test_encodings_of_one_sentence(codec: str, sentence: str) -> None:
    """One sentence is enough to detect an encoding."""
    assert decode(sentence.encode(codec)) == sentence


def test_damaged_byte_costs_one_character() -> None:
    """UTF-8 is detected despite a damaged byte, and cp1252 by a single accent."""
    sentence = "Příliš žluťoučký kůň úpěl ďábelské ódy. "
    assert (
        decode(sentence.encode() + b"\xff " + sentence.encode()) == sentence + "\ufffd " + sentence
    )
    assert (
        decode("They met in a small café near the station.".encode("cp1252"))
        == "They met in a small café near the station."
    )
    assert decode("a little café".encode("cp1252")) == "a little café"


def test_ascii_with_a_few_high_bytes_is_not_ebcdic() -> None:
    """The words of a text in ASCII bytes stay when damage makes them look like EBCDIC."""
    damaged = b"Record 7 is here.\n\n<![CDATA[From a@x.org Mo\x9c Sep 17\nFr\xb0m: \xba@x.org\n"
    assert decode(damaged).startswith("Record 7 is here.\n\n<![CDATA[From a@x.org Mo")
    german = "Der Köter lief über die Straße und fiel um."
    assert decode(german.encode("cp273")) == german


def test_runs_of_zero_bytes_are_not_utf_32() -> None:
    """Fields filled with zeros are no text, and zeros after a text do not change its encoding."""
    assert detect_encoding(b"maybe\0\0\0\0\0\0\0" * 90) == "utf-8"
    assert is_binary(b"maybe\0\0\0\0\0\0\0" * 90)
    for codec in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        text = "It was late in the year. ".encode(codec) * 20
        assert detect_encoding(text + b"\0" * 400) == codec


def test_encodings_found_in_the_wild(real_data: Path) -> None:
    """At least 97 % of 190 files in 44 legacy encodings decode as their folder's name says."""
    right = total = 0
    for path in sorted(real_data.glob("web/encodings/*/*")):
        name = (
            path.parent.name.removesuffix("-" + path.parent.name.rpartition("-")[2])
            if path.parent.name[-1].islower()
            else path.parent.name
        )
        name = {"MacCyrillic": "mac_cyrillic", "TIS-620": "cp874", "CP949": "cp949"}.get(
            path.parent.name, name
        )
        try:
            expected = path.read_bytes().decode(name, "replace")
        except LookupError:
            continue
        got = decode(path.read_bytes())
        letters = [[c for c in s if c.isalnum()] for s in (expected, got)]
        right += sum(a == b for a, b in zip(*letters, strict=False)) > 0.98 * len(letters[0])
        total += 1
    assert total > 150
    assert right >= 0.97 * total


@given(st.binary(max_size=400))
def test_any_bytes_decode_or_are_binary(data: bytes) -> None:
    """No bytes crash the decoder, and its result can be stored as UTF-8."""
    try:
        repair_text(decode(data)).encode()
    except DamagedError as damage:
        assert damage.reason == "binary"


@given(st.text())
def test_repair_leaves_text_alone(value: str) -> None:
    """Text that UTF-8 can hold is unchanged; other text is repaired."""
    assert repair_text(value) == value
    repair_text(value + "\ud800" + value + "\udc80").encode()
    assert repair_text("\ud83d\ude00") == "😀"
    assert repair_text("caf\udce9") == "café"


@given(
    st.lists(json_values, max_size=6) | st.dictionaries(st.text(), json_values, max_size=6),
    st.integers(0, 2),
)
def test_json_stream_reads_what_json_reads(value: list[Any] | dict[str, Any], indent: int) -> None:
    """The stream gives the elements that json.loads gives, whatever the layout and window."""
    data = json.dumps(value, indent=indent or None, ensure_ascii=indent == 1).encode(
        "utf-8", "surrogatepass"
    )
    chunk, records._CHUNK = records._CHUNK, 7
    try:
        results = [(key, value) for key, value, _ in _window(data).elements()]
    finally:
        records._CHUNK = chunk
    expected = list(value.items()) if isinstance(value, dict) else [(None, part) for part in value]
    assert results == expected


def test_json_damage_costs_its_element() -> None:
    """A malformed element is one Reject; a truncated file keeps what came before."""
    broken = b'[{"a": 1}, {"b": oops}, {"c": [1, {"d": 2]}}, {"e": 3}]'
    values = [value for _, value, _ in _window(broken).elements()]
    assert values[0] == {"a": 1} and values[-1] == {"e": 3}
    assert [type(value) for value in values[1:-1]] == [Reject, Reject]
    seen = []
    with pytest.raises(DamagedError, match="truncated"):
        for _, value, _ in _window(b'[{"a": 1}, {"b"').elements():
            seen.append(value)
    assert seen == [{"a": 1}]


def test_deep_json_does_not_overflow(read: Read) -> None:
    """A file of 100,000 brackets is a rejection."""
    (result,) = read("text", "deep.json", "[" * 100_000 + "]" * 100_000)
    assert isinstance(result, Reject)


def test_malformed_lines_of_jsonl(read: Read) -> None:
    """A malformed line keeps its number, and the lines around it are read."""
    lines = (
        b'{"text": "one"}\n{"text": \n\n{"other": 1}\n{"text": "caf\xe9"}\n{"text": "two", "url":'
        b' "u", "lang": "en"}\n[1]\n'
    )
    results = read("web", "x.jsonl", lines)
    assert [(f.record, f.text if isinstance(f, Document) else f.reason) for f in results] == [
        (0, "one"),
        (1, "malformed"),
        (2, "no-text"),
        (3, "café"),
        (4, "two"),
        (5, "no-text"),
    ]
    assert isinstance(results[4], Document) and (results[4].group, results[4].language) == (
        "u",
        "en",
    )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "code"])
def test_common_formats_for_every_kind(kind: str, texts: Texts, tmp_path: Path) -> None:
    """Every kind reads plain text, JSONL, JSON, CSV and Parquet with a text."""
    sentence = "A plain sentence, with a comma, that anybody may read."
    pq.write_table(pa.table({"text": [sentence]}), tmp_path / "x.parquet")
    quoted = json.dumps(sentence)
    files = {
        "x.txt": sentence,
        "x.jsonl": f'{{"text": {quoted}}}\n',
        "x.json": f'[{{"text": {quoted}}}]',
        "x.csv": f"n,text\n1,{quoted}\n",
    }
    for name, data in files.items():
        assert texts(kind, name, data) == [sentence], name
    assert texts(kind, "x.parquet", (tmp_path / "x.parquet").read_bytes()) == [sentence]


def test_csv_rows_that_do_not_fit(read: Read) -> None:
    """A row with too many fields is rejected with its number, and the next one is read."""
    results = read("text", "x.csv", 'id,text\n1,"a\nb"\n2,b,c\n3,d\n')
    assert [f.text if isinstance(f, Document) else f.reason for f in results] == [
        "a\nb",
        "malformed",
        "d",
    ]
    results = read("text", "x.tsv", 'id\ttext\n1\tsay "hi\n2\tb\n')
    assert [f.text for f in results if isinstance(f, Document)] == ['say "hi', "b"]


def test_corpus_in_one_file(monkeypatch: pytest.MonkeyPatch, texts: Texts) -> None:
    """A text longer than MAX_DOCUMENT_BYTES is cut at blank lines, and nothing is lost."""
    monkeypatch.setattr(text, "MAX_DOCUMENT_BYTES", 5000)
    monkeypatch.setattr(text, "PIECE_CHARACTERS", 800)
    whole = "".join(f"Paragraph {n} has a few words.\nAnd a second line.\n\n" for n in range(300))
    pieces = texts("text", "corpus.txt", whole)
    assert len(pieces) > 5 and "".join(pieces) == whole
    assert all(piece.endswith("\n\n") for piece in pieces)


def test_yaml_bombs_and_mistakes(read: Read) -> None:
    """YAML with aliases, tags or errors is one rejection; nothing is constructed."""
    for data in (
        "a: &a [x]\nb: [*a, *a]\n",
        "!!python/object/apply:os.system ['true']\n",
        "a: [1\n",
    ):
        (result,) = read("conversations", "x.yml", data)
        assert isinstance(result, Reject) and result.reason == "malformed"


@examples(120)
@given(
    st.sampled_from(KINDS),
    st.sampled_from(
        "x.txt x.html x.xml x.json x.jsonl x.csv x.yml x.parquet x.warc x.py x".split()
    ),
    st.binary(max_size=300),
)
def test_no_reader_raises(kind: str, name: str, data: bytes) -> None:
    """Any bytes under any name, for any kind, give at least one document or rejection."""
    for prefix in (
        b"",
        b"<mediawiki><page>",
        b"<html><body><p>",
        b"WARC/1.0\r\n",
        b'{"messages": [',
        b"PAR1",
    ):
        results = list(read_item(item_from_bytes(prefix + data, name), Source(path="x", kind=kind)))
        assert results
        assert len({result.record for result in results}) == len(results)


def test_unreadable_formats_say_what_to_do(read: Read) -> None:
    """An unsupported format is one rejection, with advice where there is some."""
    for name, data, advice in (
        ("d.xml.7z", b"7z\xbc\xaf\x27\x1c\0\4", "zstd"),
        ("x.rar", b"Rar!\x1a\7", "unpack"),
    ):
        (result,) = read("wikipedia", name, data + bytes(100))
        assert isinstance(result, Reject)
        assert result.reason == "unsupported-format" and advice in result.detail


def test_object_without_records_is_bounded(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object without records inside is one record, of bounded size."""
    monkeypatch.setattr(records, "MAX_RECORD", 2000)
    (result,) = read("text", "x.json", json.dumps({f"key {n}": "v" * 100 for n in range(100)}))
    assert isinstance(result, Reject) and result.reason == "too-large"
    (result,) = read("text", "x.json", json.dumps({"text": "v" * 1500, "title": "T"}))
    assert isinstance(result, Document) and result.group == "T"
    assert (
        len(read("text", "x.json", json.dumps({str(n): {"text": "v" * 500} for n in range(100)})))
        == 100
    )


@pytest.mark.parametrize(
    ("record", "group"),
    [
        ({"url": "https://www.a.example/x", "title": "T"}, "a.example"),
        ({"id": "https://a.example/x", "metadata": {"url": 3}}, "a.example"),
        ({"id": "7", "meta": {"url": "http://b.example/"}}, "b.example"),
        ({"url": "https://a.example/x", "group": "mine"}, "mine"),
        ({"url": "no address", "title": "T"}, "T"),
    ],
)
def test_pages_in_records_are_grouped_by_host(
    read: Read, record: dict[str, object], group: str
) -> None:
    """Pages in records are grouped by host, as in WARC; a given group wins."""
    (result,) = read("web", "x.jsonl", json.dumps({"text": "Some words."} | record) + "\n")
    assert isinstance(result, Document) and result.group == group


def test_text_about_dumps_is_text(read: Read) -> None:
    """A text that mentions the root element of a dump is text."""
    (result,) = read(
        "text", "x.txt", "A dump begins with <mediawiki xml:lang='en'>, and holds pages."
    )
    assert isinstance(result, Document)
