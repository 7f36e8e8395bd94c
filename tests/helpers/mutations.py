"""Damages files as disks, networks and people do, and reads them among whole ones."""

from __future__ import annotations

import io
import multiprocessing
import random
import re
import resource
import signal
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import repair_text
from groundup.collect.files.archives import Refused, open_items
from groundup.collect.files.globs import Selection
from groundup.collect.readers.registry import read_item
from groundup.recipe import Source
from tests.helpers.fuzz_files import REAL, RECORDS, SMALL, sealed
from tests.helpers.items import item_from_bytes

NEIGHBOUR = (
    '{"path": "a.txt", "text": "A plain sentence that anybody may read, and that is whole."}\n'
)
# Seconds of CPU time for one file; the slowest whole file takes 0.1 s.
PATIENCE = 30.0
# Address space of the child process; its libraries map two thirds of it.
MEMORY = 4 << 30
# Real files are cut to this: 10,000 mutations of a reader take minutes.
REAL_BYTES = 20_000
# Records of a container, one of which is damaged.
AMONG = 9
# Pieces that break parsers.
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


class LostError(AssertionError):
    """A record that was not damaged is lost."""


class HangError(BaseException):
    """A file took too long. A BaseException, so that no reader catches it."""


def mutated(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Return a damaged copy: bytes changed, parts lost, repeated or inserted, the end cut off."""
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
    # With valid checksums, damage reaches the parsers behind them.
    return sealed(data) if rng.random() < 0.5 else data


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


def _packed(members: Sequence[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member, content in members:
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def read_between(kind: str, name: str, data: bytes) -> list[Document | Reject | Refused]:
    """Return what an archive with the file between two whole files gives; fail if one is lost."""
    raw = _packed((("a.jsonl", NEIGHBOUR.encode()), (name, data), ("z.jsonl", NEIGHBOUR.encode())))
    source = Source(path="x", kind=kind)
    results: list[Document | Reject | Refused] = []
    with _patience():
        for item in open_items(Path("x.tar"), io.BytesIO(raw), "x.tar", len(raw), Selection()):
            results += [item] if isinstance(item, Refused) else list(read_item(item, source))
    for result in results:
        for text in (
            (result.text, result.group)
            if isinstance(result, Document)
            else (result.reason, result.detail)
        ):
            repair_text(text).encode()
    neighbours = [results[0], results[-1]]
    if len(results) < 3:
        raise LostError("the damaged file is neither kept nor listed")
    if not all(isinstance(result, Document) and result.text in NEIGHBOUR for result in neighbours):
        raise LostError("a neighbour in the archive is lost")
    return results


def read_among(reader: str, rng: random.Random, others: Sequence[bytes]) -> None:
    """Damage one record of a container; fail if one is lost that the format can save."""
    kind, name, front, record, back, after = RECORDS[reader]
    parts, at = [record(n).encode() for n in range(AMONG)], rng.randrange(2, AMONG)
    end = b"\n" if parts[at].endswith(b"\n") else b""
    parts[at] = mutated(parts[at].removesuffix(b"\n"), others, rng) + end
    with _patience():
        results = list(
            read_item(
                item_from_bytes(front.encode() + b"".join(parts) + back.encode(), name),
                Source(path="x", kind=kind),
            )
        )
    texts = "\n".join(result.text for result in results if isinstance(result, Document))
    lost = [
        n
        for n in range(AMONG)
        if (n < at or (after and n >= at + after)) and not re.search(rf"Record {n}\b", texts)
    ]
    if lost:
        raise LostError(f"records {lost} beside the damaged record {at} are lost")


def files_of(reader: str, data: Path | None) -> list[tuple[str, bytes]]:
    """Return the files to fuzz a reader with: a small one, and the start of 20 real ones."""
    _, name, small = SMALL[reader]
    real = (
        sorted(data.glob(REAL[reader]), key=lambda path: (path.stat().st_size > REAL_BYTES, path))
        if data and reader in REAL
        else []
    )
    return [(name, small), *((path.name, path.read_bytes()[:REAL_BYTES]) for path in real[:20])]


def trial(reader: str, number: int, files: Sequence[tuple[str, bytes]]) -> str:
    """Read mutation `number` (its seed) of a file; return "", or the failure."""
    rng = random.Random(f"{reader} {number}")
    others = [data for _, _, data in SMALL.values()] + [data for _, data in files]
    name, data = rng.choice(files)
    try:
        read_between(SMALL[reader][0], name, mutated(data, others, rng))
        if reader in RECORDS:
            read_among(reader, rng, others)
    except HangError:
        return f"hangs: mutation {number} of {name} ({reader})"
    except LostError as error:
        return f"lost neighbours: mutation {number} of {name} ({reader}): {error}"
    except BaseException as error:
        return f"crashes: mutation {number} of {name} ({reader}): {error!r}"
    return ""


def _work(reader: str, numbers: range, data: Path | None, out: Connection) -> None:
    """Run trials in a process of bounded memory: a reader that needs more gets MemoryError."""
    files = files_of(reader, data)
    trial(reader, 0, files)  # Load libraries before the bound is set.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for number in numbers:
        out.send(trial(reader, number, files))


def fuzz(reader: str, count: int, data: Path | None) -> list[str]:
    """Read mutations 0 to `count`; return the failures. A child that dies counts as a crash."""
    failures: list[str] = []
    done = 0
    while done < count:
        mine, its = multiprocessing.get_context("spawn").Pipe(duplex=False)
        child = multiprocessing.get_context("spawn").Process(
            target=_work, args=(reader, range(done, count), data, its)
        )
        child.start()
        its.close()
        try:
            while done < count:
                # The child bounds its CPU time; this catches one that sleeps or hangs in native
                # code.
                told = (
                    mine.recv()
                    if mine.poll(20 * PATIENCE)
                    else f"hangs: mutation {done} ({reader}) in native code"
                )
                failures += [told] if told else []
                done += 1
                if told.endswith("in native code"):
                    break
        except EOFError:
            failures.append(f"crashes: mutation {done} ({reader}) ended the process")
            done += 1
        child.kill()
        child.join()
    return failures
