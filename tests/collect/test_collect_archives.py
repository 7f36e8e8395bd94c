"""Archives are opened within bounds; damage costs the rest of an archive and is listed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples

from groundup.collect.files import streams
from groundup.collect.files.archives import Refused, open_items
from groundup.collect.files.globs import Selection
from groundup.collect.files.streams import DamagedError, Item, read_all

ALL = Selection()


def _tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def _open(name: str, data: bytes, selection: Selection = ALL) -> dict[str, bytes | str]:
    """Return origin → bytes, or the reason why the item is refused or damaged."""
    items: dict[str, bytes | str] = {}
    for item in open_items(Path(name), io.BytesIO(data), name, len(data), selection):
        if isinstance(item, Refused):
            items[item.origin] = item.reason
            continue
        assert isinstance(item, Item)
        try:
            items[item.origin] = read_all(item.stream)
        except DamagedError as damage:
            items[item.origin] = damage.reason
    return items


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_in_every_compression(mode: str) -> None:
    """Members get their origins; folders and hidden files are no members."""
    data = _tar({"p/a.txt": b"one", "./p/b.txt": b"two", "p/.git/x": b"no"}, mode)
    assert _open("x.tar", data) == {"x.tar!/p/a.txt": b"one", "x.tar!/p/b.txt": b"two"}


def test_single_compressed_files() -> None:
    """A compressed file is one item; its name loses the compression suffix."""
    for name, data in {
        "a.txt.gz": gzip.compress(b"x"),
        "a.txt.bz2": bz2.compress(b"x"),
        "a.txt.xz": lzma.compress(b"x"),
    }.items():
        (item,) = open_items(Path(name), io.BytesIO(data), name, len(data), ALL)
        assert isinstance(item, Item)
        assert (item.origin, item.name, item.stream.read()) == (name, "a.txt", b"x")


def _zst(data: bytes) -> bytes:
    """Return a zstd frame with its size in the header, as the tools write it."""
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


SKIPPABLE = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"


def test_zstd() -> None:
    """Consecutive frames are one file; skippable ones are skipped; the name loses its suffix."""
    data = random.Random(1).randbytes(500_000)
    frames = SKIPPABLE + _zst(data) + SKIPPABLE + _zst(b"end")
    (item,) = open_items(Path("a.jsonl.zst"), io.BytesIO(frames), "a.jsonl.zst", len(frames), ALL)
    assert isinstance(item, Item)
    assert (item.name, item.stream.read()) == ("a.jsonl", data + b"end")
    assert _open("x.tar.zst", _zst(_tar({"a.txt": b"one"}))) == {"x.tar.zst!/a.txt": b"one"}
    assert _open("x.tzst", _zst(_tar({"b.txt.zst": _zst(b"two")}))) == {"x.tzst!/b.txt.zst": b"two"}


def test_damaged_zstd_keeps_whole_blocks() -> None:
    """The bytes before a cut or a wrong byte are returned, then one error is raised."""
    data = random.Random(2).randbytes(1_000_000)
    for whole, reason in (
        (_zst(data)[:-200_000], "truncated"),
        (_zst(data) + b"garbage", "damaged"),
    ):
        (item,) = open_items(Path("a.zst"), io.BytesIO(whole), "a.zst", len(whole), ALL)
        assert isinstance(item, Item)
        got = b""
        with pytest.raises(DamagedError, match=reason):
            while part := item.stream.read1(1 << 16):
                got += part
        assert data.startswith(got) and len(got) >= len(data) - 400_000


def test_archives_inside_archives_one_level() -> None:
    """An archive inside an archive is opened; a third level is refused."""
    inner = _zip({"t.csv": b"a,b", "deep.zip": _zip({"x": b"y"})})
    items = _open("s.tar.gz", _tar({"d/i.zip": inner, "d/w.xml.bz2": bz2.compress(b"<x>")}, "w:gz"))
    assert items == {
        "s.tar.gz!/d/i.zip!/t.csv": b"a,b",
        "s.tar.gz!/d/i.zip!/deep.zip": "nested",
        "s.tar.gz!/d/w.xml.bz2": b"<x>",
    }


def test_unsafe_members_are_refused() -> None:
    """Absolute paths, `..`, links and devices are listed and never opened."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind in (
            ("/etc/passwd", tarfile.REGTYPE),
            ("../up", tarfile.REGTYPE),
            ("l", tarfile.SYMTYPE),
            ("d", tarfile.CHRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
            tar.addfile(info)
    assert set(_open("x.tar", out.getvalue()).values()) == {"unsafe-path", "link", "special-file"}
    assert _open("x.zip", _zip({"../up": b"x", "ok": b"y"})) == {
        "x.zip!/../up": "unsafe-path",
        "x.zip!/ok": b"y",
    }


def test_repeated_members_are_numbered() -> None:
    """Two members of one name have two origins."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for data in (b"1", b"2"):
            info = tarfile.TarInfo("a")
            info.size = 1
            tar.addfile(info, io.BytesIO(data))
    assert _open("x.tar", out.getvalue()) == {"x.tar!/a": b"1", "x.tar!/a#2": b"2"}


def test_truncated_archive_keeps_the_members_before() -> None:
    """A truncated archive gives its whole members, and one line for the rest."""
    members = {f"m{n}.bin": random.Random(n).randbytes(5000) for n in range(40)}
    whole = _tar(members, "w:gz")
    items = _open("x.tar.gz", whole[: len(whole) // 2])
    good = {origin for origin, data in items.items() if isinstance(data, bytes)}
    assert 10 < len(good) < 30
    assert all(items[origin] == members[origin.partition("!/")[2]] for origin in good)
    assert "truncated" in items.values()


def test_damaged_header_is_not_the_end() -> None:
    """tarfile takes a broken header for the end of the archive; here it is listed."""
    data = bytearray(_tar({"a": b"1", "b": b"2"}))
    data[1024:1030] = b"\xff" * 6
    assert _open("x.tar", bytes(data)) == {"x.tar!/a": b"1", "x.tar": "damaged"}


def test_bombs_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that unpacks to 200 times its size is given up, at any nesting."""
    monkeypatch.setattr(streams, "RATIO_FLOOR", 1 << 20)
    bomb = gzip.compress(bytes(32 << 20))
    assert _open("b.txt.gz", bomb) == {"b.txt.gz": "bomb"}
    assert _open("b.txt.zst", _zst(bytes(32 << 20))) == {"b.txt.zst": "bomb"}
    assert "bomb" in _open("b.zip", _zip({"z": bytes(32 << 20)})).values()
    assert "bomb" in _open("b.tar", _tar({"z.gz": bomb})).values()


def test_encrypted_and_opaque() -> None:
    """An encrypted member is listed; a zip that is a document is not opened."""
    data = bytearray(_zip({"a": b"1"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(signature) + offset] |= 1
    assert _open("x.zip", bytes(data)) == {"x.zip!/a": "encrypted"}
    assert list(_open("x.docx", _zip({"a": b"1"}))) == ["x.docx"]


def test_damaged_zip_directory() -> None:
    """Wrong offsets in the directory cost the members that they misplace, never the run."""
    data = _zip({"a": b"one", "b": b"two"})
    entry = data.find(b"PK\x01\x02")
    size = data.rfind(b"PK\x05\x06") + 12
    wrong = bytearray(data)
    wrong[size] += 100
    assert set(_open("x.zip", bytes(wrong)).values()) == {"damaged"}
    wrong = bytearray(data)
    wrong[entry + 42 : entry + 46] = b"\xff\xff\xff\x7f"
    assert _open("x.zip", bytes(wrong)) == {"x.zip!/a": "damaged", "x.zip!/b": b"two"}


@examples(150)
@given(
    st.sampled_from(["gz", "zip", "tar", "nested"]),
    st.integers(0, 3000),
    st.integers(0, 255),
    st.integers(0, 3000),
)
def test_no_damage_escapes(kind: str, position: int, byte: int, end: int) -> None:
    """Any changed byte and any cut end in items and refusals, never in an exception."""
    members = {f"d/m{n}.txt": f"text {n} ".encode() * 20 for n in range(5)}
    whole = {
        "gz": _tar(members, "w:gz"),
        "zip": _zip(members),
        "tar": _tar(members),
        "nested": _zip({"i.tar.gz": _tar(members, "w:gz")}),
    }[kind]
    data = bytearray(whole[: max(20, len(whole) - end)])
    data[position % len(data)] = byte
    _open("x.bin", bytes(data))


def _pax(records: dict[str, str], data: bytes) -> bytes:
    """Return a tar file of two members, the first with a pax header."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a")
        info.size, info.pax_headers = len(data), records
        tar.addfile(info, io.BytesIO(data))
        tar.addfile(tarfile.TarInfo("b"))
    return out.getvalue()


@pytest.mark.parametrize(
    "records",
    [
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
        {"GNU.sparse.map": "x"},
        {"GNU.sparse.size": "x"},
    ],
)
def test_invalid_pax_numbers_cost_the_archive(records: dict[str, str]) -> None:
    """tarfile raises ValueError for invalid numbers: the archive is listed as damaged."""
    assert "damaged" in _open("x.tar", _pax(records, b"no map\n" * 100)).values()


def test_a_long_header_is_not_read() -> None:
    """A metadata header of 2 GB is refused before tarfile reads it into memory."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2 << 30
    read = 0

    class Counted(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            nonlocal read
            data = super().read1(size)
            read += len(data)
            return data

    stream = Counted(info.tobuf(tarfile.USTAR_FORMAT) + bytes(16 << 20))
    (item,) = open_items(Path("x.tar"), stream, "x.tar", 1 << 32, ALL)
    assert isinstance(item, Refused) and item.reason == "damaged"
    assert read < 1 << 20


def test_a_member_of_exabytes_ends_where_its_archive_ends() -> None:
    """tarfile's own stream would count to the end of the member in steps of 10 kB, for years."""
    header = bytearray(tarfile.TarInfo("a").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + (1 << 62).to_bytes(11, "big")
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
    items = _open("x.tar", bytes(header) + b"text\n" * 1000)
    assert items == {"x.tar!/a": "truncated", "x.tar": "truncated"}


def test_holes_count_against_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse member of 1 kB may claim terabytes of zeros."""
    monkeypatch.setattr(streams, "RATIO_FLOOR", 1 << 20)
    header = bytearray(tarfile.TarInfo("s.txt").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410], header[483:495] = b"%011o\0%011o\0" % (0, 0), b"%011o\0" % (8 << 20)
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
    assert _open("x.tar", bytes(header) + bytes(1024)) == {"x.tar!/s.txt": "bomb"}


def test_a_number_that_is_taken() -> None:
    """A member named like a numbered repetition keeps its name; the repetition gets another."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("a", "a#2", "a", "a"):
            tar.addfile(tarfile.TarInfo(name))
    assert len(_open("x.tar", out.getvalue())) == 4


def _xz(data: bytes, dictionary: int) -> bytes:
    return lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": dictionary}])


def test_xz_in_bounded_memory() -> None:
    """Streams with zeros between them are one file; one that needs gigabytes is refused."""
    data = random.Random(3).randbytes(300_000)
    whole = _xz(data, 1 << 20) + bytes(8) + _xz(b"end", 4096)
    assert _open("a.xz", whole) == {"a.xz": data + b"end"}
    assert _open("a.xz", whole + b"garbage" * 4) == {"a.xz": "damaged"}
    assert _open("a.xz", whole[:-20]) == {"a.xz": "truncated"}
    greedy = bytearray(_xz(b"text " * 1000, 1 << 20))
    size = greedy.index(b"\x21\x01") + 2
    greedy[size] = 40  # 4 GB, in the notation of the format (section 5.3.1).
    end = 12 + 4 * greedy[12]
    greedy[end : end + 4] = zlib.crc32(greedy[12:end]).to_bytes(4, "little")
    assert _open("a.xz", bytes(greedy)) == {"a.xz": "too-large"}


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_chain_of_headers_costs_the_archive(kind: bytes) -> None:
    """tarfile calls itself for each header that describes the next; the member before is read."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, 512
    text = b"a" * 512 if kind == tarfile.GNUTYPE_LONGNAME else b"20 comment=abcdefghi" + b"\0" * 492
    chain = (header.tobuf(tarfile.GNU_FORMAT) + text) * 3_000
    good = _tar({"good.txt": b"one"}).rstrip(b"\0")
    data = good + b"\0" * (-len(good) % 512) + chain
    assert _open("x.tar", data) == {"x.tar!/good.txt": b"one", "x.tar": "damaged"}
