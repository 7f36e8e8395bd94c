"""Bombs: each reader refuses or reads them within its budget of memory and time."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.bombs import FAMILIES, all_bombs, make_bomb, set_off
from tests.helpers.items import item_from_bytes

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import decode, repair_text
from groundup.collect.files import archives, compression
from groundup.collect.files.archives import Refused, open_items
from groundup.collect.files.formats import detect_format
from groundup.collect.files.globs import Selection
from groundup.collect.readers.chat import conversations
from groundup.collect.readers.chat.layouts import find_messages
from groundup.collect.readers.records import records
from groundup.collect.readers.registry import read_item
from groundup.collect.readers.wrapped_lines import unwrap
from groundup.collect.scrape.robots import read_rules
from groundup.collect.scrape.url_list import read_sitemap
from groundup.recipe import Source

# The first and smallest bombs of each family.
SAMPLE = [(family, number) for number in (0, 1) for family in FAMILIES][:40]


def read(data: bytes, name: str, kind: str) -> list[Document | Reject]:
    return list(read_item(item_from_bytes(data, name), Source(path="x", kind=kind)))


def names_in(data: bytes, name: str) -> list[str]:
    """Return the origins in an archive, and the reasons of what is refused."""
    items = open_items(Path(name), io.BytesIO(data), name, len(data), Selection())
    return [item.reason if isinstance(item, Refused) else item.name for item in items]


def test_a_sample_of_bombs() -> None:
    """Forty small ones."""
    assert [outcome for outcome in set_off(SAMPLE) if outcome.failure] == []


@pytest.mark.torture
@pytest.mark.parametrize("family", FAMILIES)
def test_all_bombs(family: str) -> None:
    """Twenty of each family, up to the largest."""
    bombs = [bomb for bomb in all_bombs() if bomb[0] == family]
    assert [outcome for outcome in set_off(bombs) if outcome.failure] == []


def test_many_comments_before_a_text() -> None:
    """Comments were matched in 2^n ways; a page after them is still found."""
    comments = b"<!-- a -->\n" * 200
    assert detect_format("x", comments + b"plain") == "text"
    assert detect_format("x", comments + b"<html><p>a</p>") == "html"


def test_global_tar_headers() -> None:
    """Keys that tarfile does not use are dropped; a path in a global header still counts."""
    out = io.BytesIO()
    headers = {"comment": "a" * 9, "path": "named.txt"}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers) as tar:
        tar.addfile(tarfile.TarInfo("a.txt"))
    assert names_in(out.getvalue(), "x.tar") == ["named.txt"]


def test_names_are_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long name that a header gives to all members is paid for by each."""
    out = io.BytesIO()
    headers = {"path": "n" * 1000}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers) as tar:
        for _ in range(20):
            tar.addfile(tarfile.TarInfo("a.txt"))
    monkeypatch.setattr("groundup.collect.files.streams.RATIO_FLOOR", 5000)
    monkeypatch.setattr("groundup.collect.files.streams.MAX_RATIO", 0)
    assert names_in(out.getvalue(), "x.tar")[-1] == "bomb"


def test_headers_of_a_tar_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers longer than their bound end the archive; the members before stay."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("a.txt", "n" * 9000):
            tar.addfile(tarfile.TarInfo(name))
    assert names_in(out.getvalue(), "x.tar") == ["a.txt", "n" * 9000]
    monkeypatch.setattr(archives, "MAX_TAR_HEADER_BYTES", 4096)
    assert names_in(out.getvalue(), "x.tar") == ["a.txt", "damaged"]


def test_directory_of_a_zip_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size is looked at before it is read."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", "a")
    assert names_in(out.getvalue(), "x.zip") == ["a.txt"]
    monkeypatch.setattr(archives, "MAX_ZIP_DIRECTORY", 10)
    assert names_in(out.getvalue(), "x.zip") == ["too-large"]


def test_short_bzip2_streams() -> None:
    """Streams of one byte are cut and joined in order, across the steps."""
    import bz2

    data = b"".join(bz2.compress(bytes([n % 250 + 1])) for n in range(3000))
    stream = compression.Bzip2Stream(io.BytesIO(data))
    plain = b"".join(iter(lambda: stream.read(1 << 16), b""))
    assert plain == bytes(n % 250 + 1 for n in range(3000))


def test_text_encodings_only() -> None:
    """A page that declares an encoding of host names is read as what it is."""
    page = "<meta charset=punycode> caf\xe9 caf\xe9".encode("latin-1")
    assert decode(page, "punycode") == decode(page)


def test_escaped_bytes() -> None:
    """Bytes are read as Windows-1252, pairs are joined, and lone halves are replaced."""
    text = "a\udce9\udc80 \ud83d\ude00 \ud83d\udc80 \ud83dx"
    assert repair_text(text) == "aé€ \U0001f600 \U0001f480 \ufffdx"


def test_trailing_spaces() -> None:
    """Spaces go at line ends only."""
    assert unwrap("a  b \t\nc\n") == "a  b\nc"


@pytest.mark.parametrize("given", ["", "### Input:\n b \n\n"])
def test_alpaca_prompts(given: str) -> None:
    """The instruction and the input are taken out of the template."""
    prompt = f"Below is an instruction.\n### Instruction:\n a \n\n{given}### Response:\n"
    messages = find_messages({"prompt": prompt, "response": "c"})
    assert [message.content for message in messages] == ["a\n\nb" if given else "a", "c"]


def test_elements_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of too many small elements is listed; those around it are read."""
    monkeypatch.setattr(records, "MAX_MARKS", 50)
    lines = b'{"text":"a"}\n{"text":[' + b"{}," * 50 + b'0]}\n{"text":"b"}\n'
    results = read(lines, "x.jsonl", "text")
    assert [getattr(result, "reason", "") for result in results] == ["", "too-large", ""]


def test_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many tokens are refused; a list of few is read."""
    data = b"conversations:\n- - a\n  - b\n"
    assert isinstance(read(data, "x.yml", "conversations")[0], Document)
    monkeypatch.setattr(records, "MAX_YAML_TOKENS", 5)
    (result,) = read(data, "x.yml", "conversations")
    assert isinstance(result, Reject) and result.reason == "too-large"


def test_a_long_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of too many rows is listed; the next one is read."""
    row = '{"thread_id":%d,"role":"a","text":"b"}\n'
    data = (row % 1 * 9 + row % 2).encode()
    assert [type(result) for result in read(data, "x.jsonl", "conversations")] == [Document] * 2
    monkeypatch.setattr(conversations, "MAX_THREAD", 2000)
    first, second = read(data, "x.jsonl", "conversations")
    assert isinstance(first, Reject) and first.reason == "too-large"
    assert isinstance(second, Document)


def test_page_names() -> None:
    """The name of a page is put in; one that is longer than any title is not."""
    text = "{{PAGENAME}} is a town. It lies on a river."
    for title, expected in (
        ("Ulm", "Ulm is a town. It lies on a river."),
        ("U" * 300, "It lies on a river."),
    ):
        page = f"<title>{title}</title><revision><text>{text}</text></revision>"
        data = f"<mediawiki><page>{page}</page></mediawiki>".encode()
        (result,) = read(data, "x.xml", "wikipedia")
        assert isinstance(result, Document)
        assert result.text == f"{title}\n\n{expected}"


def test_signals_of_many_robots() -> None:
    """Signals count for the robot that a group names among others, and for no other."""
    body = b"User-agent: a\nUser-agent: my-lab\nUser-agent: b\nContent-Signal: ai-train=no\n"
    assert read_rules(body, "my-lab/1.0").forbids_training("https://a.org/")
    assert not read_rules(body, "other/1.0").forbids_training("https://a.org/")


@pytest.mark.parametrize(
    ("inside", "pages", "sitemaps"),
    [
        ("<url><loc> http://a.org/a </loc><b/></url>", ["http://a.org/a"], []),
        ("<sitemap><loc>http://a.org/s</loc></sitemap>", [], ["http://a.org/s"]),
        ("<url><i><loc>http://a.org/a</loc></i></url><loc>b</loc>", [], []),
        ("<url><loc>http://a.org/?a=1&amp;b=2#c</loc></url>", ["http://a.org/?a=1&b=2"], []),
    ],
)
def test_sitemaps(inside: str, pages: list[str], sitemaps: list[Any]) -> None:
    """Addresses are those of <loc> in <url> and <sitemap>."""
    sitemap = read_sitemap(f"<urlset xmlns='http://a.org/0.9'>{inside}</urlset>".encode())
    assert (sitemap.pages, sitemap.sitemaps) == (pages, sitemaps)


def test_a_zip_that_names_one_member_twice() -> None:
    """The first is read, the second is refused with all after it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", "a sentence")
    data = out.getvalue()
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    tail = data[end:]
    tail = tail[:8] + b"\2\0\2\0" + (2 * (end - start)).to_bytes(4, "little") + tail[16:]
    data = data[:end] + data[start:end] + tail
    assert names_in(data, "x.zip") == ["a.txt", "damaged"]


def test_a_tar_that_breaks_off_in_its_first_header() -> None:
    """What is not read of an archive is listed, also if that is all of it."""
    _, name, data = make_bomb("tar sparse", 8)
    assert names_in(data, name) == ["damaged"]
