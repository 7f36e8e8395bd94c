"""Conversations: records of the common chat layouts, IRC logs, and what a model is tuned on.

The turns are kept beside the text; the group is the thread. Tuning files are conversations too, or
tables of text and label: a row becomes a turn of `user` and a turn of `label`, by which tuning
knows that it is a task.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from groundup.artifacts.document import LABEL, Document, Reject
from groundup.collect.charset import decode, repair_text
from groundup.collect.files.streams import Item, read_all
from groundup.collect.readers.chat import layouts as chat
from groundup.collect.readers.records.records import NumberedRecord, lower_keys, read_records
from groundup.collect.readers.text import (
    declared_encoding,
    read_text,
    record_text,
    text_document,
)
from groundup.recipe import Source

_ID_KEYS = (*chat.THREAD_KEYS, "message_id", "id", "uuid", "hash")
_GLOBAL_ID_LENGTH = 16  # shorter ids are counters that restart in every file
_IRC_LINE = re.compile(r"^\[?(\d\d?):(\d\d)(?::\d\d)?\]?\s+<[ @+%~&]?([^>\s]{1,40})>\s?(.*)$")
# A log is cut after this many lines, and where nobody speaks for an hour.
_IRC_MAX_LINES, _IRC_GAP_MINUTES = 500, 60
MAX_THREAD = 256 << 20  # rows of one thread, in bytes of memory


def read_conversations(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the conversations of a file; a record of no known layout is rejected by number."""
    yield from conversation_documents(read_records(item), item)


def conversation_documents(
    rows: Iterator[NumberedRecord], item: Item
) -> Iterator[Document | Reject]:
    """Yield the conversations that records hold.

    The first record decides whether each is a whole conversation or a single message.
    """
    first = next(rows, None)
    if first is None:
        return
    rows = itertools.chain([first], rows)
    if not item.first and not isinstance(first[1], Reject) and is_message_row(first[1]):
        yield from _join_threads(rows, item)
        return
    for index, record in rows:
        if isinstance(record, Reject):
            yield record
        elif refused := chat.refusal(record):
            yield Reject(refused[0], index, refused[1])
        elif messages := chat.find_messages(record):
            yield _document(messages, index, _thread_group(record, index, item))
        elif isinstance(record, Mapping) and record_text(record):
            yield text_document(record, index, item)
        else:
            detail = "no known layout of a conversation in " + _shape(record)
            yield Reject("no-turns", index, detail)


def is_message_row(record: Any) -> bool:
    """Return whether a record is one message of a conversation that spans several records."""
    if not isinstance(record, Mapping) or "replies" in record or chat.find_messages(record):
        return False
    keys = lower_keys(record).keys()
    has_keys = keys & set(chat.ROLE_KEYS) and keys & set(chat.CONTENT_KEYS)
    return bool(has_keys) and chat.parse_message(record) is not None


def _shape(record: Any) -> str:
    if isinstance(record, Mapping):
        return "keys " + ", ".join(map(str, list(record)[:8]))
    return f"a {type(record).__name__}"


def _document(messages: Sequence[chat.Utterance], index: int, group: str) -> Document:
    text, turns = chat.render(messages)
    return Document(text, index, group, turns=turns)


def _thread_group(record: Any, index: int, item: Item) -> str:
    """Return the id of a record's thread, within its file unless it is unique anywhere."""
    name = ""
    if isinstance(record, Mapping):
        values = lower_keys(record)
        keys = () if values.keys().isdisjoint(_ID_KEYS) else _ID_KEYS
        ids = (str(values[key]) for key in keys if isinstance(values.get(key), (str, int)))
        prompt = values.get("prompt")
        prompt_id = prompt.get("message_id", "") if isinstance(prompt, Mapping) else ""
        name = next(ids, str(prompt_id))
    return name if len(name) >= _GLOBAL_ID_LENGTH else f"{item.origin}#{name or index}"


def _join_threads(rows: Iterator[NumberedRecord], item: Item) -> Iterator[Document | Reject]:
    """Join consecutive rows of one thread; without a thread column each row is a conversation."""
    column: str | None = None
    thread: list[tuple[int, Mapping[str, Any]]] = []
    size = 0
    for index, record in rows:
        if isinstance(record, Reject):
            yield record
            continue
        if not isinstance(record, Mapping):
            yield Reject("no-turns", index, _shape(record))
            continue
        if column is None:
            columns = {str(key).lower(): str(key) for key in record}
            column = next((columns[key] for key in chat.THREAD_KEYS if key in columns), None)
        if thread and (column is None or record.get(column) != thread[0][1].get(column)):
            yield _thread_document(thread, column, item, size)
            thread, size = [], 0
        # About how many bytes of memory the row takes.
        long = [value for value in record.values() if isinstance(value, (str, list, dict))]
        size += 500 + sum(len(v) if isinstance(v, str) else 10 * len(repr(v)) for v in long)
        if not thread or size <= MAX_THREAD:
            thread.append((index, record))
    if thread:
        yield _thread_document(thread, column, item, size)


def _thread_document(
    thread: list[tuple[int, Mapping[str, Any]]], column: str | None, item: Item, size: int
) -> Document | Reject:
    index, first = thread[0]
    if size > MAX_THREAD and len(thread) > 1:
        detail = f"the rows of one thread take more than {MAX_THREAD >> 20} MB of memory"
        return Reject("too-large", index, detail)
    rows = [row for _, row in thread]
    if "parent_id" in first:
        # The rows are a tree: one path through it, along the best-ranked reply each time.
        replies: dict[Any, list[Mapping[str, Any]]] = {}
        for row in rows:
            replies.setdefault(row.get("parent_id") or None, []).append(row)
        max_length, rows = len(rows), []
        reply = chat.best_reply(replies.get(None))
        while reply is not None and len(rows) < max_length:
            rows.append(reply)
            reply = chat.best_reply(replies.get(reply.get("message_id")))
    messages = chat.parse_messages(rows)
    if not messages:
        return Reject("empty", index, "no row of it has any text")
    group = _thread_group({column: first[column]} if column else {}, index, item)
    return _document(messages, index, group)


def is_irc(head: str) -> bool:
    """Return whether a text is an IRC log: a third of its lines have a time and a nickname."""
    lines = head.splitlines()
    return sum(_IRC_LINE.match(line) is not None for line in lines) >= max(2, len(lines) // 3)


def read_log(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield an IRC log as conversations, cut at silences; any other text as one document."""
    if not is_irc(item.head.decode("utf-8", "replace")):
        yield from read_text(item, source)
        return
    text = decode(read_all(item.stream), declared_encoding(source))
    messages: list[chat.Utterance] = []
    start = last_minute = 0
    for index, line in enumerate(text.split("\n")):
        match = _IRC_LINE.match(line)
        if match is None:
            continue
        hours, minutes, speaker, content = match.groups()
        minute = int(hours) * 60 + int(minutes)
        is_silence = (minute - last_minute) % 1440 > _IRC_GAP_MINUTES
        if messages and (len(messages) >= _IRC_MAX_LINES or is_silence):
            yield _document(messages, start, item.origin)
            messages = []
        start = start if messages else index
        last_minute = minute
        if content.strip():
            messages.append(chat.Utterance(speaker, content.strip()))
    if messages:
        yield _document(messages, start, item.origin)


def read_tuning(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the conversations of a file, or the rows of a table of text and label."""
    rows = read_records(item)
    head: list[NumberedRecord] = []
    # The first record that can be read decides what the file is.
    for row in rows:
        head.append(row)
        if not isinstance(row[1], Reject):
            break
    columns = find_label_columns(head[-1][1], source.columns) if head else None
    rows = itertools.chain(head, rows)
    if columns is None:
        yield from conversation_documents(rows, item)
        return
    for index, record in rows:
        if isinstance(record, Reject):
            yield record
            continue
        if not isinstance(record, Mapping) or not set(columns) <= set(record):
            detail = f'no columns "{columns[0]}" and "{columns[1]}" in {_shape(record)}'
            yield Reject("no-columns", index, detail)
            continue
        text, label = (
            repair_text(str(value)).strip() if isinstance(value, (str, int, float)) else ""
            for value in map(record.get, columns)
        )
        if not text:
            yield Reject("empty", index, f'column "{columns[0]}" holds no text or number')
        elif not label:
            yield Reject("no-label", index, f'column "{columns[1]}" holds no text or number')
        else:
            turns = [{"role": "user", "content": text}, {"role": LABEL, "content": label}]
            yield Document(f"{text}\n{label}", index, f"{item.origin}#{index}", turns=turns)


def find_label_columns(record: Any, declared: Sequence[str] = ()) -> tuple[str, str] | None:
    """Return the text and the label column of a table; None for a record of a conversation.

    The recipe may declare both. Else known names are looked for in `record`, the first of a file.
    """
    if declared:
        return declared[0], declared[1]
    if not isinstance(record, Mapping) or chat.find_messages(record):
        return None
    columns = {str(key).strip().lower(): str(key) for key in record}
    if is_message_row(record) and columns.keys() & set(chat.THREAD_KEYS):
        return None
    text = next((columns[name] for name in chat.TEXT_COLUMNS if name in columns), None)
    label = next((columns[name] for name in chat.LABEL_COLUMNS if name in columns), None)
    return (text, label) if text is not None and label is not None else None
