"""Tells a file's format from its name and first bytes. Reads and writes nothing."""

from __future__ import annotations

import json
import re

from groundup.collect.charset import detect_encoding, is_binary

# What no reader reads, by magic bytes; each becomes the detail of a rejection.
_MAGIC = {
    b"%PDF": "pdf",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"\x89PNG": "image",
    b"GIF8": "image",
    b"\xff\xd8\xff": "image",
    b"\x7fELF": "program",
    b"MZ\x90": "program",
    b"PK\x03\x04": "document",
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    b"SQLite format 3": "database",
    b"\xd0\xcf\x11\xe0": "document",
}
UNREADABLE = frozenset(
    {"pdf", "7z", "rar", "image", "program", "document", "database", "wat", "binary"}
)
# What a person can do about them; the rest says enough by its name.
ADVICE = {
    "7z": "unpack it first, or pack it anew: 7z e -so FILE | zstd > FILE.zst",
    "rar": "unpack it first",
    "pdf": "make plain text of it first, for example with pdftotext",
    "document": "save it as plain text, HTML or EPUB first",
    "wat": "it holds what is said about pages; their text is in the WARC and WET files beside it",
}

_BY_SUFFIX = {
    ".warc": "warc",
    ".wet": "warc",
    ".wat": "wat",
    ".arc": "arc",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".yml": "yaml",
    ".yaml": "yaml",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".shtml": "html",
}
# Formats whose records are told apart before they are decoded.
_RECORDS = frozenset({"jsonl", "json", "csv", "tsv", "mediawiki", "feed"})
# So many bytes must be text before anything that is none is taken for damage.
_BEGINNING = 32
# The outermost elements that tell a format.
_XML = re.compile(r"<(mediawiki|rss|rdf:RDF|(?:atom:)?feed)\b")
# Begins each message of a stream; its name has to agree.
_ARROW_STREAM = b"\xff\xff\xff\xff"
_EPUB = b"mimetypeapplication/epub+zip"
_HTML = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body|meta|title)\b",
    re.IGNORECASE | re.DOTALL,
)
_WIKITEXT = re.compile(
    r"\[\[[^\]\n]+\]\]|\{\{\w|'''[^'\n]+'''|^==+[^=\n]+==+\s*$|\{\|", re.MULTILINE
)


def text_head(head: bytes) -> str:
    """Return the first bytes of a file as text, whatever happens to the last character."""
    return head.decode(detect_encoding(head), "replace").lstrip("\ufeff")


def is_epub(name: str, head: bytes) -> bool:
    """Return whether a zip file is a book: by its suffix, or by the first member that the standard
    asks for.
    """
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06")) and (
        name.lower().endswith(".epub") or head[30:58] == _EPUB
    )


def detect_format(name: str, head: bytes) -> str:
    """Return the format of a file, such as `html`, `warc`, `jsonl`, `text`; `empty`, `binary`, or
    what it is otherwise.

    Bytes come first, the name decides where they allow several answers.
    """
    if not head:
        return "empty"
    if is_epub(name, head):
        return "epub"
    suffix = re.sub(r"\.(gz|bz2|xz|zst)$", "", name.lower())
    named = _BY_SUFFIX.get("." + suffix.rpartition(".")[2])
    magic = next((found for start, found in _MAGIC.items() if head.startswith(start)), None)
    if magic is not None or (named == "arrow" and head.startswith(_ARROW_STREAM)):
        return magic or "arrow"
    if named in ("wat", "arc") or head.startswith(b"filedesc://"):
        return named or "arc"
    if named == "warc" or head.startswith(b"WARC/"):
        return "warc"
    return _mended_format(named, head) if is_binary(head) else _text_format(named, text_head(head))


def _mended_format(named: str | None, head: bytes) -> str:
    """Return the format of what is damaged but begins well, as where a disk left zero bytes: its
    other records can be read.
    """
    bare = head.replace(b"\0", b"")
    form = (
        "binary"
        if not bare or is_binary(bare[:_BEGINNING])
        else _text_format(named, text_head(bare))
    )
    return form if form in _RECORDS else "binary"


def _text_format(named: str | None, head: str) -> str:  # noqa: PLR0911 - a table of cases
    start = head.lstrip()[:16]
    if named == "json" and is_jsonl(head):
        return "jsonl"
    if named is not None and (named not in ("json", "jsonl") or start.startswith(("{", "["))):
        return named
    outermost = _XML.search(head[:4096])
    if outermost is not None and outermost[1] == "mediawiki" and start.startswith("<"):
        return "mediawiki"
    if _HTML.match(head):
        return "html"
    if start.startswith(("<?xml", "<rss", "<feed", "<rdf:RDF")):
        return "xml" if outermost is None else "feed"
    if start.startswith("{") and is_jsonl(head):
        return "jsonl"
    return "json" if re.match(r"[\[{]\s*[\[{\"]", start) and _ends_like_json(head) else "text"


def _ends_like_json(head: str) -> bool:
    try:
        json.JSONDecoder(strict=False).raw_decode(head.lstrip())
    except (ValueError, RecursionError):
        return len(head) > 1000 and head.count('":') > 3
    return True


def is_jsonl(head: str) -> bool:
    """Return whether the first line is a JSON object of its own, and the next line starts another."""
    lines = [line for line in head.lstrip().split("\n", 8)[:8] if line.strip()]
    if len(lines) < 2 or not lines[0].startswith("{") or not lines[1].startswith("{"):
        return False
    try:
        json.loads(lines[0], strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def wikitext_share(head: str) -> float:
    """Return how many pieces of wiki markup a text holds for each 1,000 characters."""
    return 1000 * len(_WIKITEXT.findall(head)) / max(1, len(head))
