"""Exports of chats: what people typed, by thread or day, and nobody's name or time."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from tests.helpers.items import item_from_bytes

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.formats import detect_format
from groundup.collect.readers.chat import messages as chat_messages
from groundup.collect.readers.chat.chats import is_chat
from groundup.collect.readers.chat.logs import is_chat_log
from groundup.collect.readers.registry import read_item
from groundup.collect.readers.speakers import pseudonym
from groundup.recipe import Source
from groundup.tune.data import to_chat

START = 1_700_000_000  # in the evening of a day, in UTC
NAMED: Any = {"speakers": "names"}


def read(data: Any, name: str = "a/x.json", kind: str = "chat", **options: Any) -> list[Any]:
    data = data if isinstance(data, (str, bytes)) else json.dumps(data)
    data = data.encode() if isinstance(data, str) else data
    source = Source(path="x", kind=kind, **options)
    return list(read_item(item_from_bytes(data, name), source))


def slack(user: str, text: str, time: float = 0, **more: Any) -> dict[str, Any]:
    profile = {"real_name": user.title()}
    message = {"type": "message", "user": user, "text": text, "ts": f"{START + time:.6f}"}
    return message | {"user_profile": profile} | more


def discord(user: str, text: str, **more: Any) -> dict[str, Any]:
    author = {"id": f"10{len(user)}", "name": user, "nickname": user.title(), "isBot": False}
    time = "2023-01-06T14:26:58.031+00:00"
    message = {"type": "Default", "timestamp": time, "content": text, "author": author}
    return message | {"attachments": [], "mentions": []} | more


def telegram(user: str, text: Any, **more: Any) -> dict[str, Any]:
    message = {"type": "message", "date": "2020-08-01T22:01:49", "from": user.title()}
    return message | {"from_id": user, "text": text} | more


def teams(user: str, html: str, **more: Any) -> dict[str, Any]:
    sender = {"user": {"id": user, "displayName": user.title()}}
    body = {"contentType": "html", "content": html}
    created = "2024-01-01T10:00:00Z"
    message = {"messageType": "message", "createdDateTime": created, "from": sender, "body": body}
    return message | {"chatId": "19:general", "mentions": []} | more


ENVELOPE = {"source": "ann", "sourceName": "Ann", "timestamp": START * 1000}
EMOTE = {"msgtype": "m.text", "body": "Hi @bo:b.org", "m.relates_to": {"m.in_reply_to": {}}}
EDIT = {"msgtype": "m.text", "body": "* Hi", "m.relates_to": {"rel_type": "m.replace"}}


def matrix(user: str, content: Any, kind: str = "m.room.message") -> dict[str, Any]:
    return {"type": kind, "sender": f"@{user}:b.org", "content": content, "origin_server_ts": START}


# Each says: Ann: "Hi @Bo", Bo: "Hello, a & b"; and what else there is leaves no word.
EXPORTS: dict[str, Any] = {
    "slack": [
        slack("ann", "<@ann> has joined the channel", subtype="channel_join"),
        slack("ann", "*Hi* <@bo>"),
        slack("bo", ":party_parrot: Hello, _a_ &amp; <http://b.org|b>", 60),
        slack("robot", "Build passed.", 70, subtype="bot_message", bot_id="B1"),
    ],
    "slackdump": {
        "channel_id": "C012345678",
        "messages": [
            slack("ann", "Hi <@bo>", slackdump_thread_replies=[slack("bo", "Hello, a &amp; b", 9)])
        ],
    },
    "discord": {
        "guild": {"id": "1", "name": "g"},
        "channel": {"id": "12345678901", "type": "GuildTextChat", "name": "general"},
        "messages": [
            discord("ann", "", type="GuildMemberJoin"),
            discord("ann", "**Hi** @Bo", mentions=[{"id": "102", "name": "bo", "nickname": "Bo"}]),
            discord("bo", "Hello, a & b <:parrot:12345>"),
            discord("robot", "Build passed.", author={"id": "5", "name": "robot", "isBot": True}),
        ],
        "messageCount": 4,
    },
    "telegram": {
        "about": "Here is the data you requested.",
        "personal_information": {"first_name": "Ann"},
        "chats": {
            "about": "Chats",
            "list": [
                {
                    "name": "Bo",
                    "type": "personal_chat",
                    "id": 4812345678,
                    "messages": [
                        {"type": "service", "date": "2020-08-01T22:01:49", "action": "call"}
                        | {"text": ""},
                        telegram("ann", ["Hi ", {"type": "mention", "text": "@bo"}]),
                        telegram("bo", [{"type": "bold", "text": "Hello"}, ", a & b"]),
                        telegram("bo", "", photo="photos/1.jpg"),
                    ],
                }
            ],
        },
    },
    "signal-cli": "".join(
        json.dumps({"envelope": envelope, "account": "ann"}) + "\n"
        for envelope in (
            ENVELOPE
            | {
                "syncMessage": {
                    "sentMessage": {
                        "destination": "bo",
                        "message": "Hi \ufffc",
                        "mentions": [{"uuid": "bo", "name": "x"}],
                    }
                }
            },
            ENVELOPE | {"receiptMessage": {"isDelivery": True}},
            ENVELOPE
            | {"source": "bo", "sourceName": "Bo", "dataMessage": {"message": "Hello, a & b"}},
        )
    ),
    "signal-export": "".join(
        json.dumps(
            {"date": "2024-01-01T10:00:00", "sender": sender, "body": body}
            | {"quote": "", "sticker": "", "reactions": [], "attachments": []}
        )
        + "\n"
        for sender, body in (("Ann", "Hi @Bo"), ("Bo", "Hello, a & b"), ("Bo", ""))
    ),
    "matrix": {
        "room_name": "A room of b.org",
        "messages": [
            matrix("ann", {"membership": "join"}, "m.room.member"),
            matrix("ann", EMOTE | {"body": "> <@bo:b.org> before\n\nHi @bo:b.org"}),
            matrix("ann", EDIT),
            matrix("bo", {"msgtype": "m.text", "body": "Hello, a & b"}),
            matrix("bo", {"msgtype": "m.image", "body": "cat.jpg"}),
            matrix("bo", {}),
        ],
    },
    "zulip": {
        "zerver_message": [
            {"sender": 7, "sender_full_name": "Ann", "recipient": 3, "subject": "t"}
            | {"content": "Hi @**Bo|8**", "date_sent": START},
            {"sender": 8, "sender_full_name": "Bo", "recipient": 3, "subject": "t"}
            | {"content": "Hello, a & b", "date_sent": START + 1},
        ],
        "zerver_usermessage": [{"id": 1}],
    },
    "teams": {
        "value": [
            teams("ann", '<p>Hi <at id="0">Bo</at></p>')
            | {"mentions": [{"id": 0, "mentioned": {"user": {"id": "bo", "displayName": "Bo"}}}]},
            teams("bo", "<div>Hello, <b>a</b> &amp; b</div>"),
            teams("bo", "<p>gone</p>", deletedDateTime="2024-01-02T10:00:00Z"),
            teams("bo", "<systemEventMessage/>", messageType="systemEventMessage"),
        ]
    },
    "xml": "<slack><team_domain>t</team_domain><channel_name>c</channel_name>"
    "<message conversation_id='1'><ts>2018-01-01T10:00:00</ts><user>Ann</user>"
    "<text>Hi &lt;@Bo&gt;</text></message><message conversation_id='1'>"
    "<ts>2018-01-01T10:00:01</ts><user>Bo</user><text>Hello, a &amp;amp; b</text></message>"
    "</slack>",
    "discord csv": "AuthorID,Author,Date,Content,Attachments,Reactions\n"
    '101,Ann,2023-01-06T14:26:58.031+00:00,Hi @Bo,,\n102,Bo,,"Hello, a & b",,👍 (1)\n',
    "discord text": "=====\nGuild: g\nChannel: c\n=====\n\n[06-Jan-23 04:11 PM] Ann\nHi @Bo\n\n"
    "{Reactions}\n👍 (1)\n\n[06-Jan-23 04:12 PM] Bo\nHello, a & b\n\n{Attachments}\n"
    "https://cdn.org/1.png\n\n=====\nExported 2 message(s)\n=====\n",
    "whatsapp": "[24.12.19, 12:23:05] Ann: \u200eMessages and calls are end-to-end encrypted.\n"
    "[24.12.19, 12:23:05] Ann: Hi @\u2068Bo\u2069\r\n\u200e[24.12.19, 12:24:05] Bo: \u200eimage"
    " omitted\n[24.12.19, 12:24:06] Bo: Hello, a & b \u200e<This message was edited>\n",
    "signal text": "[2019-12-24, 12:23] Ann: Hi @Bo\n[2019-12-24, 12:24] Bo: Hello, a & b\n"
    "(- Ann: 👍 -)\n",
}


@pytest.mark.parametrize("kind", ["chat", "conversations", "tuning", "text"])
@pytest.mark.parametrize("layout", EXPORTS)
def test_every_layout_gives_what_people_typed(layout: str, kind: str) -> None:
    suffix = {"discord csv": "csv", "xml": "xml", "signal-cli": "jsonl", "signal-export": "jsonl"}
    is_text = "text" in layout or layout == "whatsapp"
    name = f"a/x.{'txt' if is_text else suffix.get(layout, 'json')}"
    (document,) = read(EXPORTS[layout], name, kind, **NAMED)
    assert document.text.lower().splitlines() == ["ann: hi @bo", "bo: hello, a & b"]
    (hidden,) = read(EXPORTS[layout], name, kind)
    assert "bo" not in hidden.text.lower().split()
    (first, second) = (turn["role"] for turn in hidden.turns)
    assert hidden.turns[0]["content"] == f"Hi @{second.title()}"
    assert [turn["role"] for turn in to_chat(hidden.turns)] == ["user", "assistant"]
    assert first != second


def test_a_day_ends_where_people_leave_and_a_short_one_goes_on() -> None:
    """A talk that goes on past midnight stays whole, and so does one of two messages a day."""
    midnight = 1_700_006_400 - START
    times = [midnight - 3000, midnight - 1000, midnight + 1000, midnight + 2000]
    talk = [slack("ann", f"Line {n}.", time) for n, time in enumerate([*times, *times[2:]])]
    late = [slack("bo", "Good morning.", midnight + 40_000)]
    later = [slack("bo", "Is anybody here?", midnight + 8 * 86_400)]
    documents = read([*talk, *late, *later])
    assert [len(document.turns) for document in documents] == [6, 1, 1]
    assert [document.record for document in documents] == [0, 6, 7]
    short = read([*talk[:2], *late])
    assert [len(document.turns) for document in short] == [3]
    assert len(read([slack("ann", "No.", n) for n in range(chat_messages.LONGEST + 5)])) == 2


def test_replies_are_one_document_in_the_group_of_their_channel() -> None:
    thread = {"thread_ts": f"{START}.000000"}
    talk = [
        slack("ann", "Who has a key?", 0, **thread),
        slack("cy", "Lunch?", 1),
        slack("bo", "I have.", 9 * 86_400, **thread),
    ]
    first, second = read(talk, "export.zip!/general/2023-11-14.json", **NAMED)
    assert first.text == "Ann: Who has a key?\nBo: I have."
    assert second.text == "Cy: Lunch?"
    assert first.group == f"export.zip!/general#{START}.000000"
    assert second.group == f"export.zip!/general#{START // 86_400 // 30}"
    newest_first = read(talk[::-1], "export.zip!/general/2023-11-14.json", **NAMED)
    assert sorted(it.text for it in newest_first) == [first.text, second.text]


def test_a_chat_of_months_has_a_group_for_each() -> None:
    """So a part of a single channel can be held out, and no talk stands on both sides."""
    year = [slack("ann", f"Line {n}.", n * 86_400) for n in range(0, 365, 2)]
    groups = [document.group for document in read(year)]
    assert len(set(groups)) == 13
    assert groups == sorted(groups)
    undated = [telegram("ann", "Hi", date="?")]
    assert read(undated)[0].group == "a"


def test_messages_that_are_alike_are_kept_if_the_platform_tells_them_apart() -> None:
    twice = [telegram("ann", "Yes.", id=1), telegram("ann", "Yes.", id=2)]
    assert [len(document.turns) for document in read([*twice, twice[0]])] == [2]


def test_what_people_quote_in_zulip_is_cut_and_html_becomes_text() -> None:
    quote = "@_**Ann|7** [said](https://c.org/near/5):\n```quote\nIs it?\n```\nYes."
    html = '<p><span class="user-mention" data-user-id="7">@Ann</span> &amp; <em>all</em></p>'
    talk = [
        {"sender_id": 7, "sender_full_name": "Ann", "subject": "t", "content": "Is it?"}
        | {"timestamp": START},
        {"sender_id": 8, "sender_full_name": "Bo", "subject": "t", "content": quote}
        | {"timestamp": START + 1},
        {"sender_id": 8, "sender_full_name": "Bo", "subject": "t", "content": html}
        | {"timestamp": START + 2, "content_type": "text/html"},
    ]
    (document,) = read({"messages": talk}, **NAMED)
    assert document.text == "Ann: Is it?\nBo: Yes.\nBo: @Ann & all"
    (realm,) = read({"zerver_realm": [{"id": 1}], "zerver_userprofile": []})
    assert realm.reason == "metadata"


def test_what_programs_add_to_messages_is_no_text() -> None:
    """Addresses of mentions and files, quotes of what is answered, and names of emoji."""
    room = "https://matrix.to/#/@bo:b.org"
    asked, said = (
        {"msgtype": "m.text", "body": text} for text in (f"Is [Bo]({room}) or {room} in?", "Yes")
    )
    talk = [matrix("ann", asked), matrix("bo", said)]
    (document,) = read({"room_name": "r", "messages": talk}, **NAMED)
    assert document.text == "ann: Is @bo or @bo in?\nbo: Yes"
    sent = {"sender_id": 7, "sender_full_name": "Ann", "subject": "t", "timestamp": START}
    text = "/me sees [notes](/user_uploads/2/a.txt) at <time:2024-01-01>, [](/user_uploads/2/b.png)"
    (document,) = read({"messages": [sent | {"content": text}]}, **NAMED)
    assert document.text == "Ann: sees notes at 2024-01-01,"
    reply = '<blockquote itemtype="http://schema.skype.com/Reply"><p>Is it?</p></blockquote>'
    smile = '<emoji id="smile" alt="🙂" title="Smile"></emoji>'
    (document,) = read({"value": [teams("bo", f"{reply}<p>Yes {smile}</p>")]}, **NAMED)
    assert document.text == "Bo: Yes 🙂"


def test_replies_inside_a_message_of_teams_are_its_thread() -> None:
    channel = {"channelIdentity": {"teamId": "t", "channelId": "19:c"}, "chatId": None}
    reply = teams("bo", "<p>Fine.</p>", id="2", replyToId="1", **channel)
    post = teams("ann", "<p>Is it?</p>", id="1", replies=[reply], **channel)
    (document,) = read({"value": [post]}, **NAMED)
    assert (document.text, document.group) == ("Ann: Is it?\nBo: Fine.", "a#19:c#1")


def test_code_and_words_with_marks_stay_as_they_are() -> None:
    typed = "`*a* :b:` a_b_c 2*3*4 std::vector::size 10:30:45 __init__ :+1::skin-tone-2:"
    (document,) = read([slack("ann", typed)], **NAMED)
    assert document.text == "Ann: " + typed.replace(":+1::skin-tone-2:", "\N{THUMBS UP SIGN}")


def test_what_slack_says_of_its_users_is_listed_as_that() -> None:
    users = [{"id": "U1", "team_id": "T1", "name": "ann", "profile": {"real_name": "Ann"}}]
    channels = [{"id": "C1", "created": 1, "name": "general", "creator": "U1", "members": []}]
    assert [it.reason for it in read(users) + read(channels)] == ["metadata"] * 2
    # A file of slackdump's.
    assert [it.reason for it in read({"t": 3, "ts": 1, "u": users})] == ["metadata"]
    (nothing,) = read([slack("robot", "Done.", subtype="bot_message")])
    assert (nothing.reason, nothing.detail) == ("empty", "no message that a person typed")


def test_sentences_of_bots_are_counted_as_left_out() -> None:
    bot = slack("robot", "Build passed. All is well.", 1, bot_id="B1")
    (document,) = read([slack("ann", "Hi"), bot])
    assert document.left_out == 2


def test_a_damaged_message_costs_itself_and_a_cut_file_what_is_lost() -> None:
    whole = json.dumps([slack("ann", f"Line {n}.", n) for n in range(3)])
    broken = whole.replace('"Line 1."', '"Line 1." x')
    reject, document = read(broken)
    assert (reject.reason, reject.record) == ("malformed", 1)
    assert [turn["content"] for turn in document.turns] == ["Line 0.", "Line 2."]
    document, reject = read(whole[:-40])
    assert [turn["content"] for turn in document.turns] == ["Line 0.", "Line 1."]
    assert isinstance(reject, Reject) and reject.reason == "truncated"
    results = read([slack("ann", "Hi"), {"other": 1}, "text"])
    assert [it.reason for it in results if isinstance(it, Reject)] == ["no-turns"] * 2


LOCALES = {
    "12/31/19, 11:59\u202fPM - Ann: Hi\n1/1/20, 12:01 AM - Bo: You": (2020, 1, 1, 0, 1),
    "31/12/2019, 23:59 - Ann: Hi\n01/02/2020, 00:01 - Bo: You": (2020, 2, 1, 0, 1),
    "[01.02.20, 09:00:00] Ann: Hi\n[03.01.20, 09:00:00] Bo: You": (2020, 3, 1, 9, 0),
    "[01/02/20, 9:00:00 a. m.] Ann: Hi\n[01/02/20, 9:00:01 p. m.] Bo: You": (2020, 2, 1, 21, 0),
    "2019/12/31 下午11:59 - Ann: Hi\n2020/1/2 上午12:01 - Bo: You": (2020, 1, 2, 0, 1),
    "\u200e[2020-01-01, 10:00] Ann: Hi\n[2020-01-02 10:00] Bo: You": (2020, 1, 2, 10, 0),
}


@pytest.mark.parametrize("log", LOCALES)
def test_the_dates_of_whatsapp_are_read_in_the_order_of_their_file(
    log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Day and month: no month is over 12, else time goes on."""
    times: list[float | None] = []

    def note(talk: Any, message: chat_messages.Posting) -> bool:
        times.append(message.time)
        return False

    monkeypatch.setattr(chat_messages._Talk, "ends_before", note)
    (document,) = read(log, "chat.txt", **NAMED)
    assert document.text == "Ann: Hi\nBo: You"
    assert times == [datetime(*LOCALES[log], tzinfo=UTC).timestamp()]


def test_lines_of_whatsapp_itself_are_no_messages() -> None:
    log = """12/24/19, 10:00 - Messages to this group are now secured with end-to-end encryption.
12/24/19, 10:00 - Ann changed the subject from "a: b" to "c: d"
12/24/19, 10:01 - Ann: One
two: three

four
12/24/19, 10:02 - +1 555 010-9999: <Media omitted>
12/24/19, 10:03 - +1 555 010-9999: @15550109998 see IMG.jpg
12/24/19, 10:04 - Bo: IMG-1.jpg (file attached)
12/24/19, 10:05 - Bo: This message was deleted
"""
    (document,) = read(log, "WhatsApp Chat with Ann.txt")
    ann, phone, other = map(pseudonym, ("Ann", "15550109999", "15550109998"))
    assert document.text == f"{ann}: One\ntwo: three\n\nfour\n{phone}: @{other} see IMG.jpg"
    assert document.group == "WhatsApp Chat with Ann.txt#608"


@pytest.mark.parametrize("kind", ["chat", "text", "conversations"])
def test_a_chat_in_markdown_is_a_chat(kind: str) -> None:
    log = "[2019-12-24 12:23] Ann: Hi  \n[2019-12-24 12:24] Bo: ![](./media/1.jpg)  \n"
    (document,) = read(log, "Bo/chat.md", kind)
    assert document.text == f"{pseudonym('Ann')}: Hi"


def test_other_files_are_read_as_before() -> None:
    """Logs of programs, data sets of conversations, tables and texts have shapes of their own."""
    log = "[2019-12-24, 12:23:11] INFO: started\n[2019-12-24, 12:23:12] INFO: done\n"
    prose = "In 2019: a year.\n1/2/2020, a day.\nAnn: Hi\n"
    assert not any(map(is_chat_log, (log, prose, "", "[" * 9)))
    mail = {"sender": "a", "body": "b", "date": "2020", "subject": "c"}
    data: tuple[Any, ...] = (
        [{"messages": [{"role": "user", "content": "Hi"}]}],
        {"conversations": [{"from": "human", "value": "Hi"}]},
        [mail],
        [{"author": {"name": "a"}, "content": "b", "timestamp": 1}],
        {"a": {"messages": {}}},
        [],
    )
    for value in data:
        head = json.dumps(value).encode()
        assert not is_chat(detect_format("x.json", head), head)
    (other_xml,) = read("<?xml version='1.0'?><a>text</a>", "x.xml")
    assert other_xml.reason == "wrong-kind"
    (turns,) = read(data[0])
    assert isinstance(turns, Document) and turns.text == "User: Hi"


def test_who_speaks_in_other_files_of_a_chat_is_hidden_too() -> None:
    log = "[10:01] <ann> is it late?\n[10:02] <bob> ann: it is, @ann\n[10:03] <ann> so?\n"
    (document,) = read(log, "x.txt")
    ann, bob = map(pseudonym, ("ann", "bob"))
    assert document.text == f"{ann}: is it late?\n{bob}: {ann}: it is, @{ann}\n{ann}: so?"
    assert [turn["role"] for turn in document.turns] == [ann.lower(), bob.lower(), ann.lower()]
    assert read(log, "x.txt", **NAMED)[0].text == read(log, "x.txt", "conversations")[0].text
    (plain,) = read([{"messages": [{"role": "user", "content": "Hi"}]}])
    assert plain.text == "User: Hi"


def test_real_exports_keep_their_words_and_nothing_of_their_markup(real_data: Path) -> None:
    """Words of people in the XML of a community, its mentions and emoji without their marks."""
    words = kept = 0
    for path in sorted((real_data / "wild/slack/disentangled-xml").glob("*.xml")):
        messages = etree.parse(path).iter("text")
        plain = [re.sub(r"<@[^<>]*>|:[a-z_]+:|https?://\S+", "", it.text or "") for it in messages]
        expected = Counter(re.findall(r"[a-z]+", unescape(" ".join(plain))))
        documents = read(path.read_bytes(), path.name)
        text = "\n".join(document.text for document in documents)
        kept += (expected & Counter(re.findall(r"[a-z]+", text))).total()
        words += expected.total()
        assert not re.search(r"<@|&lt;|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d", text)
    assert kept > 0.98 * words > 0
