"""Fetched pages of one host on disk: a WARC file, its journal, and a list of failed addresses.

    HOST.1.warc.gz      WARC 1.1, one gzip member per record
    HOST.jsonl          the journal: which address is in which bytes of the WARC file
    HOST.missed.jsonl   addresses that gave no page, and why

A page is written to the WARC file first and to the journal second, so bytes after the last line of
the journal were left by a kill and are cut off. A torn last line of either list counts as absent.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundup._version import __version__
from groundup.collect.scrape.crawler import FetchedPage
from groundup.runtime.files import flush, write_whole


@dataclass(frozen=True, slots=True)
class MissedPage:
    """An address that gave no page, and why."""

    address: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class StoredPage:
    """A line of the journal: an address, and the bytes of its record in the WARC file.

    The first line stands for the warcinfo record; it has no address, and names the WARC file.
    """

    address: str
    start: int
    end: int
    file: str = ""


class WarcStore:
    """The pages of one host, in the folder of their source; for one process at a time."""

    def __init__(self, folder: Path, host: str, user_agent: str) -> None:
        self.name = host_file_name(host)
        self._folder, self._user_agent = folder, user_agent
        self._journal = folder / f"{self.name}.jsonl"
        self._missed = folder / f"{self.name}.missed.jsonl"
        lines = [StoredPage(**line) for line in _read_lines(self._journal)]
        file = folder / lines[0].file if lines else None
        size = file.stat().st_size if file is not None and file.is_file() else 0
        self._records = [line for line in lines if line.end <= size]
        # Lines whose bytes were lost must not count again when the file has grown.
        self._torn = len(self._records) < len(lines)

    @property
    def warc(self) -> Path | None:
        """The WARC file, None while there is no page."""
        return self._folder / self._records[0].file if len(self._records) > 1 else None

    @property
    def kept(self) -> set[str]:
        """Addresses whose pages are stored."""
        return {record.address for record in self._records[1:]}

    @property
    def missed(self) -> dict[str, MissedPage]:
        """Addresses that gave no page."""
        return {line["address"]: MissedPage(**line) for line in _read_lines(self._missed)}

    def add(self, address: str, page: FetchedPage) -> None:
        """Append the page of an address."""
        if not self._records:
            name, record = f"{self.name}.1.warc.gz", warcinfo_record(self._user_agent)
            (self._folder / name).write_bytes(record)
            self._records = [StoredPage("", 0, len(record), name)]
            self._write_journal()
        if self._torn:
            self._write_journal()
            self._torn = False
        path, start = self._folder / self._records[0].file, self._records[-1].end
        with path.open("ab") as file:
            file.write(page_record(page))
            end = file.tell()
        self._records.append(StoredPage(address, start, end))
        _append_line(self._journal, asdict(self._records[-1]))

    def add_missed(self, missed: MissedPage) -> None:
        """Record an address that gave no page."""
        _append_line(self._missed, asdict(missed))

    def forget_missed(self) -> None:
        """Let missed addresses be tried again."""
        self._missed.unlink(missing_ok=True)

    def prune(self, addresses: Collection[str]) -> None:
        """Keep only some addresses, and cut off what a kill left.

        Pages are removed by writing a new WARC file; renaming the journal is the commit.
        """
        if self._records:
            os.truncate(self._folder / self._records[0].file, self._records[-1].end)
        missed = self.missed
        if any(address not in addresses for address in missed):
            kept_missed = [asdict(missed[address]) for address in missed if address in addresses]
            write_whole(self._missed, b"".join(map(_to_line, kept_missed)))
        kept = [record for record in self._records[1:] if record.address in addresses]
        if not self._records or len(kept) == len(self._records) - 1:
            return
        old, info = self._folder / self._records[0].file, self._records[0]
        version = int(old.name.rsplit(".", 3)[1]) + 1
        records = [StoredPage("", 0, info.end, f"{self.name}.{version}.warc.gz")]
        path = self._folder / records[0].file
        with old.open("rb") as source, path.open("wb") as target:
            target.write(source.read(info.end))
            for record in kept:
                source.seek(record.start)
                target.write(source.read(record.end - record.start))
                records.append(StoredPage(record.address, records[-1].end, target.tell()))
        flush(path)
        self._records = records
        self._write_journal()
        old.unlink()

    def _write_journal(self) -> None:
        lines = [_to_line(asdict(record)) for record in self._records]
        write_whole(self._journal, b"".join(lines))

    def flush(self) -> None:
        """Force the pages to disk."""
        if self.warc is not None:
            flush(self.warc)
            flush(self._journal)


def host_file_name(host: str) -> str:
    """Return a file name for a host; a host with special characters gets a hash to be unique."""
    plain = re.sub(r"[^a-z0-9.-]+", "_", host)[:150].strip(".")
    return plain if plain == host else f"{plain}-{hashlib.sha256(host.encode()).hexdigest()[:8]}"


def warcinfo_record(user_agent: str) -> bytes:
    """Return the record that starts a WARC file: the software, and how it crawls."""
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
    return _to_gzip_member(record, b"")


def page_record(page: FetchedPage) -> bytes:
    """Return a response record of a page, with SHA-1 digests of block and payload."""
    from fastwarc.warc import WarcRecord, response

    record = WarcRecord()
    record.init_headers(record_type=response)
    record.headers["WARC-Target-URI"] = page.url
    record.headers["Content-Type"] = "application/http; msgtype=response"
    record.set_bytes_content(page.head + page.body)
    return _to_gzip_member(record, page.body)


def _to_gzip_member(record: Any, payload: bytes) -> bytes:
    out = io.BytesIO()
    digest = hashlib.sha1(payload, usedforsecurity=False).digest() if payload else None
    record.write(out, checksum_data=True, payload_digest=digest)
    return gzip.compress(out.getvalue(), mtime=0)


def _to_line(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, ensure_ascii=True).encode("ascii") + b"\n"


def _append_line(path: Path, fields: dict[str, object]) -> None:
    """Append a line, after ending a torn one, which would damage this one too."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"
            file.write(b"\n" if torn else b"")
        file.write(_to_line(fields))


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a list, without torn ones."""
    lines = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines
