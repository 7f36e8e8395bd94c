"""Files that are cut into pieces, made small: the pieces of the tests are smaller."""

import bz2
import gzip
import html
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.raw import TEXTS, page, paragraphs

# Bytes of a piece, with which each file below is cut into four or more.
PIECE_BYTES = 20_000

RECIPE = """
name = "pieces"
seed = 1

[[source]]
name = "lines"
kind = "text"
path = "raw/lines"

[[source]]
name = "wikipedia"
kind = "wikipedia"
path = "raw/dump.xml.bz2"

[[source]]
name = "web"
kind = "web"
path = "raw/pages.warc.gz"
"""


def write_large_files(folder: Path) -> Path:
    """Write JSONL, Parquet, a dump in streams, web pages in gzip by record; return a recipe."""
    raw = folder / "raw"
    (raw / "lines").mkdir(parents=True)
    texts = [part for _, text in TEXTS[0] for part in paragraphs(text)]
    rows = [json.dumps({"text": text}) for text in texts]
    (raw / "lines/rows.jsonl").write_text("\n".join([*rows, "{broken", ""]))
    table = pa.table({"text": [part for _, text in TEXTS[3] for part in paragraphs(text)]})
    pq.write_table(table, raw / "lines/rows.parquet", row_group_size=50, compression="none")
    (raw / "dump.xml.bz2").write_bytes(dump())
    records = [gzip.compress(record(number, text)) for number, (_, text) in enumerate(TEXTS[2])]
    (raw / "pages.warc.gz").write_bytes(b"".join(records))
    (folder / "pieces.toml").write_text(RECIPE)
    return folder / "pieces.toml"


def dump() -> bytes:
    """Return a dump of Wikipedia in a stream for each page."""
    texts = enumerate(TEXTS[1], 1)
    pages = [page(title, n, f"'''{title}''' is\n{text}\n") for n, (title, text) in texts]
    parts = ['<mediawiki xml:lang="en">\n', *pages, "</mediawiki>\n"]
    return b"".join(bz2.compress(part.encode()) for part in parts)


def record(number: int, text: str) -> bytes:
    """Return a record of WARC: a page of HTML."""
    parts = "".join(f"<p>{html.escape(part)}</p>" for part in paragraphs(text))
    page = f"<html><body><main>{parts}</main></body></html>".encode()
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + page
    head = "WARC/1.0\r\nWARC-Type: response\r\n"
    head += f"WARC-Target-URI: https://host{number % 15}.example/{number}\r\n"
    head += "Content-Type: application/http; msgtype=response\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body + b"\r\n\r\n"
