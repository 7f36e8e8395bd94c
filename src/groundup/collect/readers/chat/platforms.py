"""The messages of the platforms of chats, as their exports and interfaces have them.

A function of LAYOUTS knows the messages of one platform by their shape:

    {"ts": "1736478514.8976", "user": "U12", "text": "Hi <@U34>"}                 Slack
    {"timestamp": "2023-…", "author": {"id": "12"}, "content": "Hi @Bo"}          Discord
    {"type": "message", "from_id": "user12", "text": ["Hi ", {"text": "Bo"}]}     Telegram
    {"type": "m.room.message", "sender": "@a:b.org", "content": {"body": "Hi"}}   Matrix

A message without text is one that nobody typed: a call, a picture, somebody who joined.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from html import unescape
from typing import Any

from groundup.collect.readers.chat.messages import Posting, mention, parse_time, without_marks
from groundup.collect.readers.web.html import page_text

Chat = Mapping[str, Any]  # what stands around the messages
# What a layout makes of a record: a message, maybe without text; None for another layout.
Layout = Callable[[Mapping[str, Any], Chat], Posting | None]
LAYOUTS: list[Layout] = []

_SLACK_TIME = re.compile(r"\d{9,11}\.\d{3,9}")
_SLACK_TALK = frozenset(("", "me_message", "thread_broadcast", "reply_broadcast", "file_share"))
_SLACK_ANGLE = re.compile(r"<([^<>\n]{1,4000})>")
_DISCORD_MENTION = re.compile(r"<@!?(\d{5,25})>")
_DISCORD_ANGLE = re.compile(r"<(?:a?:(\w{1,60}):|t:|#|@&|id:)[^<>\s]{0,60}>")
_MATRIX_QUOTE = re.compile(r"\A(?:> ?[^\n]*\n)+\n?")
_MATRIX_USER = re.compile(r"@[\w.=/+-]{1,100}:[\w.-]{1,200}(?::\d{1,5})?")
# A mention as clients write it: "[Bo](https://matrix.to/#/@bo:b.org)".
_MATRIX_LINK = re.compile(
    r"(?:\[[^\[\]\n]{1,200}\]\()?https://matrix\.to/#/(@[^\s()?]{1,300})(?:\?[^\s()]{1,200})?\)?"
)
_ZULIP_MENTION = re.compile(r"@_?\*\*([^*|\n]{1,200})(?:\|(\d{1,12}))?\*\*")
_ZULIP_HTML_MENTION = re.compile(
    r"<span\b[^<>]{0,200}?\bdata-user-id=\"(\d{1,12})\"[^<>]{0,200}>[^<>]{0,300}</span>"
)
_ZULIP_COMMAND = re.compile(r"\A/me |<time:([^<>\n]{1,60})>")
# Below a line that says whose words they are.
_ZULIP_QUOTE = re.compile(
    r"(?:^@_?\*\*[^*\n]{1,200}\*\* \[[^\]\n]{1,100}\]\([^()\n]{1,1000}\):\n)?"
    r"^(`{3,}|~{3,})quote\n.*?^\1[ \t]*(?:\n|\Z)",
    re.MULTILINE | re.DOTALL,
)
_TEAMS_REPLY = re.compile(
    r"<blockquote\b[^<>]{0,200}schema\.skype\.com/Reply(?:(?!</?blockquote\b).)*+</blockquote>",
    re.DOTALL,
)
_TEAMS_EMOJI = re.compile(r"<emoji\b[^<>]{0,200}?\balt=\"([^\"<>]{1,40})\"[^<>]{0,200}>")
_TEAMS_MENTION = re.compile(r"<at\b[^<>]{0,200}?\bid=\"(\d{1,6})\"[^<>]{0,200}>(.{0,300}?)</at>")


def _layout(function: Layout) -> Layout:
    LAYOUTS.append(function)
    return function


@_layout
def _slack(record: Mapping[str, Any], chat: Chat) -> Posting | None:
    time, text = record.get("ts"), record.get("text")
    if not isinstance(time, str) or _SLACK_TIME.fullmatch(time) is None:
        return None
    if not ("user" in record or record.get("type") == "message"):
        return None
    profile = record.get("user_profile")
    names = profile if isinstance(profile, Mapping) else {}
    name = names.get("display_name") or names.get("real_name") or record.get("username") or ""
    subtype, user = record.get("subtype") or "", record.get("user")
    is_bot = subtype == "bot_message" or bool(record.get("bot_id")) or user == "USLACKBOT"
    if not isinstance(text, str) or not (is_bot or subtype in _SLACK_TALK):
        return Posting()
    text = without_marks(slack_shown(text))
    thread = str(record.get("thread_ts") or "")
    speaker = str(user or record.get("bot_id") or "")
    return Posting(speaker, text, float(time), thread, name=str(name), is_bot=is_bot)


def slack_shown(text: str) -> str:
    """Return a text as Slack shows it: without angle brackets around mentions and links."""
    text = _SLACK_ANGLE.sub(_slack_angle, text)
    # Slack escapes these three characters and no other.
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _slack_angle(match: re.Match[str]) -> str:
    """Return what `<@U12>`, `<#C12|general>`, `<!here>` and `<http://a.org|this>` show."""
    target, _, label = match[1].partition("|")
    if target.startswith("@"):
        return mention(target[1:])
    if target.startswith(("#", "!")):
        label = label or target[1:].partition("^")[0]
        return (
            label
            if target.startswith("!date")
            else target[0].replace("!", "@") + label.lstrip("@#")
        )
    return label or target.removeprefix("mailto:")


@_layout
def _slackdump(record: Mapping[str, Any], chat: Chat) -> Posting | None:
    """Return nothing of what slackdump writes between messages: users, channels, files."""
    is_chunk = isinstance(record.get("t"), int) and isinstance(record.get("ts"), int)
    return Posting() if is_chunk and record.keys() & set("ci cu p u w f".split()) else None


@_layout
def _discord(record: Mapping[str, Any], chat: Chat) -> Posting | None:
    author, text = record.get("author"), record.get("content")
    if not isinstance(author, Mapping) or not isinstance(text, str) or "timestamp" not in record:
        return None
    if not record.keys() & {"attachments", "channel_id"}:
        return None
    if str(record.get("type", 0)) not in ("Default", "Reply", "0", "19", "20"):
        return Posting()
    name = str(author.get("nickname") or author.get("global_name") or author.get("name") or "")
    handles: dict[str, str] = {}
    for user in _mappings(record.get("mentions")):
        known = (user.get(key) for key in ("nickname", "name", "username"))
        handles |= {str(handle): str(user.get("id")) for handle in known if handle}
    for handle in sorted(handles, key=len, reverse=True):
        text = text.replace(f"@{handle}", mention(handles[handle]))
    text = _DISCORD_MENTION.sub(lambda match: mention(match[1]), text)
    text = without_marks(_DISCORD_ANGLE.sub("", text))
    speaker = str(author.get("id") or name)
    is_bot = bool(author.get("isBot") or author.get("bot"))
    channel = chat.get("channel")
    thread = ""
    if isinstance(channel, Mapping) and "Thread" in str(channel.get("type")):
        thread = str(channel.get("id"))
    return Posting(speaker, text, parse_time(record["timestamp"]), thread, name=name, is_bot=is_bot)


@_layout
def _discord_row(record: Mapping[str, Any], chat: Chat) -> Posting | None:
    """Return a row of DiscordChatExporter's CSV."""
    if not {"AuthorID", "Author", "Date", "Content"} <= record.keys():
        return None
    name, text = str(record["Author"]), without_marks(str(record["Content"] or ""))
    speaker = str(record["AuthorID"] or name)
    return Posting(speaker, text, parse_time(record["Date"]), name=name)


@_layout
def _telegram(record: Mapping[str, Any], chat: Chat) -> Posting | None:
    kind, parts = record.get("type"), record.get("text")
    is_dated = "date" in record or "date_unixtime" in record
    if kind not in ("message", "service") or not is_dated or not isinstance(parts, (str, list)):
        return None
    if kind == "service":
        return Posting()
    text = parts if isinstance(parts, str) else "".join(map(_telegram_part, parts))
    name = str(record.get("from") or "")
    speaker = str(record.get("from_id") or name or "deleted account")
    seconds = str(record.get("date_unixtime", ""))
    time = float(seconds[:12]) if seconds.isdecimal() else parse_time(record.get("date"))
    is_bot = chat.get("type") == "bot_chat" and bool(name) and name == chat.get("name")
    id = str(record.get("id", ""))
    return Posting(speaker, text.strip(), time, name=name, is_bot=is_bot, id=id)


def _telegram_part(part: Any) -> str:
    if not isinstance(part, Mapping):
        return part if isinstance(part, str) else ""
    text = str(part.get("text") or "")
    if part.get("type") == "mention":
        return mention(text.removeprefix("@"))
    if part.get("type") == "mention_name":
        return mention(f"user{part.get('user_id')}")
    if part.get("type") == "pre":
        return f"```\n{text}\n```"
    return text


@_layout
def _signal_cli(record: Mapping[str, Any], chat: Chat) -> Posting | None:
    """Return an envelope of signal-cli: a message received, or one's own from another device."""
    envelope = record.get("envelope")
    if not isinstance(envelope, Mapping) or "timestamp" not in envelope:
        return None
    sync = envelope.get("syncMessage")
    sent = sync.get("sentMessage") if isinstance(sync, Mapping) else None
    data = envelope.get("dataMessage") or sent
    if not isinstance(data, Mapping) or not isinstance(data.get("message"), str):
        return Posting()
    speaker = first_value(envelope, "sourceUuid", "sourceNumber", "source")
    peer = first_value(data, "destinationUuid", "destinationNumber", "destination") or speaker
    group = data.get("groupInfo")
    channel = str(group.get("groupId")) if isinstance(group, Mapping) else peer
    text = data["message"]
    # A character of its own stands where somebody is mentioned.
    for user in _mappings(data.get("mentions")):
        text = text.replace("\ufffc", mention(first_value(user, "uuid", "number", "name")), 1)
    name, time = first_value(envelope, "sourceName"), parse_time(envelope["timestamp"])
    return Posting(speaker, text.strip(), time, channel=channel, name=name)


@_layout
def _signal_export(record: Mapping[str, Any], chat: Chat) -> Posting | None:
    """Return a line of signal-export's data.json."""
    if not {"sender", "body", "date", "reactions", "attachments"} <= record.keys():
        return None
    text = without_marks(str(record["body"] or ""))
    return Posting(str(record["sender"] or ""), text, parse_time(record["date"]))


@_layout
def _matrix(record: Mapping[str, Any], chat: Chat) -> Posting | None:
    kind, content, sender = (record.get(key) for key in ("type", "content", "sender"))
    if not isinstance(kind, str) or not kind.startswith("m.") or not isinstance(sender, str):
        return None
    if not isinstance(content, Mapping):
        return None
    relation = content.get("m.relates_to")
    relation = relation if isinstance(relation, Mapping) else {}
    text, how = content.get("body"), content.get("msgtype")
    is_text = how in ("m.text", "m.emote", "m.notice") and isinstance(text, str)
    # An edit repeats the message.
    if kind != "m.room.message" or not is_text or relation.get("rel_type") == "m.replace":
        return Posting()
    if "m.in_reply_to" in relation:
        text = _MATRIX_QUOTE.sub("", str(text))
    text = _MATRIX_LINK.sub(r"\1", str(text))
    text = without_marks(_MATRIX_USER.sub(lambda match: mention(match[0]), text))
    is_thread = relation.get("rel_type") == "m.thread"
    thread = str(relation.get("event_id")) if is_thread else ""
    time = parse_time(record.get("origin_server_ts"))
    channel, is_bot = str(record.get("room_id") or ""), how == "m.notice"
    name = sender.partition(":")[0].removeprefix("@")
    return Posting(sender, text, time, thread, channel, name, is_bot)


@_layout
def _zulip(record: Mapping[str, Any], chat: Chat) -> Posting | None:
    text, time = record.get("content"), record.get("date_sent", record.get("timestamp"))
    if not isinstance(text, str) or not {"subject", "rendered_content"} & record.keys():
        return None
    if not isinstance(time, (int, float)):
        return None
    name = first_value(record, "sender_full_name")
    speaker = first_value(record, "sender_id", "sender")

    def user(match: re.Match[str]) -> str:
        return mention(match[2] or match[1])

    if record.get("content_type") == "text/html":
        text = _ZULIP_HTML_MENTION.sub(lambda match: mention(match[1]), text)
        text = _html_text(text, {})
    text = _ZULIP_COMMAND.sub(r"\1", _ZULIP_QUOTE.sub("", text))
    text = without_marks(_ZULIP_MENTION.sub(user, text))
    channel = first_value(record, "stream_id", "recipient_id", "recipient")
    return Posting(speaker, text, parse_time(time), str(record.get("subject") or ""), channel, name)


@_layout
def _teams(record: Mapping[str, Any], chat: Chat) -> Posting | None:
    """Return a message as Microsoft Graph writes it."""
    body, sender = record.get("body"), record.get("from")
    if not isinstance(body, Mapping) or "createdDateTime" not in record:
        return None
    if not record.keys() & {"messageType", "chatId", "channelIdentity"}:
        return None
    sender = sender if isinstance(sender, Mapping) else {}
    user, text = sender.get("user"), body.get("content")
    is_bot = not isinstance(user, Mapping) and bool(sender.get("application"))
    person = user if isinstance(user, Mapping) else sender.get("application")
    is_talk = record.get("messageType", "message") == "message" and isinstance(text, str)
    if not is_talk or not isinstance(person, Mapping) or record.get("deletedDateTime"):
        return Posting()
    text = str(text)
    if body.get("contentType") != "text":
        text = _html_text(text, _teams_people(record))
    name, speaker = first_value(person, "displayName"), first_value(person, "id", "displayName")
    thread, channel = "", str(record.get("chatId") or "")
    if isinstance(identity := record.get("channelIdentity"), Mapping):
        thread, channel = first_value(record, "replyToId", "id"), first_value(identity, "channelId")
    time = parse_time(record["createdDateTime"])
    return Posting(speaker, text, time, thread, channel, name, is_bot)


def _teams_people(record: Mapping[str, Any]) -> dict[str, str]:
    """Return who is mentioned, by the number of the mention."""
    people: dict[str, str] = {}
    for entry in _mappings(record.get("mentions")):
        mentioned = entry.get("mentioned")
        named = mentioned.get("user") if isinstance(mentioned, Mapping) else None
        if isinstance(named, Mapping):
            people[str(entry.get("id"))] = first_value(named, "id", "displayName")
    return people


@_layout
def _teams_archive(record: Mapping[str, Any], chat: Chat) -> Posting | None:
    """Return a message of the archive that Teams and Skype give a person of their own data."""
    if not {"originalarrivaltime", "messagetype", "content", "from"} <= record.keys():
        return None
    kind, text, sender = (record[key] for key in ("messagetype", "content", "from"))
    if kind not in ("Text", "RichText", "RichText/Html") or not isinstance(text, str):
        return Posting()
    time = parse_time(record["originalarrivaltime"])
    return Posting(str(sender), _html_text(text, {}), time, name=first_value(record, "displayName"))


def _html_text(markup: str, people: Mapping[str, str]) -> str:
    """Return the text of a message in HTML; `people` are those whom it mentions, by number."""

    def user(match: re.Match[str]) -> str:
        return mention(people.get(match[1]) or unescape(match[2]))

    markup = _TEAMS_EMOJI.sub(r"\1", _TEAMS_REPLY.sub("", markup))
    markup = _TEAMS_MENTION.sub(user, markup)
    return page_text(markup) if "<" in markup else unescape(markup).strip()


def first_value(record: Mapping[str, Any], *keys: str) -> str:
    """Return the first text or number under `keys`, as text; "" without one."""
    values = (record.get(key) for key in keys)
    return next((str(it) for it in values if isinstance(it, (str, int)) and it != ""), "")


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [it for it in value if isinstance(it, Mapping)] if isinstance(value, list) else []


def find_message(record: Any, chat: Chat) -> Posting | None:
    """Return the message that a record is in one of LAYOUTS, maybe without text; None for none."""
    if not isinstance(record, Mapping):
        return None
    return next(filter(None, (layout(record, chat) for layout in LAYOUTS)), None)
