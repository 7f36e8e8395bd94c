"""A file that is read in pieces gives the records of a single pass, wherever it is cut."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.pieces import Row, check, collect_rows, hash_file, pieces_of, results_of

from groundup.artifacts.forgotten import Forgotten, ForgottenDocument
from groundup.collect import pieces, sources, stage
from groundup.collect.files import streams
from groundup.collect.pieces import count_records, cut_file
from groundup.collect.readers.records import records
from groundup.commands.verify import check_raw
from groundup.errors import SourceError
from groundup.recipe import Recipe, Source
from groundup.runtime.lock import write_lock
from groundup.runtime.run import Run
from groundup.runtime.workers.map import Workers

LINES = st.one_of(
    st.builds(lambda t: json.dumps({"text": t}, ensure_ascii=False).encode(), st.text(max_size=99)),
    st.sampled_from([b"", b" \t", b"\xef\xbb\xbf", b'{"no": 1}', b"{broken", b"\0\0", b"7"]),
    st.just(b'\x1e{"text": "a sequence"}'),
)


@given(st.lists(LINES, max_size=60), st.sampled_from([b"\n", b"\r\n"]), st.integers(17, 900))
@settings(max_examples=60, deadline=None)
def test_lines(lines: list[bytes], ending: bytes, piece_bytes: int) -> None:
    """JSONL of any lines, blank and broken ones among them, with or without an end."""
    start = [b'{"text": "a"}', b'{"text": "b"}']
    check("a.jsonl", ending.join([*start, *lines]), "text", piece_bytes)


@pytest.mark.parametrize("kind", ["text", "books", "web", "code", "evaluation", "conversations"])
def test_kinds_of_lines(kind: str) -> None:
    """Every kind that reads records one by one reads them in pieces."""
    rows = [
        {"text": f"Text {n}.", "path": "a.py", "language": "Python", "url": f"https://a.org/{n}"}
        | {"messages": [{"role": "user", "content": f"Question {n}?"}] * 2}
        for n in range(50)
    ]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    assert len(check("a.jsonl", data, kind, 1000)) > 3


def test_long_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is longer than a record may be, or than a piece, is one record."""
    monkeypatch.setattr(records, "MAX_RECORD", 300)
    lines = [json.dumps({"text": "word " * (100 if n % 3 == 1 else n)}) for n in range(40)]
    for ending in ("\n", ""):
        parts = check("a.jsonl", ("\n".join(lines) + ending).encode(), "text", 400)
        assert len(parts) > 3 and any(part.size > 400 for part in parts)


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [
        ("a.jsonl", "conversations", b'{"role": "user", "content": "a", "thread_id": 1}\n' * 99),
        ("a.jsonl", "text", ('{"text": "a"}\n' * 99).encode("utf-16")),
        ("a.jsonl", "text", b'{"no": 1}\n' * 99 + b'{"text": "a"}\n'),
        ("a.json", "text", b"[" + b'{"text": "a"},\n' * 99 + b'{"text": "a"}]'),
        ("a.csv", "code", b"id,text\n" + b'1,"a\nb"\n' * 99),
        ("a.csv", "text", b"\n" * 70_000 + b"id,text\n" + b"1,a\n" * 99),
        (
            "a.csv",
            "text",
            "id,text\n1,春天的雨下了一整夜，山里的人都没有出门。\n".encode("gb18030") * 9,
        ),
        ("a.csv.gz", "text", gzip.compress(b"id,text\n" + b"1,a\n" * 99)),
    ],
    ids=[
        *("threads", "utf-16", "first piece without text", "array"),
        *("a source file", "header after the first bytes", "bytes of two meanings", "csv.gz"),
    ],
)
def test_what_is_not_cut(name: str, kind: str, data: bytes) -> None:
    """What needs the records before it, or the end of the file, stays whole."""
    assert len(check(name, data, kind, 200)) == 1


def _page(number: int) -> str:
    texts = ["'''A''' is ''one''. " * 3, "#REDIRECT [[A]]", "a < b", "B &lt;page&gt; " * 9]
    space = 1 if number % 7 == 3 else 0
    return (
        f"  <page>\n<title>T{number}</title><ns>{space}</ns>"
        f"<revision><text>{texts[number % 4]}</text></revision></page>\n"
    )


HEADER = (
    '<mediawiki xml:lang="de">\n<siteinfo><namespaces><namespace key="14">Kategorie</namespace>'
    "</namespaces></siteinfo>\n"
)


def _members(codec: str, kind: str, count: int, each: int) -> bytes:
    """Return a file of `count` records, `each` of them in a member."""
    if kind == "wikipedia":
        parts = [HEADER, *map(_page, range(count)), "</mediawiki>\n"]
    elif kind == "web":
        parts = [_record(number).decode() for number in range(count)]
    else:
        parts = [json.dumps({"text": f"Text {n} " * (n % 9)}) + "\n" for n in range(count)]
    packed: dict[str, Callable[[bytes], bytes]] = {
        "": bytes,
        "bz2": bz2.compress,
        "gz": gzip.compress,
        "zst": lambda data: bytes(pa.compress(data, "zstd", asbytes=True)),
    }
    # A dump begins with its header alone.
    starts = [0, *range(int(kind == "wikipedia"), len(parts), each), len(parts)]
    groups = (parts[start:stop] for start, stop in pairwise(dict.fromkeys(starts)))
    return b"".join(packed[codec]("".join(group).encode()) for group in groups)


def _record(number: int) -> bytes:
    page = f"<html><body><p>{f'Page number {number} has a text. ' * (number % 9)}</p></body></html>"
    kind = "response" if number % 3 else "metadata"
    body = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{page}".encode()
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: https://a.org/{number}\r\n"
    head += "Content-Type: application/http; msgtype=response\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body + b"\r\n\r\n"


FORMS = [("wikipedia", "a.xml"), ("web", "a.warc"), ("text", "a.jsonl")]


@pytest.mark.parametrize(("kind", "name"), FORMS)
@pytest.mark.parametrize("codec", ["", "bz2", "gz", "zst"])
def test_members(kind: str, name: str, codec: str) -> None:
    """Files that consist of members are cut between them, and read as one stream."""
    data = _members(codec, kind, 200, 3)
    name = f"{name}.{codec}".rstrip(".")
    found = [check(name, data, kind, piece_bytes) for piece_bytes in (700, 1500, 3000)]
    assert len(found[0]) > len(found[1]) > len(found[2]) > 1


@pytest.mark.parametrize(("kind", "name"), FORMS)
@pytest.mark.parametrize("codec", ["", "bz2", "gz", "zst"])
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_damage(kind: str, name: str, codec: str, data: st.DataObject) -> None:
    """Whatever is wrong with a file, and wherever, is listed as one pass lists it."""
    whole = _members(codec, kind, 60, data.draw(st.integers(1, 5)))
    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.integers(min(300, len(whole) - 1), len(whole) - 1))
        length = data.draw(st.sampled_from([1, 1, 30, 700]))
        how = data.draw(st.sampled_from(["zeros", "flip", "cut out", "truncate", "insert"]))
        part = whole[place : place + length]
        new = {"zeros": b"\0" * len(part), "flip": bytes(b ^ 0x15 for b in part)}
        new |= {"cut out": b"", "truncate": b"", "insert": part + whole[:length]}
        rest = b"" if how == "truncate" else whole[place + length :]
        whole = whole[:place] + new[how] + rest
    check(f"{name}.{codec}".rstrip("."), whole, kind, data.draw(st.integers(300, 3000)))


def test_damage_after_a_wrong_record() -> None:
    """Protects: a count ends at a wrong record, and damage after it still forbids pieces."""
    records = [*map(_record, range(40)), b"wrong", random.Random(0).randbytes(1 << 18)]
    frames = [bytes(pa.compress(record, "zstd", asbytes=True)) for record in records]
    assert len(check("a.warc.zst", b"".join(frames), "web", 3000)) > 1
    frames[-1] = frames[-1][:-9]
    assert len(check("a.warc.zst", b"".join(frames), "web", 3000)) == 1


@pytest.mark.parametrize(("kind", "name"), FORMS)
@pytest.mark.parametrize("codec", ["bz2", "gz"])
def test_a_member_that_never_ends(
    kind: str, name: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that unpacks to more than a file may is a bomb, where one pass says so."""
    monkeypatch.setattr(streams, "RATIO_FLOOR", 400_000)
    monkeypatch.setattr(streams, "MAX_RATIO", 5)
    whole = _members(codec, kind, 200, 3)
    starts = [match.start() for match in re.finditer(b"\x1f\x8b\x08|BZh9", whole)]
    compress: Callable[[bytes], bytes] = bz2.compress if codec == "bz2" else gzip.compress
    endless = compress(b"word " * 200_000)
    cut = starts[40]
    parts = check(f"{name}.{codec}", whole[:cut] + endless + whole[cut:], kind, 1500)
    # How much of gzip can be read depends on where reading began, so that all of it is one piece.
    assert (len(parts) > 3) == (codec == "bz2")
    assert parts[-1].start <= cut and parts[-1].stop > cut + len(endless)


def _parquet(sizes: list[int], compression: str = "snappy") -> bytes:
    """Return a file of row groups of these sizes; every seventh row has no text."""
    count = sum(sizes)
    texts = [None if n % 7 == 6 else f"Text number {n}. " * (n % 5) for n in range(count)]
    urls = [f"https://a.org/{n % 9}" for n in range(count)]
    table = pa.table({"text": texts, "url": urls, "path": ["a.py"] * count})
    file = io.BytesIO()
    with pq.ParquetWriter(file, table.schema, compression=compression) as writer:
        starts = [0, *accumulate(sizes)]
        for start, size in zip(starts, sizes, strict=False):
            writer.write_table(table.slice(start, size))
    return file.getvalue()


@pytest.mark.parametrize("kind", ["text", "books", "web", "code", "evaluation", "conversations"])
def test_row_groups(kind: str) -> None:
    """Parquet is cut between row groups; one that is longer than a piece is a piece."""
    found = [check("a.parquet", _parquet([20, 3, 200, 0, 40, 90]), kind, n) for n in (1, 2000)]
    assert [part.first for part in found[0]] == [0, 20, 23, 223, 223, 263]
    assert len(found[1]) == 4


def test_what_is_not_cut_of_parquet() -> None:
    """A packed file is read from its start, and rows that are messages belong to threads."""
    assert len(check("a.parquet.gz", gzip.compress(_parquet([50] * 4)), "text", 500)) == 1
    table = pa.table({"role": ["user", "assistant"] * 50, "content": ["a"] * 100})
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=20)
    assert len(check("a.parquet", file.getvalue(), "conversations", 500)) == 1


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_damage_of_parquet(data: st.DataObject) -> None:
    """A damaged row group, or a footer that lies, is listed as one pass lists it."""
    whole = bytearray(_parquet([40] * 6, data.draw(st.sampled_from(["none", "snappy", "zstd"]))))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] ^= 1 << data.draw(st.integers(0, 7))
    check("a.parquet", bytes(whole), "text", data.draw(st.integers(1, 4000)))


@given(st.lists(st.integers(0, 200), min_size=20, max_size=80), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_appended_lines_change_the_last_pieces(sizes: list[int], more: int) -> None:
    """Protects: of a file that grows, only the end is collected again."""
    lines = [json.dumps({"text": f"{n} " + "x" * size}) for n, size in enumerate(sizes)]
    data = "".join(line + "\n" for line in lines).encode()
    longer = data + json.dumps({"text": "more " * (more % 50), "id": more}).encode() + b"\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "HEAD", 200)
        before, after = (check("a.jsonl", each, "text", 600) for each in (data, longer))
    assert after[: len(before) - 1] == before[:-1]


def test_an_edited_line_changes_its_piece_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects: cuts fall at the same records again after a record became longer."""
    monkeypatch.setattr(streams, "HEAD", 200)
    lines = [json.dumps({"text": f"text number {n} " + "x" * (n % 70)}) for n in range(2000)]
    before = check("a.jsonl", "\n".join(lines).encode(), "text", 5000)
    lines[500] = lines[500].replace("text number", "an edited text with the number")
    after = check("a.jsonl", "\n".join(lines).encode(), "text", 5000)
    old = [(part.digest, part.key) for part in before]
    assert len(before) > 20
    assert sum((part.digest, part.key) not in old for part in after) <= 3


def _lines(count: int) -> str:
    return "".join(json.dumps({"text": f"Text number {n}. " * 9}) + "\n" for n in range(count))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sources with one file that is cut and two that are not."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 2000)
    monkeypatch.setattr(streams, "HEAD", 300)
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "large.jsonl").write_text(_lines(100))
    (folder / "a.jsonl").write_text(_lines(3))
    (folder / "z.txt").write_text("Plain text.")
    return tmp_path


def _run(project: Path, out: str, workers: int = 1) -> tuple[Run, dict[str, list[Row]]]:
    recipe = Recipe(source=(Source(path="raw", kind="text"),), root=project)
    run = Run(project / out, recipe, Workers(workers))
    run.root.mkdir(exist_ok=True)
    write_lock(run.root, recipe)
    try:
        stage.run(run)
    finally:
        run.workers.close()
    tables = {}
    for table in ("documents", "dropped"):
        files = sorted((run.root / "collect" / table).glob("*.parquet"))
        rows = [row for file in files for row in pq.read_table(file).to_pylist()]
        tables[table] = sorted(rows, key=lambda row: (row["origin"], row["record"]))
    return run, tables


def test_a_run_with_pieces(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One and two workers give the same bytes, and the documents of a run without pieces."""
    one, tables = _run(project, "one")
    two, _ = _run(project, "two", workers=2)
    views = [run.store.view("collect") for run in (one, two)]
    assert views[0] and views[1] and views[0].manifest["files"] == views[1].manifest["files"]
    assert not list(check_raw(one.root))
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1 << 20)
    whole, expected = _run(project, "whole")
    assert tables == expected
    shards = [
        {a.key: a for a in r.store.artifacts("collect", "collect/shard")} for r in (one, whole)
    ]
    assert len(shards[0]) > 10 and len(shards[1]) == 1
    counts = [Counter[str]() for _ in shards]
    for count, artifacts in zip(counts, shards, strict=True):
        for artifact in artifacts.values():
            count.update({n: artifact.facts[n] for n in ("documents", "files", "bytes_in")})
    assert counts[0] == counts[1]


def test_a_run_after_lines_were_appended(project: Path) -> None:
    """Only the last pieces of a file are read again; a file that changed is told by verify."""
    run, _ = _run(project, "run")
    total = len(run.store.artifacts("collect", "collect/shard"))
    assert _run(project, "run")[0].built == 0
    (project / "raw/large.jsonl").write_text(_lines(101))
    assert list(check_raw(run.root))
    run, tables = _run(project, "run")
    # The cuts of the file, and the count and the documents of its last pieces.
    assert 2 <= run.built <= 6 < total
    assert not list(check_raw(run.root))
    assert max(row["record"] for row in tables["documents"]) == 100


def test_forgotten_records_of_pieces(project: Path) -> None:
    """A forgotten record is left out of its piece; the other pieces stay as they are."""
    run, tables = _run(project, "run")
    row = tables["documents"][50]
    entry = ForgottenDocument(row["id"], row["source"], row["origin"], row["record"])
    Forgotten((entry,)).save(run.root)
    run, tables = _run(project, "run")
    assert run.built == 1
    assert [row["reason"] for row in tables["dropped"]] == ["forgotten"]
    assert row["id"] not in {document["id"] for document in tables["documents"]}


def test_forgotten_records_of_a_file_before_it_was_cut(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Protects: a text came back whose entry has the digest of the whole file, not of a piece."""
    known = hash_file(project / "raw/large.jsonl")
    entry = ForgottenDocument("0" * 32, "renamed since", "large.jsonl", 50, raw=known.sha256)
    (project / "run").mkdir()
    Forgotten((entry,)).save(project / "run")
    _, tables = _run(project, "run")
    assert [row["record"] for row in tables["dropped"]] == [50]
    assert "changed since" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["large.jsonl", "large.csv"])
@pytest.mark.parametrize("by", [1, -1])
def test_a_file_that_changes_while_a_piece_is_counted_or_read(
    name: str, by: int, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: a file that grows or shrinks meanwhile is counted or read as two states of it."""
    path = project / "raw" / name
    path.write_text("text\n" + "a text\n" * 1000 if name.endswith("csv") else _lines(100))
    known, source = hash_file(path), Source(path="x", kind="text")
    cut = cut_file(Path(), known, source, 2000)
    parts = pieces_of(known, source, 2000)
    take = streams.FileRange.readinto

    def change(self: streams.FileRange, target: memoryview) -> int:
        os.truncate(path, max(0, known.file.size + by))
        return take(self, target)

    monkeypatch.setattr(streams.FileRange, "readinto", change)
    where = known, source, parts[1].start, parts[1].stop, cut["format"], cut["codec"]
    with pytest.raises(SourceError, match="changed or vanished"):
        count_records(Path(), *where)
    with pytest.raises(SourceError, match="changed or vanished"):
        collect_rows(known, source, parts[1])


def test_a_file_that_changes_between_cut_and_reading(project: Path) -> None:
    """Protects: pieces of two states of a file are never mixed."""
    known = hash_file(project / "raw/large.jsonl")
    source = Source(path="x", kind="text")
    parts = pieces_of(known, source, 2000)
    with known.file.path.open("a") as file:
        file.write('{"text": "more"}\n')
    with pytest.raises(SourceError, match="changed or vanished"):
        collect_rows(known, source, parts[0])


@pytest.mark.parametrize("change", ["grows", "shrinks", "is replaced"])
def test_a_dump_that_changes_after_it_was_counted(change: str, tmp_path: Path) -> None:
    """Protects: results of the file as it was are taken for the file as it is."""
    path = tmp_path / "a.xml.bz2"
    path.write_bytes(_members("bz2", "wikipedia", 60, 3))
    known, source = hash_file(path), Source(path="x", kind="wikipedia", name="s")
    part = pieces_of(known, source, 2000)[1]
    results = results_of(known, source, part)
    assert part.is_counted and results.exists()
    data = path.read_bytes()
    path.write_bytes({"grows": data * 2, "shrinks": data[:-900], "is replaced": data[::-1]}[change])
    with pytest.raises(SourceError, match="changed or vanished"):
        collect_rows(known, source, part, results)


def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are only counted where the disk has no room for what would be read meanwhile."""
    path = tmp_path / "a.xml.bz2"
    path.write_bytes(_members("bz2", "wikipedia", 60, 3))
    known, source = hash_file(path), Source(path="x", kind="wikipedia", name="s")
    where = known, source, 0, known.file.size, "mediawiki", "bzip2", tmp_path / "results/r"
    counted = count_records(Path(), *where)
    assert counted["records"] == 60 and where[-1].exists()
    shutil.rmtree(where[-1])
    monkeypatch.setattr(pieces, "_has_room", lambda *_: False)
    assert count_records(Path(), *where) == counted and not where[-1].exists()


REAL = [
    ("wikipedia/aawiki*.bz2", "wikipedia"),
    ("wikipedia/bgwiki*.bz2", "wikipedia"),
    ("web/warc/*/*.warc", "web"),
    ("web/warc/*/*.warc.gz", "web"),
    ("web/jsonl/*", "text"),
    ("conversations/**/*.jsonl", "conversations"),
]


@pytest.mark.parametrize(("pattern", "kind"), REAL)
def test_real_files(real_data: Path, pattern: str, kind: str) -> None:
    """Files of real tools give the same in pieces."""
    files = [path for path in sorted(real_data.glob(pattern)) if path.is_file()]
    small = [path for path in files if path.stat().st_size < 500_000]
    assert small
    for path in small:
        check(path.name, path.read_bytes(), kind, max(200, path.stat().st_size // 7))


def test_a_real_dump_in_streams(real_data: Path) -> None:
    """Pages of Wikipedia, packed as its dumps are, are cut between streams."""
    dump = bz2.decompress(next(real_data.glob("wikipedia/enwiki-latest*.bz2")).read_bytes())
    head, *pages = re.split(rb"(?=  <page>)", dump)[:40]
    groups = [pages[start : start + 2] for start in range(0, len(pages), 2)]
    packed = b"".join(map(bz2.compress, [head, *map(b"".join, groups)]))
    assert len(check("enwiki.xml.bz2", packed, "wikipedia", len(packed) // 2)) > 2


def test_a_large_file_that_was_just_written_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: the whole file would be hashed again after every piece of it."""
    path = tmp_path / "a.jsonl"
    path.write_text(_lines(1))
    waits: list[float] = []
    now = path.stat().st_ctime + 0.5
    monkeypatch.setattr(time, "time", lambda: now + sum(waits))
    monkeypatch.setattr(time, "sleep", waits.append)
    assert not hash_file(path).settled
    monkeypatch.setattr(sources, "_WAIT_BYTES", 10)
    assert hash_file(path).settled
    assert waits == [pytest.approx(1.6)]
