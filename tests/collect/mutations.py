"""Damages files as disks, networks and people do, and reads them between two neighbours that must survive."""

from __future__ import annotations

import io
import random
import signal
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from groundup.collect.archives import Refused, open_items
from groundup.collect.encoding import mend
from groundup.collect.globs import Selection
from groundup.collect.readers import read_item
from groundup.document import Document, Reject
from groundup.recipe import Source

NEIGHBOUR = '{"path": "a.txt", "text": "A plain sentence that anybody may read, and that is whole."}\n'
# Seconds of processor time for one file; the slowest whole one takes a tenth of one.
PATIENCE = 30.0
# What parsers stumble over, and what a length or a mark of one format is in another.
_SHARDS = (
    b"\0" * 64,
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"<" * 3000,
    b"[" * 3000,
    b"<div>" * 3000,
    b"</page>",
    b"<![CDATA[",
    b"-1",
    b"9" * 30,
    b"\r\n\r\n",
    b'"',
    b"{{" * 500,
    b"&a;",
    b"WARC/1.0\r\n",
    b"\x28\xb5\x2f\xfd",
    b"PK\x03\x04",
    b"\x1f\x8b\x08\0",
)


class HangError(BaseException):
    """A file that took too long; no Exception, so that no reader mistakes it for the file's fault."""


def mutated(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Return a damaged copy: bytes changed, a part lost, moved or repeated, something foreign put in, the end cut off."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        match rng.randrange(7):
            case 0:
                changed = bytearray(data)
                for _ in range(rng.choice((1, 1, 4, 32)) if data else 0):
                    changed[rng.randrange(len(data))] = rng.randrange(256)
                data = bytes(changed)
            case 1:
                data = data[:end]
            case 2:
                data = data[:start] + data[end:]
            case 3:
                data = data[:start] + data[start:end][:5000] + data[start:]
            case 4:
                other = rng.choice(others)
                data = data[:start] + other[rng.randrange(len(other) + 1) :]
            case 5:
                data += rng.choice(others)
            case 6:
                data = data[:start] + rng.choice(_SHARDS) + data[start:]
    return data


@contextmanager
def _patience() -> Iterator[None]:
    def expire(number: int, frame: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGPROF, expire)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def read_between(kind: str, name: str, data: bytes) -> list[Document | Reject | Refused]:
    """Return what an archive gives that holds a file between two whole ones, in order; fail where a neighbour is lost."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member, content in (("a.jsonl", NEIGHBOUR.encode()), (name, data), ("z.jsonl", NEIGHBOUR.encode())):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    raw, source = out.getvalue(), Source(path="x", kind=kind)
    found: list[Document | Reject | Refused] = []
    with _patience():
        for item in open_items(Path("x.tar"), io.BytesIO(raw), "x.tar", len(raw), Selection()):
            found += [item] if isinstance(item, Refused) else list(read_item(item, source))
    for one in found:
        for text in (one.text, one.group) if isinstance(one, Document) else (one.reason, one.detail):
            mend(text).encode()
    neighbours = [found[0], found[-1]]
    assert len(found) > 2, "the damaged file is neither kept nor listed"
    assert all(isinstance(one, Document) and one.text in NEIGHBOUR for one in neighbours), "a neighbour is lost"
    return found
