"""Reads what a model is to be tuned on: conversations in any layout, and tables of text and label.
Yields one document each.

A row of a table becomes two turns, of `user` and of `label`, so that whoever learns from it knows
that it is a task.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from groundup.artifacts.document import LABEL, Document, Reject
from groundup.collect.charset import repair_text
from groundup.collect.files.streams import Item
from groundup.collect.readers.chat_layouts import THREAD_KEYS, find_turns
from groundup.collect.readers.conversations import conversations, is_row
from groundup.collect.readers.records import Numbered, read_records
from groundup.recipe import Source

# In the order in which they are looked for; a table may well have several.
TEXT_COLUMNS: tuple[str, ...] = (
    "text",
    "sentence",
    "content",
    "utterance",
    "review",
    "message",
    "tweet",
    "comment",
    "query",
    "question",
)
TEXT_COLUMNS += ("input", "document", "body", "description", "abstract", "headline", "title")
LABEL_COLUMNS = (
    "label",
    "labels",
    "category",
    "intent",
    "class",
    "sentiment",
    "topic",
    "target",
    "emotion",
    "tag",
    "rating",
    "stars",
)

Columns = tuple[str, str]


def read_tuning(item: Item, source: Source, form: str) -> Iterator[Document | Reject]:
    """Yield the conversations of a file, or the rows of a table; one that is neither is rejected by
    number.
    """
    rows = read_records(item, form)
    held: list[Numbered] = []
    # The first record that can be read says what the file is.
    for row in rows:
        held.append(row)
        if not isinstance(row[1], Reject):
            break
    columns = columns_of(held[-1][1], source.columns) if held else None
    every = itertools.chain(held, rows)
    if columns is None:
        yield from conversations(every, item)
    else:
        yield from (_labeled(number, record, columns, item) for number, record in every)


def columns_of(record: Any, named: Sequence[str] = ()) -> Columns | None:
    """Return the columns of text and label of a table, or None where a record is (part of) a
    conversation.

    Args:
        record: the first one of a file.
        named: by the recipe, both of them; without them, known names are looked for.
    """
    if named:
        return named[0], named[1]
    if not isinstance(record, Mapping) or find_turns(record):
        return None
    folded = {str(key).strip().lower(): str(key) for key in record}
    if is_row(record) and folded.keys() & set(THREAD_KEYS):
        return None
    text = next((folded[name] for name in TEXT_COLUMNS if name in folded), None)
    label = next((folded[name] for name in LABEL_COLUMNS if name in folded), None)
    return (text, label) if text is not None and label is not None else None


def _labeled(number: int, record: Any, columns: Columns, item: Item) -> Document | Reject:
    if isinstance(record, Reject):
        return record
    if not isinstance(record, Mapping) or not set(columns) <= set(record):
        shape = (
            f"keys {', '.join(map(str, list(record)[:8]))}"
            if isinstance(record, Mapping)
            else f"a {type(record).__name__}"
        )
        return Reject(
            "no-columns", number, f'no columns "{columns[0]}" and "{columns[1]}" in {shape}'
        )
    text, label = (_scalar(record[column]) for column in columns)
    if not text or not label:
        return Reject(
            "no-label" if text else "empty",
            number,
            f'column "{columns[1] if text else columns[0]}" holds no text or number',
        )
    turns = [{"role": "user", "content": text}, {"role": LABEL, "content": label}]
    return Document(f"{text}\n{label}", number, f"{item.origin}#{number}", turns=turns)


def _scalar(value: Any) -> str:
    """Return a text or a number as text, and "" for anything else."""
    return repair_text(str(value)).strip() if isinstance(value, (str, int, float)) else ""
