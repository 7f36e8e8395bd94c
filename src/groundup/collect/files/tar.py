"""Goes through a tar archive once, forwards. Reads a stream; yields its members, and says why it
ends too early.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import IO, Self, cast

from groundup.collect.files.streams import BUFFER, DamagedError

# What tar says of a member in members of their own: names, dates. tarfile takes each into memory
# whole.
MAX_HEADER_BYTES = 1 << 20
_HEADER_TYPES = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def members(stream: IO[bytes]) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Yield each member and, if it is a regular file, a stream of its bytes, to be read before the
    next member is asked for.

    Raises:
        DamagedError: a header cannot be read, or the archive ends too early; what was yielded
            before is whole.
    """
    try:
        with tarfile.TarFile(fileobj=cast("IO[bytes]", _Forward(stream)), tarinfo=_Header) as tar:
            while (member := tar.next()) is not None:
                # tarfile remembers every member; a million of them are a gigabyte.
                tar.members = []  # type: ignore[attr-defined]
                yield member, tar.extractfile(member) if member.isreg() else None
            stopped = getattr(tar, "stopped", None)
            if type(stopped).__name__ not in ("EOFHeaderError", "EmptyHeaderError"):
                raise DamagedError(
                    "damaged", f"a header in it cannot be read ({stopped}); what follows is lost"
                )
    except (tarfile.TarError, UnicodeError, OverflowError) as error:
        raise DamagedError(
            "truncated" if "end of data" in str(error) else "damaged", str(error)
        ) from None


class _Header(tarfile.TarInfo):
    """A member's header that remembers why the last one could not be read: tarfile itself ends
    silently.
    """

    stopped: Exception | None = None

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        """Read the next header; what tarfile stumbles over in one is an error of that header."""
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            tar.stopped = error  # type: ignore[attr-defined]
            raise
        except (ValueError, LookupError) as error:
            # Of all its errors the one that does not end an archive silently.
            raise tarfile.SubsequentHeaderError(  # type: ignore[attr-defined]
                f"a header in it cannot be read ({error}); what follows is lost"
            ) from None

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Take a header apart; refuse one that announces more about a member than anybody has to
        say.
        """
        header = super().frombuf(buf, encoding, errors)
        if header.type in _HEADER_TYPES and header.size > MAX_HEADER_BYTES:
            raise tarfile.InvalidHeaderError(f"{header.size:,} bytes that describe a member")  # type: ignore[attr-defined]
        return header


class _Forward:
    """A stream that goes forwards only, and stops where it ends.

    tarfile's own (mode `r|`) goes on counting beyond the end: a header of eight exabytes keeps it
    busy for years.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._at = stream, 0

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, or fewer at the end."""
        data = self._stream.read(count)
        self._at += len(data)
        return data

    def tell(self) -> int:
        """Return how many bytes lie behind."""
        return self._at

    def seek(self, place: int) -> int:
        """Read on to `place`, or to the end; raise tarfile.StreamError for a place that lies
        behind.
        """
        if place < self._at:
            raise tarfile.StreamError("it leads back to what was read before")
        while self._at < place and self.read(min(BUFFER, place - self._at)):
            pass
        return self._at
