"""Exports of chats: Slack, Discord, Telegram, Signal, Matrix, Zulip and Microsoft Teams.

The messages of an export stand in lists, and around them what is said of their chat:

    {"name": "general", "messages": [{"ts": …}, …]}           one chat
    {"chats": {"list": [{"name": …, "messages": […]}, …]}}    an account
    [{"ts": …}, …]                                            a day of a channel, in its folder

`chat_platforms.py` has the layouts of the messages, `chat_messages.py` makes documents of them. A
file in no such layout is read as its kind of source reads any other.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import detect_encoding
from groundup.collect.files.formats import detect_format, text_head
from groundup.collect.files.streams import DamagedError, Item
from groundup.collect.readers.chat.messages import (
    Posting,
    chat_documents,
    parse_time,
    with_pseudonyms,
    without_marks,
)
from groundup.collect.readers.chat.platforms import Chat, find_message, first_value, slack_shown
from groundup.collect.readers.records.records import JsonWindow, read_records
from groundup.collect.readers.web.feeds import xml_root
from groundup.recipe import Source

Reader = Callable[[Item, Source], Iterator[Document | Reject]]

# Keys of the messages of a chat; of its chats, or of folders of them.
_MESSAGE_LISTS = frozenset(
    "messages MessageList value zerver_message events chunk m replies"
    " slackdump_thread_replies".split()
)
_CHAT_LISTS = frozenset("chats left_chats list conversations".split())
_MAX_DEPTH = 4
_HEAD_RECORDS = 50
# Ids that are shorter may restart in every file.
_GLOBAL_ID_LENGTH = 8

# Keys of the records that stand beside the messages of Slack; those with `t` are slackdump's.
_METADATA = {
    "the users": ({"profile", "team_id"}, {"profile", "real_name"}, {"t", "ts", "u"}),
    "the channels": ({"id", "created", "members"}, {"id", "creator", "members"}),
    "the account": ({"team_id", "user_id", "url"}, {"t", "ts", "w"}),
}
_ZULIP_REALM = '"zerver_realm'


def _walk(window: JsonWindow, chat: Chat, depth: int = _MAX_DEPTH) -> Iterator[tuple[Chat, Any]]:
    """Yield the elements of the lists of messages of a JSON value, each with what surrounds it."""
    if window.peek() == "[":
        for _, value, _ in window.elements():
            yield from _unfold(value, chat)
        return
    around, has_lists = dict(chat), False
    for key in _keys(window):
        has_lists = has_lists or key in _MESSAGE_LISTS or key in _CHAT_LISTS
        opening = window.peek()
        if key in _MESSAGE_LISTS and opening == "[":
            for _, value, _ in window.elements():
                yield from _unfold(value, around)
        elif key in _CHAT_LISTS and opening == "{" and depth:
            yield from _walk(window, around, depth - 1)
        elif key in _CHAT_LISTS and opening == "[" and depth:
            for _ in _items(window):
                if window.peek() == "{":
                    yield from _walk(window, around, depth - 1)
                else:
                    window.value()
        else:
            around[key] = window.value()
    if not has_lists:
        yield chat, around


def _keys(window: JsonWindow) -> Iterator[str]:
    """Yield the keys of an object; whoever asks for the next has consumed the value."""
    for _ in _items(window):
        key = window.value()
        if not isinstance(key, str) or not window.take(":"):
            raise window.error("a key of the JSON object is wrong")
        yield key


def _items(window: JsonWindow) -> Iterator[None]:
    """Step through an array or object; whoever asks for the next item has consumed this one."""
    closing = {"[": "]", "{": "}"}.get(window.peek(), "")
    if not closing:
        raise DamagedError("malformed", "it starts with neither [ nor {")
    window.position += 1
    while not window.take(closing):
        yield
        if not window.take(",") and window.peek() != closing:
            raise window.error("the JSON ends or goes wrong after an element")


def _unfold(value: Any, chat: Chat, depth: int = _MAX_DEPTH) -> Iterator[tuple[Chat, Any]]:
    """Yield a record, and what it wraps: the messages of a chat, or the replies to a message."""
    lists: list[list[Any]] = []
    if isinstance(value, Mapping) and depth:
        parts = (value.get(key) for key in _MESSAGE_LISTS & value.keys())
        lists = [part for part in parts if isinstance(part, list)]
        if "m" in value and "p" in value:
            lists.append([value["p"]])  # the message that a thread of slackdump answers
    is_message = not lists or "text" in value or "body" in value
    if is_message:
        yield chat, value
    for part in lists:
        for record in part:
            yield from _unfold(record, chat if is_message else value, depth - 1)


def _records(item: Item) -> Iterator[tuple[Chat, Any]]:
    """Yield the records of a file of JSON, JSONL or CSV that may be messages of chats."""
    if detect_format(item.name, item.head) != "json":
        for _, record in read_records(item):
            yield from _unfold(record, {})
        return
    window = JsonWindow(item.stream, detect_encoding(item.head))
    while window.peek():
        yield from _walk(window, {})
        window.take(",")
    if window.damage:
        raise window.damage


def head_records(format: str, head: bytes) -> list[tuple[Chat, Any]]:
    """Return the first records of a file that may be messages of chats, from its first bytes."""
    if format == "jsonl":
        values = []
        for line in head.split(b"\n")[:_HEAD_RECORDS]:
            with suppress(ValueError):
                values.append(orjson.loads(line))
        return [record for value in values for record in _unfold(value, {})]
    if format == "csv":
        names = (name.strip(' \t\r"') for name in text_head(head).split("\n", 1)[0].split(","))
        return [({}, dict.fromkeys(names, ""))]
    records: list[tuple[Chat, Any]] = []
    if format == "json":
        window = JsonWindow(io.BufferedReader(io.BytesIO(head)), detect_encoding(head))
        with suppress(DamagedError):
            records.extend(itertools.islice(_walk(window, {}), _HEAD_RECORDS))
    return records


def is_chat(format: str, head: bytes) -> bool:
    """Return whether the first bytes of a file are those of an export of chats in a known layout.

    `format` is what `detect_format` says of it.
    """
    if _is_xml(format, head):
        return all(tag in head for tag in (b"<message", b"<user>", b"<text>"))
    # Before the chats of an account stands more about it than the first bytes of a file.
    is_account = b'"personal_information"' in head and b'"about"' in head
    if format == "json" and is_account and text_head(head).lstrip().startswith("{"):
        return True
    has_messages = any(find_message(record, chat) for chat, record in head_records(format, head))
    return has_messages and chat_metadata(format, head) is None


def _is_xml(format: str, head: bytes) -> bool:
    # Without a declaration the root element of XML is any.
    return format == "xml" or (format == "text" and head.lstrip()[:1] == b"<")


def chats_or(otherwise: Reader) -> Reader:
    """Return a reader of exports of chats, which reads any other file as `otherwise` does."""

    def read(item: Item, source: Source) -> Iterator[Document | Reject]:
        format = detect_format(item.name, item.head)
        if is_chat(format, item.head):
            is_xml = _is_xml(format, item.head)
            messages = _xml_messages(item) if is_xml else _messages(item)
            yield from chat_documents(messages, source, item.people)
        elif said := chat_metadata(format, item.head):
            yield Reject("metadata", detail=f"{said} of an export of chats, which holds no message")
        else:
            yield from otherwise(item, source)

    return read


def hide_speakers(reader: Reader) -> Reader:
    """Return a reader that gives pseudonyms to the speakers of what `reader` reads.

    For logs and data sets that are no export of a chat, and name their speakers.
    """

    def read(item: Item, source: Source) -> Iterator[Document | Reject]:
        for result in reader(item, source):
            if isinstance(result, Document) and source.speakers != "names":
                yield with_pseudonyms(result)
            else:
                yield result

    return read


def chat_metadata(format: str, head: bytes) -> str | None:
    """Return what a file says of a workspace of Slack or Zulip, if it does."""
    if format != "json" or not (text := text_head(head).lstrip()).startswith(("[", "{")):
        return None
    if _ZULIP_REALM in text:
        return "the organization"
    window = JsonWindow(io.BufferedReader(io.BytesIO(text.encode())), "utf-8")
    with suppress(DamagedError):
        elements = window.elements() if text.startswith("[") else iter([("", window.value(), 0)])
        _, first, _ = next(elements, ("", None, 0))
        keys = set(first) if isinstance(first, Mapping) else set()
        told = (name for name, known in _METADATA.items() if any(it <= keys for it in known))
        return next(told, None)
    return None


def _messages(item: Item) -> Iterator[tuple[int, Posting | Reject]]:
    for index, (chat, record) in enumerate(_records(item)):
        if isinstance(record, Reject):
            yield index, replace(record, record=index)
            continue
        try:
            message = find_message(record, chat)
        except DamagedError as damage:
            yield index, Reject(damage.reason, index, damage.detail)
            continue
        if message is None:
            yield index, Reject("no-turns", index, "it is no message in a known layout of chats")
        else:
            yield index, replace(message, channel=_channel(message, chat, item))


def _channel(message: Posting, chat: Chat, item: Item) -> str:
    """Return the group of a message: its channel, within its folder unless its id is unique."""
    inner = chat.get("channel")
    around = inner if isinstance(inner, Mapping) else chat
    keys: tuple[str, ...] = ("channel_id", "id", "room_id", "room_name", "name", "displayName")
    if "Thread" in str(around.get("type")):
        keys = ("categoryId", *keys)  # the channel of a thread of Discord
    name = message.channel or first_value(around, *keys)
    folder = item.origin.rpartition("/")[0] or item.origin
    if not name:
        return folder
    return name if len(name) >= _GLOBAL_ID_LENGTH else f"{folder}#{name}"


def _xml_messages(item: Item) -> Iterator[tuple[int, Posting | Reject]]:
    """Yield the messages of a log of Slack in XML, whose conversations were told apart."""
    root = xml_root(item)
    channel = "/".join(filter(None, map(root.findtext, ("team_domain", "channel_name"))))
    for index, element in enumerate(root.iter("message")):
        speaker, text, time = (element.findtext(tag) or "" for tag in ("user", "text", "ts"))
        text = without_marks(slack_shown(text))
        thread = element.get("conversation_id") or ""
        group = channel or item.origin
        yield index, Posting(speaker.strip(), text, parse_time(time), thread, group)
