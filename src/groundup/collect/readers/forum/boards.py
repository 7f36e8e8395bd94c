"""Boards and sites whose databases are known: which tables hold posts, and who may read them.

    phpbb_posts(post_id, topic_id, poster_id, post_text, …)   →  posts of threads
    phpbb_topics(topic_id, topic_title, …)                     →  their titles
    wp_posts(ID, post_title, post_content, post_status, …)     →  pages

The layouts are in `boards.toml`. What is not public is listed: deleted and unapproved posts,
drafts, private messages, tables of users.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from groundup.artifacts.document import Document, Reject
from groundup.collect import by_word, read_table
from groundup.collect.charset import repair_text
from groundup.collect.files.streams import Item
from groundup.collect.readers.forum.forums import body_text
from groundup.collect.readers.forum.post_markup import MARKUPS
from groundup.collect.readers.forum.threads import Post
from groundup.collect.readers.records.columns import value_text, with_title
from groundup.collect.readers.records.records import lower_keys
from groundup.collect.readers.web.html import MAX_HTML_BYTES

_NUMBER = re.compile(r"\d{1,12}")
_REPLY = re.compile(r"\A(?:Re|Aw|Sv|Antw):\s*", re.IGNORECASE)


@dataclass(frozen=True)
class _Layout:
    """The columns of the tables of a board, and what those that everybody may read hold."""

    name: str
    posts: Mapping[str, str]
    topics: Mapping[str, str]
    shown: Mapping[str, frozenset[str]]
    markup: Callable[[str], str]


@cache
def _tables() -> tuple[list[_Layout], dict[str, str]]:
    """Return the layouts, and what tables that are not public hold by their names."""
    table = read_table("readers/forum/boards.toml")
    private = by_word(table.pop("private"))
    layouts = [
        _Layout(
            name,
            board["posts"],
            board.get("topics", {}),
            {key: frozenset(words.split() or [""]) for key, words in board["shown"].items()},
            MARKUPS[board["markup"]],
        )
        for name, board in table.items()
    ]
    return layouts, private


def private_table(table: str) -> str:
    """Return what a table holds that is not for everybody, by the end of its name; or ""."""
    _, private = _tables()
    name = table.lower()
    held = (what for word, what in private.items() if name == word or name.endswith(f"_{word}"))
    return next(held, "")


def table_prefix(table: str) -> str:
    """Return what the names of all tables of a board begin with: `phpbb` of `phpbb_posts`."""
    return table.lower().rpartition("_")[0]


@dataclass(frozen=True)
class BoardTable:
    """A table of posts, of topics or of pages: gives what a row of it is."""

    layout: _Layout
    prefix: str
    is_topics: bool
    item: Item

    def __call__(self, number: int, row: Mapping[str, Any]) -> Document | Post | Reject:
        """Return the post or the page that a row holds, or the title of a topic.

        A topic that is not public is a Post with a reason, so that its posts go with it.
        """
        values = lower_keys(row)
        role = self.layout.topics if self.is_topics else self.layout.posts
        given = {key: _first(values, names) for key, names in role.items()}
        hidden = self._hidden(values)
        title = html.unescape(given.get("title", ""))
        if "thread" not in role:
            return Reject("not-public", number, hidden) if hidden else self._page(number, given)
        # Two boards in one database differ by the prefix of their tables.
        thread = f"{self.layout.name} {self.prefix} {given['thread']}".replace("  ", " ")
        if self.is_topics:
            reason = "not-public" if hidden else ""
            return Post(thread, number, title=title, place=-1, reason=reason, detail=hidden)
        body = given["body"]
        if hidden or not body.strip():
            return Reject("not-public" if hidden else "empty", number, hidden)
        if len(body) > MAX_HTML_BYTES:
            return Reject("too-large", number, f"a post of {len(body):,} characters")
        order = given.get("order", "")
        return Post(
            thread,
            number,
            self.layout.markup(body),
            given["author"] or "someone",
            _REPLY.sub("", title),
            int(order) if _NUMBER.fullmatch(order) else 0,
        )

    def _hidden(self, values: Mapping[str, Any]) -> str:
        """Return why a row is not one that everybody may read; "" if it is."""
        for name, shown in self.layout.shown.items():
            if name in values and (value := _first(values, name).lower()) not in shown:
                return f"its {name} is {value or 'empty'}"
        return ""

    def _page(self, number: int, given: Mapping[str, str]) -> Document | Reject:
        if len(given["body"]) > MAX_HTML_BYTES:
            return Reject("too-large", number, f"a page of {len(given['body']):,} characters")
        text = body_text(Post("", number, self.layout.markup(given["body"])))
        if isinstance(text, Reject):
            return text
        if not text:
            return Reject("empty", number, given["title"])
        group = f"{self.item.origin}#{given['key']}"
        return Document(with_title(text, html.unescape(given["title"])), number, group)


def _first(values: Mapping[str, Any], names: str) -> str:
    """Return the first text that is not blank in columns; "" without one."""
    texts = (repair_text(value_text(values.get(name)) or "").strip() for name in names.split())
    return next(filter(None, texts), "")


def find_board(table: str, columns: Sequence[str], item: Item) -> BoardTable | None:
    """Return what reads a table of a board that is known, by its columns; None for any other."""
    layouts, _ = _tables()
    known = {name.lower() for name in columns}
    for layout in layouts:
        for role in filter(None, (layout.posts, layout.topics)):
            wanted = {name for key, name in role.items() if key != "author"}
            if wanted <= known and ("author" not in role or known & set(role["author"].split())):
                return BoardTable(layout, table_prefix(table), role is layout.topics, item)
    return None
