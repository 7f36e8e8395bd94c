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
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundup._version import __version__
from groundup.collect.files.archives import Refused
from groundup.collect.scrape.crawler import FetchedPage, NoPageError
from groundup.runtime.files import flush, write_whole


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
        # A host with special characters gets a hash to be unique.
        self.name = re.sub(r"[^a-z0-9.-]+", "_", host)[:150].strip(".")
        if self.name != host:
            self.name += f"-{hashlib.sha256(host.encode()).hexdigest()[:8]}"
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
    def missed(self) -> dict[str, Refused]:
        """Addresses that gave no page, and why."""
        return {
            line["address"]: Refused(line["address"], line["reason"], line["detail"])
            for line in _read_lines(self._missed)
        }

    def add(self, address: str, result: FetchedPage | NoPageError) -> None:
        """Append the page of an address, or the reason why it gave none."""
        if isinstance(result, NoPageError):
            missed = {"address": address, "reason": result.reason, "detail": result.detail}
            _append_line(self._missed, missed)
            return
        if not self._records:
            info = (
                f"software: groundup/{__version__}\r\nformat: WARC File Format 1.1\r\n"
                f"robots: obey\r\nhttp-header-user-agent: {self._user_agent}\r\n"
            )
            headers = {"Content-Type": "application/warc-fields"}
            record = warc_record("warcinfo", headers, info.encode())
            name = f"{self.name}.1.warc.gz"
            (self._folder / name).write_bytes(record)
            self._records, self._torn = [StoredPage("", 0, len(record), name)], True
        if self._torn:
            _write_lines(self._journal, map(asdict, self._records))
            self._torn = False
        content_type = "application/http; msgtype=response"
        headers = {"WARC-Target-URI": result.url, "Content-Type": content_type}
        path, start = self._folder / self._records[0].file, self._records[-1].end
        with path.open("ab") as file:
            file.write(warc_record("response", headers, result.head + result.body, result.body))
            end = file.tell()
        self._records.append(StoredPage(address, start, end))
        _append_line(self._journal, asdict(self._records[-1]))

    def prune(self, addresses: Collection[str], retry: bool = False) -> None:
        """Keep only some addresses, and cut off what a kill left.

        Pages are removed by writing a new WARC file; renaming the journal is the commit. With
        `retry`, no address counts as missed.
        """
        if self._records:
            os.truncate(self._folder / self._records[0].file, self._records[-1].end)
        missed = {line["address"]: line for line in _read_lines(self._missed)}
        if retry:
            self._missed.unlink(missing_ok=True)
        elif any(address not in addresses for address in missed):
            _write_lines(self._missed, [missed[each] for each in missed if each in addresses])
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
        _write_lines(self._journal, map(asdict, records))
        old.unlink()

    def flush(self) -> None:
        """Force the pages to disk."""
        if self.warc is not None:
            flush(self.warc)
            flush(self._journal)


def warc_record(kind: str, headers: Mapping[str, str], block: bytes, payload: bytes = b"") -> bytes:
    """Return a record as a gzip member, with SHA-1 digests of block and payload.

    The payload is what the block holds after its HTTP headers.
    """
    from fastwarc.warc import WarcRecord, WarcRecordType

    record = WarcRecord()
    record.init_headers(record_type=getattr(WarcRecordType, kind))
    for name, value in headers.items():
        record.headers[name] = value
    record.set_bytes_content(block)
    out = io.BytesIO()
    digest = hashlib.sha1(payload, usedforsecurity=False).digest() if payload else None
    record.write(out, checksum_data=True, payload_digest=digest)
    return gzip.compress(out.getvalue(), mtime=0)


def _to_line(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, ensure_ascii=True).encode("ascii") + b"\n"


def _write_lines(path: Path, lines: Iterable[Mapping[str, object]]) -> None:
    write_whole(path, b"".join(map(_to_line, lines)))


def _append_line(path: Path, fields: Mapping[str, object]) -> None:
    """Append a line, after ending a torn one, which would damage this one too."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            file.write(b"" if file.read(1) == b"\n" else b"\n")
        file.write(_to_line(fields))


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a list, without torn ones."""
    lines = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        with suppress(ValueError):
            lines.append(json.loads(line))
    return lines
