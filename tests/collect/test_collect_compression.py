"""bzip2 files of one and many streams: the same bytes as the standard library, no silent end."""

from __future__ import annotations

import bz2
import io
from concurrent.futures import ThreadPoolExecutor
from typing import IO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples

from groundup.collect.files import compression
from groundup.collect.files.compression import Bzip2Stream
from groundup.collect.files.streams import DamagedError

TEXTS = [b"", b"x", b"some words " * 400, bytes(range(256)) * 30]


def _read(packed: io.BufferedIOBase | io.RawIOBase, size: int = 1000) -> tuple[bytes, str]:
    stream, parts = Bzip2Stream(cast("IO[bytes]", packed)), []
    try:
        while part := stream.read(size):
            parts.append(part)
    except (OSError, EOFError, DamagedError) as error:
        return b"".join(parts), type(error).__name__
    return b"".join(parts), ""


@examples(60)
@given(
    st.lists(st.sampled_from(TEXTS), min_size=1, max_size=12),
    st.sampled_from([300, 5000, 8 << 20]),
    st.integers(0, 300),
)
def test_same_bytes_as_the_standard_library(texts: list[bytes], longest: int, zeros: int) -> None:
    """Streams of any length, empty ones, trailing zeros, and streams too long to unpack whole."""
    packed = b"".join(map(bz2.compress, texts)) + b"\0" * zeros
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "_BZIP2_MAX_PACKED", longest)
        patch.setattr(compression, "_BZIP2_MAX_PLAIN", longest)
        patch.setattr(compression, "_BZIP2_CHUNK", 97)
        assert _read(io.BytesIO(packed)) == (b"".join(texts), "")


@examples(60)
@given(st.lists(st.sampled_from(TEXTS[1:]), min_size=2, max_size=9), st.data())
def test_damage_is_an_error_after_the_streams_before_it(
    texts: list[bytes], data: st.DataObject
) -> None:
    """A cut or changed byte in any stream raises after all whole streams before it."""
    packed = list(map(bz2.compress, texts))
    index = data.draw(st.integers(0, len(packed) - 1))
    if data.draw(st.booleans()):
        damaged = [
            *packed[:index],
            packed[index][: data.draw(st.integers(1, len(packed[index]) - 1))],
        ]
    else:
        damaged = [
            *packed[:index],
            packed[index][:20] + bytes([packed[index][20] ^ 255]) + packed[index][21:],
            *packed[index + 1 :],
        ]
    plain, error = _read(io.BytesIO(b"".join(damaged)))
    assert error in ("OSError", "EOFError") and plain.startswith(b"".join(texts[:index]))


def test_a_mark_inside_a_stream_is_no_cut() -> None:
    """The magic of a stream inside a text, or between streams, does not mislead."""
    texts = [b"BZh91AY&SY" * 50, b"more"]
    assert _read(io.BytesIO(b"".join(map(bz2.compress, texts)))) == (b"".join(texts), "")
    assert _read(io.BytesIO(bz2.compress(texts[0]) + b"BZh91AY&SY" + bz2.compress(texts[1]))) == (
        texts[0],
        "OSError",
    )


class _Breaking(io.BytesIO):
    """A source that raises after its last byte."""

    def read1(self, size: int | None = -1, /) -> bytes:
        data = super().read1(-1 if size is None else size)
        if not data:
            raise DamagedError("bomb", "too much")
        return data


def test_damage_of_the_source_comes_last() -> None:
    """An error of the source is raised unchanged, after everything before it was returned."""
    streams = [bz2.compress(text) for text in TEXTS[1:]]
    assert _read(_Breaking(b"".join(streams))) == (b"".join(TEXTS[1:]), "DamagedError")
    assert _read(_Breaking(streams[0])) == (TEXTS[1], "DamagedError")


def test_a_stream_that_is_not_read_to_its_end_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Protects: the garbage collector, which may end it anywhere, must not wait for its threads."""
    waits: list[bool] = []
    shutdown = ThreadPoolExecutor.shutdown

    def noted(pool: ThreadPoolExecutor, wait: bool = True, *, cancel_futures: bool = False) -> None:
        waits.append(wait)
        shutdown(pool, wait, cancel_futures=cancel_futures)

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", noted)
    stream = Bzip2Stream(io.BytesIO(bz2.compress(TEXTS[2]) * 20))
    assert stream.read(100)
    del stream
    assert waits == [False]
