"""The table of readers: which function reads which format for which kind of source.

A reader is a function `(item, source) -> Iterator[Document | Reject]`. It gets one file, already
decompressed and taken out of its archive, and yields one Document or one Reject for each record of
it, in order. Records are numbered from 0, and those that are rejected count. A file that cannot be
read any further raises DamagedError: what was yielded before stays.

A new one is a file in this folder and a line of READERS (CONTRIBUTING.md has an example);
`detect_format` (`files/formats.py`) has to know the format by its suffix or its first bytes.

A user's reader, `reader = "module:function"` in a recipe (docs/own-code.md has one), gets the
stream and the origin of a file, and yields texts, or mappings with a `text`, with messages, or with
a `reason` that lists the record as dropped. Sizes, names and groups are checked after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from groundup.artifacts.document import Document, Reject
from groundup.artifacts.kinds import KINDS
from groundup.collect.charset import bom_encoding
from groundup.collect.files.formats import ADVICE, UNREADABLE, detect_format
from groundup.collect.files.streams import DamagedError, Item, TooLongError, deadline
from groundup.collect.readers.books import read_books
from groundup.collect.readers.chat.chats import chats_or, hide_speakers, is_chat
from groundup.collect.readers.chat.conversations import (
    conversation_documents,
    is_message_row,
    read_conversations,
    read_log,
    read_tuning,
)
from groundup.collect.readers.chat.logs import logs_or
from groundup.collect.readers.code import read_code, read_code_records
from groundup.collect.readers.epub import read_epub
from groundup.collect.readers.forum.forums import (
    read_discourse,
    read_forum_records,
    read_stackexchange,
)
from groundup.collect.readers.mail.mail import PartReader, read_eml, read_mbox, read_mhtml
from groundup.collect.readers.markup.asciidoc import read_asciidoc
from groundup.collect.readers.markup.latex import read_latex
from groundup.collect.readers.markup.man import read_man
from groundup.collect.readers.markup.markdown import read_markdown
from groundup.collect.readers.markup.notebooks import read_notebook
from groundup.collect.readers.markup.org import read_org
from groundup.collect.readers.markup.restructured import read_rst
from groundup.collect.readers.office.office import read_encrypted, read_legacy, read_pptx
from groundup.collect.readers.office.opendocument import read_odp, read_odt
from groundup.collect.readers.office.pdf import read_image, read_pdf
from groundup.collect.readers.office.rtf import read_rtf
from groundup.collect.readers.office.spreadsheets import read_spreadsheet
from groundup.collect.readers.office.word import read_docx
from groundup.collect.readers.records.csv_pieces import is_cuttable
from groundup.collect.readers.records.databases import read_sql, read_sqlite
from groundup.collect.readers.records.records import (
    RECORD_FORMATS,
    NumberedRecord,
    read_records,
)
from groundup.collect.readers.text import (
    read_evaluation,
    read_evaluation_lines,
    read_evaluation_xml,
    read_text,
    read_text_records,
    text_document,
)
from groundup.collect.readers.web.feeds import read_feed, read_xml
from groundup.collect.readers.web.html import read_html
from groundup.collect.readers.web.warc import read_arc, read_warc
from groundup.collect.readers.wiki.dump import read_dump, read_page
from groundup.collect.readers.xml.confluence import read_confluence
from groundup.collect.readers.xml.documents import (
    read_docbook,
    read_fiction_book,
    read_jats,
    read_tei,
)
from groundup.collect.readers.xml.notion import read_notion
from groundup.errors import GroundupError, is_full_disk
from groundup.recipe import Source
from groundup.runtime.user_code import load_function

Reader = Callable[[Item, Source], Iterator[Document | Reject]]


def _reject_format(item: Item, source: Source) -> Iterator[Reject]:
    """Yield why no reader of READERS reads a file."""
    form = detect_format(item.name, item.head)
    if form == "empty":
        # A file that is cut off before its first byte raises here.
        item.stream.read(1)
        yield Reject("empty")
    elif form in UNREADABLE:
        detail = ": ".join(filter(None, (form, ADVICE.get(form))))
        yield Reject("binary" if form == "binary" else "unsupported-format", detail=detail)
    else:
        yield Reject("wrong-kind", detail=f"{form} in a source of {source.kind}")


def _with_attachments(
    reader: Callable[[Item, Source, PartReader], Iterator[Document | Reject]],
) -> Reader:
    """Return a reader of mails whose attachments are read by the table below."""
    return lambda item, source: reader(item, source, read_item)


_MARKUP: dict[str, Reader] = {
    "markdown": read_markdown,
    "rst": read_rst,
    "latex": read_latex,
    "org": read_org,
    "asciidoc": read_asciidoc,
    "man": read_man,
}
# (format, kind) → reader. "records" stands for every format of RECORD_FORMATS, ANY for every kind
# or format that has no line of its own.
ANY = "*"
READERS: dict[tuple[str, str], Reader] = {
    ("text", ANY): read_text,
    ("text", "books"): read_books,
    ("text", "wikipedia"): read_page,
    ("text", "text"): chats_or(logs_or(read_text)),
    ("text", "chat"): chats_or(logs_or(hide_speakers(read_log))),
    ("text", "conversations"): chats_or(logs_or(read_log)),
    ("text", "tuning"): chats_or(logs_or(read_log)),
    ("text", "evaluation"): read_evaluation_lines,
    ("records", ANY): read_text_records,
    ("records", "text"): chats_or(read_text_records),
    ("records", "chat"): chats_or(hide_speakers(read_conversations)),
    ("records", "conversations"): chats_or(read_conversations),
    ("records", "tuning"): chats_or(read_tuning),
    ("records", "evaluation"): read_evaluation,
    ("epub", "books"): read_epub,
    ("epub", "text"): read_epub,
    ("mediawiki", "wikipedia"): read_dump,
    ("html", "web"): read_html,
    ("warc", "web"): read_warc,
    ("arc", "web"): read_arc,
    ("feed", "web"): read_feed,
    ("feed", "text"): read_feed,
    ("eml", ANY): _with_attachments(read_eml),
    ("mbox", ANY): _with_attachments(read_mbox),
    ("mhtml", ANY): read_mhtml,
    ("html", "mail"): read_html,
    ("docbook", ANY): read_docbook,
    ("jats", ANY): read_jats,
    ("tei", ANY): read_tei,
    ("fictionbook", ANY): read_fiction_book,
    ("confluence", ANY): read_confluence,
    ("notion", ANY): read_notion,
    ("xml", "text"): chats_or(read_xml),
    ("xml", "chat"): chats_or(_reject_format),
    ("xml", "conversations"): chats_or(_reject_format),
    ("xml", "tuning"): chats_or(_reject_format),
    ("xml", "evaluation"): read_evaluation_xml,
    ("stackexchange", ANY): read_stackexchange,
    ("discourse", ANY): read_discourse,
    ("sql", ANY): read_sql,
    ("sqlite", ANY): read_sqlite,
    ("records", "forum"): read_forum_records,
    ("docx", ANY): read_docx,
    ("pptx", ANY): read_pptx,
    ("odt", ANY): read_odt,
    ("odp", ANY): read_odp,
    ("pdf", ANY): read_pdf,
    ("image", ANY): read_image,
    ("rtf", ANY): read_rtf,
    **{(name, ANY): read_spreadsheet for name in ("xlsx", "xls", "ods")},
    ("doc", ANY): read_legacy,
    ("ppt", ANY): read_legacy,
    ("encrypted", ANY): read_encrypted,
    **{(name, ANY): reader for name, reader in _MARKUP.items()},
    **{("notebook", kind): read_notebook for kind in (ANY, "code")},
    # Conversations and questions are told by their lines, in markup as in plain text.
    **{(name, kind): logs_or(read_log) for name in _MARKUP for kind in ("conversations", "tuning")},
    # signal-export writes a chat as Markdown.
    ("markdown", "text"): logs_or(read_markdown),
    ("markdown", "chat"): logs_or(hide_speakers(read_log)),
    **{(name, "evaluation"): read_evaluation_lines for name in _MARKUP},
    # Source files are told by name: a template may look like HTML.
    (ANY, "code"): read_code,
    **{(name, "code"): read_code_records for name in ("jsonl", "parquet", "arrow")},
}

# (format, kind) whose records are read each by itself, so that a piece of a file reads as it does
# in the whole. Messages of chats, and rows that tuning learns from, need those before them.
PIECEWISE = frozenset(
    {
        ("mediawiki", "wikipedia"),
        ("warc", "web"),
        *(
            (form, kind)
            for form in ("jsonl", "parquet", "csv", "tsv")
            for kind in KINDS
            if kind not in ("chat", "forum", "tuning")
        ),
    }
)


def piecewise_format(item: Item, source: Source) -> str:
    """Return the format of a file that may be read in pieces, "" for any other.

    It reads the first record of the file where that decides how the others are read.
    """
    form = detect_format(item.name, item.head)
    if (form, source.kind) not in PIECEWISE or source.reader or is_chat(form, item.head):
        return ""
    if choose_reader(item, source) is read_code or bom_encoding(item.head) in ("utf-16", "utf-32"):
        return ""
    if form in ("csv", "tsv") and not is_cuttable(item):
        return ""
    if KINDS[source.kind].has_turns and form in RECORD_FORMATS and not source.text:
        # Rows that are messages belong to threads.
        _, record = next(read_records(item), (0, None))
        return "" if is_message_row(record) else form
    return form


def choose_reader(item: Item, source: Source) -> Reader:
    """Return the reader of READERS for a file's format and its source's kind."""
    form = detect_format(item.name, item.head)
    if form == "empty":
        return _reject_format
    family = "records" if form in RECORD_FORMATS else form
    if source.text and family == "records":
        return read_text_records
    keys = ((form, source.kind), (ANY, source.kind), (family, source.kind), (family, ANY))
    return next((READERS[key] for key in keys if key in READERS), _reject_format)


# Records at the start of a file that hold no text, after which nobody expects one.
MAX_WITHOUT_TEXT = 1_000_000


def read_item(
    item: Item, source: Source, reader: Reader | None = None
) -> Iterator[Document | Reject]:
    """Yield what a reader makes of a file; damage and crashes cost the rest of it, and are listed.

    `reader` is a user's; by default it is the one for the file's format and the source's kind.
    """
    last_record = item.first - 1
    try:
        results = (reader or choose_reader(item, source))(item, source)
        # Pieces are made of a file only where texts come.
        for result in results if item.first else _while_texts_may_come(results):
            last_record = max(last_record, result.record)
            yield result
        if last_record < 0:
            yield Reject("empty", 0, "it holds no record")
    except DamagedError as damage:
        yield Reject(damage.reason, last_record + 1, damage.detail)
    except (GroundupError, MemoryError, ImportError):
        # The machine is to blame, not the file.
        raise
    except Exception as error:
        if is_full_disk(error):
            raise
        # A parser that crashes costs this file, never the run.
        yield Reject("malformed", last_record + 1, f"{type(error).__name__}: {error}"[:300])


def _while_texts_may_come(results: Iterator[Document | Reject]) -> Iterator[Document | Reject]:
    """Yield results; a file that begins with a million records without text ends there.

    A file of numbers, or of nothing but damage, would be a list that nobody reads.
    """
    for count, result in enumerate(results, 1):
        yield result
        if isinstance(result, Document) or result.reason not in ("no-text", "malformed"):
            break
        if count == MAX_WITHOUT_TEXT:
            detail = f"none of its first {count:,} records holds a text; the rest was not read"
            raise DamagedError("no-text", detail)
    yield from results


def user_reader(name: str, root: Path) -> Reader:
    """Return the reader that calls a function `module:function` of the user.

    Modules in `root`, the folder of the recipe, can be imported; RecipeError if it cannot be.
    """
    function = load_function(name, root, "reader")

    def read(item: Item, source: Source) -> Iterator[Document | Reject]:
        rows = _call_reader(name, function, item)
        if KINDS[source.kind].has_turns:
            yield from conversation_documents(rows, item)
        else:
            for index, record in rows:
                yield text_document(record, index, item, source.kind, source.text)

    return read


def _call_reader(name: str, function: Callable[..., Any], item: Item) -> Iterator[NumberedRecord]:
    """Yield the records that the function yields, each within the deadline."""
    # What is known of the file, unless the record says it.
    known = {"license": item.license}
    if item.project:
        known["group"] = item.project
    index = 0
    records: Iterator[Any] = iter(())
    try:
        with deadline():
            records = iter(function(item.stream, item.origin))
        while True:
            with deadline():
                record = next(records)
            if not isinstance(record, Mapping):
                yield index, record
            elif "reason" in record:
                yield index, Reject(str(record["reason"]), index, str(record.get("detail", "")))
            else:
                yield index, known | dict(record)
            index += 1
    except StopIteration:
        return
    except SystemExit as error:
        # A crash of a reader costs its file, never the run.
        raise RuntimeError(f"the reader called sys.exit({error.code!r})") from None
    except TooLongError as error:
        raise DamagedError("timeout", str(error)) from None
    except ImportError as error:
        message = f'reader "{name}" needs something that is not installed: {error}'
        raise GroundupError(message) from None
