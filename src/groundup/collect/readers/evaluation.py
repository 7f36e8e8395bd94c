"""Reads evaluation sets, so that training text can be checked against them. Yields one document an
item.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import decode, repair_text
from groundup.collect.files.streams import Item, read_all
from groundup.collect.readers.chat_layouts import plain
from groundup.collect.readers.feeds import lines_of, xml_root
from groundup.collect.readers.records import read_records
from groundup.recipe import Source

# What is read of an item, in this order; all of it could have leaked.
_TEXT_KEYS = (
    "text",
    "context",
    "continuation",
    "passage",
    "premise",
    "query",
    "question",
    "ctx",
    "prompt",
    "goal",
    "sentence",
)
_MORE_KEYS = (
    "sentence_good",
    "sentence_bad",
    "choice1",
    "choice2",
    "sol1",
    "sol2",
    "answer",
    "target",
    "completion",
    "response",
)
_LIST_KEYS = ("choices", "endings", "options", "answers")


def read_evaluation(item: Item, source: Source, form: str) -> Iterator[Document | Reject]:
    """Yield the items of an evaluation set; one of no known layout is rejected by number."""
    for number, record in read_records(item, form):
        if isinstance(record, Reject):
            yield record
            continue
        text = item_text(record)
        yield (
            Document(repair_text(text), number, f"{item.origin}#{number}")
            if text
            else Reject("no-text", number, "no known layout of an evaluation item")
        )


def item_text(record: Any) -> str:
    """Return the whole text of an item: its context, question and every choice."""
    if isinstance(record, str):
        return record.strip()
    if not isinstance(record, Mapping):
        return ""
    if plain(record.get("context")) and plain(record.get("continuation")):
        return (str(record["context"]) + " " + str(record["continuation"]).strip()).strip()
    parts = [plain(record.get(key)) for key in (*_TEXT_KEYS, *_MORE_KEYS)]
    for key in _LIST_KEYS:
        value = record.get(key)
        choices = value.get("text") if isinstance(value, Mapping) else value
        parts += [plain(choice) for choice in choices] if isinstance(choices, (list, tuple)) else []
    return "\n".join(dict.fromkeys(filter(None, parts)))


def read_lines(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the paragraphs of a plain-text evaluation set, or its lines where it has no blank ones."""
    text = decode(read_all(item.stream), "" if source.encoding == "auto" else source.encoding)
    pieces = (
        text.split("\n\n")
        if text.strip().count("\n\n") * 20 > text.count("\n")
        else text.split("\n")
    )
    for number, piece in enumerate(piece for piece in pieces if piece.strip()):
        yield Document(piece.strip(), number, f"{item.origin}#{number}")


def read_xml_items(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the items of an evaluation set in XML: the elements below the outermost one, as COPA
    has them.
    """
    for number, element in enumerate(xml_root(item)):
        text = lines_of(element)
        yield (
            Document(text, number, f"{item.origin}#{number}")
            if text
            else Reject("no-text", number, "an item without text")
        )
