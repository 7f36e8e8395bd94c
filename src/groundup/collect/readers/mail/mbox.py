"""Mailboxes: one file of many mails, cut into them and joined to threads.

A mailbox of 5 GB does not fit in memory. Its mails are read one by one; the text that is left of
each waits in a file on disk. Memory holds one number for each Message-ID, and which are of one
thread:

    add(mail)   own id and the ids it refers to → union-find over 64-bit hashes
    iterate     the threads in the order of their first mail, the mails of each by date

A reference counts wherever it leads: no window is needed, and an answer a year later joins its
thread. A reply without any reference joins by its subject, if that is no older than a month.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Self

import orjson

from groundup.collect.charset import repair_text
from groundup.collect.files.streams import MAX_RECORD, SPOOL_BYTES, DamagedError

# `From `, a sender and a date, as programs write it; a line of text has no date.
FROM_LINE = re.compile(
    rb"From [^\n]{0,300}?\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? [^\n]{0,30}?\d\d?:\d\d"
    rb"[^\n]{0,30}?\b(?:19|20)\d\d\b[^\n]{0,40}\r?\n?\Z"
    rb"|From [^\n]{0,300}?\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? \d{1,2} \w{3} (?:19|20)\d\d\b"
    rb"[^\n]{0,40}\r?\n?\Z"
)
_QUOTED_FROM = re.compile(rb">+From ")
_HEADER_LINE = re.compile(rb"[!-9;-~]{1,80}:")
_LINE = 1 << 20
# A thread is cut where it is longer; the pieces are of one group.
MAX_THREAD = 1 << 20
_MONTH = 30 * 86_400


@dataclass(slots=True)
class Mail:
    """A mail as it enters a thread."""

    sender: str
    subject: str
    text: str
    group: str
    sent: float | None = None  # seconds since 1970; None where it does not say
    id: str = ""
    references: tuple[str, ...] = ()  # ids of earlier mails, that of the first mail first
    is_reply: bool = False
    topic: str = ""  # what joins a reply without references; "" for nothing
    record: int = 0


def split_mails(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Yield the mails of a mailbox without their `From ` lines; None for one over MAX_RECORD.

    Raises DamagedError where the stream does, after what was whole.
    """
    lines: list[bytes] = []
    size = 0
    try:
        for line, starts_mail in _marked_lines(stream):
            if starts_mail:
                if size:
                    yield b"".join(lines) if size <= MAX_RECORD else None
                lines, size = [], 0
                continue
            size += len(line)
            if size <= MAX_RECORD:
                lines.append(line)
            else:
                lines.clear()
    except DamagedError:
        if size:
            yield b"".join(lines) if size <= MAX_RECORD else None
        raise
    if size:
        yield b"".join(lines) if size <= MAX_RECORD else None


def _marked_lines(stream: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield lines, or pieces of long ones, each with whether it is the `From ` line of a mail."""
    damage: DamagedError | None = None
    is_start = is_blank = True
    line = stream.readline(_LINE)
    while line:
        try:
            following = stream.readline(_LINE)
        except DamagedError as error:
            damage, following = error, b""
        # Without a blank line above, a header has to follow.
        starts_mail = (
            is_start
            and line.startswith(b"From ")
            and FROM_LINE.match(line) is not None
            and (is_blank or _HEADER_LINE.match(following) is not None)
        )
        is_blank = is_start and not line.strip()
        is_quoted = is_start and line.startswith(b">") and _QUOTED_FROM.match(line) is not None
        yield line[1:] if is_quoted else line, starts_mail
        is_start = line.endswith(b"\n")
        line = following
    if damage is not None:
        raise damage


def _hash(name: str) -> int:
    data = name.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=7).digest(), "big")


class Threads:
    """The mails of a mailbox, joined to threads; a context manager, for its file on disk."""

    def __init__(self) -> None:
        # The file is closed in __exit__.
        self._file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115
        # Of each node, that is a mail or an id that is only referred to: its parent in the tree.
        self._parents = array("q")
        self._nodes: dict[int, int] = {}  # hash of an id → node
        self._topics: dict[int, int] = {}  # hash of a topic → the last mail about it
        # Of each mail: its node, where it is in the file, when it was sent, a hash of its text.
        self._mail_nodes, self._offsets = array("q"), array("q")
        self._dates, self._texts = array("d"), array("q")
        self._answers = array("b")  # whether it refers to others
        self._mails: dict[int, int] = {}  # node → mail
        # Hash of sender, subject, date and text → node: what tells a mail without an id.
        self._contents: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, mail: Mail) -> bool:
        """Add a mail; return False for one that was added before, with the same id and text.

        One without an id is an earlier one with the same sender, subject, date and text.
        """
        contents = _hash("\0".join((mail.sender, mail.subject, str(mail.sent), mail.text)))
        known = self._node(mail.id) if mail.id else self._contents.get(contents)
        node = self._new_node() if known is None else known
        text = _hash(mail.text)
        if node in self._mails:
            if self._texts[self._mails[node]] == text:
                return False
            # Another mail with the id of an earlier one, as broken programs send them.
            twin, node = node, self._new_node()
            self._join(twin, node)
        self._contents.setdefault(contents, node)
        for reference in mail.references:
            self._join(self._node(reference), node)
        number = len(self._offsets)
        date = mail.sent if mail.sent is not None else (self._dates[-1] if number else 0.0)
        if mail.topic:
            self._join_by_topic(mail, node, date, number)
        self._mails[node] = number
        self._mail_nodes.append(node)
        self._offsets.append(self._file.tell())
        self._dates.append(date)
        self._texts.append(text)
        self._answers.append(bool(mail.references))
        # Only what a document is made of.
        names = (mail.sender, mail.subject, mail.text, mail.group)
        row = [*map(repair_text, names), mail.record]
        self._file.write(orjson.dumps(row) + b"\n")
        return True

    def _join_by_topic(self, mail: Mail, node: int, date: float, number: int) -> None:
        key = _hash(mail.topic)
        last = self._topics.get(key)
        is_lost = mail.is_reply and not mail.references
        if last is not None and is_lost and abs(date - self._dates[last]) <= _MONTH:
            self._join(self._mail_nodes[last], node)
        self._topics[key] = number

    def __iter__(self) -> Iterator[list[Mail]]:
        roots: dict[int, int] = {}
        # A thread stands where its first mail stands.
        first = [roots.setdefault(self._root(node), n) for n, node in enumerate(self._mail_nodes)]
        order = sorted(range(len(first)), key=lambda n: (first[n], self._dates[n], n))
        # The group is that of the mail that refers to no other, whatever the dates say.
        openers: dict[int, int] = {}
        for number in order:
            if not self._answers[number]:
                openers.setdefault(first[number], number)
        thread: list[Mail] = []
        size, current, group = 0, -1, ""
        for number in order:
            mail = self._read(number)
            is_new = first[number] != current
            if thread and (is_new or size + len(mail.text) > MAX_THREAD):
                yield thread
                thread, size = [], 0
            if is_new:
                current = first[number]
                group = self._read(openers.get(current, number)).group
            mail.group = group
            thread.append(mail)
            size += len(mail.text)
        if thread:
            yield thread

    def _read(self, number: int) -> Mail:
        self._file.seek(self._offsets[number])
        sender, subject, text, group, record = orjson.loads(self._file.readline())
        return Mail(sender, subject, text, group, record=record)

    def _new_node(self) -> int:
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def _node(self, id: str) -> int:
        key = _hash(id)
        if key not in self._nodes:
            self._nodes[key] = self._new_node()
        return self._nodes[key]

    def _root(self, node: int) -> int:
        parents = self._parents
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    def _join(self, one: int, other: int) -> None:
        one, other = self._root(one), self._root(other)
        # The older node stays the root.
        self._parents[max(one, other)] = min(one, other)
