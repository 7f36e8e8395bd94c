"""One large file, as a whole and cut into pieces, collected by one and by two workers.

JSONL, CSV whose fields hold lines, Parquet, a dump of Wikipedia in streams of 100 pages, and web
pages in gzip by record: real text, repeated with other numbers. In MB of the raw file, unpacked,
per second by the clock; starting the workers counts, what this process imports does not. A whole
dump uses two cores even with one worker: a thread unpacks ahead. The documents must be the same
every time.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import io
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import machine, test_data
from groundup.collect import pieces, stage
from groundup.collect.sources import SETTLED_SECONDS
from groundup.flow import WORKER_MODULES
from groundup.recipe import Recipe, Source
from groundup.runtime.run import Run
from groundup.runtime.workers.map import Workers

JSONL_BYTES, DUMP_BYTES, WARC_BYTES = 320 << 20, 96 << 20, 40 << 20
PIECES = 6  # of each file
# How many pieces, and how many workers.
SIDES = {
    "whole, 1 worker": (0, 1),
    "whole, 2 workers": (0, 2),
    "pieces, 1 worker": (PIECES, 1),
    "pieces, 2 workers": (PIECES, 2),
}


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    dump = bz2.decompress(next(data.glob("wikipedia/enwiki-latest*.bz2")).read_bytes())
    pages = re.findall(rb"  <page>.*?</page>\n", dump, re.DOTALL)
    warc = gzip.decompress((data / "web/warc/aut/example.warc.gz").read_bytes())
    records = re.split(rb"(?=WARC/[01]\.\d+\r\n)", warc)[1:]
    figures: dict[str, object] = {}
    files = {
        "JSONL": ("a.jsonl", "text", lines(pages, JSONL_BYTES)),
        "CSV": ("a.csv", "text", rows(pages, JSONL_BYTES)),
        "Parquet": ("a.parquet", "text", row_groups(pages, JSONL_BYTES)),
        "dump": ("a.xml.bz2", "wikipedia", streams(dump, pages, DUMP_BYTES)),
        "WARC": ("a.warc.gz", "web", members(records, WARC_BYTES)),
    }
    for title, (name, kind, parts) in files.items():
        with tempfile.TemporaryDirectory() as folder:
            size = write(Path(folder, "raw", name), parts)
            figures[f"{title}, MB"] = size / 1e6
            # A younger file is hashed again after each reading; and readers are imported once.
            time.sleep(SETTLED_SECONDS + 1)
            collected(Path(folder), kind, "whole, 1 worker")
            documents = set()
            for side in SIDES:
                spent, digest = collected(Path(folder), kind, side)
                documents.add(digest)
                figures[f"{title}, {side}"] = size / 1e6 / spent
            figures[f"{title}, the same documents"] = len(documents) == 1
    what = " ".join((__doc__ or "").split())
    return {"what": what, "figures": figures, "machine": machine()}


def lines(pages: list[bytes], limit: int) -> Iterator[tuple[bytes, int]]:
    """Yield lines of JSON, a page each, and their sizes."""
    size = number = 0
    while size < limit:
        text = pages[number % len(pages)].decode("utf-8", "replace")
        line = json.dumps({"id": number, "text": f"{number} {text}"}).encode() + b"\n"
        size += len(line)
        number += 1
        yield line, len(line)


def rows(pages: list[bytes], limit: int) -> Iterator[tuple[bytes, int]]:
    """Yield rows of CSV, a page each, and their sizes."""
    yield b"id,text\n", 8
    size = number = 0
    while size < limit:
        text, out = pages[number % len(pages)].decode("utf-8", "replace"), io.StringIO()
        csv.writer(out).writerow([number, f"{number} {text}"])
        row = out.getvalue().encode()
        size += len(row)
        number += 1
        yield row, len(row)


def row_groups(pages: list[bytes], limit: int) -> Iterator[tuple[bytes, int]]:
    """Yield the bytes of a Parquet file, 1,000 pages in a row group, and the sizes of the texts."""
    file, size, number, written = io.BytesIO(), 0, 0, 0
    with pq.ParquetWriter(file, pa.schema([("text", pa.string())])) as writer:
        while size < limit:
            numbers = range(number, number + 1000)
            texts = [f"{n} {pages[n % len(pages)].decode('utf-8', 'replace')}" for n in numbers]
            writer.write_table(pa.table({"text": texts}))
            more = sum(map(len, texts))
            number, size = number + 1000, size + more
            yield file.getvalue()[written:], more
            written = file.tell()
    yield file.getvalue()[written:], 0


def streams(dump: bytes, pages: list[bytes], limit: int) -> Iterator[tuple[bytes, int]]:
    """Yield streams of bzip2, 100 pages each, and their unpacked sizes."""
    yield packed(bz2.compress, dump[: dump.index(b"  <page>")])
    size = number = 0
    while size < limit:
        titled = [
            pages[n % len(pages)].replace(b"<title>", b"<title>%d " % n)
            for n in range(number, number + 100)
        ]
        number += 100
        size += sum(map(len, titled))
        yield packed(bz2.compress, b"".join(titled))
    yield packed(bz2.compress, b"</mediawiki>\n")


def members(records: list[bytes], limit: int) -> Iterator[tuple[bytes, int]]:
    """Yield records of WARC, a member of gzip each, and their unpacked sizes."""
    size = number = 0
    while size < limit:
        record = records[number % len(records)]
        size += len(record)
        number += 1
        yield packed(gzip.compress, record)


def packed(compress: Callable[[bytes], bytes], data: bytes) -> tuple[bytes, int]:
    return compress(data), len(data)


def write(path: Path, parts: Iterator[tuple[bytes, int]]) -> int:
    """Write a file; return its size, unpacked."""
    path.parent.mkdir()
    total = 0
    with path.open("wb") as file:
        for data, size in parts:
            file.write(data)
            total += size
    return total


def collected(folder: Path, kind: str, side: str) -> tuple[float, str]:
    """Collect the file; return the seconds, and a digest of the documents in order."""
    count, workers = SIDES[side]
    (raw,) = (folder / "raw").iterdir()
    size = raw.stat().st_size
    # A compressed file is cut into twice as many.
    size *= 2 if raw.suffix in (".bz2", ".gz") else 1
    pieces.PIECE_BYTES = size // count if count else 1 << 60
    root = folder / "run"
    recipe = Recipe(source=(Source(path="raw", kind=kind),), root=folder)
    run = Run(root, recipe, Workers(workers, modules=[WORKER_MODULES["collect"]]))
    root.mkdir()
    run.workers.start()
    start = time.perf_counter()
    try:
        stage.run(run)
        spent = time.perf_counter() - start
    finally:
        run.workers.close()
    digest = hashlib.sha256()
    for path in sorted((root / "collect/documents").iterdir()):
        for row in pq.read_table(path, columns=["id", "text"]).to_pylist():
            digest.update(f"{row['id']} {row['text']}\n".encode())
    shutil.rmtree(root)
    return spent, digest.hexdigest()
