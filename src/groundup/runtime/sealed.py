"""Run files that are no part of an artifact, and carry the hash of their own bytes.

    {                                       {"event": "run", …, "chain": "0c2f…"}
     "step": 75000,                         {"event": "began", …, "chain": "91d0…"}
     "loss": 2.87,
     "sha256": "5f0e…"                      # sha256 of the lines above: 77ab…
    }

A JSON file (best.json) ends with the SHA-256 of all bytes before that line; `recipe.lock.toml` has
it in a comment. A file that grows (ledger.jsonl, metrics.jsonl) is a chain: the hash of a line
covers the hash of the line before, whatever bytes lie between (a line that a kill cut off) and the
line itself. A last line without its end is what a kill may leave. Files of earlier versions have no
hashes; their chain begins with the first line that is added.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.errors import StoreError
from groundup.runtime.files import write_whole

_SEAL = re.compile(rb',?\n "sha256": "([0-9a-f]{64})"\n}\n\Z')
_TOML_SEAL = re.compile(rb"# sha256 of the lines above: ([0-9a-f]{64})\n\Z")
# The hash has 32 hexadecimal digits: lines are short and many.
_CHAIN = re.compile(rb', "chain": "([0-9a-f]{32})"}\n')
# How files and lines with a hash end; hexadecimal digits stand for any.
_END = b'\n "sha256": "' + b"0" * 64 + b'"\n}\n'
_LINK = b', "chain": "' + b"0" * 32 + b'"}\n'
# The end of a growing file in which its last line is looked for.
_TAIL_BYTES = 1 << 16


def write_sealed(path: Path, table: Mapping[str, Any]) -> None:
    """Write a table as a JSON file with the hash of its bytes, whole or not at all."""
    data = io.BytesIO()
    # Values may be file names, which need not be valid UTF-8.
    text = io.TextIOWrapper(data, "utf-8", "surrogateescape", newline="\n")
    # Piece by piece: the text of a view of 100,000 shards in pieces takes many times its bytes.
    text.writelines(json.JSONEncoder(indent=1, ensure_ascii=False).iterencode(table))
    text.flush()
    # All but the end: "\n}", or "}" of an empty table.
    body = data.getbuffer()[: -2 if table else -1]
    digest = hashlib.sha256(body).hexdigest().encode()
    comma = b"," if table else b""
    write_whole(path, body, comma + b'\n "sha256": "' + digest + b'"\n}\n')


def read_sealed(path: Path) -> dict[str, Any] | None:
    """Return the table of a JSON file, or None if it is missing.

    Raises StoreError if its bytes are not those that were written.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    intact = _is_seal_intact(data, _SEAL, _END)
    try:
        plain = data.decode("utf-8", "surrogateescape")
        table = json.loads(plain) if intact is not False else None
    except ValueError:
        table = None
    if not isinstance(table, dict):
        raise StoreError(f"{path}: damaged; put back a copy of it, or delete it and run again")
    if intact:
        del table["sha256"]
    return table


def sealed_toml(text: bytes) -> bytes:
    """Return TOML with a comment that holds the hash of all bytes before it."""
    return text + f"# sha256 of the lines above: {hashlib.sha256(text).hexdigest()}\n".encode()


def append_chained(path: Path, entry: Mapping[str, Any]) -> None:
    """Append an entry (not empty) as a line of JSON that carries the chain on."""
    body = json.dumps(entry, ensure_ascii=False).encode("utf-8", "surrogateescape")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        # Lines of two processes form one chain.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        start = max(0, size - _TAIL_BYTES)
        tail = os.pread(descriptor, size - start, start)
        links = list(_CHAIN.finditer(tail))
        if not links and start:
            tail = os.pread(descriptor, size, 0)
            links = list(_CHAIN.finditer(tail))
        previous, rest = (links[-1][1], tail[links[-1].end() :]) if links else (b"", tail)
        # A crash may have torn the last line; a line break keeps this one readable.
        gap = b"\n" if rest and not rest.endswith(b"\n") else b""
        chain = hashlib.sha256(previous + rest + gap + body).hexdigest()[:32].encode()
        os.write(descriptor, gap + body.removesuffix(b"}") + b', "chain": "' + chain + b'"}\n')
    finally:
        os.close(descriptor)


def read_chained(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a growing file, oldest first; lines that are torn are left out."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    entries = []
    for line in lines:
        with suppress(ValueError):
            entry = json.loads(line.decode("utf-8", "replace"))
            if isinstance(entry, dict):
                entry.pop("chain", None)
                entries.append(entry)
    return entries


@dataclass(frozen=True)
class Ledger:
    """An append-only file of events, such as `RUN/ledger.jsonl`: a chain of JSON objects."""

    path: Path

    def write(self, event: str, **fields: Any) -> None:
        """Append one event with the time; lines of two processes never mix."""
        append_chained(self.path, {"event": event, "time": round(time.time(), 3)} | fields)

    def write_once(self, event: str, **fields: Any) -> None:
        """Append one event unless an equal one exists, for what a resumed training repeats."""
        for entry in self.events(event):
            if {key: entry[key] for key in entry if key not in ("event", "time")} == fields:
                return
        self.write(event, **fields)

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return all events, or those of one name, oldest first; torn lines are left out."""
        entries = read_chained(self.path)
        return [entry for entry in entries if event in (None, entry.get("event"))]


def is_intact(path: Path) -> bool | None:
    """Return whether a file has the bytes that were written; None if it carries no hash."""
    data = path.read_bytes()
    if path.suffix == ".toml":
        return _is_seal_intact(data, _TOML_SEAL, sealed_toml(b""))
    if path.suffix != ".jsonl":
        return _is_seal_intact(data, _SEAL, _END)
    previous, end = b"", 0
    for link in _CHAIN.finditer(data):
        body = data[end : link.start()] + b"}"
        if hashlib.sha256(previous + body).hexdigest()[:32].encode() != link[1]:
            return False
        previous, end = link[1], link.end()
    rest = data[end:]
    if not end:
        return False if _ends_like(rest, _LINK) else None
    # What a kill leaves is the beginning of one line.
    return b"\n" not in rest and not _ends_like(rest, _LINK)


def _is_seal_intact(data: bytes, pattern: re.Pattern[bytes], example: bytes) -> bool | None:
    # The pattern stands at the end: looking for it from the start takes longer than hashing.
    seal = pattern.search(data, max(0, len(data) - len(example) - 1))
    if seal is None:
        return False if _ends_like(data, example) else None
    return hashlib.sha256(data[: seal.start()]).hexdigest() == seal[1].decode()


def _ends_like(data: bytes, example: bytes) -> bool:
    """Whether a file ends as one that carries a hash, but for some damage to that very end."""
    end = data[-len(example) :]
    pairs = zip(end, example, strict=False)
    constant = [a == b for a, b in pairs if chr(b) not in "0123456789abcdef"]
    return len(end) == len(example) and sum(constant) > len(constant) * 0.8
