"""Pieces: a large raw file is cut into ranges of bytes, which workers read in parallel.

    articles.jsonl   0 ─────────── 63 MB ─────────── 125 MB ─────── 170 MB
                     piece 0       piece 1           piece 2
                     record 0      record 41,207     record 80,913

What the pieces hold is, record by record, what a single pass over the file finds: a piece knows how
many records come before it, and gets the first bytes of the file to tell its format and its header
by. Three steps, each a map over workers:

    collect/cut     a file   the places of the cuts, and a digest of each range
    collect/count   a range  how many records it holds
    collect/shard   a piece  its documents (`collect/shard.py`), by the digest of its bytes and the
                             number of its first record

Pages of a dump in bzip2 are counted by reading them: unpacking them a second time would take a
third of the time of reading. What was read is kept until `collect/shard` (`collect/results.py`).

Cuts are content-defined: from the end of a window of bytes, the record is chosen whose first bytes
have the smallest hash. So an appended file changes only its last pieces. A compressed file is cut
where one of its members begins with a record: dumps of Wikipedia, and web archives. Parquet is cut
between row groups, whose rows are counted in it. A row of CSV starts where the part before it ends
with a row, which counting that part proves (`readers/records/csv_pieces.py`).

A range is a piece only if it holds whole records and nothing is wrong with it. From the first one
that does not, the rest of the file is one piece, and is read as if the file had never been cut.
"""

from __future__ import annotations

import hashlib
import heapq
import io
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from groundup.artifacts.document import Document
from groundup.collect.files.archives import find_codec, open_items, unpack
from groundup.collect.files.compression import MEMBER_STARTS, first_bzip2_bytes
from groundup.collect.files.formats import detect_format
from groundup.collect.files.globs import Selection
from groundup.collect.files.streams import (
    BUFFER,
    BoundedStream,
    Budget,
    DamagedError,
    FileRange,
    Item,
)
from groundup.collect.readers.records.columnar import cut_row_groups
from groundup.collect.readers.records.csv_pieces import count_rows, find_row_starts
from groundup.collect.readers.records.records import count_lines
from groundup.collect.readers.registry import choose_reader, piecewise_format, read_item
from groundup.collect.readers.web.warc import count_warc_records
from groundup.collect.readers.wiki.dump import count_pages
from groundup.collect.results import write_results
from groundup.collect.sources import HashedFile, origin_hash
from groundup.recipe import Source
from groundup.runtime.run import Job, Unkeyed, build_step
from groundup.runtime.store import Facts

# Most bytes of a piece, unless a record is longer; and the share of them of one that is compressed,
# which unpacks to three to six times its size.
PIECE_BYTES = 64 << 20
_PACKED_SHARE = 2
# A cut is chosen in the last part of a piece, and in those after it if there is none.
_WINDOW_SHARE = 16
# By these bytes of a record, cuts are told from each other.
_SAMPLE = 512
# Bytes before a window by which rows in it are told from lines within quotation marks.
_CONTEXT = 1 << 16
# Members of a window that are tried, and windows of a compressed file that are searched, until one
# begins with a record; and the bytes that are unpacked for it: a block of bzip2 is 900 KB at most.
_TRIES, _MAX_WINDOWS = 8, 16
_MEMBER_BYTES = 1 << 20
# How much of a damaged member can be read depends on where reading began, but for these codecs.
_RESUMABLE = ("", "bzip2")


@dataclass(frozen=True, slots=True)
class Cuttable:
    """Where a format can be cut, and how its records are counted."""

    # What a record begins with, at the start of a line.
    begins: bytes
    # The `records` of a part of a file, and what else a piece after it must know; None, or
    # DamagedError, unless they are whole and nothing is wrong.
    count: Callable[[Item], dict[str, int] | None]
    # Where records seem to start in bytes from anywhere in a file, if that is no matter of lines.
    # Such a file is cut only if it is not compressed.
    starts: Callable[[Item, bytes], Sequence[int]] | None = None
    # Compressions in which records are counted by reading them: each gives one result, which says
    # its number nowhere else.
    read_once: tuple[str, ...] = ()


def _of_stream(
    count: Callable[[io.BufferedReader], int | None],
) -> Callable[[Item], dict[str, int] | None]:
    def count_item(item: Item) -> dict[str, int] | None:
        records = count(item.stream)
        return None if records is None else {"records": records}

    return count_item


CUTTABLE = {
    "jsonl": Cuttable(rb"", _of_stream(count_lines)),
    "mediawiki": Cuttable(rb"[ \t]*<page>", _of_stream(count_pages), read_once=("bzip2",)),
    "warc": Cuttable(rb"WARC/[01]\.\d", _of_stream(count_warc_records)),
    "csv": Cuttable(rb"", count_rows, find_row_starts),
    "tsv": Cuttable(rb"", count_rows, find_row_starts),
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a raw file, which is read as a single pass over the file reads it."""

    start: int  # its bytes in the raw file
    stop: int
    digest: str  # SHA-256 of them, or of the digests of the ranges that it was joined of
    first: int = 0  # number of its first record
    until: int | None = None  # number of the first record after it; None in the last piece
    unpacked: int = 0  # bytes that the pieces before it unpack to
    head: str = ""  # SHA-256 of the first bytes of the file, unpacked
    is_counted: bool = False  # whether it is one range that holds whole records
    lines: int = 0  # of CSV, the lines before it
    credit: int = 0  # and what was earned there to look ahead with

    @property
    def size(self) -> int:
        """Its bytes in the raw file."""
        return self.stop - self.start

    def holds(self, record: int) -> bool:
        """Return whether the record of this number is in the piece."""
        return self.first <= record and (self.until is None or record < self.until)

    @property
    def key(self) -> dict[str, Any]:
        """What decides the documents of a piece besides its bytes."""
        key = {"first": self.first, "unpacked": self.unpacked, "head": self.head}
        return {**key, "lines": self.lines, "credit": self.credit} if self.lines else key


def cut_job(source: Source, hashed: HashedFile, key: Mapping[str, Any]) -> Job:
    """Return the job that cuts a raw file; `key` is what decides how it is read."""
    return cut_file.job(
        f"{source.name}.{origin_hash(hashed.file.origin)}",
        inputs={hashed.file.origin: hashed.sha256},
        size=hashed.file.size,
        key_only=key,
        hashed=Unkeyed(hashed),
        source=Unkeyed(source),
        piece_bytes=PIECE_BYTES,
    )


@build_step("collect/cut", version=3)
def cut_file(
    folder: Path, hashed: HashedFile, source: Source, piece_bytes: int = PIECE_BYTES
) -> Facts:
    """Find the places to cut a raw file at: `ranges` of (start, stop, SHA-256) of its bytes.

    There are none if it cannot be cut, or if its first range holds no text: it may be that the file
    is not read to its end then.
    """
    raw = hashed.file
    uncut: Facts = {"format": "", "codec": "", "head": "", "ranges": [], "rows": []}
    if (head := open_head(hashed, Selection(source.include, source.exclude))) is None:
        return uncut
    with hashed.open() as file:
        whole = open_piece(head, file, Piece(0, raw.size, ""))
        if not (form := piecewise_format(whole, source)):
            return uncut
        cuts, rows = _cuts_and_rows(head, file, form, piece_bytes)
        first = open_piece(head, file, Piece(0, cuts[1], ""))
        if len(cuts) == 2 or not any(isinstance(r, Document) for r in read_item(first, source)):
            return uncut
        ranges = [[start, stop, _digest(file, start, stop)] for start, stop in pairwise(cuts)]
    # The end of a Parquet file says what all of its bytes mean.
    digest = hashed.sha256 if rows else hashlib.sha256(head.item.head).hexdigest()
    facts = {"format": form, "codec": head.codec, "head": digest, "ranges": ranges}
    return {**facts, "rows": rows}


def _cuts_and_rows(
    head: FileHead, file: IO[bytes], form: str, piece_bytes: int
) -> tuple[list[int], list[int]]:
    """Return the places to cut a file at, with its ends, and the rows of each range.

    There are no rows where a format does not say how many there are.
    """
    if form == "parquet":
        if head.item.path is None:
            return [0, head.size], []
        cuts = cut_row_groups(head.item.path, head.size, piece_bytes)
        firsts = [first for _, first in cuts]
        # Those after the last cut are not asked for.
        rows = [after - first for first, after in pairwise([*firsts, firsts[-1]])]
        return [*(start for start, _ in cuts), head.size], rows
    most = piece_bytes // (_PACKED_SHARE if head.codec else 1)
    return [0, *_find_cuts(head, file, CUTTABLE[form], most), head.size], []


def _find_cuts(head: FileHead, file: IO[bytes], form: Cuttable, piece_bytes: int) -> Iterator[int]:
    """Yield the places to cut a file at, each at most `piece_bytes` after another.

    Where no record begins in a window of bytes, the next one is searched.
    """
    window = max(1, piece_bytes // _WINDOW_SHARE)
    start, size, codec = 0, head.size, head.codec
    if codec and form.starts:
        return
    while size - start > piece_bytes:
        first = start + piece_bytes - window
        last = first + _MAX_WINDOWS * window if codec else size
        for low in range(first, min(last, size), window):
            cut = _choose_cut(head, file, form, low, min(low + window, size))
            if cut is not None:
                break
        else:
            return
        yield cut
        start = cut


def _choose_cut(head: FileHead, file: IO[bytes], form: Cuttable, low: int, high: int) -> int | None:
    """Return the place from `low` on and before `high` to cut at; None if there is none."""
    codec, begin = head.codec, max(0, low - 1 - (_CONTEXT if form.starts else 0))
    file.seek(begin)
    data = file.read(high - begin + _SAMPLE)
    ends: Iterable[int]
    if form.starts:
        ends = form.starts(head.item, data)
    elif codec:
        starts = MEMBER_STARTS.get(codec)
        pattern = re.compile(b"(?=" + starts.pattern + b")") if starts else re.compile(rb"(?!)")
        ends = (match.end() for match in pattern.finditer(data, 1))
    else:
        ends = (match.end() for match in re.finditer(rb"\n(?=" + form.begins + rb")", data))
    offsets = (end for end in ends if low <= begin + end < high)
    # A hash of bytes, not of places: after an edit, cuts fall at the same records again.
    hashed = ((zlib.crc32(data[offset : offset + _SAMPLE]), offset) for offset in offsets)
    for _, offset in heapq.nsmallest(_TRIES if codec else 1, hashed):
        if not codec or _member_begins(file, begin + offset, head.size, form, codec):
            return begin + offset
    return None


def _member_begins(file: IO[bytes], place: int, size: int, form: Cuttable, codec: str) -> bool:
    """Return whether a member of a compressed file seems to start at `place`, with a record."""
    packed = FileRange(file, place, min(place + _MEMBER_BYTES, size))
    if codec == "bzip2":
        plain = first_bzip2_bytes(packed.read(), _SAMPLE)
    else:
        plain = unpack(BoundedStream(packed), codec, Budget.of(0)).peek(_SAMPLE)
    return bool(plain) and re.match(form.begins, plain) is not None


def _digest(file: IO[bytes], start: int, stop: int) -> str:
    digest = hashlib.sha256()
    stream = io.BufferedReader(FileRange(file, start, stop), BUFFER)
    while data := stream.read(1 << 20):
        digest.update(data)
    return digest.hexdigest()


def count_jobs(
    source: Source, hashed: HashedFile, cut: Facts, key: Mapping[str, Any], scratch: Path
) -> Iterator[Job]:
    """Yield the jobs that count the records of the ranges of a file.

    `scratch` is a folder for what is read meanwhile. A file that says how many rows it has needs no
    jobs.
    """
    if cut["rows"]:
        return
    name = f"{source.name}.{origin_hash(hashed.file.origin)}"
    for number, (start, stop, digest) in enumerate(cut["ranges"]):
        yield count_records.job(
            f"{name}-{number:05d}",
            inputs={hashed.file.origin: digest},
            size=stop - start,
            key_only=key,
            hashed=Unkeyed(hashed),
            source=Unkeyed(source),
            start=Unkeyed(start),
            stop=Unkeyed(stop),
            format=cut["format"],
            codec=cut["codec"],
            results=Unkeyed(results_path(scratch, source, digest, cut["head"])),
        )


def results_path(scratch: Path, source: Source, digest: str, head: str) -> Path:
    """Return where the results of a range are; `digest` and `head` as a Piece has them."""
    return scratch / f"{source.name}-{digest[:32]}-{head[:32]}"


@build_step("collect/count", version=3)
def count_records(
    folder: Path,
    hashed: HashedFile,
    source: Source,
    start: int,
    stop: int,
    format: str,
    codec: str,
    results: Path | None = None,
) -> Facts:
    """Count the records of a range of a raw file, and the bytes that it unpacks to.

    `records` is None where they are not whole, `damaged` says whether the range cannot be unpacked.
    Where counting is as good as reading, the records are read into the file `results`.
    """
    limit = Budget.of(stop - start).left
    if results and codec in CUTTABLE[format].read_once and _has_room(results, hashed.file.size):
        # What is wrong with a range is for the count to say.
        with suppress(Exception):
            return _read_range(hashed, source, Piece(start, stop, ""), results, limit)
    head = open_head(hashed, Selection(source.include, source.exclude))
    assert head is not None, "it was cut"
    budget, damaged = Budget(limit), False
    counted: dict[str, int] | None = None
    with hashed.open() as file:
        part = BoundedStream(FileRange(file, start, stop))
        plain: Any = io.BufferedReader(unpack(part, codec, budget), BUFFER)
        try:
            # Any number but 0 says that the file began before.
            item = replace(head.item, stream=plain, first=int(start > 0))
            counted = CUTTABLE[format].count(item)
            # A count ends at a record that is wrong; what follows may be damaged.
            while plain.read(BUFFER):
                pass
        except DamagedError:
            counted, damaged = None, True
    facts = {"records": None, "unpacked": limit - budget.left, "damaged": damaged}
    return {**facts, **(counted or {})}


def _has_room(results: Path, size: int) -> bool:
    """Return whether the disk has twice the size of a raw file left: results take less than it."""
    results.parent.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(results.parent).free > 2 * size


def _read_range(
    hashed: HashedFile, source: Source, piece: Piece, results: Path, limit: int
) -> Facts:
    """Read the records of a range into `results`, numbered from 0, and return what a count does.

    Raises DamagedError, or what a parser raises, unless the range is whole and nothing is wrong.
    """
    raw = hashed.file
    with hashed.open() as file:
        item = open_item(hashed, file, source, piece)
        read = choose_reader(item, source)(item, source)
        records = write_results(results, source, raw.origin, read)
        unpacked = Budget.of(raw.size).left - item.budget.left
        Budget(limit).take(unpacked)
    return {"records": records, "unpacked": unpacked, "damaged": False}


def join_ranges(size: int, cut: Facts, counts: Sequence[Facts]) -> list[Piece]:
    """Return the pieces of a file of `size` bytes; a single one if it cannot be cut.

    `counts` are those of its ranges, in order; none for a file that says how many rows it has.
    """
    ranges = cut["ranges"]
    if cut["rows"]:
        counts = [{"records": rows, "unpacked": 0, "damaged": False} for rows in cut["rows"]]
    if cut["codec"] not in _RESUMABLE and any(count["damaged"] for count in counts):
        ranges = []
    pieces: list[Piece] = []
    record = unpacked = place = lines = credit = 0
    limit = Budget.of(size).left
    for (start, stop, digest), count in zip(ranges, counts, strict=False):
        if count["records"] is None or unpacked + count["unpacked"] > limit:
            break
        until = record + count["records"]
        before = (record, until, unpacked, cut["head"], True, lines, credit)
        pieces.append(Piece(start, stop, digest, *before))
        record, unpacked, place = until, unpacked + count["unpacked"], stop
        lines, credit = lines + count.get("lines", 0), credit + count.get("credit", 0)
    if ranges and len(pieces) == len(ranges):
        return [*pieces[:-1], replace(pieces[-1], until=None)]
    rest = [digest for _, _, digest in ranges[len(pieces) :]]
    digest = rest[0] if len(rest) == 1 else hashlib.sha256("".join(rest).encode()).hexdigest()
    before = (record, None, unpacked, cut["head"], False, lines, credit)
    return [*pieces, Piece(place, size, digest, *before)]


def open_item(hashed: HashedFile, file: IO[bytes], source: Source, piece: Piece) -> Item:
    """Return what `open_items` yields for a raw file that is cut, with the bytes of a piece of it.

    Raises DamagedError if the bytes before the piece unpack to more than the file may.
    """
    head = open_head(hashed, Selection(source.include, source.exclude))
    assert head is not None, "it was cut"
    return open_piece(head, file, piece)


@dataclass(frozen=True, slots=True)
class FileHead:
    """How a raw file begins: what all of its pieces need."""

    item: Item  # without a stream
    codec: str
    size: int


# Of a file in bzip2 a stream is unpacked for it, which is too much to do for each piece.
@lru_cache(maxsize=16)
def open_head(hashed: HashedFile, selection: Selection) -> FileHead | None:
    """Return the beginning of a raw file; None for an archive, and for what cannot be opened."""
    raw = hashed.file
    with hashed.open() as file:
        codec = find_codec(file.read(6))
        file.seek(0)
        item = next(open_items(raw.path, file, raw.origin, raw.size, selection), None)
        # Members of archives are not cut.
        if not isinstance(item, Item) or item.origin != raw.origin:
            return None
        return FileHead(replace(item, stream=io.BufferedReader(io.BytesIO())), codec, raw.size)


def open_piece(head: FileHead, file: IO[bytes], piece: Piece) -> Item:
    """Return the item of a file with the bytes of a piece of it."""
    if detect_format(head.item.name, head.item.head) == "parquet" and head.item.path:
        # What its values take is known to who reads them only. Together they take no more than
        # those of the file may.
        budget, span = Budget.of(piece.stop - piece.start), (piece.start, piece.stop)
        return replace(head.item, budget=budget, first=piece.first, span=span)
    budget = Budget.of(head.size)
    budget.take(piece.unpacked)
    part = BoundedStream(FileRange(file, piece.start, piece.stop))
    stream: Any = io.BufferedReader(unpack(part, head.codec, budget), BUFFER)
    item = replace(head.item, stream=stream, path=None, budget=budget)
    return replace(item, first=piece.first, lines=piece.lines, credit=piece.credit)
