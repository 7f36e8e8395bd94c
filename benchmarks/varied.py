"""A corpus of any size out of real files: copies whose words differ, with duplicates as they occur.

A copy of a document has other words of the same length in the place of half of its words, the same
one wherever a word stands in the copy. So copies are no near-duplicates of each other, markup,
offsets and sizes stay as they were, and the words are words. One document in ten is copied as it
is, and one in twenty with one word in fifty changed: near-duplicates.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from benchmarks.corpora import collected

# Of 1,000 words, how many another one replaces.
CHANGED, TOUCHED = 500, 20
SAME_SHARE, TOUCHED_SHARE = 0.10, 0.05
# Words of a copy are taken from the most frequent ones of their length.
SHORTEST, LONGEST, CHOICE = 4, 12, 512
PAGES_PER_STREAM = 100
# Share of the raw bytes, unpacked, of each kind.
SHARES = {"books": 0.2, "wikipedia": 0.25, "web": 0.35, "code": 0.12, "conversations": 0.08}
CODE_SUFFIXES = (".py", ".js", ".ts", ".c", ".h", ".go", ".rs", ".rb", ".md", ".rst")

Bytes = npt.NDArray[np.uint8]
# Name and bytes of each.
Documents = list[tuple[str, bytes]]


class Words:
    """The most frequent words of the documents, by length, as rows of bytes."""

    def __init__(self, documents: list[bytes]) -> None:
        counts = Counter[bytes]()
        for document in documents:
            counts.update(re.findall(rb"(?<= )[a-z]{4,12}(?= )", document[:100_000]))
        by_length = defaultdict[int, list[bytes]](list)
        for word, _ in counts.most_common():
            by_length[len(word)].append(word)
        self.rows = np.zeros((LONGEST + 1, CHOICE, LONGEST), np.uint8)
        self.counts = np.ones(LONGEST + 1, np.int64)
        for length, words in by_length.items():
            self.counts[length] = min(CHOICE, len(words))
            for row, word in enumerate(words[:CHOICE]):
                self.rows[length, row, :length] = np.frombuffer(word, np.uint8)

    def vary(self, document: bytes, copy: int, per_mille: int) -> bytes:
        """Return a copy of the document in which so many of 1,000 words are others."""
        text = np.frombuffer(document, np.uint8).copy()
        _vary(text, self.rows, self.counts, np.uint64(copy), per_mille)
        return text.tobytes()


@numba.njit(nogil=True)
def _vary(text: Bytes, rows: Bytes, counts: Bytes, copy: np.uint64, per_mille: int) -> None:
    """Replace words between two spaces, in place; nothing inside of a tag."""
    inside, at = False, 0
    while at < len(text):
        if text[at] == 60:
            inside = True
        elif text[at] == 62:
            inside = False
        if inside or text[at] != 32:
            at += 1
            continue
        begin = at + 1
        end, seed = begin, np.uint64(14695981039346656037) ^ copy
        while end < len(text) and 97 <= text[end] <= 122:
            seed = (seed ^ np.uint64(text[end])) * np.uint64(1099511628211)
            end += 1
        length = end - begin
        seed ^= seed >> np.uint64(29)
        whole = end < len(text) and text[end] == 32 and 4 <= length <= 12
        if whole and seed % np.uint64(1000) < np.uint64(per_mille):
            row = (seed >> np.uint64(20)) % np.uint64(counts[length])
            text[begin:end] = rows[length, row, :length]
        at = max(end, begin)


def make_corpus(data: Path, folder: Path, megabytes: float) -> tuple[list[dict[str, str]], int]:
    """Write about so many megabytes of raw files; return sources, and bytes unpacked."""
    total = 0
    for kind, documents in originals(data, folder).items():
        write = WRITERS[kind]
        (target := folder / "raw" / kind).mkdir(parents=True)
        size, copy, words = 0, 0, Words([text for _, text in documents])
        wanted = SHARES[kind] * megabytes * 1e6
        while size < wanted:
            copies = [(name, varied(words, name, text, copy)) for name, text in documents]
            ends = np.cumsum([len(text) for _, text in copies])
            count = int(np.searchsorted(ends, wanted - size)) + 1
            write(target, copy, copies[:count])
            size += int(ends[min(count, len(ends)) - 1])
            copy += 1
        total += size
    raw = folder / "raw"
    return [{"name": kind, "kind": kind, "path": str(raw / kind)} for kind in SHARES], total


def varied(words: Words, name: str, text: bytes, copy: int) -> bytes:
    """Return a copy of a document; the first is the document, and some are as good as the first."""
    chance = hashlib.blake2b(f"{name} {copy}".encode(), digest_size=8).digest()
    place = int.from_bytes(chance, "big") / 2**64
    if copy == 0 or place < SAME_SHARE:
        return text
    return words.vary(text, copy, TOUCHED if place < SAME_SHARE + TOUCHED_SHARE else CHANGED)


def originals(data: Path, folder: Path) -> dict[str, list[tuple[str, bytes]]]:
    """Return the documents of each kind with a name, as bytes of their format."""
    (dump,) = (data / "wikipedia").glob("enwiki-latest-*.bz2")
    pages = re.findall(rb"  <page>.*?</page>\n", bz2.decompress(dump.read_bytes()), re.DOTALL)
    books = sorted((data / "books").rglob("*.txt"))
    sets = ("trafilatura-eval", "article-extraction-benchmark")
    web = [path for name in sets for path in sorted((data / "web" / "html" / name).glob("*.htm*"))]
    archives = sorted((data / "code").rglob("*gz"))
    members = [member for archive in archives for member in code_files(archive)]
    return {
        "books": [(path.name, path.read_bytes()) for path in books],
        "wikipedia": [(f"page {n}", page) for n, page in enumerate(pages)],
        "web": [(path.name, unpacked(path)) for path in web],
        "code": members,
        "conversations": list(talks(data, folder / "talks")),
    }


def unpacked(path: Path) -> bytes:
    """Return the bytes of a file that may be a gzip file."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def code_files(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the source files of a package."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.endswith(CODE_SUFFIXES):
                file = tar.extractfile(member)
                yield member.name, file.read() if file else b""


def talks(data: Path, root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield real conversations as lines of JSON."""
    source = {"name": "talk", "kind": "conversations", "path": "conversations"}
    run = collected(data, root, [source])
    for path in sorted((run.root / "collect" / "documents").glob("*.parquet")):
        for row in pq.read_table(path, columns=["id", "turns"]).to_pylist():
            if row["turns"]:
                yield (
                    row["id"],
                    json.dumps({"messages": row["turns"]}, ensure_ascii=False).encode() + b"\n",
                )


def write_files(folder: Path, copy: int, documents: Documents) -> None:
    """Write each document as a file."""
    (target := folder / f"{copy:03}").mkdir()
    for number, (name, text) in enumerate(documents):
        (target / f"{number:04}-{Path(name).name}").write_bytes(text)


def write_dump(folder: Path, copy: int, documents: Documents) -> None:
    """Write a dump as Wikipedia packs it: streams of 100 pages each."""
    head = b'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" xml:lang="en">\n'
    texts = [text for _, text in documents]
    parts = [texts[at : at + PAGES_PER_STREAM] for at in range(0, len(texts), PAGES_PER_STREAM)]
    with (folder / f"dump-{copy:03}.xml.bz2").open("wb") as file:
        file.write(bz2.compress(head))
        for part in parts:
            file.write(bz2.compress(b"".join(part)))
        file.write(bz2.compress(b"</mediawiki>\n"))


def write_warc(folder: Path, copy: int, documents: Documents) -> None:
    """Write pages as a crawler keeps them: a gzip member for each response."""
    with (folder / f"pages-{copy:03}.warc.gz").open("wb") as file:
        for number, (_, text) in enumerate(documents):
            http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + text
            head = (
                "WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http;"
                f" msgtype=response\r\nWARC-Target-URI: https://host{number}.example/{copy}\r\n"
                f"WARC-Date: 2026-01-01T00:00:00Z\r\nContent-Length: {len(http)}\r\n\r\n"
            )
            file.write(gzip.compress(head.encode() + http + b"\r\n\r\n", 6))


def write_archive(folder: Path, copy: int, documents: Documents) -> None:
    """Write files as an archive of a project."""
    with tarfile.open(folder / f"project-{copy:03}.tar.gz", "w:gz", compresslevel=6) as tar:
        for name, text in documents:
            entry = tarfile.TarInfo(f"project-{copy:03}/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))


def write_lines(folder: Path, copy: int, documents: Documents) -> None:
    """Write one line a document."""
    (folder / f"talks-{copy:03}.jsonl").write_bytes(b"".join(text for _, text in documents))


WRITERS: dict[str, Callable[[Path, int, Documents], None]] = {
    "books": write_files,
    "wikipedia": write_dump,
    "web": write_warc,
    "code": write_archive,
    "conversations": write_lines,
}
