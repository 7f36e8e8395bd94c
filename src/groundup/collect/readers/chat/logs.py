"""Chats exported as text: WhatsApp in its many locales, signal-export, and Discord.

    [24.12.19, 12:23:05] Ann: Hi!                 WhatsApp on an iPhone
    12/24/19, 12:23 PM - Ann: Hi!                 WhatsApp on Android
    [2019-12-24, 12:23] Ann: Hi!                  signal-export
    [24-Dec-19 12:23 PM] ann#1234                 Discord: the text is on the lines below
    Hi!

A line without a time belongs to the message before it. Whether 03/04 is in March or in April is
decided by all dates of the file together.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from groundup.artifacts.document import MAX_DOCUMENT_BYTES, Document, Reject
from groundup.collect.charset import decode
from groundup.collect.files.formats import text_head
from groundup.collect.files.streams import Item, read_all
from groundup.collect.readers.chat.chats import Reader
from groundup.collect.readers.chat.messages import (
    Posting,
    chat_documents,
    mention,
    without_marks,
)
from groundup.collect.readers.text import declared_encoding
from groundup.recipe import Source

# A million messages of WhatsApp take 60 MB.
MAX_LOG_BYTES = 2 * MAX_DOCUMENT_BYTES
# Half of the day, before or after the time.
_LATE = ("p", "下午", "晚上", "오후", "午後", "م", "μ.μ")
_HALF = r"[ap]\.?[ \xa0]?m\.?|上午|下午|凌晨|早上|中午|晚上|오전|오후|午前|午後|[صم]|[πμ]\.μ\."
_DATE = r"\d{1,4} ?[./-] ?\d{1,2} ?[./-] ?\d{1,4}\.?|\d\d?-[A-Z][a-z]{2}-\d\d(?:\d\d)?"
_GAP = r"[ \t\xa0\u202f]"
_INVISIBLE = "\u200e\u200f\u202a-\u202e\ufeff"
# The time stands in brackets; or before a dash, then without seconds.
_HEADER = re.compile(
    rf"^[{_INVISIBLE}]*(?P<bracket>\[)?(?P<date>{_DATE})[,،]?{_GAP}{{1,2}}"
    rf"(?P<before>{_HALF})?{_GAP}?"
    rf"(?P<time>\d\d?[:.]\d\d)(?(bracket)(?:[:.]\d\d)?){_GAP}?(?P<after>{_HALF})?"
    rf"(?(bracket)\]|{_GAP}[-–]){_GAP}(?P<rest>.*)",
    re.IGNORECASE | re.MULTILINE,
)
# What a person's name may hold; a sentence of the program that quotes something is none.
_NAMED = re.compile(r"(?P<name>[^:\"“”„«»]{1,60}):(?:[ \u00a0\t]|$|(?=[.\u200e]))(?P<text>.*)")
_PHONE = re.compile(r"[+(]?[\d\s()\u2011\u202a\u202c-]{7,30}")
_MENTION = re.compile(r"@(?:\u2068~?\s?([^\u2068\u2069\n]{1,60})\u2069|(\d{7,15})\b)")
# Programs that log their steps write lines of the same shape.
_LEVELS = frozenset("trace debug info notice warn warning error critical fatal severe".split())
# Instead of a message: "<Media omitted>" in any language, "IMG-1.jpg (file attached)".
_MEDIA = re.compile(
    r"<[^<>\n]{3,60}>|\S{1,200}\.\w{2,5} \([^()\n]{3,40}\)|null"
    r"|(?:image|video|audio|sticker|gif|document|contact card|voice message) omitted"
    r"|!?\[[^\]\n]{0,200}\]\(\.?/?media/[^()\n]{1,300}\)",
    re.IGNORECASE,
)
_EDITED = re.compile(r"\s?\u200e<[^<>\n]{5,60}>\Z|\s?<This message was edited>\Z")
_NO_MESSAGE = frozenset(
    """this message was deleted|you deleted this message|missed voice call|missed video call
    |diese nachricht wurde gelöscht|du hast diese nachricht gelöscht|se eliminó este mensaje
    |eliminaste este mensaje|ce message a été supprimé|vous avez supprimé ce message
    |essa mensagem foi apagada|esta mensagem foi apagada|mensagem apagada|você apagou esta mensagem
    |questo messaggio è stato eliminato|hai eliminato questo messaggio|dit bericht is verwijderd
    |je hebt dit bericht verwijderd|waiting for this message""".replace("\n    ", "").split("|")
)
# Lines of signal-export after a message: who reacted to it.
_REACTIONS = re.compile(r"^\(- [^\n]{1,500} -\)\s*$", re.MULTILINE)
_DISCORD_START = re.compile(r"\ufeff?=+\s+Guild: [^\n]*\n(?:Channel|Topic): ")
_DISCORD_SECTION = re.compile(
    r"^\{(?:Attachments|Embed|Reactions|Stickers|Inline)\}.*?(?:\n\n|\Z)|^=+\nExported [^\n]*\n=+$",
    re.MULTILINE | re.DOTALL,
)
_MIN_SHARE = 0.2  # of the lines of a log that begin a message, at least


def is_chat_log(head: str) -> bool:
    """Return whether a text is a chat: its lines begin with a time and a name."""
    if _DISCORD_START.match(head):
        return True
    lines = [line for line in head.split("\n")[:200] if line.strip()]
    headers = [match for match in map(_HEADER.match, lines) if match]
    if not lines or not _HEADER.match(lines[0]) or len(headers) < _MIN_SHARE * len(lines):
        return False
    names = [named["name"] for match in headers if (named := _NAMED.match(match["rest"]))]
    words = {word for name in names for word in name.lower().split()}
    return len(names) >= max(1, len(headers) // 3) and not words & _LEVELS


def logs_or(otherwise: Reader) -> Reader:
    """Return a reader of chats as text, which reads any other text as `otherwise` does."""

    def read(item: Item, source: Source) -> Iterator[Document | Reject]:
        if is_chat_log(text_head(item.head)):
            yield from _read_log(item, source)
        else:
            yield from otherwise(item, source)

    return read


def _read_log(item: Item, source: Source) -> Iterator[Document | Reject]:
    text = decode(read_all(item.stream, MAX_LOG_BYTES), declared_encoding(source))
    is_discord = _DISCORD_START.match(text) is not None
    # Once for the dates alone: the headers of a million messages take a gigabyte.
    order = _date_order(match["date"] for match in _HEADER.finditer(text))
    numbered = (
        (index, _message(match, lines, order, is_discord, item.origin))
        for index, (match, lines) in enumerate(_entries(text))
    )
    yield from chat_documents(numbered, source)


def _entries(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Yield the header of each message, and the lines after it."""
    headers = itertools.chain(_HEADER.finditer(text), [None])
    for header, following in itertools.pairwise(headers):
        assert header is not None
        end = following.start() if following else len(text)
        yield header, text[header.end() : end].replace("\r\n", "\n")


def _message(
    header: re.Match[str], lines: str, order: str, is_discord: bool, origin: str
) -> Posting:
    """Return a message; one without text for a line of the program, such as who joined."""
    time = _seconds(header, order)
    if is_discord:
        name = header["rest"].strip().removesuffix(" (pinned)")
        text = without_marks(_DISCORD_SECTION.sub("", lines))
        return Posting(name, text, time, channel=origin)
    named = _NAMED.match(header["rest"])
    if named is None:
        return Posting()
    # WhatsApp marks what it says itself in the name of somebody.
    start = named["text"]
    text = "" if start.startswith("\u200e") else f"{start.rstrip()}{lines}".strip()
    text = _REACTIONS.sub("", _EDITED.sub("", text)).strip()
    if _MEDIA.fullmatch(text) or text.lower().rstrip(". ") in _NO_MESSAGE:
        text = ""
    text = _MENTION.sub(lambda match: mention(_speaker(match[1] or match[2])), text)
    return Posting(_speaker(named["name"]), without_marks(text), time, channel=origin)


def _speaker(name: str) -> str:
    """Return a name without marks of direction; a phone number by its digits only."""
    name = re.sub(rf"[{_INVISIBLE}\u2066-\u2069]", "", name).strip().removeprefix("~").strip()
    return re.sub(r"\D", "", name) if _PHONE.fullmatch(name) else name


def _date_order(dates: Iterable[str]) -> str:
    """Return how the dates of a file are written: "ymd", "dmy" or "mdy".

    A number over 12 is no month. Else the order is the one in which fewer dates go back in time;
    where that leaves it open, the day comes first.
    """
    rows = [list(map(int, re.findall(r"\d+", date))) for date, _ in itertools.groupby(dates)]
    rows = [row for row in rows if len(row) == 3]
    if any(row[0] > 31 for row in rows):
        return "ymd"
    months = {"dmy": max((row[1] for row in rows), default=0), "mdy": 0}
    months["mdy"] = max((row[0] for row in rows), default=0)
    possible = [order for order, month in months.items() if month <= 12] or ["dmy"]

    def steps_back(order: str) -> int:
        days = [_calendar(row, order) for row in rows]
        return sum(later < earlier for earlier, later in itertools.pairwise(days))

    return min(possible, key=steps_back)


def _calendar(numbers: Sequence[int], order: str) -> tuple[int, int, int]:
    """Return the year, month and day of a date."""
    year, month, day = (numbers[order.index(part)] for part in "ymd")
    return (year if year > 99 else 2000 + year), month, day


def _seconds(header: re.Match[str], order: str) -> float | None:
    """Return the seconds of a header; None for a time that is none."""
    date, clock = header["date"], list(map(int, re.findall(r"\d+", header["time"])))
    half = (header["before"] or header["after"] or "").lower()
    if half:
        clock[0] = clock[0] % 12 + (12 if half.startswith(_LATE) else 0)
    try:
        if date.isascii() and any(map(str.isalpha, date)):
            day = datetime.strptime(date, "%d-%b-%y" if len(date) < 10 else "%d-%b-%Y")
        else:
            day = datetime(*_calendar(list(map(int, re.findall(r"\d+", date))), order))
        return day.replace(hour=clock[0], minute=clock[1], tzinfo=UTC).timestamp()
    except (ValueError, IndexError, OverflowError):
        return None
