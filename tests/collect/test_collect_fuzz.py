"""Every reader on damaged files: each is kept or listed, in bounded time, and its neighbours survive."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mutations import mutated, read_between

from groundup.document import Document

SENTENCE = "It was late in the year, and nobody in the village had seen the harvest come in. "
PAGE = f"<html><head><title>T</title></head><body><nav><a href='/'>Home</a></nav><article><p>{SENTENCE * 4}</p></article></body></html>"
TALK = [{"messages": [{"role": "user", "content": f"Is it {n}?"}, {"role": "assistant", "content": SENTENCE}]} for n in range(4)]
TEXT = "'''T''' is [[a|b]] {{{{c|d}}}} &lt;ref&gt;e&lt;/ref&gt;."
WIKI = f"<page><title>T{{0}}</title><ns>0</ns><id>{{0}}</id><revision><text>{TEXT}</text></revision></page>"
HTTP = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{PAGE}"


def _warc() -> bytes:
    head = "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.org/\r\nContent-Type: application/http; msgtype=response\r\n"
    return f"{head}Content-Length: {len(HTTP)}\r\n\r\n{HTTP}\r\n\r\n".encode() * 3


def _arc() -> bytes:
    first = b"1 0 Test\nURL IP-address Archive-date Content-type Archive-length\n"
    start = b"filedesc://x.arc 10.0.0.1 20000101000000 text/plain %d\n" % len(first) + first + b"\n"
    return start + f"http://a.org/ 10.0.0.1 20000101000000 text/html {len(HTTP)}\n{HTTP}\n".encode() * 3


def _zip(members: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def _epub() -> bytes:
    opf = "<package xmlns:dc='http://purl.org/dc/elements/1.1/'><dc:title>T</dc:title><manifest>{}</manifest><spine>{}</spine></package>"
    items = "".join(f"<item id='i{n}' href='p{n}.xhtml' media-type='application/xhtml+xml'/>" for n in range(3))
    spine = "".join(f"<itemref idref='i{n}'/>" for n in range(3))
    container = "<container><rootfile full-path='b.opf'/></container>"
    return _zip({"META-INF/container.xml": container, "b.opf": opf.format(items, spine)} | {f"p{n}.xhtml": PAGE for n in range(3)})


def _parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": [SENTENCE] * 20, "url": ["http://a.org/"] * 20}), out)
    return out.getvalue()


def _zst(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True)) * 2


LINES = "".join(json.dumps({"text": SENTENCE, "url": f"http://a.org/{n}"}) + "\n" for n in range(10)).encode()
DUMP = f"<mediawiki>{''.join(WIKI.format(n) for n in range(5))}</mediawiki>".encode()
BOOK = (
    f"Title: T\n\n*** START OF THE PROJECT GUTENBERG EBOOK T ***\n{SENTENCE * 9}\n*** END OF THE PROJECT GUTENBERG EBOOK T ***\n".encode()
)
# Reader → (kind, name, a small whole file).
SMALL: dict[str, tuple[str, str, bytes]] = {
    "book": ("books", "x.txt", BOOK),
    "epub": ("books", "x.epub", _epub()),
    "dump": ("wikipedia", "x.xml", DUMP),
    "wikitext": ("wikipedia", "x.txt", b"'''T''' is [[a|b]] {{c|d}} {| a\n|-\n| b\n|}<ref>e</ref>\n== H ==\n" * 9),
    "html": ("web", "x.html", PAGE.encode()),
    "warc": ("web", "x.warc", _warc()),
    "arc": ("web", "x.arc", _arc()),
    "code": ("code", "x.py", b'def f(x):\n    """Return x."""\n    return x\n' * 9),
    "irc": ("conversations", "x.txt", b"[10:01] <ann> is it late?\n[10:02] <bob> ann: it is\n=== cy [c@d] has joined #e\n" * 9),
    "turns": ("conversations", "x.json", json.dumps(TALK).encode()),
    "yaml": ("conversations", "x.yml", b"categories:\n- a\nconversations:\n- - is it late?\n  - it is\n- - b\n  - c\n" * 2),
    "jsonl": ("text", "x.jsonl", LINES),
    "csv": ("text", "x.csv", f'id,text\n1,"{SENTENCE}"\n2,"a ""b"" c"\n'.encode() * 5),
    "parquet": ("text", "x.parquet", _parquet()),
    "evaluation": ("evaluation", "x.jsonl", (json.dumps({"query": SENTENCE, "choices": ["a", "b"], "gold": 1}) + "\n").encode() * 5),
    "gz": ("text", "x.jsonl.gz", gzip.compress(LINES)),
    "bz2": ("wikipedia", "x.xml.bz2", bz2.compress(DUMP)),
    "xz": ("text", "x.jsonl.xz", lzma.compress(LINES)),
    "zst": ("text", "x.jsonl.zst", _zst(LINES)),
    "zip": ("text", "x.zip", _zip({"a.txt": SENTENCE, "d/b.jsonl": LINES.decode(), "c.html": PAGE})),
}
# Reader → where its real files lie.
REAL = {
    "book": "books/g*/*.txt",
    "dump": "wikipedia/ltgwiki*.xml",
    "wikitext": "wikipedia/wikitext-pages/*.txt",
    "html": "web/html/*/*/*.html",
    "warc": "web/warc/*/*.warc*",
    "arc": "web/warc/*/*.arc*",
    "code": "code/pypi/*.tar.gz",
    "irc": "conversations/ubuntu_irc/*",
    "turns": "conversations/*/*.json*",
    "yaml": "conversations/chatterbot_corpus/*/*.yml",
    "jsonl": "web/jsonl/*",
    "evaluation": "evals/*/*.jsonl",
    "bz2": "wikipedia/minidumps/*.bz2",
    "zip": "conversations/crosswoz/*.zip",
}
SHORT, LONG = 200, int(os.environ.get("GROUNDUP_MUTATIONS", "10000"))
REAL_BYTES = 100_000


def _others() -> list[bytes]:
    return [data for _, _, data in SMALL.values()]


@pytest.mark.parametrize("reader", SMALL)
def test_whole_files_are_read(reader: str) -> None:
    """What is damaged below gives documents while it is whole: else the damage would prove nothing."""
    assert any(isinstance(one, Document) for one in read_between(*SMALL[reader])[1:-1])


@pytest.mark.parametrize("reader", SMALL)
def test_damaged_files(reader: str) -> None:
    """Two hundred mutations of a small file."""
    kind, name, data = SMALL[reader]
    for n in range(SHORT):
        read_between(kind, name, mutated(data, _others(), random.Random(f"{reader} {n}")))


@pytest.mark.torture
@pytest.mark.parametrize("reader", SMALL)
def test_damaged_real_files(reader: str, request: pytest.FixtureRequest) -> None:
    """Ten thousand mutations of real files, or of small ones where there is no real data; the seed is the number."""
    files = [SMALL[reader][1:]]
    if "GROUNDUP_TEST_DATA" in os.environ and reader in REAL:
        paths = sorted(request.getfixturevalue("real_data").glob(REAL[reader]))
        files += [(path.name, path.read_bytes()[:REAL_BYTES]) for path in paths[:: max(1, len(paths) // 20)]]
    others = _others() + [data for _, data in files]
    for n in range(LONG):
        rng = random.Random(f"{reader} {n}")
        name, data = rng.choice(files)
        try:
            read_between(SMALL[reader][0], name, mutated(data, others, rng))
        except BaseException as error:
            raise AssertionError(f"mutation {n} of {name} ({reader}): {error!r}") from error
