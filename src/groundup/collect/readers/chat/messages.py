"""Messages of a chat → documents: threads and days of channels, with pseudonyms for their speakers.

    12:01 U12 Has <@U34> seen this?          Vafera: Has @Dobiru seen this?
    12:03 U34 Yes, :+1:                  →   Dobiru: Yes, 👍
    (nobody writes until the next day)
    08:30 U12 …                              the next document of the channel

A day is cut where people leave, not at midnight: exports give the time of UTC, or of the one who
exported. So a document ends at the first silence of an hour after midnight. A day of fewer than
SHORT messages goes on with the next ones, since a few words without an answer teach little. A day
of LONG messages ends at the first silence of an hour, and one of LONGEST at once.

The group of a document is its thread, or the month of its channel: a chat of years has a part that
is held out, and no talk stands on both sides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from groundup.artifacts.document import LABEL, UNLEARNED, Document, Reject
from groundup.collect.files.streams import DamagedError
from groundup.collect.readers.chat import layouts as chat_layouts
from groundup.collect.readers.chat.people import NOBODY, People
from groundup.collect.readers.speakers import pseudonym
from groundup.collect.readers.web.markup import write_emoji
from groundup.recipe import Source

SHORT, LONG, LONGEST = 6, 500, 2000
_SILENCE, _ABSENCE = 3600.0, 3 * 86400.0  # seconds; the second ends a day of any length
_DAY, _MONTH = 86400, 30 * 86400
# Messages that are held until their thread or day ends: characters, and what each takes beside.
MAX_HELD, _MESSAGE_SIZE = 64 << 20, 200
# A mention in a text is the key of a speaker between two characters of private use.
_MARKS = ("\ue0f2", "\ue0f3")
_MENTION = re.compile(f"{_MARKS[0]}([^{_MARKS[0]}{_MARKS[1]}]{{1,200}}){_MARKS[1]}")
_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
# Emphasis is set tight around its words. `__init__` is none.
_EMPHASIS = [
    re.compile(rf"(?<![\w{c}]){c * n}(?=[^\s{c}])([^{c}\n]{{1,2000}})(?<=\S){c * n}(?![\w{c}])")
    for c, n in ((r"\*", 2), (r"\*", 1), ("_", 1), ("~", 2), ("~", 1), (r"\|", 2))
]
# Files that were sent to Zulip have an address without a host; of a picture it is all there is.
_LINK = re.compile(r"\[([^\[\]\n]{0,500})\]\(<?(?:https?://|/user_uploads/)[^\s()<>]{1,2000}>?\)")
# Speakers without a name of their own.
_ROLES = frozenset(("user", "assistant", "system", "speaker", LABEL, UNLEARNED))
# A message of a link alone says nothing: what it shows is elsewhere.
_ONLY_LINK = re.compile(r"(?:https?://\S*+\s*+)*+")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


@dataclass(frozen=True, slots=True)
class Posting:
    """One message; it is no part of the talk without a text (a call, a picture), or by a bot."""

    speaker: str = ""  # what identifies them: an id where the platform has one
    text: str = ""
    time: float | None = None  # seconds
    thread: str = ""
    channel: str = ""
    name: str = ""  # as people see it, where `speaker` is an id
    is_bot: bool = False
    id: str = ""  # tells it from one with the same text at the same second


@dataclass
class _Talk:
    """A document that grows: the messages of a thread, or of a day of a channel."""

    index: int
    messages: list[Posting] = field(default_factory=list)
    size: int = 0
    bot_sentences: int = 0

    @property
    def group(self) -> str:
        """The unit that is never split between training and validation."""
        first = self.messages[0]
        if first.thread or first.time is None:
            return f"{first.channel}#{first.thread}" if first.thread else first.channel
        return f"{first.channel}#{int(first.time // _MONTH)}"

    def add(self, message: Posting) -> int:
        """Add a message; return about how many bytes of memory it takes."""
        self.messages.append(message)
        size = len(message.text) + _MESSAGE_SIZE
        self.size += size
        return size

    def ends_before(self, message: Posting) -> bool:
        """Return whether a message of the same channel belongs to the next document."""
        count, last = len(self.messages), self.messages[-1].time
        if count >= LONGEST or message.thread or message.time is None or last is None:
            return count >= LONGEST
        # Some exports have the newest message first.
        silence = abs(message.time - last)
        first = self.messages[0].time or last
        is_new_day = message.time // _DAY != first // _DAY
        if silence < _SILENCE or not (is_new_day or count >= LONG):
            return False
        return count >= SHORT or silence > _ABSENCE


def mention(speaker: str) -> str:
    """Return what stands for a speaker in a text until their name is decided."""
    return f"@{_MARKS[0]}{speaker.strip()}{_MARKS[1]}" if speaker.strip() else ""


def parse_time(value: object) -> float | None:
    """Return the seconds of an ISO date, or of a number of (milli)seconds; None for others."""
    if isinstance(value, (int, float)) and abs(value) < 1e15:
        return value / 1000 if abs(value) > 1e11 else float(value)
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def without_marks(text: str) -> str:
    """Return a text without the marks that people type for emphasis, links and emoji.

    Code between backticks stays as it is.
    """
    parts = _CODE.split(text)
    for index in range(0, len(parts), 2):
        part = write_emoji(_LINK.sub(r"\1", parts[index]))
        for emphasis in _EMPHASIS:
            part = emphasis.sub(r"\1", part)
        parts[index] = part
    return "".join(parts).strip()


def chat_documents(
    messages: Iterable[tuple[int, Posting | Reject]], source: Source, people: People = NOBODY
) -> Iterator[Document | Reject]:
    """Yield the documents of the numbered messages of a file; rejects pass through.

    `people` are the names of those whom messages only call by their ids.

    Raises DamagedError where the messages do, after the documents before the damage.
    """
    writer = _Writer(source, people)
    open_talks = _OpenTalks()
    index, damage = 0, None
    try:
        for index, message in messages:
            if isinstance(message, Reject):
                yield message
            else:
                yield from map(writer.document, open_talks.add(index, message))
    except DamagedError as error:
        damage = error
    yield from map(writer.document, open_talks.close())
    if damage is not None:
        raise damage
    if not writer.count:
        yield Reject("empty", index, "no message that a person typed")


class _OpenTalks:
    """The talks of a file that more messages may join: one for each thread, and each channel."""

    def __init__(self) -> None:
        self._talks: dict[tuple[str, str], _Talk] = {}
        self._held = 0

    def add(self, index: int, message: Posting) -> list[_Talk]:
        """Add a message to its talk; return the talks that end before it, or for want of memory."""
        if not message.speaker or _ONLY_LINK.fullmatch(message.text.strip()):
            return []
        key = (message.channel, message.thread)
        talk = self._talks.get(key)
        if message.is_bot:
            if talk is not None:
                talk.bot_sentences += len(_SENTENCE_END.findall(message.text))
            return []
        ended = []
        if talk is not None and talk.ends_before(message):
            self._held -= talk.size
            ended.append(self._talks.pop(key))
            talk = None
        if talk is None:
            talk = self._talks[key] = _Talk(index)
        self._held += talk.add(message)
        return ended + (self.close() if self._held > MAX_HELD else [])

    def close(self) -> list[_Talk]:
        """Return all talks, which end."""
        talks, self._talks, self._held = list(self._talks.values()), {}, 0
        return talks


def with_pseudonyms(document: Document) -> Document:
    """Return a conversation with pseudonyms for those speakers who have names of their own."""
    turns = document.turns or ()
    names = {turn["role"] for turn in turns} - _ROLES
    if not names:
        return document
    longest_first = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    # "ann: yes" answers ann.
    named = re.compile(rf"(?<![^\s@])({longest_first})(?=[:,]\s)|(?<=@)({longest_first})\b", re.I)

    utterances = [
        chat_layouts.Utterance(
            pseudonym(turn["role"]) if turn["role"] in names else turn["role"],
            named.sub(lambda match: pseudonym(match[0]), turn["content"]),
        )
        for turn in turns
    ]
    text, hidden_turns = chat_layouts.render(utterances)
    return replace(document, text=text, turns=hidden_turns)


class _Writer:
    """Writes talks as documents, and remembers the names of speakers where they are wanted."""

    def __init__(self, source: Source, people: People) -> None:
        self._is_named = source.speakers == "names"
        self._names = dict(people)
        # A name that two people bear is nobody's.
        bearers = Counter(people.values())
        self._ids = {name: id for id, name in people.items() if bearers[name] == 1}
        self.count = 0

    def document(self, talk: _Talk) -> Document:
        self.count += 1
        messages = list(dict.fromkeys(talk.messages))
        if all(message.time is not None for message in messages):
            messages.sort(key=lambda message: message.time or 0.0)
        if self._is_named:
            self._names |= {it.speaker: it.name for it in messages if it.name}
        handles = {it.name or it.speaker: it.speaker for it in messages}
        handles |= {
            self._names[it.speaker]: it.speaker for it in messages if it.speaker in self._names
        }
        longest_first = sorted(map(re.escape, handles), key=len, reverse=True)
        mentions = re.compile(rf"{_MENTION.pattern}|(?<!\w)@({'|'.join(longest_first)})(?!\w)")

        def shown(match: re.Match[str]) -> str:
            return self._name(match[1]) if match[1] else f"@{self._name(handles[match[2]])}"

        utterances = [
            chat_layouts.Utterance(self._name(it.speaker), mentions.sub(shown, it.text).strip())
            for it in messages
        ]
        text, turns = chat_layouts.render(utterances)
        return Document(text, talk.index, talk.group, turns=turns, left_out=talk.bot_sentences)

    def _name(self, speaker: str) -> str:
        id = self._ids.get(speaker, speaker)
        return self._names.get(id, id) if self._is_named else pseudonym(id)
