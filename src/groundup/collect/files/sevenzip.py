"""7z archives: their table of contents, and their members as streams, with the standard library.

    signature │ packed streams … │ header
              └ a folder is one packed stream, which holds one or many members behind one another

Read are folders of one method, copy, LZMA, LZMA2, bzip2 or Zstandard, and LZMA2 behind the filter
for programs that some packers put before everything; and headers that are packed themselves. A
member of a folder with another method (PPMd, BCJ2, a password) is refused by name. A folder is
unpacked once, forward; nothing is kept of it.

The format is described in 7zFormat.txt of the LZMA SDK; numbers below are its property ids.
"""

from __future__ import annotations

import io
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, cast

from groundup.collect.files.compression import Bzip2Stream, ZstdStream
from groundup.collect.files.streams import BUFFER, BoundedStream, Budget, DamagedError

MAGIC = b"7z\xbc\xaf\x27\x1c"
# Bytes of a table of contents, of which objects are made; and of a dictionary, which is allocated.
MAX_HEADER, MAX_DICTIONARY = 16 << 20, 1 << 30
MAX_FOLDERS, MAX_NAMES = 200_000, 2_000_000
_END, _HEADER, _PACK, _UNPACK, _SUBSTREAMS, _SIZE, _CRC = 0x00, 0x01, 0x06, 0x07, 0x08, 0x09, 0x0A
_MAIN_STREAMS, _FILES, _FOLDERS, _CODER_SIZES, _COUNTS = 0x04, 0x05, 0x0B, 0x0C, 0x0D
_EMPTY_STREAM, _EMPTY_FILE, _NAMES, _PACKED_HEADER = 0x0E, 0x0F, 0x11, 0x17
_COPY, _LZMA, _LZMA2, _BZIP2 = b"\0", b"\3\1\1", b"\x21", b"\4\2\2"
_X86 = b"\3\3\1\3"
_ZSTD, _PPMD, _AES = b"\4\xf7\x11\1", b"\3\4\1", b"\6\xf1\7\1"
_ADVICE = "pack it anew: 7z e -so FILE | zstd > FILE.zst"

# What wrong properties of a method raise.
_PARSING = (struct.error, lzma.LZMAError, ValueError, IndexError, MemoryError)

# Name, whether it is a folder, and its bytes, or why it has none (reason, detail).
Member = tuple[str, bool, BoundedStream | tuple[str, str]]


class _Cursor:
    """Reads the values of a header, and never beyond its end."""

    def __init__(self, data: bytes) -> None:
        self._data, self.position = data, 0

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        if count > len(self._data) - self.position:
            raise DamagedError("damaged", "the table of contents of the 7z file is cut off")
        self.position += count
        return self._data[self.position - count : self.position]

    def byte(self) -> int:
        """Return the next byte."""
        return self.take(1)[0]

    def number(self) -> int:
        """Return a number: the ones that lead the first byte count the bytes that follow."""
        first, value = self.byte(), 0
        for index in range(8):
            if not first & (0x80 >> index):
                return value | (first & ((0x80 >> index) - 1)) << (8 * index)
            value |= self.byte() << (8 * index)
        return value

    def numbers(self, count: int) -> list[int]:
        """Return that many numbers, each of which takes a byte at least."""
        return [self.number() for _ in range(self.at_most(count))]

    def bits(self, count: int) -> list[bool]:
        """Return bits, eight a byte."""
        data = self.take((count + 7) // 8)
        return [bool(data[index // 8] & (0x80 >> index % 8)) for index in range(count)]

    def optional_bits(self, count: int) -> list[bool]:
        """Return bits that are all set unless a zero byte says otherwise."""
        if self.byte():
            return [True] * self.at_most(count)
        return self.bits(count)

    def checksums(self, count: int) -> list[int | None]:
        """Return the CRC-32 of each stream that has one."""
        defined = self.optional_bits(count)
        return [struct.unpack("<I", self.take(4))[0] if known else None for known in defined]

    def expect(self, *ids: int) -> int:
        """Return the next property id, which must be one of these."""
        found = self.byte()
        if found not in ids:
            raise DamagedError("damaged", f"property {found:#x} of the 7z file is in a wrong place")
        return found

    def rest(self) -> bytes:
        """Return all bytes that are left."""
        return self.take(len(self._data) - self.position)

    def at_most(self, count: int) -> int:
        """Return a count of things that take a byte each; DamagedError if there are not as many."""
        if count > len(self._data) - self.position:
            raise DamagedError("damaged", "the table of contents of the 7z file counts too many")
        return count


@dataclass
class _Folder:
    """One packed stream, and how it is unpacked."""

    methods: list[tuple[bytes, bytes]]  # id and properties
    packed_streams: int
    outputs: int
    offset: int = 0
    packed_size: int = 0
    size: int = 0
    checksum: int | None = None
    sizes: list[int] = field(default_factory=list)  # of its members
    checksums: list[int | None] = field(default_factory=list)

    def refusal(self) -> tuple[str, str] | None:
        """Return why it is not unpacked: reason and detail; None for a method that is known."""
        ids = [method for method, _ in self.methods]
        if _AES in ids:
            return "encrypted", "it wants a password"
        is_known = len(ids) == 1 and ids[0] in _METHODS
        if self.packed_streams == 1 and (is_known or sorted(ids) == [_X86, _LZMA2]):
            return None
        name = "PPMd" if _PPMD in ids else " and ".join(method.hex() for method in ids)
        return "unsupported-format", f"7z with the method {name}: {_ADVICE}"

    def open(self, file: IO[bytes]) -> IO[bytes]:
        """Return the unpacked stream."""
        methods = dict(self.methods)
        has_filter = methods.pop(_X86, None) is not None
        ((method, properties),) = methods.items()
        packed = io.BufferedReader(_Slice(file, self.offset, self.packed_size), BUFFER)
        if has_filter:
            return _open_lzma2(cast("IO[bytes]", packed), properties, [{"id": lzma.FILTER_X86}])
        return _METHODS[method](cast("IO[bytes]", packed), properties)


class _Slice(io.RawIOBase):
    """A part of a file."""

    def __init__(self, file: IO[bytes], offset: int, size: int) -> None:
        super().__init__()
        self._file, self._offset, self._left = file, offset, size

    def readable(self) -> bool:
        return True

    def readinto(self, target: object) -> int:
        view = memoryview(target).cast("B")  # type: ignore[arg-type]
        self._file.seek(self._offset)
        data = self._file.read(min(len(view), self._left))
        self._offset += len(data)
        self._left -= len(data)
        view[: len(data)] = data
        return len(data)


class _LzmaStream:
    """A raw LZMA stream, which says neither its filters nor, often, its end."""

    def __init__(self, source: IO[bytes], *filters: dict[str, int]) -> None:
        dictionary = filters[-1]["dict_size"]
        if dictionary > MAX_DICTIONARY:
            detail = f"its dictionary takes {dictionary >> 20:,} MB of memory: {_ADVICE}"
            raise DamagedError("too-large", detail)
        self._source = source
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, None, filters)

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, b"" at the end."""
        while not self._decoder.eof:
            chunk = self._source.read(BUFFER) if self._decoder.needs_input else b""
            data = self._decoder.decompress(chunk, size)
            if data or (self._decoder.needs_input and not chunk):
                return data
        return b""


def _open_lzma(packed: IO[bytes], properties: bytes) -> IO[bytes]:
    bits, dictionary = struct.unpack("<BI", properties[:5])
    rest, lc = divmod(bits, 9)
    options = {"id": lzma.FILTER_LZMA1, "dict_size": max(dictionary, 4096)}
    options |= {"lc": lc, "lp": rest % 5, "pb": rest // 5}
    return cast("IO[bytes]", _LzmaStream(packed, options))


def _open_lzma2(
    packed: IO[bytes], properties: bytes, before: Sequence[dict[str, int]] = ()
) -> IO[bytes]:
    bits = properties[0]
    dictionary = (2 | bits & 1) << (bits // 2 + 11)
    options = {"id": lzma.FILTER_LZMA2, "dict_size": dictionary}
    return cast("IO[bytes]", _LzmaStream(packed, *before, options))


_METHODS: dict[bytes, Callable[[IO[bytes], bytes], IO[bytes]]] = {
    _COPY: lambda packed, _: packed,
    _LZMA: _open_lzma,
    _LZMA2: _open_lzma2,
    _BZIP2: lambda packed, _: cast("IO[bytes]", Bzip2Stream(packed)),
    _ZSTD: lambda packed, _: cast("IO[bytes]", ZstdStream(packed)),
}


def seven_zip_members(file: IO[bytes], budget: Budget, name: str) -> Iterator[Member]:
    """Yield the members of a 7z file; each is read before the next is requested.

    A member without a name, as of a file that was piped into 7z, is called after the archive, which
    has this `name`. Raises DamagedError if the table of contents cannot be read, or is too long.
    """
    try:
        header = _read_header(file, budget)
        folders = []
        section = header.expect(_MAIN_STREAMS, _FILES, _END)
        if section == _MAIN_STREAMS:
            folders = _read_streams(header)
            section = header.expect(_FILES, _END)
        names = _read_names(header) if section == _FILES else []
    except _PARSING as error:
        raise DamagedError("damaged", f"the table of contents of the 7z file: {error}") from None
    unnamed = name.removesuffix(".7z") or "member"
    waiting = iter([member or unnamed for member, has_stream, _ in names if has_stream])
    for member, has_stream, is_folder in names:
        if not has_stream:
            yield member or unnamed, is_folder, BoundedStream(io.BytesIO())
    for folder in folders:
        # A name is taken after a size, so that none is lost where the sizes end.
        members = zip(folder.sizes, folder.checksums, waiting, strict=False)
        yield from _folder_members(folder, list(members), file, budget)


def _folder_members(
    folder: _Folder, members: list[tuple[int, int | None, str]], file: IO[bytes], budget: Budget
) -> Iterator[Member]:
    """Yield the members of one packed stream; damage costs those from there on."""
    refusal = folder.refusal()
    stream: io.BufferedReader | None = None
    for size, checksum, name in members:
        if refusal is None and stream is None:
            try:
                stream = io.BufferedReader(BoundedStream(folder.open(file), budget), BUFFER)
            except DamagedError as damage:
                refusal = (damage.reason, damage.detail)
            except _PARSING as error:
                refusal = ("damaged", str(error))
        if refusal is not None or stream is None:
            yield name, False, refusal or ("damaged", "")
            continue
        part = _Part(stream, size, checksum)
        yield name, False, BoundedStream(cast("IO[bytes]", part))
        try:
            while part.read(1 << 20):
                pass
        except DamagedError as damage:
            if damage.reason == "bomb":
                raise
            refusal = (damage.reason, f"what comes before it in the archive: {damage.detail}")


class _Part:
    """One member of an unpacked stream, whose checksum is compared at its end."""

    def __init__(self, stream: IO[bytes], size: int, checksum: int | None) -> None:
        self._stream, self._left, self._checksum = stream, size, checksum
        self._sum = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; DamagedError at an early end, or for a wrong checksum."""
        if not self._left:
            return b""
        data = self._stream.read(min(size, self._left))
        if not data:
            raise DamagedError("truncated", "the archive ends before it")
        self._left -= len(data)
        self._sum = zlib.crc32(data, self._sum)
        if not self._left and self._checksum not in (None, self._sum):
            self._checksum = None
            raise DamagedError("damaged", "its checksum is wrong")
        return data


def _read_header(file: IO[bytes], budget: Budget) -> _Cursor:
    """Return a cursor behind the id of the header, which may be packed itself."""
    file.seek(0)
    start = file.read(32)
    if len(start) < 32:
        raise DamagedError("truncated", "a 7z file of less than 32 bytes")
    offset, size, checksum = struct.unpack("<QQI", start[12:])
    if zlib.crc32(start[12:]) != struct.unpack("<I", start[8:12])[0]:
        raise DamagedError("damaged", "the checksum of the first bytes of the 7z file is wrong")
    if not size:
        return _Cursor(bytes((_FILES, 0, _END)))
    if size > MAX_HEADER:
        detail = f"its table of contents is longer than {MAX_HEADER >> 20} MB"
        raise DamagedError("too-large", detail)
    if 32 + offset + size > file.seek(0, io.SEEK_END):
        detail = "a cut-off 7z file has lost its table of contents, and cannot be read"
        raise DamagedError("truncated", detail)
    file.seek(32 + offset)
    data = file.read(size)
    if zlib.crc32(data) != checksum:
        raise DamagedError("damaged", "the checksum of its table of contents is wrong")
    cursor = _Cursor(data)
    if cursor.expect(_HEADER, _PACKED_HEADER) == _PACKED_HEADER:
        folders = _read_streams(cursor)
        if not folders:
            raise DamagedError("damaged", "a 7z file without a table of contents")
        if (refusal := folders[0].refusal()) is not None:
            raise DamagedError(*refusal)
        if folders[0].size > MAX_HEADER:
            raise DamagedError(
                "too-large", f"its table of contents takes {folders[0].size:,} bytes"
            )
        unpacked = io.BufferedReader(BoundedStream(folders[0].open(file), budget))
        cursor = _Cursor(unpacked.read(folders[0].size))
        cursor.expect(_HEADER)
    return cursor


def _read_streams(cursor: _Cursor) -> list[_Folder]:
    """Return the folders that a description of streams lists, with their members' sizes."""
    offset, packed_sizes = 32, list[int]()
    folders: list[_Folder] = []
    while (section := cursor.expect(_PACK, _UNPACK, _SUBSTREAMS, _END)) != _END:
        if section == _PACK:
            offset += cursor.number()
            count = cursor.number()
            while (part := cursor.expect(_SIZE, _CRC, _END)) != _END:
                if part == _SIZE:
                    packed_sizes = cursor.numbers(count)
                else:
                    cursor.checksums(count)
        elif section == _UNPACK:
            folders = _read_folders(cursor)
        else:
            _read_substreams(cursor, folders)
    sizes = iter(packed_sizes)
    for folder in folders:
        folder.offset = offset
        streams = [next(sizes, 0) for _ in range(folder.packed_streams)]
        folder.packed_size = streams[0]
        offset += sum(streams)
    return folders


def _read_folders(cursor: _Cursor) -> list[_Folder]:
    cursor.expect(_FOLDERS)
    count = cursor.number()
    if cursor.byte():
        raise DamagedError("unsupported-format", f"7z with folders elsewhere: {_ADVICE}")
    if count > MAX_FOLDERS:
        raise DamagedError("too-large", f"a 7z file of more than {MAX_FOLDERS:,} packed streams")
    folders = [_read_folder(cursor) for _ in range(cursor.at_most(count))]
    cursor.expect(_CODER_SIZES)
    for folder in folders:
        sizes = cursor.numbers(folder.outputs)
        folder.size = sizes[0]
        folder.sizes = [folder.size]
    while cursor.expect(_CRC, _END) != _END:
        for folder, checksum in zip(folders, cursor.checksums(count), strict=True):
            folder.checksum = checksum
    for folder in folders:
        folder.checksums = [folder.checksum]
    return folders


def _read_folder(cursor: _Cursor) -> _Folder:
    """Return one folder: its methods, and how many streams go in and come out."""
    methods, inputs, outputs = [], 0, 0
    for _ in range(cursor.at_most(cursor.number())):
        flags = cursor.byte()
        method = cursor.take(flags & 0x0F)
        ends = (cursor.number(), cursor.number()) if flags & 0x10 else (1, 1)
        inputs, outputs = inputs + ends[0], outputs + ends[1]
        methods.append((method, cursor.take(cursor.number()) if flags & 0x20 else b""))
    if not methods or not outputs:
        raise DamagedError("damaged", "a folder of the 7z file has no method")
    cursor.numbers(2 * (outputs - 1))  # which stream goes where
    packed = inputs - (outputs - 1)
    if packed > 1:
        cursor.numbers(packed)
    return _Folder(methods, cursor.at_most(max(packed, 1)), outputs)


def _read_substreams(cursor: _Cursor, folders: list[_Folder]) -> None:
    """Read how many members each folder has, their sizes and their checksums."""
    counts = [1] * len(folders)
    section = cursor.expect(_COUNTS, _SIZE, _CRC, _END)
    if section == _COUNTS:
        counts = cursor.numbers(len(folders))
        section = cursor.expect(_SIZE, _CRC, _END)
    if section != _SIZE and max(counts, default=0) > 1:
        raise DamagedError("damaged", "the 7z file does not say how long its members are")
    for folder, count in zip(folders, counts, strict=True):
        # The last one has what the others leave.
        sizes = cursor.numbers(count - 1) if count > 1 else []
        folder.sizes = [*sizes, max(0, folder.size - sum(sizes))] if count else []
    if section == _SIZE:
        section = cursor.expect(_CRC, _END)
    unknown = [f for f in folders if len(f.sizes) != 1 or f.checksum is None]
    total = sum(len(folder.sizes) for folder in unknown)
    checksums: Iterator[int | None] = iter(())
    while section != _END:
        checksums = iter(cursor.checksums(total))
        section = cursor.expect(_CRC, _END)
    for folder in unknown:
        folder.checksums = [next(checksums, None) for _ in folder.sizes]


def _read_names(cursor: _Cursor) -> list[tuple[str, bool, bool]]:
    """Return the name of each member, whether it has bytes, and whether it is a folder."""
    count = cursor.at_most(cursor.number())
    if count > MAX_NAMES:
        raise DamagedError("bomb", f"it holds more than {MAX_NAMES:,} members")
    names, empty, empty_files = [""] * count, [False] * count, list[bool]()
    while (section := cursor.number()) != _END:
        part = _Cursor(cursor.take(cursor.number()))
        if section == _EMPTY_STREAM:
            empty = part.bits(count)
        elif section == _EMPTY_FILE:
            empty_files = part.bits(sum(empty))
        elif section == _NAMES and not part.byte():
            text = part.rest().decode("utf-16-le", "replace")
            names = [*text.split("\0", count), *names][:count]
    files = iter(empty_files)
    return [
        (name, not is_empty, is_empty and not next(files, False))
        for name, is_empty in zip(names, empty, strict=True)
    ]
