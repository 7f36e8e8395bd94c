"""620 files that are small on disk and try to take all memory or time of a reader.

A family is a list of variants; bomb `number` of a family is variant `number % len(variants)`, in a
size that grows with the number up to what a reader has to refuse. Each bomb is read in a child
process, which is watched: its memory is limited, its peak and its CPU seconds are measured.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import multiprocessing
import resource
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from groundup.artifacts.document import Document
from groundup.collect.charset import repair_text
from groundup.collect.files.archives import Refused, open_items
from groundup.collect.files.globs import Selection
from groundup.collect.files.streams import DamagedError
from groundup.collect.readers.registry import read_item
from groundup.collect.scrape.robots import find_opt_out, read_rules
from groundup.collect.scrape.url_list import read_sitemap
from groundup.recipe import Source
from tests.helpers.fuzz_files import SENTENCE, SMALL
from tests.helpers.office_files import (
    SPACES,
    docx,
    odf,
    p,
    package,
    pptx,
    relations,
    shape,
    xlsx,
)

# The budget of a file: CPU seconds, and megabytes that the peak of the memory may grow.
SECONDS, MEGABYTES, COLUMNAR_MEGABYTES = 90, 1_500, 2_500
# Address space that a child may take beyond its libraries; a reader that needs more is told.
ADDRESS_SPACE = 5 << 30
BOMBS_OF_A_FAMILY = 20

# Kind of source (or what is called instead of a reader), name, bytes.
File = tuple[str, str, bytes]
# Makes a file by the share of the largest size, up to 1.
Variant = Callable[[float], File]
MB = 1 << 20


def packed(pieces: Iterable[tuple[bytes, int]]) -> bytes:
    """Return pieces, each repeated, as one gzip stream, without holding them plain."""
    gz = zlib.compressobj(6, wbits=31)
    out = []
    for piece, count in pieces:
        block = max(1, MB // max(1, len(piece)))
        out += [gz.compress(piece * min(block, count - at)) for at in range(0, count, block)]
    return b"".join([*out, gz.flush()])


def filled(
    kind: str,
    name: str,
    piece: bytes | str,
    size: int,
    before: bytes | str = b"",
    after: bytes | str = b"",
) -> Variant:
    """Return a variant: a piece repeated up to `size` bytes, between two others, in gzip."""
    first, middle, last = (
        part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        for part in (before, piece, after)
    )

    def make(share: float) -> File:
        count = max(1, int(size * share) // len(middle))
        return kind, f"{name}.gz", packed([(first, 1), (middle, count), (last, 1)])

    return make


def nested(
    kind: str,
    name: str,
    start: str,
    end: str,
    size: int,
    around: tuple[str, str] = ("", ""),
    inside: str = "",
) -> Variant:
    """Return a variant: brackets in brackets, up to `size` bytes."""

    def make(share: float) -> File:
        count = max(1, int(size * share) // (len(start) + len(end)))
        parts = [(around[0], 1), (start, count), (inside, 1), (end, count), (around[1], 1)]
        return kind, f"{name}.gz", packed([(part.encode(), times) for part, times in parts if part])

    return make


def _repack(data: bytes, codec: str) -> bytes:
    packers: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zst": lambda plain: bytes(pa.Codec("zstd").compress(plain, asbytes=True)),
    }
    return packers[codec](data)


def _zeros(codec: str) -> Variant:
    return lambda share: ("text", f"x.txt.{codec}", _repack(bytes(int(300 * MB * share)), codec))


def _gzip_in_gzip(share: float) -> File:
    data = bytes(int(200 * MB * share))
    for _ in range(6):
        data = gzip.compress(data)
    return "text", "x.txt.gz", data


def _streams(codec: str) -> Variant:
    """Return a variant: thousands of empty streams, one after the other, in a tar.gz."""

    def make(share: float) -> File:
        piece = _repack(b"", codec)
        return "text", "x.tar.gz", _tar_gz("x.txt." + codec, piece, int(24 * MB * share))

    return make


def _tar_gz(name: str, piece: bytes, size: int) -> bytes:
    """Return a tar.gz of one member: a piece, repeated up to a size."""
    info = tarfile.TarInfo(name)
    count = size // len(piece)
    info.size = count * len(piece)
    return packed([(info.tobuf(), 1), (piece, count), (bytes(-info.size % 512 + 1024), 1)])


def _short_streams(share: float) -> File:
    piece = bz2.compress(b"a")
    return "text", "x.tar.gz", _tar_gz("x.txt.bz2", piece, int(48 * MB * share))


def _long_gzip_name(share: float) -> File:
    info = tarfile.TarInfo("x.txt.gz")
    head, count = b"\x1f\x8b\x08\x08" + bytes(6), int(240 * share)
    info.size = len(head) + count * MB
    return "text", "x.tar.gz", packed([(info.tobuf() + head, 1), (b"a" * MB, count)])


def _zip_of(members: Iterable[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def _zip_zeros(share: float) -> File:
    return "text", "x.zip", _zip_of([("a.txt", bytes(int(300 * MB * share)))])


def _zip_members(share: float) -> File:
    return "text", "x.zip", _zip_of((f"{n}.txt", b"a") for n in range(int(16_000 * share) + 1))


def _overlapping(share: float, name: str = "a.txt") -> bytes:
    """Return a zip file of many entries that are all the same bytes."""
    data = _zip_of([(name, bytes(10 * MB))])
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    count = int(20_000 * share) + 1
    entry = data[start:end]
    tail = struct.pack("<HHIIH", count, count, count * len(entry), start, 0)
    return data[:start] + entry * count + b"PK\x05\x06\0\0\0\0" + tail


def _zip_directory(share: float) -> File:
    """Return a zip.gz with a table of contents of up to five million names."""
    data = _zip_of([("a", b"a")])
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry, count = data[start:end], int(240 * MB * share) // (end - start)
    tail = struct.pack("<HHIIH", count & 0xFFFF, count & 0xFFFF, count * len(entry), start, 0)
    pieces = [(data[:start], 1), (entry, count), (b"PK\x05\x06\0\0\0\0" + tail, 1)]
    return "text", "x.zip.gz", packed(pieces)


def _header(name: str, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def _pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return _header("p", kind, len(records)) + _padded(records)


def _record(key: str, value: str) -> bytes:
    rest = len(f" {key}={value}\n")
    size = rest + len(str(rest))
    size = rest + len(str(size))
    return f"{size} {key}={value}\n".encode()


_EMPTY_MEMBER = _header("a.txt", tarfile.REGTYPE, 0)


def _tar(*pieces: tuple[bytes, int]) -> File:
    return "text", "x.tar.gz", packed([*pieces, (bytes(1024), 1)])


def _header_chain(share: float) -> File:
    return _tar((_pax(_record("comment", "a")), int(100_000 * share) + 1), (_EMPTY_MEMBER, 1))


def _long_names(share: float) -> File:
    name = _header("././@LongLink", tarfile.GNUTYPE_LONGNAME, 900_000) + _padded(b"n" * 900_000)
    return _tar((name + _EMPTY_MEMBER, int(250 * share) + 1))


def _global_keys(share: float) -> File:
    keys = b"".join(_record(f"k{n:06}", "") for n in range(50_000))
    return _tar((_pax(keys, tarfile.XGLTYPE), 1), (_EMPTY_MEMBER, int(400_000 * share) + 1))


def _global_path(share: float) -> File:
    path = _pax(_record("path", "n" * 900_000), tarfile.XGLTYPE)
    return _tar((path, 1), (_EMPTY_MEMBER, int(400_000 * share) + 1))


def _tar_members(share: float) -> File:
    return _tar((_EMPTY_MEMBER, int(450_000 * share) + 1))


def _new_sparse(share: float) -> File:
    """Return a sparse member with a map of up to a hundred million entries."""
    count = int(220 * MB * share) // 512 * 256
    records = _record("GNU.sparse.major", "1") + _record("GNU.sparse.minor", "0")
    records += _record("GNU.sparse.name", "a.txt") + _record("GNU.sparse.realsize", "1")
    start = f"{count // 2}\n".encode()
    size = len(start) + count * 2
    head = _pax(records) + _header("a.txt", tarfile.REGTYPE, size) + start
    return _tar((head, 1), (b"0\n", count), (bytes(-size % 512), 1))


def _pax_sparse(share: float) -> File:
    pieces = ",".join(["0,1"] * int(200_000 * share + 1))
    member = _header("a.txt", tarfile.REGTYPE, 512) + bytes(512)
    return _tar((_pax(_record("GNU.sparse.map", pieces)) + member, 100))


def _old_sparse(share: float) -> File:
    head = bytearray(_header("a.txt", tarfile.GNUTYPE_SPARSE, 0))
    head[482] = 1
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + sum(head[156:]) + 8 * 32)
    piece = (b"%011o\0" % 0 + b"%011o\0" % 0) * 21 + b"\1" + bytes(7)
    return _tar((bytes(head), 1), (piece, int(400_000 * share)), (bytes(512), 1))


def _holes(share: float) -> File:
    size = int(2**40 * share)
    records = _record("GNU.sparse.map", "0,1") + _record("GNU.sparse.size", str(size))
    return _tar((_pax(records) + _header("a.txt", tarfile.REGTYPE, 1) + _padded(b"a"), 9))


def _text_epub(package: str, pages: Iterable[tuple[str, bytes]]) -> bytes:
    container = b"<container><rootfile full-path='b.opf'/></container>"
    return _zip_of([("META-INF/container.xml", container), ("b.opf", package.encode()), *pages])


def _spine(share: float) -> File:
    count = int(100_000 * share) + 1
    items = "".join(f"<item id='i{n}' href='{n}.xhtml'/>" for n in range(count))
    spine = "".join(f"<itemref idref='i{n}'/>" for n in range(count))
    package = f"<package><manifest>{items}</manifest><spine>{spine}</spine></package>"
    return "books", "x.epub", _text_epub(package, [("0.xhtml", b"<p>a</p>")])


def _chapters(piece: str, size: int, count: int = 12) -> Variant:
    """Return a variant: an EPUB of large pages, each a piece repeated up to `size` bytes."""

    def make(share: float) -> File:
        times = int(size * share) // len(piece) + 1
        page = b"<html><body>" + piece.encode() * times + b"</body></html>"
        pages = ((f"{n}.xhtml", page) for n in range(count))
        return "books", "x.epub", _text_epub("<package/>", pages)

    return make


def _spaced_chapters(share: float) -> File:
    page = f"<p>a{chr(0xA0) * int(MB * share)}b</p>".encode()
    return "books", "x.epub", _text_epub("<package/>", [("a.xhtml", page)])


def _warc(body: bytes, headers: str = "", length: int | None = None, kind: str = "") -> bytes:
    http = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{headers}\r\n".encode()
    length = len(http) + len(body) if length is None else length
    head = "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.org/\r\n"
    head += f"Content-Type: application/http; msgtype=response\r\n{kind}Content-Length: {length}"
    return head.encode() + b"\r\n\r\n" + http + body + b"\r\n\r\n"


def _record_bomb(make: Callable[[int], bytes], count: int = 1) -> Variant:
    """Return a variant: a WARC file of a record by its size, repeated, and a good one."""

    def write(share: float) -> File:
        record = make(int(200 * MB * share))
        good = _warc(f"<p>{SENTENCE * 9}</p>".encode())
        return "web", "x.warc.gz", packed([(record, count), (good, 1)])

    return write


def _encoded(name: str) -> Callable[[int], bytes]:
    codec = {"br": "brotli"}.get(name, name)

    def make(size: int) -> bytes:
        plain = b"<p>" + bytes(size)
        body = zlib.compress(plain) if name == "deflate" else b""
        body = body or bytes(pa.Codec(codec).compress(plain, asbytes=True))
        return _warc(body, f"Content-Encoding: {name}\r\n")

    return make


def _chunk(size: str) -> Callable[[int], bytes]:
    return lambda _: _warc(f"{size}\r\n<p>a</p>\r\n".encode(), "Transfer-Encoding: chunked\r\n")


def _wiki(piece: str, size: int = 15 * MB, before: str = "", after: str = "") -> Variant:
    """Return a variant: a dump with one page of a piece repeated."""
    start = "<mediawiki><page><title>T</title><ns>0</ns><revision><text>" + before
    end = f"{after}</text></revision></page></mediawiki>"
    return filled("wikipedia", "x.xml", piece, size, start, end)


def _dump(piece: str, size: int = 15 * MB, before: str = "", after: str = "") -> Variant:
    start = f"<mediawiki><page>{before}"
    return filled("wikipedia", "x.xml", piece, size, start, f"{after}</page></mediawiki>")


def _page_names(share: float) -> File:
    title, count = "t" * int(5 * MB * share + 1), int(400_000 * share) + 1
    start = f"<mediawiki><page><title>{title}</title><ns>0</ns><revision><text>"
    end = b"</text></revision></page></mediawiki>"
    pieces = [(start.encode(), 1), (b"{{PAGENAME}}\n", count), (end, 1)]
    return "wikipedia", "x.xml.gz", packed(pieces)


def _template_names(share: float) -> File:
    """Return a dump of pages with templates of very long names."""
    pages = int(16 * share) + 1
    text = [
        (f"<page><title>T{n}</title><revision><text>{{{{{n}{'n' * 12 * MB}}}}}".encode(), 1)
        for n in range(pages)
    ]
    end = (b"</text></revision></page>\n", 1)
    return "wikipedia", "x.xml.gz", packed(part for page in text for part in (page, end))


def _feed(piece: str, size: int = 19 * MB, before: str = "", after: str = "") -> Variant:
    head = f"<rss version='2.0'><channel><item><title>T</title><description>{before}"
    return filled(
        "web", "x.xml", piece, size, head, f"{after}</description></item></channel></rss>"
    )


def _laughs(share: float) -> File:
    count = int(30 * share) + 2
    entities = "".join(
        f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "ha"}">' for n in range(count)
    )
    body = f"<item><title>&e{count - 1};</title><description>a</description></item>"
    return (
        "web",
        "x.xml",
        f"<?xml version='1.0'?><!DOCTYPE r [{entities}]><rss>{body}</rss>".encode(),
    )


def _robots(make: Callable[[int], str]) -> Variant:
    return lambda share: ("robots", "robots.txt", make(int(500_000 * share)).encode())


def _agents(line: str) -> Callable[[int], str]:
    def make(size: int) -> str:
        names = "".join(f"User-agent: robot{n}\n" for n in range(size // 2 // 21))
        return names + line * (size // 2 // len(line))

    return make


def _sitemap(piece: str, before: str = "<urlset>", after: str = "</urlset>") -> Variant:
    return filled("sitemap", "x.xml", piece, 49 * MB, before, after)


def _table(name: str, table: pa.Table, rows: int = 1 << 30) -> File:
    out = io.BytesIO()
    if name.endswith(".parquet"):
        pq.write_table(table, out, compression="zstd", row_group_size=min(rows, 1 << 20))
    else:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_stream(out, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=rows)
    return "text", name, out.getvalue()


def _dictionary(name: str) -> Variant:
    def make(share: float) -> File:
        codes = pa.array([0] * 640, pa.int32())
        text = pa.array(["the river " * int(5_000_000 * share + 1)])
        return _table(name, pa.table({"text": pa.DictionaryArray.from_arrays(codes, text)}))

    return make


def _runs(share: float) -> File:
    count = int(2_000_000_000 * share)
    ends = pa.array([count], pa.int32())
    runs = pa.RunEndEncodedArray.from_arrays(ends, pa.array(["the river " * 10_000]))
    out = io.BytesIO()
    with pa.ipc.new_stream(out, pa.schema({"text": runs.type})) as writer:
        writer.write_batch(pa.record_batch({"text": runs}))
    return "text", "x.arrow", out.getvalue()


def _list_views(share: float) -> File:
    rows = int(3_000 * share) + 1
    text = pa.array([SENTENCE] * rows)
    offsets, sizes = pa.array([0] * rows, pa.int32()), pa.array([rows] * rows, pa.int32())
    views = pa.ListViewArray.from_arrays(offsets, sizes, text)
    out = io.BytesIO()
    with pa.ipc.new_stream(out, pa.schema({"messages": views.type})) as writer:
        writer.write_batch(pa.record_batch({"messages": views}))
    return "conversations", "x.arrow", out.getvalue()


def _string_views(share: float) -> File:
    count, text = 20_000, b"r" * int(8 * MB * share + 20)
    # Length, first letters, buffer and offset of each.
    views = struct.pack("<i4sii", len(text), text[:4], 0, 0) * count
    buffers = [None, pa.py_buffer(views), pa.py_buffer(text)]
    rows = pa.Array.from_buffers(pa.string_view(), count, buffers)
    out = io.BytesIO()
    with pa.ipc.new_stream(out, pa.schema({"text": rows.type})) as writer:
        writer.write_batch(pa.record_batch({"text": rows}))
    return "text", "x.arrow", out.getvalue()


def _numbers(name: str) -> Variant:
    def make(share: float) -> File:
        zeros = pa.array(memoryview(bytes(int(400 * MB * share) & ~7)).cast("q"), pa.int64())
        return _table(name, pa.table({"text": zeros}))

    return make


def _text_rows(name: str) -> Variant:
    def make(share: float) -> File:
        return _table(name, pa.table({"text": pa.array(["r" * int(60 * MB * share)] * 4)}), 1)

    return make


def _nested_lists(share: float) -> File:
    kind, data = pa.list_(pa.int8()), [[0] * 1000] * 1000
    for _ in range(int(20 * share)):
        kind, data = pa.list_(kind), [data[:2]]  # type: ignore[list-item]
    table = pa.table({"text": pa.array(data, kind), "messages": pa.array(data, kind)})
    return "conversations", *_table("x.parquet", table)[1:]


def _pdf_of(objects: Iterable[bytes]) -> bytes:
    """Return a PDF of objects from number 1 on, of which the first is the catalog."""
    out, starts = [b"%PDF-1.5\n"], []
    size = len(out[0])
    for number, inner in enumerate(objects, 1):
        out.append(b"%d 0 obj\n%s\nendobj\n" % (number, inner))
        starts.append(size)
        size += len(out[-1])
    table = b"".join(b"%010d 00000 n \n" % start for start in starts)
    count = len(starts) + 1
    out.append(b"xref\n0 %d\n0000000000 65535 f \n" % count + table)
    out.append(b"trailer\n<</Root 1 0 R/Size %d>>\nstartxref\n%d\n%%%%EOF\n" % (count, size))
    return b"".join(out)


_CATALOG = b"<</Type/Catalog/Pages 2 0 R>>"
_PAGE = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<<%s>>>>"
_COURIER = b"/Font<</F<</Type/Font/Subtype/Type1/BaseFont/Courier>>>>"


def _pdf_stream(data: bytes, keys: bytes = b"") -> bytes:
    head = b"<</Length %d/Filter/FlateDecode%s>>" % (len(data), keys)
    return head + b"\nstream\n%s\nendstream" % data


def _pdf_page(piece: bytes, size: int, resources: bytes = _COURIER, pages: int = 1) -> Variant:
    """Return a variant: the same page many times, whose content is a piece repeated."""

    def make(share: float) -> File:
        block = zlib.compressobj(9)
        times = int(size * share) // len(piece) + 1
        many = max(1, MB // len(piece))
        content = block.compress(b"BT /F 9 Tf 50 700 Td ")
        for at in range(0, times, many):
            content += block.compress(piece * min(many, times - at))
        content += block.flush()
        count = max(1, int(pages * share))
        tree = b"<</Type/Pages/Kids[%s]/Count %d>>" % (b"3 0 R " * count, count)
        objects = [_CATALOG, tree, _PAGE % resources, _pdf_stream(content)]
        return "documents", "x.pdf", _pdf_of(objects)

    return make


def _pdf_forms(share: float) -> File:
    """Return a PDF with forms that draw the next one ten times each."""
    depth = int(20 * share) + 2
    draw, text = zlib.compress(b"/N Do " * 10), zlib.compress(b"BT /F 9 Tf 9 9 Td (a) Tj ET")
    form = b"/Type/XObject/Subtype/Form/BBox[0 0 600 800]/Resources<<%s>>"
    objects = [_CATALOG, b"<</Type/Pages/Kids[3 0 R]/Count 1>>", _PAGE % b"/XObject<</N 5 0 R>>"]
    objects.append(_pdf_stream(draw))
    for number in range(5, 5 + depth):
        resources = b"/XObject<</N %d 0 R>>" % (number + 1)
        objects.append(_pdf_stream(draw, form % resources))
    return "documents", "x.pdf", _pdf_of([*objects, _pdf_stream(text, form % _COURIER)])


def _pdf_tree(share: float) -> File:
    """Return a PDF.gz of pages in pages in pages."""
    depth = int(150_000 * share) + 2
    tree = (
        b"<</Type/Pages/Parent %d 0 R/Kids[%d 0 R]/Count 1>>" % (n - 1, n + 1)
        for n in range(3, depth)
    )
    first = b"<</Type/Pages/Kids[3 0 R]/Count 1>>"
    objects = [_CATALOG, first, *tree, b"<</Type/Page/MediaBox[0 0 9 9]>>"]
    return "documents", "x.pdf.gz", gzip.compress(_pdf_of(objects))


def _docx(piece: str, size: int, part: str = "document", body: str = "") -> Variant:
    """Return a variant: a DOCX with a part that is a piece repeated."""

    def make(share: float) -> File:
        inner = piece * (int(size * share) // len(piece) + 1)
        if part == "document":
            return "documents", "x.docx", docx(inner)
        return "documents", "x.docx", docx(body, **{part: inner})

    return make


def _docx_relations(share: float) -> File:
    entries = "<Relationship Id='a' Type='b' Target='c'/>" * int(15 * MB * share // 42)
    members = {"[Content_Types].xml": "", "_rels/.rels": f"<Relationships>{entries}", "word/a": ""}
    return "documents", "x.docx", package(members)


def _xlsx(make_sheet: Callable[[float], str], strings: str = "") -> Variant:
    """Return a variant: a workbook of one sheet, whose rows `make_sheet` gives."""

    def make(share: float) -> File:
        with zipfile.ZipFile(io.BytesIO(xlsx(A=[["word", "words"]]))) as archive:
            members = {name: archive.read(name).decode() for name in archive.namelist()}
        sheet = members["xl/worksheets/sheet1.xml"]
        start = sheet[: sheet.index("<sheetData>") + len("<sheetData>")]
        members["xl/worksheets/sheet1.xml"] = f"{start}{make_sheet(share)}</sheetData></worksheet>"
        if strings:
            space = "xmlns='http://schemas.openxmlformats.org/spreadsheetml/2006/main'"
            text = strings * int(MB * share)
            members["xl/sharedStrings.xml"] = f"<sst {space}><si><t>{text}</t></si></sst>"
            relation = members["xl/_rels/workbook.xml.rels"]
            added = relations(s="sharedStrings sharedStrings.xml")
            entry = added[added.index("<Relationship ") : added.index("</Relationships>")]
            members["xl/_rels/workbook.xml.rels"] = relation.replace(
                "</Relationships>", f"{entry}</Relationships>"
            )
        return "documents", "x.xlsx", package(members)

    return make


def _xlsx_sheets(share: float) -> File:
    sheets = {f"s{n}": [["word", "words"]] for n in range(int(4_000 * share) + 1)}
    return "documents", "x.xlsx", xlsx(**sheets)


def _odf(piece: str, size: int, form: str = "text", before: str = "", after: str = "") -> Variant:
    """Return a variant: an ODT, ODS or ODP with a piece repeated between two others."""
    suffix = {"text": "odt", "spreadsheet": "ods", "presentation": "odp"}[form]

    def make(share: float) -> File:
        inner = piece * (int(size * share) // len(piece) + 1)
        return "documents", f"x.{suffix}", odf(f"{before}{inner}{after}", form)

    return make


def _odf_repeated(share: float) -> File:
    """Return an ODT of elements that stand for up to a billion spaces and cells."""
    count = int(1_000_000_000 * share)
    cell = f"<table:table-cell table:number-columns-repeated='{count}'><text:p>a</text:p>"
    row = f"<table:table-row table:number-rows-repeated='{count}'>{cell}</table:table-cell>"
    spaces = f"<text:p>a<text:s text:c='{count}'/>b</text:p>"
    return "documents", "x.odt", odf(f"{spaces}<table:table>{row}</table:table-row></table:table>")


def _ods_repeated(share: float) -> File:
    rows, cells = int(1_048_576 * share), int(16_384 * share)
    cell = (
        f"<table:table-cell office:value-type='string' table:number-columns-repeated='{cells}'>"
        "<text:p>word</text:p></table:table-cell>"
    )
    row = f"<table:table-row table:number-rows-repeated='{rows}'>{cell}</table:table-row>"
    table = f"<table:table table:name='A'>{row}</table:table>"
    return "documents", "x.ods", odf(table, "spreadsheet")


def _pptx(make_slide: Callable[[int], str], size: int) -> Variant:
    """Return a variant: a PPTX of one slide by its size in bytes."""
    return lambda share: ("documents", "x.pptx", pptx([make_slide(int(size * share))]))


def _pptx_slides(share: float) -> File:
    """Return a PPTX that shows the same large slide up to 100,000 times."""
    text = shape("body", *["word " * 400] * 500)
    ids = "<p:sldId id='1' r:id='r1'/>" * int(100_000 * share)
    members = {
        "[Content_Types].xml": "",
        "_rels/.rels": relations(a="officeDocument ppt/presentation.xml"),
        "ppt/presentation.xml": f"<p:presentation {SPACES}>{ids}</p:presentation>",
        "ppt/_rels/presentation.xml.rels": relations(r1="slide slides/slide1.xml"),
        "ppt/slides/slide1.xml": f"<p:sld {SPACES}>{text}</p:sld>",
    }
    return "documents", "x.pptx", package(members)


def _rtf(piece: str, size: int = 60 * MB, before: str = "", after: str = "}") -> Variant:
    return filled("documents", "x.rtf", piece, size, "{\\rtf1 " + before, after)


_COLLIDING = 2**61 - 1


def _colliding_keys(share: float) -> File:
    """Return YAML of numbers that have the same hash in Python."""
    lines = "".join(f"{n * _COLLIDING}: a\n" for n in range(1, int(100_000 * share) + 2))
    return "conversations", "x.yml", lines.encode()


_DEEP = 40 * MB
FAMILIES: dict[str, tuple[Variant, ...]] = {
    "packed zeros": (*map(_zeros, ("gz", "bz2", "xz", "zst")), _gzip_in_gzip),
    "packed streams": (
        *map(_streams, ("gz", "bz2", "xz")),
        _short_streams,
        _long_gzip_name,
    ),
    "zip": (
        _zip_zeros,
        _zip_members,
        lambda share: ("text", "x.zip", _overlapping(share)),
        _zip_directory,
    ),
    "tar headers": (_header_chain, _long_names, _global_keys, _global_path, _tar_members),
    "tar sparse": (_new_sparse, _pax_sparse, _old_sparse, _holes),
    "json depth": (
        nested("text", "x.json", "[", "]", _DEEP),
        nested("text", "x.jsonl", "[", "]", _DEEP),
        nested("text", "x.jsonl", '{"text":', "}", _DEEP, inside="0"),
        nested("conversations", "x.json", '{"replies":[', "]}", _DEEP, ("[", "]")),
        filled("text", "x.json", '[{"', 250 * MB),
    ),
    "json length": (
        filled("text", "x.jsonl", "a", 250 * MB, '{"text":"'),
        filled("text", "x.json", "a\U00010600", 240 * MB, '[{"text":"', '"}]'),
        filled("text", "x.jsonl", b"\xff", 120 * MB, '{"text":"a"}\n' * 9000 + '{"text":"', '"}\n'),
        filled("text", "x.json", "9", 200 * MB, '[{"text":', "}]"),
    ),
    "json elements": (
        filled("text", "x.jsonl", "{},", 63 * MB, '{"text":[', "0]}\n"),
        filled("evaluation", "x.jsonl", '{"a":0},', 63 * MB, '{"choices":[', "0]}\n"),
        filled("conversations", "x.json", "[],", 250 * MB, '[{"messages":[', "0]}]"),
        filled("text", "x.json", '{"a":"b"},', 250 * MB, '{"data":[', "0]}"),
        filled("text", "x.json", "0,", 250 * MB, "[", "0]"),
    ),
    "chats": (
        filled("conversations", "x.jsonl", '{"thread_id":1,"role":"a","text":"b"}\n', 250 * MB),
        filled("conversations", "x.jsonl", '{"role":"a","text":"b"},', 60 * MB,
               '{"messages":[', '{"role":"a","text":"b"}]}\n'),
        filled("conversations", "x.jsonl", "### Instruction:\\n### Input:\\n", MB,
               '{"prompt":"Below is an instruction', 'x","response":"b"}\n'),
        filled("conversations", "x.jsonl", "\\n\\nHuman: a\\n\\nAssistant: b", 60 * MB,
               '{"response":"Human: a', '"}\n'),
        filled("tuning", "x.csv", "a,b\n", 60 * MB, "text,label\n"),
    ),
    "csv": (
        filled("text", "x.csv", "a,", 60 * MB, "text\n"),
        filled("text", "x.csv", ",", 60 * MB),
        filled("text", "x.csv", '"a,b\n', 60 * MB, "text,b\n"),
        filled("text", "x.csv", "a", 250 * MB, 'text,b\n"', '",1\n'),
        filled("text", "x.csv", 'a"\n', 60 * MB, 'text,b\n"'),
    ),
    "yaml": (
        nested("conversations", "x.yml", "[", "]", 2 * MB),
        filled("conversations", "x.yml", "- a\n", 15 * MB),
        filled("conversations", "x.yml", ":1", 15 * MB, "a: 1"),
        _colliding_keys,
        filled("conversations", "x.yml", "a", 15 * MB, "a: &b '", "'\nc: [*b, *b]\n"),
    ),
    "html depth": (
        filled("web", "x.html", "<div>", 19 * MB, "<html>"),
        filled("web", "x.html", "<p><b><i>", 19 * MB, "<html>"),
        filled("web", "x.html", "<div><b>", 6_000, "<html>", SENTENCE * 100_000),
        nested("web", "x.html", "<sup>", "</sup>", 1_500_000, ("<html>", "")),
        nested("text", "x.xml", "<a>", "</a>", 19 * MB, ("<?xml version='1.0'?>", "")),
    ),
    "html width": (
        filled("web", "x.html", " a='b'", 19 * MB, "<html><body", ">a</body>"),
        filled("web", "x.html", "<br>", 19 * MB, "<html>"),
        filled("web", "x.html", "<p>a", 1_100_000, "<html>"),
        filled("web", "x.html", "<li><a href='a'>b", 4_000_000, "<html><ul>"),
        filled("web", "x.html", "<!-- a -->\n", 60_000, "", "plain"),
    ),
    "html text": (
        filled("web", "x.html", SENTENCE, 19 * MB, "<html><body><div>", "</div></body>"),
        filled("web", "x.html", "&nbsp;", 19 * MB, "<html><p>a", "b</p>"),
        filled("web", "x.html", "a", 19 * MB, "<html><meta charset=punycode>",
               "-" + "a" * 400_000),
        filled("web", "x.html", "<", 19 * MB, "<html>"),
        filled("web", "x.html", "<script>", 2_000_000, "<html>"),
    ),
    "html tables": (
        filled("web", "x.html", "<table><tr><td>", 14_000, "<html>"),
        filled("web", "x.html", "<tr><td>a<td>b", 4_000_000, "<html><table>"),
        filled("web", "x.html", "<table><tr><td>" * 300 + "</table>" * 300, 2_000_000, "<html>"),
        filled("web", "x.html", "<div><table><tr><td>a</table></div>", 2_000_000, "<html>"),
    ),
    "warc headers": (
        _record_bomb(lambda size: _warc(b"", "", 2**62 + size)),
        _record_bomb(lambda size: _warc(b"", "", -size)),
        _record_bomb(lambda size: _warc(b"", "", 9, f"A: {'a' * size}\r\n")),
        _record_bomb(lambda size: _warc(b"", "A: a\r\n" * (size // 6))),
        _record_bomb(lambda size: b"WARC/1.0\r\n" * 9, 200_000),
    ),
    "warc bodies": (
        _record_bomb(_chunk("7fffffffffffffff")),
        _record_bomb(_chunk("ffffffffffffffffffffffff")),
        _record_bomb(lambda size: _warc(b"1\r\n<\r\n" * (size // 20 // 6),
                                        "Transfer-Encoding: chunked\r\n")),
        *(_record_bomb(_encoded(name)) for name in ("br", "gzip")),
    ),
    "epub": (
        _spine,
        _chapters("<p>a</p>", 19 * MB),
        _chapters(SENTENCE, 19 * MB),
        _spaced_chapters,
        lambda share: ("books", "x.epub", _overlapping(share, "a.xhtml")),
    ),
    "wikitext": (
        _wiki("{{a|"),
        _wiki("[[a|{{b|"),
        _wiki("{| class=a\n| b "),
        _wiki("&lt;ref&gt;a&lt;gallery&gt;"),
        _wiki("{{lang|en|" * 39 + "a" * 9 + "}}" * 39),
        _wiki("{{x}},", before="x" * 5 * MB + "\n "),
        _wiki("\u3000", before="= a", after="x"),
        _wiki("[http:a[b]"),
        _wiki("&amp;nbsp;&amp;lt;"),
        _wiki("| a || b\n|-\n", before="{| class=a\n", after="|}"),
    ),
    "dumps": (
        _page_names,
        _template_names,
        _dump("<a>"),
        _dump("<a b=''/>"),
        _dump("<revision>", 240 * MB, "<title>" + "t" * 17 * MB),
    ),
    "feeds": (
        _feed("&lt;br&gt;"),
        _feed("<b>a</b>"),
        _feed("&#160;", before="&lt;p&gt;a", after="b&lt;/p&gt;"),
        filled("web", "x.xml", "<item><title>a</title>", 19 * MB, "<rss><channel>"),
        _laughs,
    ),
    "xml": (
        filled("text", "x.xml", "<a/>", 19 * MB, "<?xml version='1.0'?><r>\U00010600", "</r>"),
        filled("text", "x.xml", "<a/>b", 19 * MB, "<?xml version='1.0'?><r>", "</r>"),
        filled("evaluation", "x.xml", "<a b=''/>", 19 * MB, "<?xml version='1.0'?><r>", "</r>"),
        filled("text", "x.xml", "&a;", 19 * MB, "<?xml version='1.0'?><r>", "</r>"),
    ),
    "sites": (
        _robots(_agents("Content-Signal: ai-train=no\n")),
        _robots(_agents("Disallow: /a*b*c$\n")),
        _robots(lambda size: "User-agent: *\n" + f"Disallow: /{'*a' * 30}b\n" * (size // 70)),
        _sitemap("<a/>"),
        _sitemap("<url><loc>http://a.org/a</loc><a/>b</url>"),
        _sitemap("<sitemap><loc>http://a.org/a</loc></sitemap>"),
        _sitemap("<a>"),
        _sitemap("<url>b</url>"),
        _sitemap("<loc>"),
        _sitemap("a", "<urlset><url><loc>"),
    ),
    "columns": (
        _dictionary("x.parquet"),
        _dictionary("x.arrow"),
        _runs,
        _list_views,
        _string_views,
        _numbers("x.arrow"),
        _numbers("x.parquet"),
        _text_rows("x.parquet"),
        _text_rows("x.arrow"),
        _nested_lists,
    ),
    "plain text": (
        filled("text", "x.srt", "00:00:00,000 --> 00:00:00,900\na\n\n", 60 * MB),
        filled("conversations", "x.txt", "[10:01] <ann> a\n", 60 * MB),
        filled("books", "x.txt", " ", 60 * MB, f"{SENTENCE}\n" * 20, "x"),
        filled("books", "x.txt", "[Transcriber notes:", 60 * MB, f"{SENTENCE}\n" * 20),
        filled("books", "x.txt", " ", 6 * MB, "*** START OF THE PROJECT GUTENBERG EBOOK A ***\n"
               + SENTENCE * 99 + "\n\n---\n", "x\n*** END OF THE PROJECT GUTENBERG EBOOK A ***\n"),
        filled("books", "x.txt", "a\n\n", 250 * MB),
        filled("text", "x.txt", "\n", 60 * MB),
        filled("text", "x.txt", b"\x1b$B\xff\x1b(B", 60 * MB),
        filled("text", "x.txt", b"\xd0\xff\xfe\xa0", 60 * MB),
        filled("text", "x.txt", "a\0\0\0", 60 * MB),
    ),
    "pdf": (
        _pdf_page(b"(a) Tj ", 300 * MB),
        _pdf_page(SENTENCE.join("()").encode() + b" Tj 0 -9 Td ", 60 * MB),
        _pdf_page(b"(word) Tj 0 -9 Td ", 2 * MB, pages=20_000),
        _pdf_forms,
        _pdf_tree,
    ),
    "docx": (
        _docx("<w:p><w:r><w:t>a</w:t></w:r></w:p>", 40 * MB),
        _docx("<w:tbl><w:tr><w:tc>", 15 * MB),
        _docx("<m:oMath><m:sSup><m:e>", 15 * MB),
        _docx("<w:style w:styleId='a'><w:basedOn w:val='a'/></w:style>", 15 * MB, "styles", p("a")),
        _docx_relations,
    ),
    "xlsx": (
        _xlsx(lambda share: f"<row r='1'><c r='XFD{int(1_048_576 * share)}'><v>1</v></c></row>"),
        _xlsx(lambda share: "<row><c t='s'><v>0</v></c></row>" * int(200_000 * share), "word "),
        _xlsx(lambda share: "<row/>" * int(40 * MB * share // 6)),
        _xlsx(lambda share: "<row><c><v>1</v></c></row>" * int(40 * MB * share // 26)),
        _xlsx_sheets,
    ),
    "odt": (
        _odf_repeated,
        _ods_repeated,
        _odf("<text:p>a</text:p>", 40 * MB),
        _odf("<text:section><text:p>a", 15 * MB),
        _odf("<draw:page><draw:frame><draw:text-box><text:p>a</text:p></draw:text-box>"
             "</draw:frame></draw:page>", 15 * MB, "presentation"),
    ),
    "pptx": (
        _pptx_slides,
        _pptx(lambda size: shape("body", *["a"] * (size // 40)), 15 * MB),
        _pptx(lambda size: "<p:grpSp>" * (size // 9), 15 * MB),
        _pptx(lambda size: "<p:graphicFrame><a:tbl><a:tr>" + "<a:tc/>" * (size // 7)
              + "</a:tr></a:tbl></p:graphicFrame>", 15 * MB),
        _pptx(lambda size: "<p:graphicFrame>" * 200 + "<a:tbl/>" * (size // 8), 15 * MB),
    ),
    "rtf": (
        _rtf("{"),
        _rtf("\\u8217?"),
        _rtf("a\\cell ", before="\\trowd "),
        _rtf("{\\f1\\fcharset204 A;}", before="{\\fonttbl"),
        _rtf("\\bin9", after="\\bin999999999 a}"),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a bomb did: CPU seconds, megabytes of memory, results, and why that is wrong, or ""."""

    family: str
    number: int
    seconds: float = 0.0
    megabytes: int = 0
    results: int = 0
    reasons: str = ""
    failure: str = ""


def make_bomb(family: str, number: int) -> File:
    """Return the kind, the name and the bytes of a bomb."""
    variants = FAMILIES[family]
    steps = BOMBS_OF_A_FAMILY // len(variants)
    step = number // len(variants)
    return variants[number % len(variants)](4.0 ** (step + 1 - steps))


def read_bomb(kind: str, name: str, data: bytes) -> list[str]:
    """Return what reading gives: "document", or a reason. Nothing else is kept."""
    if kind == "robots":
        rules = read_rules(data, "my-lab/1.0")
        address = f"https://a.org/{'a' * 1000}"
        rules.forbids(address)
        rules.forbids_training(address)
        return [find_opt_out(data[:1000], data, "my-lab") or "document"]
    if kind == "sitemap":
        try:
            return [read_sitemap(data).reason or "document"]
        except DamagedError as damage:
            return [damage.reason]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        with path.open("rb") as file:
            return list(_results(path, file, Source(path="x", kind=kind)))


def _results(path: Path, file: IO[bytes], source: Source) -> Iterator[str]:
    for item in open_items(path, file, path.name, path.stat().st_size, Selection()):
        if isinstance(item, Refused):
            yield item.reason
            continue
        for result in read_item(item, source):
            if isinstance(result, Document):
                repair_text(result.text).encode()
                yield "document"
            else:
                repair_text(result.detail).encode()
                yield sys.intern(result.reason)


def _peak(kind: str = "VmHWM") -> int:
    """Return the peak memory of this process, in megabytes, since it was forgotten."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{kind}:")[2].split()[0]) >> 10


def _measure(family: str, number: int) -> Outcome:
    kind, name, data = make_bomb(family, number)
    pa.default_memory_pool().release_unused()
    # Forgets the peak: see proc(5).
    Path("/proc/self/clear_refs").write_text("5")
    before, start = _peak("VmRSS"), time.process_time()
    limit = int(start) + SECONDS + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
    failure, results = "", []
    try:
        results = read_bomb(kind, name, data)
    except BaseException as error:
        failure = f"{type(error).__name__}: {error}"[:200]
    seconds, grown = time.process_time() - start, _peak() - before
    allowed = COLUMNAR_MEGABYTES if family == "columns" else MEGABYTES
    if not failure and not results:
        failure = "neither a document nor a reason"
    if not failure and grown > allowed:
        failure = f"{grown:,} MB of memory"
    good = read_bomb(*SMALL["jsonl"])
    if "document" not in good:
        failure = failure or "a good file after it is lost"
    reasons = ", ".join(sorted(set(results))[:6])
    return Outcome(family, number, round(seconds, 2), grown, len(results), reasons, failure)


def _work(bombs: list[tuple[str, int]], out: Connection) -> None:
    for kind, name, data in SMALL.values():
        read_bomb(kind, name, data)
    space = psutil.Process().memory_info().vms + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    for family, number in bombs:
        out.send(_measure(family, number))


def set_off(bombs: list[tuple[str, int]]) -> Iterator[Outcome]:
    """Read bombs in a child process; a new one goes on after a bomb that ended its process."""
    context = multiprocessing.get_context("spawn")
    left = list(bombs)
    while left:
        mine, its = context.Pipe(duplex=False)
        child = context.Process(target=_work, args=(left, its))
        child.start()
        its.close()
        try:
            while left:
                if not mine.poll(4 * SECONDS):
                    yield Outcome(*left.pop(0), failure="it hangs without using the CPU")
                    break
                outcome = mine.recv()
                left.pop(0)
                yield outcome
        except EOFError:
            child.join()
            detail = f"it ended the process ({child.exitcode}; -24: {SECONDS} s of CPU)"
            yield Outcome(*left.pop(0), failure=detail)
        finally:
            child.kill()
            child.join()


def all_bombs() -> list[tuple[str, int]]:
    """Return all bombs, by family and number."""
    return [(family, number) for family in FAMILIES for number in range(BOMBS_OF_A_FAMILY)]
