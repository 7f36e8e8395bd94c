"""7z archives: members of every method that text is packed with; others are listed by name."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import pytest
from tests.helpers.sevenzip import number, seven_zip

from groundup.collect.files import sevenzip, streams
from groundup.collect.files.archives import Refused, open_items
from groundup.collect.files.globs import Selection
from groundup.collect.files.streams import DamagedError

SENTENCE = b"It was late in the year, and nobody had seen the harvest come in. "
MEMBERS = {
    "a.txt": SENTENCE * 9,
    "empty.txt": b"",
    "d/b.txt": bytes(random.Random(1).choices(b"abcdefgh \n", k=200_000)),
    "ü.txt": SENTENCE,
}


def opened(data: bytes, name: str = "x.7z") -> dict[str, bytes | str]:
    """Return what each member holds, or why it is refused."""
    results: dict[str, bytes | str] = {}
    for item in open_items(Path(name), io.BytesIO(data), name, len(data), Selection()):
        if isinstance(item, Refused):
            results[item.origin] = f"{item.reason}: {item.detail}"
            continue
        try:
            results[item.origin] = item.stream.read()
        except DamagedError as damage:
            results[item.origin] = f"{damage.reason}: {damage.detail}"
    return results


@pytest.mark.parametrize("method", ["copy", "lzma", "lzma2", "bcj", "bzip2"])
@pytest.mark.parametrize("pack_header", [True, False])
def test_members_of_a_solid_archive(method: str, pack_header: bool) -> None:
    expected = {f"x.7z!/{name}": data for name, data in MEMBERS.items()}
    assert opened(seven_zip(MEMBERS, method, pack_header)) == expected


def test_a_member_that_nobody_reads_costs_no_other() -> None:
    """The rest of it is skipped in the packed stream."""
    data = seven_zip(MEMBERS)
    selection = Selection(include=("ü.txt",))
    items = list(open_items(Path("x.7z"), io.BytesIO(data), "x.7z", len(data), selection))
    assert [item.origin for item in items] == ["x.7z!/ü.txt"]
    first: list[bytes] = []
    for item in open_items(Path("x.7z"), io.BytesIO(data), "x.7z", len(data), Selection()):
        assert not isinstance(item, Refused)
        first.append(item.stream.read(5))
    assert first == [b"", SENTENCE[:5], MEMBERS["d/b.txt"][:5], SENTENCE[:5]]


def test_other_methods_and_passwords_are_listed() -> None:
    told = opened(seven_zip({"a.txt": SENTENCE}, "ppmd"))
    assert str(told["x.7z!/a.txt"]).startswith("unsupported-format: 7z with the method PPMd")
    told = opened(seven_zip({"a.txt": SENTENCE}, "aes"))
    assert told == {"x.7z!/a.txt": "encrypted: it wants a password"}


def test_a_member_without_a_name_is_called_after_the_archive() -> None:
    assert opened(seven_zip({"": SENTENCE}), "dump.xml.7z") == {"dump.xml.7z!/dump.xml": SENTENCE}


def test_damage_costs_members_from_there_on() -> None:
    data = bytearray(seven_zip(MEMBERS, "copy"))
    data[32 + 600 + 100_000] ^= 1
    told = opened(bytes(data))
    assert told["x.7z!/a.txt"] == MEMBERS["a.txt"]
    assert told["x.7z!/d/b.txt"] == "damaged: its checksum is wrong"
    cut = opened(seven_zip(MEMBERS)[:-3])
    assert [str(reason).partition(":")[0] for reason in cut.values()] == ["truncated"]


def test_archives_that_take_much_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb, a long table of contents, a large dictionary, and counts that lie."""
    monkeypatch.setattr(streams, "RATIO_FLOOR", 1 << 20)
    bomb = opened(seven_zip({"a.txt": bytes(3 << 20), "b.txt": SENTENCE}))
    assert list(bomb) == ["x.7z!/a.txt", "x.7z"]
    for reason in bomb.values():
        assert str(reason).startswith("bomb: it unpacks to more than 200 times its size")
    monkeypatch.setattr(sevenzip, "MAX_DICTIONARY", 1 << 10)
    told = opened(seven_zip(MEMBERS, pack_header=False))
    assert str(told["x.7z!/a.txt"]).startswith("too-large: its dictionary takes")
    monkeypatch.setattr(sevenzip, "MAX_HEADER", 10)
    assert "table of contents" in str(opened(seven_zip(MEMBERS, pack_header=False))["x.7z"])


def test_tables_of_contents_that_lie() -> None:
    """Any byte of the table may be wrong under a right checksum: members are read or refused."""
    whole = seven_zip(MEMBERS, pack_header=False)
    end = 32 + int.from_bytes(whole[12:20], "little")
    rng = random.Random(7)
    reasons = set()
    for _ in range(300):
        table = bytearray(whole[end:])
        for _ in range(rng.choice((1, 1, 4))):
            table[rng.randrange(len(table))] = rng.choice((0, 0xFF, rng.randrange(256)))
        start = whole[12:28] + struct.pack("<I", zlib.crc32(table))
        magic = whole[:8] + struct.pack("<I", zlib.crc32(start))
        told = opened(magic + start + whole[32:end] + table)
        reasons |= {str(it).partition(":")[0] for it in told.values() if isinstance(it, str)}
    assert reasons <= {"damaged", "truncated", "too-large", "bomb", "unsupported-format"} | {
        "encrypted",
        "unsafe-path",
    }


def test_numbers_of_every_length() -> None:
    for value in (0, 127, 128, 16_383, 16_384, 1 << 31, (1 << 56) - 1, 1 << 56, (1 << 64) - 1):
        assert sevenzip._Cursor(number(value)).number() == value


def test_a_real_dump(real_data: Path) -> None:
    path = real_data / "wikipedia/aawiki-20260101-pages-meta-history.xml.7z"
    told = opened(path.read_bytes(), path.name)
    assert [(name.rpartition("!/")[2], len(data)) for name, data in told.items()] == [
        ("aawiki-20260101-pages-meta-history.xml", 3_694_126)
    ]
