"""Detects a file's format from its name and first bytes."""

from __future__ import annotations

import json
import re
import struct
from contextlib import suppress

from groundup.collect.charset import detect_encoding, is_binary
from groundup.collect.files.packages import package_format

SQLITE = b"SQLite format 3\0"
# Formats that no reader reads, by magic bytes; the format becomes the detail of a rejection.
_MAGIC = {
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"\x89PNG": "image",
    b"GIF8": "image",
    b"\xff\xd8\xff": "image",
    b"II*\0": "image",
    b"MM\0*": "image",
    b"\x7fELF": "program",
    b"MZ\x90": "program",
    b"PK\x03\x04": "document",
    b"PAR1": "parquet",
    b"ARROW1": "arrow",
    SQLITE: "sqlite",
    b"!BDN": "pst",
    b"\xcf\xad\x12\xfe": "dbx",
    b"{\\rtf": "rtf",
}
UNREADABLE = {"wat", "latex-data", "binary", "ole", "msg", *_MAGIC.values()}
UNREADABLE -= {"parquet", "arrow", "rtf", "sqlite"}
# What a user can do about them, where the name does not say it.
ADVICE = {
    "7z": "unpack first, or pack anew: 7z e -so FILE | zstd > FILE.zst",
    "rar": "unpack first",
    "document": "save as plain text, HTML, DOCX or EPUB first",
    "ole": "save as DOCX, XLSX or PDF first",
    "msg": "convert to mail files first, for example with msgconvert",
    "pst": "convert to mailboxes first, for example with readpst -r",
    "dbx": "convert to mailboxes first, for example with readdbx",
    "latex-data": "no text but references or settings of LaTeX",
    "wat": "what is said about pages; their text is in the WARC and WET files beside",
}

_BY_SUFFIX = {
    **{name: name for name in "warc wat arc parquet arrow jsonl json csv tsv yaml html".split()},
    "wet": "warc",
    "ndjson": "jsonl",
    "yml": "yaml",
    **dict.fromkeys(("htm", "xhtml", "shtml"), "html"),
    **dict.fromkeys("md markdown mdown mkd mdx qmd rmd".split(), "markdown"),
    **dict.fromkeys(("eml", "emlx"), "eml"),
    **dict.fromkeys(("mbox", "mbx"), "mbox"),
    **dict.fromkeys(("mhtml", "mht"), "mhtml"),
    "rst": "rst",
    **dict.fromkeys(("tex", "ltx", "latex"), "latex"),
    "org": "org",
    **dict.fromkeys(("adoc", "asciidoc"), "asciidoc"),
    "asc": "asc",
    **dict.fromkeys(("bib", "sty", "cls", "bst"), "latex-data"),
    "ipynb": "notebook",
    "rtf": "rtf",
    **dict.fromkeys(("dbk", "docbook"), "docbook"),
    **dict.fromkeys(("nxml", "jats"), "jats"),
    "tei": "tei",
    "fb2": "fictionbook",
    "xml": "xml",
}
# Formats whose records are split before they are decoded: damage costs single records.
_RECORDS = frozenset(
    "jsonl json csv tsv mediawiki feed eml mbox mhtml stackexchange docbook jats tei"
    " fictionbook sql".split()
)
# This many first bytes must be text before binary bytes after them count as damage.
_INTACT_BYTES = 32
_XML_STARTS = ("<?xml", "<rss", "<feed", "<rdf:RDF", "<!DOCTYPE rss")
# Root elements that decide a format.
_XML_ROOT = re.compile(r"<(mediawiki|rss|rdf:RDF|(?:atom:)?feed)\b")
_XML_COMMENT = r"<!--(?:(?!-->).)*+-->"
# What stands before the root element. A DOCTYPE may hold declarations.
XML_PROLOGUE = re.compile(
    rf"\A\s*+(?:(?:{_XML_COMMENT}|<\?(?:(?!\?>).)*+\?>"
    rf"|<!DOCTYPE[^>\[]*+(?:\[(?:{_XML_COMMENT}|\"[^\"]*+\"|'[^']*+'|[^\]\"'])*+\]\s*+>"
    r"|\[[^\]]*+\]\s*+>|>))\s*+)*+",
    re.DOTALL,
)
_TAG_START = re.compile(r"<[?!A-Za-z]")
_FIRST_TAG = re.compile(r"<(?:[\w.-]+:)?([A-Za-z_][\w.-]*)")
_DOCUMENT_ROOTS = {
    **dict.fromkeys(("TEI", "TEI.2", "teiCorpus", "teiCorpus.2"), "tei"),
    "FictionBook": "fictionbook",
    "pmc-articleset": "jats",
    "hibernate-generic": "confluence",
}
# DocBook and JATS share `article` and names that anything may have: what follows decides.
_DOCBOOK_ROOTS = frozenset(
    "set book part article chapter appendix preface section sect1 sect2 sect3 refentry reference"
    " refsect1 glossary topic para variablelist itemizedlist partintro simplesect table equation"
    " example informaltable informalexample".split()
)
_DOCBOOK = re.compile(
    r"//DTD DocBook|docbook\.org/ns/docbook|docbookx\.dtd"
    r"|<(?:\w+:)?(?:para|simpara|bookinfo|articleinfo|chapterinfo|sect1|refnamediv|refmeta"
    r"|informaltable|informalexample)[\s/>]"
)
_JATS = re.compile(
    r"<!DOCTYPE\s+article\s[^>]*(?:JATS|NLM|nlm\.nih\.gov|TaxonX)|<article\s[^>]*"
    r"(?:article-type|dtd-version)=|<(?:journal-meta|article-meta|front)[\s/>]"
)
# Pages of exports in HTML.
_CONFLUENCE = re.compile(r"<div\s[^<>]*\bid=\"main-content\"[^<>]*\bclass=\"wiki-content")
_NOTION = re.compile(r'<article id="[0-9a-f-]{36}" class="page (?:sans|serif|mono)')
# Starts each message of an Arrow stream; the suffix must agree.
_ARROW_STREAM = b"\xff\xff\xff\xff"
_OLE = b"\xd0\xcf\x11\xe0"
# Streams in the directory of an OLE file, whose names are in UTF-16, and its suffixes.
_OLE_STREAMS = {"__properties_version1.0": "msg", "WordDocument": "doc"}
_OLE_STREAMS |= {"Workbook": "xls", "Book": "xls", "PowerPoint Docu": "ppt"}
_OLE_SUFFIXES = {"doc": "doc", "dot": "doc", "xls": "xls", "xlt": "xls", "ppt": "ppt", "msg": "msg"}
# What their streams begin with, and what says that they are encrypted.
_OLE_SECTOR = 512
_WORD_FACTS = b"\xec\xa5"
_EXCEL_BOOK = (b"\x09\x08\x10\0\0\x06\x05\0", b"\x09\x08\x08\0\0\x05\x05\0")
_FILE_PASS, _EXCEL_RECORDS = 0x2F, 5
_LOCKED_PPT = b"\x14\0\0\0\xdf\xc4\xd1\xf3"
# A PDF may come after this many bytes of something else, such as a warning of a server; but not
# after the beginning of records.
_PDF_START = 1024
_RECORD_STARTS = ("{", "[", "<mediawiki", *_XML_STARTS)
# Possessive quantifiers: else each of n comments may swallow those after it, in 2^n ways.
_COMMENTS = re.compile(r"\s*+(?:<!--(?:(?!-->).)*+-->\s*+)*+", re.DOTALL)
_HTML = re.compile(
    rf"\s*(?:<\?xml[^>]*>\s*)?{_COMMENTS.pattern}"
    r"<(?:!doctype\s+html|html|head|body|meta|title)\b",
    re.IGNORECASE | re.DOTALL,
)
# The `From ` line of a mailbox has a date.
_MBOX = re.compile(
    r"\s*From [^\n]{0,300}\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? [^\n]{0,40}\b(?:19|20)\d\d\b"
    r"[^\n]{0,40}\r?\n(?:>From [^\n]*\n)?[!-9;-~]{1,80}:"
)
_NEXT_MAIL = re.compile(r"\n\n" + _MBOX.pattern.removeprefix(r"\s*"))
# Lines of headers up to a blank one; Apple's mails have a count of bytes above them.
_HEADERS = re.compile(
    r"(?:\s*\d{1,10}\s*\n)?\s*(?:>?From [^\n]*\n)?"
    r"((?:[!-9;-~]{1,80}:[^\n]*\n(?:[ \t]+\S[^\n]*\n)*)++)"
)
_HEADER_NAME = re.compile(r"^([!-9;-~]+):", re.MULTILINE)
_HEADER_START = re.compile(r"\s*(?:From |\d{1,10}\s*\n[\w-]+:|[A-Za-z][\w-]{1,60}:)")
_MAIL = ("eml", "mbox", "mhtml")
# Names that only mail and news have, and those that other files have too.
_MAIL_NAMES = frozenset(
    "from received return-path message-id delivered-to mime-version newsgroups x-mailer reply-to"
    " in-reply-to x-original-to envelope-to dkim-signature x-apparently-to".split()
)
_HEADER_NAMES = _MAIL_NAMES | frozenset(
    "to cc bcc date subject sender references content-type content-transfer-encoding path"
    " organization list-id user-agent".split()
)
# A line of JSONL may be a conversation, which is an array of messages.
_MESSAGE = re.compile(r'\[\s*\{\s*"(?:role|from|speaker|content|value)"')
_WIKITEXT = re.compile(
    r"\[\[[^\]\n]+\]\]|\{\{\w|'''[^'\n]+'''|^==+[^=\n]+==+\s*$|\{\|", re.MULTILINE
)


# Headings and other lines that AsciiDoc has; `.asc` is also a suffix of signatures and grids.
_ASCIIDOC_HEADING = re.compile(r"^={1,6} [^\n]*[^=\s]$|^\w[^\n]*\n={4,}$", re.MULTILINE)
_ASCIIDOC_LINE = re.compile(
    r"^(?:(?:include|image|ifn?def|toc|video)::[^\s\[\]]*\[[^\n]*\]|\|={3}|\[\[[\w:-]+\]\]"
    r"|\[(?:source|listing|quote|verse|cols=|options=|NOTE|TIP|IMPORTANT|WARNING|CAUTION)"
    r"[^\n]*\]|:(?:doctype|toc|toclevels|sectnums|icons|imagesdir|source-highlighter):[^\n]*)$",
    re.MULTILINE,
)
_ASCIIDOC_CODE = re.compile(r"^\[source,[^\n\]]+\]\n-{4,}$|^:doctype:", re.MULTILINE)
# A manual page begins with requests, one of which is its title, and has sections.
_MAN_TITLE = re.compile(r"^[.'][ \t]*(?:TH[ \t]+\S|D[dt][ \t]+\S)", re.MULTILINE)
_MAN_SECTION = re.compile(r"^[.'][ \t]*(?:SH|Sh)\b", re.MULTILINE)
_MAN_LINK = re.compile(r"\.so [\w./+:-]+\s*\Z")

# Tables of a Stack Exchange dump, a topic of Discourse, and dumps of databases.
_STACKEXCHANGE = re.compile(
    r"(?:<\?xml[^>]*>)?\s*"
    r"<(?:posts|comments|users|votes|tags|badges|posthistory|postlinks)>\s*<row\s",
    re.IGNORECASE,
)
_DISCOURSE = re.compile(r'"post_stream"\s*:\s*\{\s*"(?:posts|stream)"\s*:')
# What programs write first, and statements that only a dump begins with and goes on with.
_SQL_DUMP = re.compile(
    r"\s*(?:/\*M!\d+.*\n)?(?:--[ \t-]*\n|#[ \t]*\n)*(?:--|#|/\*)\s*(?:MySQL|MariaDB|phpMyAdmin"
    r"|Adminer|PostgreSQL|WordPress)\b[^\n]{0,60}(?:dump|backup)"
    r"|\s*PRAGMA foreign_keys=OFF;\s*BEGIN TRANSACTION;",
    re.IGNORECASE,
)
_SQL_START = re.compile(
    r"(?:\s++|--[^\n]*+\n|#[^\n]*+\n|/\*(?:(?!\*/).)*+\*/;?)*+"
    r"(?:SET|CREATE|DROP|INSERT|BEGIN|START|USE|COPY|REPLACE|PRAGMA|LOCK|DELIMITER"
    r"|\\(?:restrict|connect))[\s;]",
    re.IGNORECASE | re.DOTALL,
)
_SQL_ROWS = re.compile(
    r"^\s*(?:(?:INSERT|REPLACE)\s[^;()]{0,200}(?:\([^()]*+\)\s*)?VALUES\s*\("
    r"|COPY\s[^;]{1,5000}\sFROM\s+stdin)",
    re.IGNORECASE | re.MULTILINE,
)


def text_head(head: bytes) -> str:
    """Return the first bytes of a file as text; the last character may be cut."""
    return head.decode(detect_encoding(head), "replace").lstrip("\ufeff")


def ole_format(name: str, head: bytes) -> str:
    """Return what an OLE file holds, `doc`, `xls`, `ppt`, `msg` or `encrypted`; else `ole`."""
    if "EncryptedPackage".encode("utf-16-le") in head:
        return "encrypted"
    streams = {stream.encode("utf-16-le"): form for stream, form in _OLE_STREAMS.items()}
    held = (form for stream, form in streams.items() if stream in head)
    suffix = name.lower().rpartition(".")[2]
    format = next(held, _OLE_SUFFIXES.get(suffix, "ole"))
    return "encrypted" if _wants_password(format, head) else format


def _wants_password(format: str, head: bytes) -> bool:
    """Return whether an old file of Office is encrypted, by the records it begins with.

    A stream begins with a sector: of Word with its block of facts, one bit of which says so
    ([MS-DOC] 2.5.2); of Excel with records, of which FilePass is one of the first ([MS-XLS] 2.4).
    """
    if format == "ppt":
        return _LOCKED_PPT in head
    for start in range(_OLE_SECTOR, len(head) - 12, _OLE_SECTOR):
        if format == "doc" and head.startswith(_WORD_FACTS, start):
            return bool(head[start + 11] & 1)
        if format == "xls" and head.startswith(_EXCEL_BOOK, start):
            place = start
            for _ in range(_EXCEL_RECORDS):
                record, length = struct.unpack("<HH", head[place : place + 4].ljust(4, b"\0"))
                if record == _FILE_PASS:
                    return True
                place += 4 + length
            return False
    return False


def detect_format(name: str, head: bytes) -> str:  # noqa: PLR0911 - a table of cases
    """Return the format of a file, such as `html`, `warc`, `jsonl`, `text`, `empty` or `binary`.

    Bytes come first; the name decides where they allow several answers.
    """
    if not head:
        return "empty"
    if format := package_format(name, head):
        return format
    pdf = head[:_PDF_START].find(b"%PDF-")
    if pdf == 0 or (pdf > 0 and (name.lower().endswith(".pdf") or is_binary(head))):
        # A dump of a database may hold one, and so may a damaged record.
        before = text_head(head[:pdf])
        if _SQL_DUMP.match(before):
            return "sql"
        suffix = name.lower().rpartition(".")[2]
        if _BY_SUFFIX.get(suffix) not in _RECORDS and not before.startswith(_RECORD_STARTS):
            return "pdf"
    if head.startswith(_OLE):
        return ole_format(name, head)
    if head.startswith(b"\x1e"):
        # A JSON text sequence has a record separator before each record.
        head = head.replace(b"\x1e", b"")
    stem = re.sub(r"\.(gz|bz2|xz|zst)$", "", name.lower())
    named = _BY_SUFFIX.get(stem.rpartition(".")[2])
    magic = next((format for start, format in _MAGIC.items() if head.startswith(start)), None)
    if magic is not None or (named == "arrow" and head.startswith(_ARROW_STREAM)):
        return magic or "arrow"
    if named in ("wat", "arc") or head.startswith(b"filedesc://"):
        return named or "arc"
    if named == "warc" or head.startswith(b"WARC/"):
        return "warc"
    if not is_binary(head):
        return _text_format(named, text_head(head))
    # Damaged but intact at the start, as where a disk left zero bytes: the other records are read.
    intact = head.replace(b"\0", b"")
    if not intact or is_binary(intact[:_INTACT_BYTES]):
        return "binary"
    format = _text_format(named, text_head(intact))
    return format if format in _RECORDS else "binary"


def _text_format(named: str | None, head: str) -> str:  # noqa: PLR0911 - a table
    """Return the format of a text whose suffix names one, or None, where the text agrees."""
    start = head.lstrip()[:16]
    if _SQL_DUMP.match(head):
        return "sql"
    if named in _MAIL or (named is None and _HEADER_START.match(head)):
        if (mail := _mail_format(named, head)) is not None:
            return mail
        named = None
    # Of a file without a declaration, the suffix says that it is XML, its root what sort of it.
    is_xml = named == "xml" and start.startswith("<")
    if named == "xml" or (named == "rtf" and not start.startswith("{\\")):
        named = None
    # A record or a page in XML may hold lines of any markup.
    if named == "asc" or (named is None and not _TAG_START.match(start)):
        if (markup := _markup_format(named, head)) is not None:
            return markup
        named = None
    if named == "json" and is_jsonl(head):
        return "jsonl"
    if start.startswith("{") and _DISCOURSE.search(head[:4096]) and not is_jsonl(head):
        return "discourse"
    if named == "jsonl" and _is_json(head):
        return "json"
    # A record may quote such a page.
    is_page = named == "html" or (named is None and _HTML.match(head) is not None)
    if is_page and 'id="main-content"' in head and _CONFLUENCE.search(head):
        return "confluence"
    if is_page and 'class="page-body"' in head and _NOTION.search(head):
        return "notion"
    if named is not None and (
        named not in ("json", "jsonl", "notebook") or start.startswith(("{", "["))
    ):
        return named
    return _content_format(head, is_xml)


def _content_format(head: str, is_xml: bool) -> str:  # noqa: PLR0911 - a table
    """Return the format of a text by its content alone; `is_xml` if its suffix says so."""
    start = head.lstrip()[:16]
    if _STACKEXCHANGE.match(head):
        return "stackexchange"
    root = _XML_ROOT.search(head[:4096])
    if root is not None and root[1] == "mediawiki" and start.startswith("<"):
        return "mediawiki"
    if (document := _xml_document(head)) is not None:
        return document
    if _HTML.match(head):
        return "html"
    if _SQL_START.match(head) and _SQL_ROWS.search(head):
        return "sql"
    if is_xml or _COMMENTS.sub("", head, count=1).startswith(_XML_STARTS):
        return "xml" if root is None else "feed"
    if start.startswith("{") and is_jsonl(head):
        return "jsonl"
    if re.match(r"[\[{]\s*[\[{\"]", start) is None:
        return "text"
    try:
        json.JSONDecoder(strict=False).raw_decode(head.lstrip())
    except (ValueError, RecursionError):
        # It may be the start of a long value.
        return "json" if len(head) > 1000 and head.count('":') > 3 else "text"
    return "json"


def _markup_format(named: str | None, head: str) -> str | None:
    """Return `asciidoc` or `man` where the lines of a file without a suffix of its own say so."""
    head = head.replace("\r\n", "\n")
    if head.lstrip()[:1] in (".", "'", "\\"):
        is_page = _MAN_TITLE.search(head) and _MAN_SECTION.search(head)
        return "man" if is_page or _MAN_LINK.match(head) else None
    # Few texts have a line that starts like this.
    has_sign = head.startswith("=") or "\n=" in head
    heading = _ASCIIDOC_HEADING.search(head) if has_sign else None
    if heading is None and named != "asc":
        return None
    lines = len(_ASCIIDOC_LINE.findall(head))
    if named == "asc":
        return "asciidoc" if heading or lines else None
    # reStructuredText and plain text underline headings, too; a language of code they do not name.
    is_plain = heading and heading[0][0] != "=" and not _ASCIIDOC_CODE.search(head)
    return "asciidoc" if heading and lines > bool(is_plain) else None


def _xml_document(head: str) -> str | None:
    """Return the vocabulary of a document in XML by its root and what follows; None for others."""
    if not head.lstrip().startswith("<"):
        return None
    root = _FIRST_TAG.match(XML_PROLOGUE.sub("", head, count=1))
    name = root[1] if root else ""
    if name in _DOCUMENT_ROOTS:
        return _DOCUMENT_ROOTS[name]
    if name == "article" and _JATS.search(head):
        return "jats"
    return "docbook" if name in _DOCBOOK_ROOTS and _DOCBOOK.search(head) else None


def _mail_format(named: str | None, head: str) -> str | None:
    """Return `eml`, `mbox` or `mhtml` by the headers that a file starts with; None for others."""
    head = head.replace("\r\n", "\n")
    if (mailbox := _MBOX.match(head)) is not None:
        # Some programs keep the line of the mailbox above a single mail.
        is_single = named == "eml" and _NEXT_MAIL.search(head, mailbox.end()) is None
        return "eml" if is_single else "mbox"
    block = _HEADERS.match(head)
    names = {name.lower() for name in _HEADER_NAME.findall(block[1])} if block else set()
    if not names & _HEADER_NAMES:
        return "mbox" if named == "mbox" and head.lstrip().startswith("From ") else None
    is_page = "snapshot-content-location" in names or "<Saved by" in head[:500]
    if named == "mhtml" or is_page:
        return "mhtml"
    is_mail = bool(names & _MAIL_NAMES) and len(names & _HEADER_NAMES) > 1
    return "eml" if named == "eml" or is_mail else None


def is_jsonl(head: str) -> bool:
    """Return whether the first line is a whole JSON object and the next line starts another."""
    lines = [line for line in head.lstrip().split("\n", 8)[:8] if line.strip()]
    if len(lines) > 1 and lines[0].startswith("{") and lines[1].startswith("{"):
        with suppress(ValueError, RecursionError):
            json.loads(lines[0], strict=False)
            return True
    return False


def _is_json(head: str) -> bool:
    """Return whether the first line of a file is the start of a JSON array or of a long object."""
    lines = [line.strip() for line in head.lstrip().split("\n", 8)[:8] if line.strip()]
    if not lines or lines[0] in ("{", "[", "[{"):
        return bool(lines)
    if not lines[0].startswith("[") or _MESSAGE.match(lines[0]):
        return False
    return len(lines) == 1 or lines[0].endswith(",") or not lines[1].startswith("[")


def wikitext_share(head: str) -> float:
    """Return the pieces of wiki markup per 1,000 characters of a text."""
    return 1000 * len(_WIKITEXT.findall(head)) / max(1, len(head))
