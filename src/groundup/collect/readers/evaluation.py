"""Evaluation sets, to check training text against: one document an item, of all its text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import decode, repair_text
from groundup.collect.files.streams import Item, read_all
from groundup.collect.readers.chat_layouts import content_text
from groundup.collect.readers.feeds import element_lines, xml_root
from groundup.collect.readers.records import read_records
from groundup.collect.readers.text import declared_encoding
from groundup.recipe import Source

# What is read of an item, in this order. Any of it could have leaked.
_TEXT_KEYS = tuple(
    "text context continuation passage premise query question ctx prompt goal sentence"
    " sentence_good sentence_bad choice1 choice2 sol1 sol2 answer target completion"
    " response".split()
)
_LIST_KEYS = ("choices", "endings", "options", "answers")


def read_evaluation(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the items of an evaluation set; one of no known layout is rejected by number."""
    for index, record in read_records(item):
        if isinstance(record, Reject):
            yield record
        elif text := item_text(record):
            yield Document(repair_text(text), index, f"{item.origin}#{index}")
        else:
            yield Reject("no-text", index, "no known layout of an evaluation item")


def item_text(record: Any) -> str:
    """Return the whole text of an item: its context, question and every choice."""
    if isinstance(record, str):
        return record.strip()
    if not isinstance(record, Mapping):
        return ""
    if content_text(record.get("context")) and content_text(record.get("continuation")):
        # Two halves of one sentence.
        return (str(record["context"]) + " " + str(record["continuation"]).strip()).strip()
    parts = [content_text(record.get(key)) for key in _TEXT_KEYS]
    for key in _LIST_KEYS:
        value = record.get(key)
        choices = value.get("text") if isinstance(value, Mapping) else value
        if isinstance(choices, (list, tuple)):
            parts += [content_text(choice) for choice in choices]
    return "\n".join(dict.fromkeys(filter(None, parts)))


def read_evaluation_lines(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the paragraphs of a plain-text evaluation set, or its lines where it has none."""
    text = decode(read_all(item.stream), declared_encoding(source))
    has_paragraphs = text.strip().count("\n\n") * 20 > text.count("\n")
    pieces = text.split("\n\n" if has_paragraphs else "\n")
    for index, piece in enumerate(piece for piece in pieces if piece.strip()):
        yield Document(piece.strip(), index, f"{item.origin}#{index}")


def read_evaluation_xml(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the items of an evaluation set in XML: the children of the root, as COPA has them."""
    for index, element in enumerate(xml_root(item)):
        text = element_lines(element)
        if text:
            yield Document(text, index, f"{item.origin}#{index}")
        else:
            yield Reject("no-text", index, "an item without text")
