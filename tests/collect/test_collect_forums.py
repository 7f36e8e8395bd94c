"""Forums: questions with their answers, topics, and threads that do not fit into memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from pathlib import Path

import pytest
from tests.helpers.items import item_from_bytes

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.formats import detect_format
from groundup.collect.readers.forum import threads
from groundup.collect.readers.forum.threads import Post, join_threads
from groundup.collect.readers.registry import read_item
from groundup.collect.readers.speakers import pseudonym
from groundup.recipe import Source

Read = Callable[..., list[Document | Reject]]
A, B, C = (pseudonym(name) for name in ("1", "2", "3"))


def post(key: int, sort: int, body: str, owner: int = 1, **more: object) -> str:
    values = {"Id": key, "PostTypeId": sort, "Body": body, "OwnerUserId": owner} | more
    return "<row " + " ".join(f'{k}="{escape(str(v))}"' for k, v in values.items()) + " />"


def dump(*rows: str, table: str = "posts") -> str:
    lines = "\n  ".join(rows)
    return f'\ufeff<?xml version="1.0" encoding="utf-8"?>\n<{table}>\n  {lines}\n</{table}>'


QUESTION = post(6, 1, "<p>Will it <em>rain</em>?</p>", Title="Rain & snow?", AcceptedAnswerId=9)
ANSWERS = (
    post(7, 2, "<p>No.</p>", 2, ParentId=6, Score=4),
    post(8, 2, "<p>Never.</p>", 3, ParentId=6, Score=-1),
    post(9, 2, "<p>Yes:</p>\n<pre><code>if x &lt; 1:\n    rain()\n</code></pre>", 3, ParentId=6),
)


def test_a_question_with_its_answers_the_accepted_one_first(read: Read) -> None:
    """Code stays as it is; the turns are the question and the best answer."""
    code = "Yes:\n\nif x < 1:\n    rain()"
    (document,) = read("forum", "Posts.xml", dump(QUESTION, *ANSWERS))
    assert isinstance(document, Document)
    assert document.text == (
        f"Rain & snow?\n\n{A}: Will it rain?\n\n{C}: {code}\n\n{B}: No.\n\n{C}: Never."
    )
    assert document.turns == [
        {"role": "user", "content": "Rain & snow?\n\nWill it rain?"},
        {"role": "assistant", "content": code},
    ]
    assert (document.record, document.group, document.license) == (0, "Posts.xml#6", "CC BY-SA")
    (named,) = read("forum", "Posts.xml", dump(QUESTION, *ANSWERS), speakers="names")
    assert isinstance(named, Document)
    assert "\n\n1: Will it rain?" in named.text


def test_an_answer_below_zero_is_not_learned_and_a_lone_question_has_no_name(read: Read) -> None:
    (document,) = read("forum", "Posts.xml", dump(QUESTION, ANSWERS[1]))
    assert isinstance(document, Document)
    assert document.turns is not None
    assert [turn["role"] for turn in document.turns] == ["user"]
    (alone,) = read("forum", "Posts.xml", dump(QUESTION))
    assert isinstance(alone, Document)
    assert alone.text == "Rain & snow?\n\nWill it rain?"


def test_items_of_lists_formulas_and_other_posts(read: Read) -> None:
    """A tag's wiki is a document of its own."""
    body = "<p>Try</p><ul><li><p>one</p></li><li>two</li></ul><p>as $x^2$ &amp;lt; 3</p>"
    documents = read("forum", "Posts.xml", dump(post(1, 1, body), post(2, 5, "<p>A tag.</p>")))
    told = [it.text for it in documents if isinstance(it, Document)]
    assert told == ["Try\n\n- one\n- two\n\nas $x^2$ &lt; 3", "A tag."]


def test_cells_of_a_table_are_told_apart(read: Read) -> None:
    table = "<table><tr><th>Tree</th><th>Age</th></tr><tr><td>Oak</td>\n<td>40</td></tr></table>"
    (document,) = read("forum", "Posts.xml", dump(post(6, 1, table, Title="Trees")))
    assert isinstance(document, Document) and document.text == "Trees\n\nTree | Age\nOak | 40"


def test_what_is_no_question_is_listed(read: Read) -> None:
    """An answer alone, a row without a body, an empty one; a table without texts of its own."""
    orphan = post(7, 2, "<p>No.</p>", ParentId=5)
    rows = dump(orphan, '<row Id="3" PostTypeId="1" />', post(4, 1, ""), QUESTION)
    results = read("forum", "Posts.xml", rows)
    told = {it.record: it.reason for it in results if isinstance(it, Reject)}
    assert told == {0: "no-question", 1: "malformed", 2: "empty"}
    assert [it.record for it in results if isinstance(it, Document)] == [3]
    comments = dump('<row Id="1" PostId="6" Text="So what?" />', table="comments")
    (reject,) = read("forum", "Comments.xml", comments)
    assert reject == Reject(
        "no-text", 0, "the comments of a Stack Exchange dump; posts are in Posts.xml"
    )


def test_a_dump_that_ends_early_keeps_what_came_before(read: Read) -> None:
    whole = dump(QUESTION, *ANSWERS)
    results = read("forum", "Posts.xml", whole[: whole.index("Never")])
    assert sum(isinstance(it, Document) for it in results) == 1
    assert [it.reason for it in results if isinstance(it, Reject)] == ["malformed"]


@pytest.mark.parametrize("held", [8_000, 1 << 20])
def test_threads_are_joined_beyond_memory(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that come long after their questions find them, also through files."""
    monkeypatch.setattr(threads, "MAX_HELD", held)
    monkeypatch.setattr(threads, "PARTS", 8)
    posts = [Post(str(n % 50), n, f"body {n}", key=str(n)) for n in range(200)]
    joined = sorted(join_threads(iter(posts)), key=lambda thread: int(thread[0].thread))
    assert joined == [[post for post in posts if post.thread == str(n)] for n in range(50)]


def test_of_a_thread_that_is_too_long_the_rest_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MAX_HELD", 4_000)
    joined = list(join_threads(Post("one", n, "x" * 400) for n in range(9)))
    refused = [thread[0].record for thread in joined if thread[0].reason == "too-large"]
    kept = [post.record for thread in joined if not thread[0].reason for post in thread]
    assert (refused, kept) == ([3, 4, 5, 6, 7, 8], [0, 1, 2])


TOPIC = {
    "post_stream": {
        "posts": [
            {
                "username": "1",
                "post_type": 1,
                "cooked": '<p>Is it <img class="emoji" alt=":rain:"> wet?</p>',
            },
            {"username": "system", "post_type": 3, "cooked": "<p>closed</p>"},
            {
                "username": "2",
                "post_type": 1,
                "cooked": '<aside class="quote no-group"><div>1:</div><p>Is it wet?</p></aside>'
                '<p>It is, <a class="mention">@1</a>.</p>'
                '<aside class="onebox"><h3>Rain</h3></aside>',
            },
        ],
        "stream": [1, 2, 3],
    },
    "id": 77,
    "title": "Wet",
}


def test_topics_of_discourse_keep_their_order(read: Read) -> None:
    """Notices and quoted posts are left out; one topic a file, or one a line."""
    (document,) = read("forum", "77.json", json.dumps(TOPIC, indent=1))
    assert isinstance(document, Document)
    assert document.text == f"Wet\n\n{A}: Is it wet?\n\n{B}: It is, @{A}."
    assert document.turns == [
        {"role": A.lower(), "content": "Wet\n\nIs it wet?"},
        {"role": B.lower(), "content": f"It is, @{A}."},
    ]
    assert document.group == "77.json#77"
    lines = f"{json.dumps(TOPIC)}\n{json.dumps(TOPIC | {'id': 78})}\n"
    both = read("forum", "topics.jsonl", lines)
    assert [it.group for it in both if isinstance(it, Document)] == [
        "topics.jsonl#77",
        "topics.jsonl#78",
    ]


def test_rows_of_posts_are_joined_by_topic(read: Read) -> None:
    rows = "topic_id,post_number,username,topic_title,raw\n5,2,2,Wet,It is.\n6,1,1,Dry,Is it dry?\n"
    results = read("forum", "posts.csv", f"{rows}5,1,1,Wet,Is it wet?\n7,1,1,,\n")
    told = [it.text if isinstance(it, Document) else it.reason for it in results]
    assert told == [f"Wet\n\n{A}: Is it wet?\n\n{B}: It is.", "Dry\n\nIs it dry?", "no-text"]


@pytest.mark.parametrize(
    "row",
    [
        {"tid": 5, "uid": 1, "username": "1", "subject": "", "message": "@2 Is it wet?"},
        {"threadid": "5", "username": "1", "pagetext": "@2 Is it wet?"},
        {"id_topic": 5, "poster_name": "1", "id_member": 9, "body": "@2 Is it wet?"},
        {"discussion_id": 5, "user_id": 1, "content": "<p>@2 Is it wet?</p>"},
        {"link_id": "t3_5", "author": "1", "body": "@2 Is it wet?"},
        {"topic_id": 5, "author": {"id": 7, "name": "1"}, "text": "@2 Is it wet?"},
    ],
)
def test_rows_of_other_boards_hide_their_authors(row: dict[str, object], read: Read) -> None:
    """Where they speak, and where others mention them."""
    last = list(row)[-1]
    author = next(key for key in ("username", "poster_name", "author", "user_id") if key in row)
    rows = [row, row | {author: "2", last: "It is."}]
    (document,) = read("forum", "posts.jsonl", "\n".join(map(json.dumps, rows)))
    assert isinstance(document, Document)
    assert document.text == f"{A}: @{B} Is it wet?\n\n{B}: It is."
    named = read("forum", "posts.jsonl", "\n".join(map(json.dumps, rows)), speakers="names")
    assert [it.text for it in named if isinstance(it, Document)] == [
        "1: @2 Is it wet?\n\n2: It is."
    ]


def test_rows_of_no_topic_hide_their_authors(read: Read) -> None:
    """They are read as conversations, a row each or by thread."""
    rows = [
        {"thread": 5, "author": "1", "text": "Wet?"},
        {"thread": 5, "author": "2", "text": "Yes."},
    ]
    (document,) = read("forum", "posts.jsonl", "\n".join(map(json.dumps, rows)))
    assert isinstance(document, Document)
    assert document.text == f"{A}: Wet?\n{B}: Yes."


def test_formats_of_forums() -> None:
    assert detect_format("a.xml", dump(QUESTION).encode()) == "stackexchange"
    damaged = dump(QUESTION, "<mediawiki>")
    assert detect_format("a.xml", damaged.encode()) == "stackexchange"
    assert detect_format("a.xml", b"<posts><post>other</post></posts>") == "xml"
    assert detect_format("5.json", json.dumps(TOPIC).encode()) == "discourse"
    heads = ("-- MySQL dump 10.13  Distrib 8.0", "--\n-- PostgreSQL database dump\n--\n")
    assert {detect_format("a.sql", head.encode()) for head in heads} == {"sql"}


def test_a_real_dump(real_data: Path) -> None:
    """A question is a document; nothing of the markup is left."""
    path = real_data / "wild/stackexchange/datascience-meta/Posts.xml"
    item = item_from_bytes(path.read_bytes(), "Posts.xml")
    results = list(read_item(item, Source(path="x", kind="forum")))
    documents = [it for it in results if isinstance(it, Document)]
    assert (len(documents), len(results)) == (282, 283)
    assert not [it for it in documents if "</" in it.text or "&gt;" in it.text]
    assert {it.license for it in documents} == {"CC BY-SA 3.0", "CC BY-SA 4.0"}
