"""Forums: dumps of Stack Exchange, topics of Discourse, and rows of posts by topic.

A question and its answers are one document, the best answer first: the accepted one, then by score.
Its turns are the question and that answer, which is what a model is tuned on:

    <row Id="6" PostTypeId="1" AcceptedAnswerId="9" Title="Rain?" Body="&lt;p&gt;Will it?" .../>
    <row Id="7" PostTypeId="2" ParentId="6" Score="4" Body="&lt;p&gt;No.&lt;/p&gt;" .../>
    <row Id="9" PostTypeId="2" ParentId="6" Score="1" Body="&lt;p&gt;Yes.&lt;/p&gt;" .../>

    → Rain?                         user: Rain? Will it?
      Vafera: Will it?              assistant: Yes.
      Gomibu: Yes.
      Larosi: No.

A topic of Discourse keeps the order of its posts, which are its turns.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from groundup.artifacts.document import Document, Reject, Turn
from groundup.collect.charset import decode, detect_encoding, repair_text
from groundup.collect.files.streams import (
    MAX_RECORD,
    DamagedError,
    Item,
    TooLongError,
    deadline,
)
from groundup.collect.readers.chat.chats import hide_speakers
from groundup.collect.readers.chat.conversations import conversation_documents
from groundup.collect.readers.forum.threads import Post, join_threads
from groundup.collect.readers.records.records import (
    JsonWindow,
    NumberedRecord,
    lower_keys,
    read_records,
)
from groundup.collect.readers.speakers import pseudonym
from groundup.collect.readers.web.html import MAX_HTML_BYTES, page_text
from groundup.recipe import Source

_QUESTION, _ANSWER = "1", "2"  # types of posts; others are tag wikis, elections and the like
_ATTRIBUTE = re.compile(r'\s([A-Za-z]+)\s*=\s*"([^"]*)"')
_TABLE = re.compile(rb"<(posts|comments|users|votes|tags|badges|posthistory|postlinks)\b", re.I)
# Items of lists begin with a dash. Code is escaped, so it holds no tags.
_ITEM = re.compile(r"<li(?:\s[^<>]*)?>\s*(?:<p>)?\s*", re.IGNORECASE)
# What a post of Discourse quotes of others, previews of links, captions of images and small print.
_QUOTED = re.compile(
    r'<aside class="(?:quote|onebox).*?</aside>|<div class="(?:meta|poll-info)">.*?</div>'
    r'|<span class="(?:filename|informations|mention-count)".*?</span>',
    re.DOTALL,
)
# Columns of posts: of Discourse and phpBB; MyBB, vBulletin, SMF, NodeBB; Flarum, Lemmy; Reddit.
_TOPIC_KEYS = tuple("topic_id thread_id id_topic threadid tid discussion_id link_id".split())
_BODY_KEYS = tuple("cooked raw post_text message pagetext body content text".split())
_AUTHOR_KEYS = tuple(
    "username author user poster_name author_name user_name poster postusername"
    " user_id poster_id author_id id_member userid uid creator_id".split()
)
# Of an author who is a record, too.
_NAME_KEYS = ("username", "name", "display_name", "login", "id")


def read_stackexchange(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the questions of Posts.xml with their answers; other tables hold no text of their own.

    Raises DamagedError after the posts before the damage.
    """
    table = _TABLE.search(item.head)
    if table is None or table[1].lower() != b"posts":
        name = table[1].decode() if table else "no table"
        yield Reject("no-text", 0, f"the {name} of a Stack Exchange dump; posts are in Posts.xml")
        return
    damage: list[DamagedError] = []
    for thread in join_threads(_stackexchange_posts(item, damage)):
        opening = min(thread, key=lambda post: post.place)
        if opening.reason:
            yield Reject(opening.reason, opening.record, opening.detail)
        elif opening.place:
            # Answers to a question that was deleted.
            detail = f"an answer to {opening.thread}, which is not in the file"
            yield from (Reject("no-question", post.record, detail) for post in thread)
        else:
            yield from _question_documents(opening, thread, item, source)
    if damage:
        raise damage[0]


def _stackexchange_posts(item: Item, damage: list[DamagedError]) -> Iterator[Post]:
    """Yield the rows of Posts.xml; damage of the file is added to `damage`."""
    try:
        for record, row in enumerate(_rows(item)):
            if row is None:
                detail = f"a row longer than {MAX_RECORD >> 20} MB"
                yield Post(f"#{record}", record, reason="too-large", detail=detail)
            else:
                yield _stackexchange_post(row, record)
    except DamagedError as error:
        damage.append(error)


def _rows(item: Item) -> Iterator[bytes | None]:
    """Yield what follows each `<row`, which no attribute can hold; None where that is too long."""
    pending, started, damage = b"", False, None
    while damage is None:
        try:
            chunk = item.stream.read1(1 << 20)
        except DamagedError as error:
            chunk, damage = b"", error
        rows = (pending + chunk).split(b"<row")
        # Before the first one is the head of the file, or the rest of a row that was too long.
        pending = rows.pop() if chunk else b""
        yield from rows if started else rows[1:]
        started = started or bool(rows)
        if len(pending) > MAX_RECORD:
            if started:
                yield None
            pending, started = pending[-3:], False
        if not chunk:
            break
    if damage is not None:
        raise damage


def _stackexchange_post(row: bytes, record: int) -> Post:
    try:
        attributes = _ATTRIBUTE.findall(decode(row))
    except DamagedError as damage:
        return Post(f"#{record}", record, reason=damage.reason, detail=damage.detail)
    values = {name: html.unescape(value) for name, value in attributes}
    sort, key = values.get("PostTypeId", ""), values.get("Id", "")
    body, title = values.get("Body", ""), values.get("Title", "")
    parent = values.get("ParentId", "") if sort == _ANSWER else key
    if not (sort and key and parent and "Body" in values):
        detail = "a row without the Id, the type, the question or the Body of a post"
        return Post(f"#{record}", record, reason="malformed", detail=detail)
    if len(body) > MAX_HTML_BYTES:
        return Post(f"#{record}", record, reason="too-large", detail=f"{len(body):,} characters")
    author = values.get("OwnerUserId") or values.get("OwnerDisplayName") or f"post {key}"
    score = values.get("Score", "")
    return Post(
        thread=parent,
        record=record,
        body=body,
        author=author,
        title=title,
        place=int(sort == _ANSWER),
        score=int(score) if re.fullmatch(r"-?\d{1,9}", score) else 0,
        key=key,
        accepted=values.get("AcceptedAnswerId", ""),
        license=values.get("ContentLicense", "CC BY-SA"),
    )


def _question_documents(
    question: Post, thread: list[Post], item: Item, source: Source
) -> Iterator[Document | Reject]:
    """Yield a question with its answers, and a rejection for each post that cannot be read."""

    def rank(post: Post) -> tuple[bool, bool, int, int]:
        return (post is not question, post.key != question.accepted, -post.score, post.record)

    spoken: list[tuple[Post, str]] = []
    for post in sorted(thread, key=rank):
        text = body_text(post)
        if isinstance(text, Reject):
            yield text
        elif post is question or text:
            spoken.append((post, text))
    if not spoken or spoken[0][0] is not question:
        detail = f"its question {question.key} cannot be read"
        yield from (Reject("no-question", post.record, detail) for post, _ in spoken)
        return
    asked = "\n\n".join(filter(None, (question.title, spoken[0][1])))
    if not asked:
        yield Reject("empty", question.record)
        return
    turns: list[Turn] = [{"role": "user", "content": asked}]
    # The voters say that an answer below zero is wrong.
    if len(spoken) > 1 and (spoken[1][0].score >= 0 or spoken[1][0].key == question.accepted):
        turns.append({"role": "assistant", "content": spoken[1][1]})
    license_name = max(post.license for post, _ in spoken)
    group = f"{item.origin}#{question.key}"
    yield Document(
        _written(question.title, spoken, source), question.record, group, license_name, turns=turns
    )


def _written(title: str, spoken: list[tuple[Post, str]], source: Source) -> str:
    """Return a thread as text: its title, then each post after the name of its author.

    A text of one author stands alone.
    """
    parts = [title] if title else []
    for post, text in spoken:
        name = f"{_speaker(post, source)}: " if len(spoken) > 1 else ""
        parts += [f"{name}{text}"] if text else []
    return "\n\n".join(parts)


def _speaker(post: Post, source: Source) -> str:
    return post.author if source.speakers == "names" else pseudonym(post.author)


def _without_names(spoken: list[tuple[Post, str]], source: Source) -> list[tuple[Post, str]]:
    """Return posts with pseudonyms where they mention each other's authors, as in `@ann`."""
    if source.speakers == "names":
        return spoken
    authors = {post.author.lower(): pseudonym(post.author) for post, _ in spoken}
    longest_first = "|".join(sorted(map(re.escape, authors), key=len, reverse=True))
    mention = re.compile(rf"(?<!\w)@({longest_first})(?!\w)", re.IGNORECASE)
    return [
        (post, mention.sub(lambda name: f"@{authors.get(name[1].lower(), name[1])}", text))
        for post, text in spoken
    ]


def body_text(post: Post) -> str | Reject:
    """Return the text of a post in HTML, its code as it is; or why it has none."""
    body = repair_text(post.body)
    if "<" not in body:
        return html.unescape(body).strip()
    try:
        with deadline():
            marked = _ITEM.sub("<li>- ", _QUOTED.sub("", body) if "class=" in body else body)
            return page_text(f"<div>{marked}</div>", all_tables=True)
    except TooLongError as error:
        return Reject("timeout", post.record, str(error))
    except DamagedError as error:
        return Reject(error.reason, post.record, error.detail)


def read_discourse(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the topic of a JSON file of Discourse: `post_stream.posts`, each with its HTML."""
    topic = JsonWindow(item.stream, detect_encoding(item.head)).value()
    yield from _topic_documents(topic, 0, item, source)


def is_topic(record: Any) -> bool:
    """Return whether a record is a topic of Discourse."""
    stream = record.get("post_stream") if isinstance(record, Mapping) else None
    return isinstance(stream, Mapping) and isinstance(stream.get("posts"), list)


def _topic_documents(
    topic: Any, record: int, item: Item, source: Source
) -> Iterator[Document | Reject]:
    if not is_topic(topic):
        rejected = isinstance(topic, Reject)
        yield topic if rejected else Reject("no-turns", record, "no topic of Discourse")
        return
    key, title = str(topic.get("id", record)), str(topic.get("title") or "")
    posts = [
        Post(key, record, str(row["cooked"]), str(row.get("username") or "someone"), title)
        for row in topic["post_stream"]["posts"]
        # Others are notices, such as that somebody closed the topic.
        if isinstance(row, Mapping) and row.get("cooked") and row.get("post_type", 1) == 1
    ]
    yield from thread_documents(posts, record, item, source)


def thread_documents(
    posts: list[Post], record: int, item: Item, source: Source
) -> Iterator[Document | Reject]:
    """Yield a thread in the order of its posts, which are its turns; its first title counts."""
    spoken: list[tuple[Post, str]] = []
    for post in posts:
        text = body_text(post)
        if isinstance(text, Reject):
            yield text
        elif text:
            spoken.append((post, text))
    if not spoken:
        yield Reject("empty", record, "a topic without a post that has text")
        return
    spoken = _without_names(spoken, source)
    title = next((post.title for post in posts if post.title), "")
    turns: list[Turn] = [
        {"role": _speaker(post, source).lower(), "content": text} for post, text in spoken
    ]
    turns[0]["content"] = "\n\n".join(filter(None, (title, turns[0]["content"])))
    group = f"{item.origin}#{posts[0].thread}"
    yield Document(_written(title, spoken, source), record, group, turns=turns)


def read_forum_records(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the topics that records hold: whole ones of Discourse, or rows of posts by topic.

    Other records are read as conversations.
    """
    rows = read_records(item)
    first = next(rows, None)
    if first is None:
        return
    rows = itertools.chain([first], rows)
    if is_topic(first[1]):
        for index, record in rows:
            yield from _topic_documents(record, index, item, source)
    elif is_post_row(first[1]):
        damage: list[DamagedError] = []
        for thread in join_threads(_row_posts(rows, damage)):
            opening = min(thread, key=lambda post: (post.place, post.record))
            if opening.reason:
                yield Reject(opening.reason, opening.record, opening.detail)
            else:
                ordered = sorted(thread, key=lambda post: (post.place, post.record))
                yield from thread_documents(ordered, opening.record, item, source)
        if damage:
            raise damage[0]
    else:
        yield from hide_speakers(lambda item, _: conversation_documents(rows, item))(item, source)


def is_post_row(record: Any) -> bool:
    """Return whether a record is one post of a topic: it has the topic's id and a body.

    A message of a data set of dialogues has a role, and is none.
    """
    keys = lower_keys(record).keys() if isinstance(record, Mapping) else set()
    return bool(keys & set(_TOPIC_KEYS)) and bool(keys & set(_BODY_KEYS)) and "role" not in keys


def _row_posts(rows: Iterator[NumberedRecord], damage: list[DamagedError]) -> Iterator[Post]:
    """Yield the posts of a table; damage of the file is added to `damage`."""
    try:
        for index, record in rows:
            if isinstance(record, Reject):
                yield Post(f"#{index}", index, reason=record.reason, detail=record.detail)
                continue
            values = lower_keys(record) if isinstance(record, Mapping) else {}
            topic = next(filter(None, map(values.get, _TOPIC_KEYS)), None)
            body = next(filter(None, map(values.get, _BODY_KEYS)), None)
            if topic is None or not isinstance(body, str):
                detail = "a row without the id of a topic, or without a body"
                yield Post(f"#{index}", index, reason="no-text", detail=detail)
                continue
            author = _author(values)
            title = values.get("topic_title") or values.get("title") or ""
            number = str(values.get("post_number") or "0")
            place = int(number) if re.fullmatch(r"\d{1,9}", number) else 0
            yield Post(f"topic {topic}", index, body, author, str(title), place)
    except DamagedError as error:
        damage.append(error)


def _author(row: Mapping[str, Any]) -> str:
    """Return who wrote a post, by name or by number."""
    author = next(filter(None, map(row.get, _AUTHOR_KEYS)), "someone")
    if isinstance(author, Mapping):
        author = next(filter(None, map(lower_keys(author).get, _NAME_KEYS)), "someone")
    return str(author)
