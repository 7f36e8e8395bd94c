"""Reads conversations: JSON, JSONL, YAML, CSV and Parquet in the common layouts, and IRC logs.
Yields one document each.

Turns stay beside the text; the group is the thread.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import decode, repair_text
from groundup.collect.files.streams import Item, read_all
from groundup.collect.readers.chat_layouts import (
    CONTENT_KEYS,
    ROLE_KEYS,
    THREAD_KEYS,
    Said,
    best_reply,
    find_turns,
    message,
    rendered,
)
from groundup.collect.readers.records import Numbered, read_records
from groundup.collect.readers.text import TEXT_KEYS, first_text, read_text, text_document
from groundup.recipe import Source

_ID_KEYS = (*THREAD_KEYS, "message_id", "id", "uuid", "hash")
# Shorter ids are numbers that start anew in every file; longer ones name the same thread wherever
# it turns up.
_GLOBAL_ID_LENGTH = 16
_IRC = re.compile(r"^\[?(\d\d?:\d\d(?::\d\d)?)\]?\s+<[ @+%~&]?([^>\s]{1,40})>\s?(.*)$")
# A log is cut where nobody spoke for an hour, or after this many lines.
_IRC_LINES = 500
_IRC_GAP_MINUTES = 60


def read_conversations(item: Item, source: Source, form: str) -> Iterator[Document | Reject]:
    """Yield the conversations of a file; a record of no known layout is rejected by number."""
    yield from conversations(read_records(item, form), item)


def conversations(rows: Iterator[Numbered], item: Item) -> Iterator[Document | Reject]:
    """Yield the conversations that records hold; the first of them says whether each is a whole one
    or a single turn.
    """
    first = next(rows, None)
    if first is None:
        return
    rows = itertools.chain([first], rows)
    if not isinstance(first[1], Reject) and is_row(first[1]):
        yield from _threads(rows, item)
    else:
        yield from (_whole(number, record, item) for number, record in rows)


def is_row(record: Any) -> bool:
    """Return whether a record is one turn of a conversation that spans several records."""
    if not isinstance(record, Mapping) or "replies" in record or find_turns(record):
        return False
    keys = {str(key).lower() for key in record}
    return (
        bool(keys & set(ROLE_KEYS))
        and bool(keys & set(CONTENT_KEYS))
        and message(record) is not None
    )


def _whole(number: int, record: Any, item: Item) -> Document | Reject:
    if isinstance(record, Reject):
        return record
    said = find_turns(record)
    if said:
        return _document(said, number, _thread(record, number, item), item)
    if isinstance(record, Mapping) and first_text(record, TEXT_KEYS):
        return text_document(record, number, item)
    return Reject("no-turns", number, f"no known layout of a conversation in {_shape(record)}")


def _shape(record: Any) -> str:
    if isinstance(record, Mapping):
        return "keys " + ", ".join(map(str, list(record)[:8]))
    return f"a {type(record).__name__}"


def _document(said: list[Said], number: int, thread: str, item: Item) -> Document:
    text, turns = rendered(
        [Said(repair_text(turn.name), repair_text(turn.content)) for turn in said]
    )
    return Document(text, number, thread, turns=turns)


def _thread(record: Any, number: int, item: Item) -> str:
    if isinstance(record, Mapping):
        folded = {str(key).lower(): value for key, value in record.items()}
        prompt = folded.get("prompt")
        inner = prompt if isinstance(prompt, Mapping) else {}
        name = next(
            (str(folded[key]) for key in _ID_KEYS if isinstance(folded.get(key), (str, int))),
            str(inner.get("message_id", "")),
        )
        if name:
            return name if len(name) >= _GLOBAL_ID_LENGTH else f"{item.origin}#{name}"
    return f"{item.origin}#{number}"


def _threads(rows: Iterator[Numbered], item: Item) -> Iterator[Document | Reject]:
    """Join consecutive rows of one thread; without a column that names it, each row is a
    conversation of its own.
    """
    column: str | None = None
    held: list[tuple[int, Mapping[str, Any]]] = []
    for number, record in rows:
        if isinstance(record, Reject) or not isinstance(record, Mapping):
            yield (
                record if isinstance(record, Reject) else Reject("no-turns", number, _shape(record))
            )
            continue
        column = column or _thread_column(record)
        if held and (column is None or record.get(column) != held[0][1].get(column)):
            yield _joined(held, column, item)
            held = []
        held.append((number, record))
    if held:
        yield _joined(held, column, item)


def _thread_column(record: Mapping[str, Any]) -> str | None:
    folded = {str(key).lower(): str(key) for key in record}
    return next((folded[key] for key in THREAD_KEYS if key in folded), None)


def _joined(
    held: list[tuple[int, Mapping[str, Any]]], column: str | None, item: Item
) -> Document | Reject:
    number, first = held[0]
    said = (
        _best_path([row for _, row in held])
        if "parent_id" in first
        else [message(row) for _, row in held]
    )
    spoken = [turn for turn in said if turn is not None]
    if not spoken:
        return Reject("empty", number, "no row of it has any text")
    return _document(
        spoken, number, _thread({column: first[column]} if column else {}, number, item), item
    )


def _best_path(rows: list[Mapping[str, Any]]) -> list[Said | None]:
    """Return one path through rows that name their parents, along the best-ranked reply at each
    step.
    """
    children: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        children.setdefault(row.get("parent_id") or None, []).append(row)
    path: list[Said | None] = []
    node = best_reply(children.get(None))
    while node is not None and len(path) < len(rows):
        path.append(message(node))
        node = best_reply(children.get(node.get("message_id")))
    return path


def is_irc(head: str) -> bool:
    """Return whether a text is an IRC log: a third of its lines have a time and a nickname."""
    lines = head.splitlines()
    return sum(_IRC.match(line) is not None for line in lines) >= max(2, len(lines) // 3)


def read_log(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield an IRC log as conversations, cut where it falls silent; any other text is one document."""
    if not is_irc(item.head.decode("utf-8", "replace")):
        yield from read_text(item, source)
        return
    lines = decode(
        read_all(item.stream), "" if source.encoding == "auto" else source.encoding
    ).split("\n")
    held: list[Said] = []
    start, before = 0, 0
    for number, line in enumerate(lines):
        match = _IRC.match(line)
        if match is None:
            continue
        minute = int(match[1].split(":")[0]) * 60 + int(match[1].split(":")[1])
        if held and (len(held) >= _IRC_LINES or (minute - before) % 1440 > _IRC_GAP_MINUTES):
            yield _document(held, start, item.origin, item)
            held = []
        start = start if held else number
        before = minute
        if match[3].strip():
            held.append(Said(match[2], match[3].strip()))
    if held:
        yield _document(held, start, item.origin, item)
