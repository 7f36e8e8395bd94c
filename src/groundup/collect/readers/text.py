"""Plain text, and records that hold a text: what every kind of source can read. Reads an item;
yields documents.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

from groundup.artifacts.document import MAX_DOCUMENT_BYTES, Document, Reject
from groundup.collect.charset import decode, detect_encoding
from groundup.collect.files.streams import Item
from groundup.collect.readers.html import host
from groundup.collect.readers.records import read_records
from groundup.collect.readers.subtitles import spoken
from groundup.recipe import Source

TEXT_KEYS = (
    "text",
    "content",
    "raw_content",
    "body",
    "document",
    "article",
    "articlebody",
    "maintext",
    "page_content",
    "code",
    "passage",
    "story",
    "completion",
)
_ADDRESS_KEYS = ("url", "source_url", "warc_target_uri", "warc-target-uri", "uri", "id")
_GROUP_KEYS = (
    "title",
    "url",
    "source_url",
    "book",
    "repo_name",
    "max_stars_repo_name",
    "repo",
    "domain",
    "host",
    "warc_target_uri",
)
_LANGUAGE_KEYS = ("language", "lang")
# A file longer than a document may be is a corpus in one file: it is cut at blank lines into pieces
# of this size.
PIECE_CHARACTERS = 1 << 20


def read_text(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield a plain-text file as one document, or a very long one as pieces cut at blank lines."""
    declared = "" if source.encoding == "auto" else source.encoding
    data = item.stream.read(MAX_DOCUMENT_BYTES)
    if len(data) < MAX_DOCUMENT_BYTES:
        yield Document(spoken(decode(data, declared)), group=item.origin)
        return
    rest = io.TextIOWrapper(
        joined(data, item.stream), encoding=detect_encoding(item.head, declared), errors="replace"
    )
    for number, piece in enumerate(_pieces(rest)):
        yield Document(piece, number, group=item.origin)


def joined(front: bytes, rest: io.BufferedReader) -> io.BufferedReader:
    """Return a stream of bytes that were read already and of the rest."""
    return io.BufferedReader(_Joined(front, rest))


class _Joined(io.RawIOBase):
    """Bytes in memory, and then the rest of a stream."""

    def __init__(self, front: bytes, rest: io.BufferedReader) -> None:
        super().__init__()
        self._front, self._rest = io.BytesIO(front), rest

    def readable(self) -> bool:
        """Say that this stream can be read."""
        return True

    def readinto(self, target: Any) -> int:
        """Fill `target` from the front, then from the rest."""
        return self._front.readinto(target) or self._rest.readinto1(target)


def _pieces(lines: io.TextIOWrapper) -> Iterator[str]:
    piece: list[str] = []
    size = 0
    for line in iter(lambda: lines.readline(PIECE_CHARACTERS), ""):
        piece.append(line)
        size += len(line)
        if size >= PIECE_CHARACTERS and (not line.strip() or size >= 4 * PIECE_CHARACTERS):
            yield "".join(piece)
            piece, size = [], 0
    if piece:
        yield "".join(piece)


def read_text_records(item: Item, source: Source, form: str) -> Iterator[Document | Reject]:
    """Yield the records of a JSONL, JSON, CSV, YAML or Parquet file that hold a text; others are
    rejected by number.
    """
    for number, record in read_records(item, form):
        yield (
            record
            if isinstance(record, Reject)
            else text_document(record, number, item, source.kind)
        )


def text_document(record: Any, number: int, item: Item, kind: str = "") -> Document | Reject:
    """Return the document that a record of a kind of source holds under one of `TEXT_KEYS`."""
    if isinstance(record, str):
        record = {"text": record}
    if not isinstance(record, Mapping):
        return Reject("no-text", number, f"a {type(record).__name__} where an object was expected")
    text = first_text(record, TEXT_KEYS)
    if text is None:
        return Reject(
            "no-text",
            number,
            f"no key of {', '.join(TEXT_KEYS[:4])}, … among"
            f" {', '.join(map(str, list(record)[:8]))}",
        )
    if not text.strip():
        return Reject("empty", number)
    site = _site(record) if kind == "web" else ""
    group = (
        first_text(record, ("group",))
        or site
        or first_text(record, _GROUP_KEYS)
        or f"{item.origin}#{number}"
    )
    language = first_text(record, _LANGUAGE_KEYS) or ""
    return Document(
        text,
        number,
        group,
        first_text(record, ("license",)) or "",
        language if len(language) == 2 else "",
    )


def _site(record: Mapping[str, Any]) -> str:
    """Return the host of a web page, which stands in its record or in what the record says about
    it; "" when neither tells.
    """
    about = [
        record,
        *(record[key] for key in ("metadata", "meta") if isinstance(record.get(key), Mapping)),
    ]
    return next((name for one in about if (name := host(first_text(one, _ADDRESS_KEYS) or ""))), "")


def first_text(record: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    """Return the first of the keys' values that is a text."""
    folded = {str(key).lower(): value for key, value in record.items()}
    return next((folded[key] for key in keys if isinstance(folded.get(key), str)), None)
