"""What was fetched of one host, on disk: a WARC file, its journal, and a list of what gave no page.
Reads and writes all three.

The journal says which address lies where in the WARC file, and is written after it: what a kill
left half-written behind the last line is cut off. Both lists are JSON lines, of which a torn last
one counts as absent.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundup._version import __version__
from groundup.collect.scrape.crawler import Answer
from groundup.runtime.files import flush, write_whole


@dataclass(frozen=True, slots=True)
class Missed:
    """An address that gave no page, and why."""

    address: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Kept:
    """An address whose page lies in these bytes of the WARC file; the first of a journal has none,
    and lies in `file`.
    """

    address: str
    start: int
    end: int
    file: str = ""


class Harvest:
    """The pages of one host, in the folder of their source. One process works with it at a time."""

    def __init__(self, folder: Path, host: str, user_agent: str) -> None:
        self.name = file_name(host)
        self._folder, self._agent = folder, user_agent
        self._journal, self._missed = (
            folder / f"{self.name}.jsonl",
            folder / f"{self.name}.missed.jsonl",
        )
        lines = [Kept(**line) for line in _lines(self._journal)]
        file = folder / lines[0].file if lines else None
        size = file.stat().st_size if file is not None and file.is_file() else 0
        self._records = [line for line in lines if line.end <= size]
        # Lines whose bytes were lost must not come back when the file has grown again.
        self._torn = len(self._records) < len(lines)

    @property
    def warc(self) -> Path | None:
        """The WARC file, None while there is no page."""
        return self._folder / self._records[0].file if len(self._records) > 1 else None

    @property
    def kept(self) -> set[str]:
        """The addresses whose pages are here."""
        return {record.address for record in self._records[1:]}

    @property
    def missed(self) -> dict[str, Missed]:
        """The addresses that gave no page."""
        return {line["address"]: Missed(**line) for line in _lines(self._missed)}

    def add(self, address: str, answer: Answer) -> None:
        """Append the page that an address gave."""
        if not self._records:
            self._begin()
        if self._torn:
            self._write_journal()
            self._torn = False
        path, start = self._folder / self._records[0].file, self._records[-1].end
        with path.open("ab") as file:
            file.write(page_record(answer))
            end = file.tell()
        self._records.append(Kept(address, start, end))
        _append(self._journal, asdict(self._records[-1]))

    def miss(self, missed: Missed) -> None:
        """Note an address that gave no page."""
        _append(self._missed, asdict(missed))

    def _begin(self) -> None:
        name, record = f"{self.name}.1.warc.gz", info_record(self._agent)
        (self._folder / name).write_bytes(record)
        self._records = [Kept("", 0, len(record), name)]
        self._write_journal()

    def _write_journal(self) -> None:
        write_whole(self._journal, b"".join(_line(asdict(record)) for record in self._records))

    def retry(self) -> None:
        """Forget what gave no page, so that it is tried again."""
        self._missed.unlink(missing_ok=True)

    def keep_only(self, addresses: Collection[str]) -> None:
        """Cut off what a kill left, and take out what is not wanted any more, in a new file; the
        journal's rename is the commit.
        """
        if self._records:
            os.truncate(self._folder / self._records[0].file, self._records[-1].end)
        missed = self.missed
        if any(address not in addresses for address in missed):
            write_whole(
                self._missed,
                b"".join(
                    _line(asdict(one)) for address, one in missed.items() if address in addresses
                ),
            )
        stay = [record for record in self._records[1:] if record.address in addresses]
        if self._records and len(stay) < len(self._records) - 1:
            self._rewrite(stay)

    def _rewrite(self, stay: Sequence[Kept]) -> None:
        """Copy what stays to a new WARC file."""
        old, head = self._folder / self._records[0].file, self._records[0]
        number = int(old.name.rsplit(".", 3)[1]) + 1
        records = [Kept("", 0, head.end, f"{self.name}.{number}.warc.gz")]
        path = self._folder / records[0].file
        with old.open("rb") as before, path.open("wb") as after:
            after.write(before.read(head.end))
            for record in stay:
                before.seek(record.start)
                after.write(before.read(record.end - record.start))
                records.append(Kept(record.address, records[-1].end, after.tell()))
        flush(path)
        self._records = records
        self._write_journal()
        old.unlink()

    def settle(self) -> None:
        """Force the pages to disk."""
        if self.warc is not None:
            flush(self.warc)
            flush(self._journal)


def file_name(host: str) -> str:
    """Return a host as a file name; one with other characters than names have gets a hash, so that
    no two meet.
    """
    plain = re.sub(r"[^a-z0-9.-]+", "_", host)[:150].strip(".")
    return plain if plain == host else f"{plain}-{hashlib.sha256(host.encode()).hexdigest()[:8]}"


def info_record(user_agent: str) -> bytes:
    """Return the record that opens a WARC file: who made it, and how."""
    from fastwarc.warc import WarcRecord, warcinfo

    record = WarcRecord()
    record.init_headers(record_type=warcinfo)
    record.headers["Content-Type"] = "application/warc-fields"
    lines = [
        f"software: groundup/{__version__}",
        "format: WARC File Format 1.1",
        "robots: obey",
        f"http-header-user-agent: {user_agent}",
        "",
    ]
    record.set_bytes_content("\r\n".join(lines).encode())
    return _written(record, b"")


def page_record(answer: Answer) -> bytes:
    """Return a WARC 1.1 response record of a page, with SHA-1 digests of block and payload, as one
    gzip member.
    """
    from fastwarc.warc import WarcRecord, response

    record = WarcRecord()
    record.init_headers(record_type=response)
    record.headers["WARC-Target-URI"] = answer.url
    record.headers["Content-Type"] = "application/http; msgtype=response"
    record.set_bytes_content(answer.head + answer.body)
    return _written(record, answer.body)


def _written(record: object, payload: bytes) -> bytes:
    out = io.BytesIO()
    digest = hashlib.sha1(payload, usedforsecurity=False).digest() if payload else None
    record.write(out, checksum_data=True, payload_digest=digest)  # type: ignore[attr-defined]
    return gzip.compress(out.getvalue(), mtime=0)


def _line(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, ensure_ascii=True).encode("ascii") + b"\n"


def _append(path: Path, fields: dict[str, object]) -> None:
    """Append a line; one that a kill tore is ended first, so that it costs nobody else."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"
            file.write(b"\n" if torn else b"")
        file.write(_line(fields))


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a list, without any that is torn."""
    found = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
