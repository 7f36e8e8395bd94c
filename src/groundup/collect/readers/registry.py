"""The table of readers: which function reads which format for which kind of source.

A reader is a function `(item, source) -> Iterator[Document | Reject]`. It gets one file, already
decompressed and taken out of its archive, and the source of the recipe that the file belongs to. It
yields one Document or one Reject (with the reason) for each record of the file, in order. Records
are numbered from 0, and those that are rejected count. A file that cannot be read any further
raises DamagedError: what was yielded before stays.

For example, a reader of mailboxes is a file `mbox.py` in this folder:

    def read_mbox(item: Item, source: Source) -> Iterator[Document | Reject]:
        # The mails of one subject are one group.
        mails = re.split(rb"(?m)^From .*\\n", read_all(item.stream))[1:]
        for index, mail in enumerate(mails):
            message = email.message_from_bytes(mail, policy=email.policy.default)
            body = message.get_body(("plain",))
            if body is None:
                yield Reject("no-plain-text", index, message.get_content_type())
            else:
                yield Document(body.get_content(), index, group=message["subject"])

and one line of READERS, `("mbox", "text"): read_mbox`. `detect_format` (`files/formats.py`) has to
know the format by its suffix or its first bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.formats import ADVICE, UNREADABLE, detect_format
from groundup.collect.files.streams import DamagedError, Item
from groundup.collect.readers.books import read_books
from groundup.collect.readers.code import read_code, read_code_records
from groundup.collect.readers.conversations import read_conversations, read_log, read_tuning
from groundup.collect.readers.epub import read_epub
from groundup.collect.readers.evaluation import (
    read_evaluation,
    read_evaluation_lines,
    read_evaluation_xml,
)
from groundup.collect.readers.feeds import read_feed, read_xml
from groundup.collect.readers.html import read_html
from groundup.collect.readers.records import RECORD_FORMATS
from groundup.collect.readers.text import read_text, read_text_records
from groundup.collect.readers.warc import read_arc, read_warc
from groundup.collect.readers.wiki.dump import read_dump, read_page
from groundup.errors import GroundupError, is_full_disk
from groundup.recipe import Source

Reader = Callable[[Item, Source], Iterator[Document | Reject]]

# (format, kind) → reader. "records" stands for every format of RECORD_FORMATS, ANY for every kind
# or format that has no line of its own.
ANY = "*"
READERS: dict[tuple[str, str], Reader] = {
    ("text", ANY): read_text,
    ("text", "books"): read_books,
    ("text", "wikipedia"): read_page,
    ("text", "conversations"): read_log,
    ("text", "tuning"): read_log,
    ("text", "evaluation"): read_evaluation_lines,
    ("records", ANY): read_text_records,
    ("records", "conversations"): read_conversations,
    ("records", "tuning"): read_tuning,
    ("records", "evaluation"): read_evaluation,
    ("epub", "books"): read_epub,
    ("epub", "text"): read_epub,
    ("mediawiki", "wikipedia"): read_dump,
    ("html", "web"): read_html,
    ("warc", "web"): read_warc,
    ("arc", "web"): read_arc,
    ("feed", "web"): read_feed,
    ("feed", "text"): read_feed,
    ("xml", "text"): read_xml,
    ("xml", "evaluation"): read_evaluation_xml,
    # Source files are told by name: a template may look like HTML.
    (ANY, "code"): read_code,
    ("jsonl", "code"): read_code_records,
    ("parquet", "code"): read_code_records,
    ("arrow", "code"): read_code_records,
}


def read_item(
    item: Item, source: Source, reader: Reader | None = None
) -> Iterator[Document | Reject]:
    """Yield what a reader makes of a file; damage and crashes cost the rest of it, and are listed.

    Args:
        item: the file.
        source: the source that it belongs to.
        reader: a user's; by default the one for the file's format and the source's kind.
    """
    last_record = -1
    try:
        for result in (reader or _read_by_format)(item, source):
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


def _read_by_format(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield from the reader of READERS, or say why there is none."""
    form = detect_format(item.name, item.head)
    family = "records" if form in RECORD_FORMATS else form
    keys = ((form, source.kind), (ANY, source.kind), (family, source.kind), (family, ANY))
    reader = next((READERS[key] for key in keys if key in READERS), None)
    if form == "empty":
        # A file that is cut off before its first byte raises here.
        item.stream.read(1)
        yield Reject("empty")
    elif reader is not None:
        yield from reader(item, source)
    elif form in UNREADABLE:
        detail = ": ".join(filter(None, (form, ADVICE.get(form))))
        yield Reject("binary" if form == "binary" else "unsupported-format", detail=detail)
    else:
        yield Reject("wrong-kind", detail=f"{form} in a source of {source.kind}")
