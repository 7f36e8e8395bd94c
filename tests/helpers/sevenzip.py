"""Writes small 7z files, as 7z itself lays them out."""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Mapping

LZMA2 = {"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16}
X86 = {"id": lzma.FILTER_X86}
LZMA1 = {"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 2}
# Method → its coders in the header.
CODERS = {
    "copy": b"\x01\x01\x00",
    "lzma": b"\x01\x23\x03\x01\x01\x05\x5d\x00\x00\x01\x00",
    "lzma2": b"\x01\x21\x21\x01\x08",
    "bcj": b"\x02\x04\x03\x03\x01\x03\x21\x21\x01\x08\x00\x01",
    "bzip2": b"\x01\x03\x04\x02\x02",
    "ppmd": b"\x01\x23\x03\x04\x01\x05\x06\x00\x00\x00\x01",
    "aes": b"\x01\x24\x06\xf1\x07\x01\x02\x00\x00",
}


def number(value: int) -> bytes:
    """Return a number as 7z writes it."""
    for count in range(8):
        if value < 1 << (7 * (count + 1)):
            low = value & ((1 << (8 * count)) - 1)
            lead = (0xFF00 >> count) & 0xFF | value >> (8 * count)
            return bytes([lead]) + low.to_bytes(count, "little")
    return b"\xff" + value.to_bytes(8, "little")


def pack(method: str, data: bytes) -> bytes:
    """Return data packed by a method; those that cannot be read keep it as it is."""
    filters = {"lzma": [LZMA1], "lzma2": [LZMA2], "bcj": [X86, LZMA2]}.get(method)
    if filters:
        return lzma.compress(data, lzma.FORMAT_RAW, filters=filters)
    return bz2.compress(data) if method == "bzip2" else data


def seven_zip(
    members: Mapping[str, bytes], method: str = "lzma2", pack_header: bool = True
) -> bytes:
    """Return a 7z file with its members in one packed stream; empty members have none."""
    full = {name: data for name, data in members.items() if data}
    solid = b"".join(full.values())
    sizes = [len(data) for data in full.values()]
    packed = pack(method, solid)
    streams = b"\x04" + _streams(0, packed, method, solid) + b"\x08"
    if len(full) != 1:
        streams += b"\x0d" + number(len(full)) + b"\x09" + b"".join(map(number, sizes[:-1]))
    checksums = b"".join(struct.pack("<I", zlib.crc32(data)) for data in full.values())
    streams += b"\x0a\x01" + checksums + b"\x00\x00"
    names = b"\0" + "".join(f"{name}\0" for name in members).encode("utf-16-le")
    empty = [not data for data in members.values()]
    files = b"\x05" + number(len(members)) + _bits(b"\x0e", empty)
    files += _bits(b"\x0f", [True] * sum(empty))
    files += b"\x11" + number(len(names)) + names + b"\x00"
    header = b"\x01" + streams + files + b"\x00"
    if pack_header:
        body = packed + (small := pack("lzma", header))
        header = b"\x17" + _streams(len(packed), small, "lzma", header) + b"\x00"
    else:
        body = packed
    start = struct.pack("<QQI", len(body), len(header), zlib.crc32(header))
    magic = b"7z\xbc\xaf\x27\x1c\0\4" + struct.pack("<I", zlib.crc32(start))
    return magic + start + body + header


def _streams(offset: int, packed: bytes, method: str, data: bytes) -> bytes:
    """Return the description of one packed stream."""
    sizes = number(len(data)) * CODERS[method][0]
    place = b"\x06" + number(offset) + b"\x01\x09" + number(len(packed)) + b"\x00"
    return place + b"\x07\x0b\x01\x00" + CODERS[method] + b"\x0c" + sizes + b"\x00"


def _bits(section: bytes, bits: list[bool]) -> bytes:
    if not any(bits):
        return b""
    data = bytearray((len(bits) + 7) // 8)
    for index, bit in enumerate(bits):
        data[index // 8] |= bit * (0x80 >> index % 8)
    return section + number(len(data)) + bytes(data)
