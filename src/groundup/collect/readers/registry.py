"""Which reader reads which format for which kind of source. Reads an item; yields documents and
rejections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.formats import ADVICE, UNREADABLE, detect_format
from groundup.collect.files.streams import DamagedError, Item
from groundup.collect.readers.arc import read_arc
from groundup.collect.readers.books import read_books
from groundup.collect.readers.code import read_code, read_code_records
from groundup.collect.readers.conversations import read_conversations, read_log
from groundup.collect.readers.epub import read_epub
from groundup.collect.readers.evaluation import read_evaluation, read_lines, read_xml_items
from groundup.collect.readers.feeds import read_feed, read_xml
from groundup.collect.readers.html import read_html
from groundup.collect.readers.text import read_text, read_text_records
from groundup.collect.readers.tuning import read_tuning
from groundup.collect.readers.warc import read_warc
from groundup.collect.readers.wiki.dump import read_dump, read_page
from groundup.errors import GroundupError, is_full_disk
from groundup.recipe import Source

Reader = Callable[[Item, Source], Iterator[Document | Reject]]
RecordReader = Callable[[Item, Source, str], Iterator[Document | Reject]]

# Plain text by kind: a book, a page of wikitext, a log, …
_TEXT: dict[str, Reader] = {
    "books": read_books,
    "wikipedia": read_page,
    "web": read_text,
    "conversations": read_log,
    "text": read_text,
    "evaluation": read_lines,
    "tuning": read_log,
}
_RECORDS: dict[str, RecordReader] = {
    "conversations": read_conversations,
    "evaluation": read_evaluation,
    "code": read_code_records,
    "tuning": read_tuning,
}
# Formats that belong to one kind, and to `web` for pages.
_OWN: dict[tuple[str, str], Reader] = {
    ("books", "epub"): read_epub,
    ("text", "epub"): read_epub,
    ("wikipedia", "mediawiki"): read_dump,
    ("text", "feed"): read_feed,
    ("text", "xml"): read_xml,
    ("evaluation", "xml"): read_xml_items,
    ("web", "html"): read_html,
    ("web", "feed"): read_feed,
    ("web", "warc"): read_warc,
    ("web", "arc"): read_arc,
}
_TABULAR = frozenset(("jsonl", "json", "csv", "tsv", "yaml", "parquet", "arrow"))


def read_item(
    item: Item, source: Source, reader: Reader | None = None
) -> Iterator[Document | Reject]:
    """Yield what a source makes of a file; damage and crashes cost the rest of that file, and say
    so.

    Args:
        item: the file.
        source: the source that it belongs to.
        reader: the user's own; by default the one for its format and the source's kind.
    """
    record = -1
    try:
        for found in (reader or _dispatch)(item, source):
            record = max(record, found.record)
            yield found
        if record < 0:
            yield Reject("empty", 0, "it holds no record")
    except DamagedError as damage:
        yield Reject(damage.reason, record + 1, damage.detail)
    except (GroundupError, MemoryError, ImportError):
        # The machine's fault, not the file's.
        raise
    except Exception as error:
        if is_full_disk(error):
            raise
        # Whatever a parser stumbles over is that file's loss, and never the run's.
        yield Reject("malformed", record + 1, f"{type(error).__name__}: {error}"[:300])


def _dispatch(item: Item, source: Source) -> Iterator[Document | Reject]:
    form = detect_format(item.name, item.head)
    if form == "empty":
        item.stream.read(1)  # What is cut off before its first byte says so here.
        yield Reject("empty")
    elif source.kind == "code":
        yield from _code(item, source, form)
    elif form in UNREADABLE:
        yield Reject(
            "binary" if form == "binary" else "unsupported-format",
            detail=": ".join(filter(None, (form, ADVICE.get(form)))),
        )
    elif (source.kind, form) in _OWN:
        yield from _OWN[source.kind, form](item, source)
    elif form in _TABULAR:
        yield from _RECORDS.get(source.kind, read_text_records)(item, source, form)
    elif form == "text":
        yield from _TEXT[source.kind](item, source)
    else:
        yield Reject("wrong-kind", detail=f"{form} in a source of {source.kind}")


def _code(item: Item, source: Source, form: str) -> Iterator[Document | Reject]:
    """Yield from a file of a source tree: by name above all, since a template may look like HTML."""
    if form in ("jsonl", "parquet", "arrow"):
        yield from read_code_records(item, source, form)
    else:
        yield from read_code(item, source)
