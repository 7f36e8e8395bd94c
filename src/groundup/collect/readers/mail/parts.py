"""The parts of a mail: its headers, the text of its body, the files and mails attached to it.

Python's `email` package parses; what it does without bounds is bounded here.
"""

from __future__ import annotations

import binascii
import quopri
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.header import decode_header
from email.message import Message
from email.parser import BytesParser
from email.policy import Compat32
from functools import partial
from typing import Any

from groundup.collect.charset import decode, detect_encoding, is_binary
from groundup.collect.files.streams import DamagedError
from groundup.collect.readers.mail.text import unwrap_flowed
from groundup.collect.readers.web.html import page_text

# Characters of a header that are looked at.
MAX_HEADER = 20_000
# A part takes 2 KB of memory however short it is. Lines that start with two dashes bound them.
MAX_PARTS = 20_000
_BOUNDARY_LINE = re.compile(rb"(?:\A|\n)--(?=[^\s-])")
_FIELD = rb"[!-9;-~]{1,80}:[^\n]*+\n(?:[ \t][^\n]*+\n)*+"
# A line among the headers that is none, and would end them.
_STRAY_LINE = re.compile(
    rb"\A((?:%s)++)(?![!-9;-~]{1,80}:|[ \t\r\n])[^\n]*+\n(?=(?:%s){2,}+\r?\n)" % (_FIELD, _FIELD)
)
# Charsets that mails name, and a superset of what they write.
_CHARSETS = {
    **dict.fromkeys(("iso-8859-1", "latin1", "us-ascii", "ascii", "x-user-defined"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk", "x-gbk", "cp936"), "gb18030"),
    **dict.fromkeys(("ks_c_5601-1987", "euc-kr", "ks_c_5601"), "cp949"),
    **dict.fromkeys(("shift_jis", "shift-jis", "x-sjis"), "cp932"),
    "iso-8859-8-i": "iso-8859-8",
    "windows-874": "cp874",
    "unicode-1-1-utf-7": "utf-7",
}
# Encodings of other characters in ASCII bytes.
_SEVEN_BIT = frozenset(("utf-7", "hz", "hz-gb-2312", "iso-2022-kr", "iso-2022-cn"))
_TEXT_TYPES = frozenset(("text/plain", "text/html", "text/enriched", "text/richtext"))
# What no reader makes text of.
_SIGNATURES = frozenset(("application/pgp-signature", "application/pkcs7-signature"))
_SIGNATURES |= {"application/x-pkcs7-signature", "text/rfc822-headers"}
_UNREAD = ("image/", "audio/", "video/", "font/", "message/")
_UNREAD_TEXTS = frozenset(("text/calendar", "text/vcard", "text/x-vcard", "text/directory"))
# Parts of a body that Exchange and Apple Mail name as if they were attached.
_BODY_NAME = re.compile(r"att\d{3,6}\.{1,2}(?:html?|txt)", re.IGNORECASE)
# A digest of a list (RFC 1153): what lists say above it, a line, and mails with their main headers.
_MASTHEAD = re.compile(r"\s*(?:Send \S.{0,200} mailing list submissions to\n|Today's Topics:\n)")
_DIGEST_START = re.compile(
    r"^-{70}\n\n(?=(?:Message: \d+\n)?(?:Date|From|Subject): )", re.MULTILINE
)
_DIGEST_LINE = re.compile(
    r"\n-{30}\n\n(?:Message: \d+\n|(?=(?:Date|From|Subject): )|End of .*\Z)", re.DOTALL
)
# A plain text this short, beside a page this many times as long, says only that there is a page.
_STUB_LENGTH, _STUB_TIMES = 300, 3
# Lines above the first byte that no text holds.
_INTACT = re.compile(rb"(?:[^\x00-\x06\x0e-\x19\x1c-\x1f]*\n)+")
_LOOKS_LIKE_HTML = re.compile(
    r"\s*<(?:!doctype html|html|head|body|(?:p|div|table|font|center)\b[^<>]{0,500}>)",
    re.IGNORECASE,
)
_BLOCKQUOTE = re.compile(r"<(/?)blockquote\b([^<>]*)>", re.IGNORECASE)
_ITEM = re.compile(r"<li\b[^<>]*>", re.IGNORECASE)
# The paragraph of an item starts on a line of its own.
_EMPTY_ITEM = re.compile(r"^-[ \t]*\n+(?=[^\n-])", re.MULTILINE)
_CITED = re.compile(r"type\s*=\s*[\"']?cite|class\s*=\s*[\"']?[^\"'>]*quote|border-left", re.I)
_UNSEEN = re.compile(
    r"<(div|span|p|td)\b[^<>]{0,2000}display\s*:\s*none[^<>]{0,2000}>[^<]*+</\1\s*>", re.IGNORECASE
)
_FILLER = re.compile("[\u200b\u200c\u200d\u2060\u034f\u00ad\ufeff\u200e\u200f]")
# Bodies that an archive stored as they were sent, without the headers that say how: parts, lines of
# base64 of which the last is shorter, or an equals sign at the end of a full line.
_BARE_PARTS = re.compile(
    rb"\s*--([^\s\"][^\n\"]{2,198}?)[ \t]*\r?\n(?=content-[a-z-]+:)", re.IGNORECASE
)
_BARE_BASE64 = re.compile(r"\s*((?:[A-Za-z0-9+/]{60,76}\n){2,}[A-Za-z0-9+/]{0,76}={0,2})\s*")
_BARE_QUOTED = re.compile(r"^[^\n]{72,75}=\n(?=\S)", re.MULTILINE)
_NOT_QUOTED = re.compile(r"=(?![0-9A-F]{2}|[ \t]*\n|\Z)")
# Stand for the start and the end of a quote while a page becomes text.
_OPEN, _CLOSE = "\ue0f1", "\ue0f2"


class _BoundedHeaders(Compat32):
    """Python's most forgiving policy, with headers cut: it takes the square of their length."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        """Return the name and the value of a header."""
        name, value = super().header_source_parse(sourcelines)
        return name[:MAX_HEADER], value[:MAX_HEADER]


_PARSER = BytesParser(policy=_BoundedHeaders())


@dataclass(slots=True)
class Attachment:
    """A file in a mail, under the name that the mail gives it, still encoded."""

    name: str
    part: Message


@dataclass(slots=True)
class Parts:
    """What one mail holds beside its headers."""

    texts: list[str] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    mails: list[Message] = field(default_factory=list)
    # Reason and detail of what cannot be read.
    unread: list[tuple[str, str]] = field(default_factory=list)
    boundaries: set[str] = field(default_factory=set)  # without dashes around them


def parse_mail(data: bytes) -> Message:
    """Return a mail; raise DamagedError if it has too many parts, or they nest too deeply."""
    if sum(1 for _ in _BOUNDARY_LINE.finditer(data)) > MAX_PARTS:
        raise DamagedError("too-large", f"it has more than {MAX_PARTS:,} parts")
    try:
        return _PARSER.parsebytes(_STRAY_LINE.sub(rb"\1", data))
    except RecursionError:
        raise DamagedError("nesting", "its parts nest too deeply") from None


def header(message: Message, name: str) -> str:
    """Return a header as text on one line; "" where there is none."""
    raw = next((value for key, value in message.raw_items() if key.lower() == name), "")
    value = " ".join(str(raw).split())
    if not value.isascii():
        data = value.encode("utf-8", "surrogateescape")
        value = data.decode(detect_encoding(data), "replace")
    if "=?" not in value:
        return value
    try:
        words = decode_header(value)
    except ValueError:
        return value
    return " ".join("".join(_header_word(*word) for word in words).split())


def _header_word(word: str | bytes, charset: str | None) -> str:
    if isinstance(word, str):
        return word
    return word.decode(detect_encoding(word, _charset(charset or "")), "replace")


def _charset(name: str) -> str:
    return _CHARSETS.get(name.lower().strip("\"' "), name)


def _safely(function: Callable[[], Any]) -> str:
    """Return what a method of a message returns; "" where it stumbles over a header."""
    try:
        return str(function() or "")
    except (ValueError, LookupError, AttributeError, TypeError):
        return ""


def _children(part: Message) -> list[Message]:
    content: Any = part.get_payload()
    return list(content)


def _inner_mails(part: Message) -> list[Message]:
    """Return the mails in a part; one that is encoded, which is not allowed, is decoded."""
    inner = _children(part)
    encoding = header(part, "content-transfer-encoding").lower()
    if encoding not in ("base64", "quoted-printable") or not inner:
        return inner
    encoded = Message()
    encoded["Content-Transfer-Encoding"] = encoding
    encoded.set_payload(inner[0].get_payload())
    return [parse_mail(payload(encoded))]


def payload(part: Message) -> bytes:
    """Return the bytes of a part, decoded as far as they can be."""
    try:
        data = part.get_payload(decode=True)
    except (ValueError, LookupError, AttributeError, TypeError):
        return b""
    return data if isinstance(data, bytes) else b""


def read_parts(message: Message) -> Parts:
    """Return the text, the attachments and the mails in a mail, in order."""
    parts = Parts()
    # Each with whether its texts belong to the body, or were taken from a better part already.
    stack: list[tuple[Message, bool]] = [(message, True)]
    while stack:
        part, is_body = stack.pop()
        content_type = part.get_content_type()
        parts.boundaries.add(_safely(part.get_boundary).strip("-"))
        if content_type.startswith("multipart/") and not part.is_multipart():
            repaired = _with_true_boundary(part)
            stack += [(repaired, is_body)] if repaired else []
            if not repaired and is_body:
                _add_text(part, "text/plain", parts)
        elif content_type == "multipart/report":
            kind = _safely(partial(part.get_param, "report-type")) or "report"
            parts.unread.append(("bounce", f"{kind}, with the mail that it is about"))
        elif content_type == "multipart/encrypted":
            parts.unread.append(("encrypted", "a mail that only its receiver can read"))
        elif content_type.startswith("message/") and part.is_multipart():
            parts.mails += _inner_mails(part) if content_type != "message/delivery-status" else []
        elif part.is_multipart():
            children = _children(part)
            if content_type == "multipart/signed":
                children = children[:1]
            bodies = _body_flags(children, content_type)
            stack += reversed(
                [(child, is_body and flag) for child, flag in zip(children, bodies, strict=True)]
            )
        elif (inner := _bare_parts(part)) is not None:
            stack.append((inner, is_body))
        else:
            _add_leaf(part, content_type, is_body, parts)
    return parts


def _body_flags(children: list[Message], content_type: str) -> list[bool]:
    """Return which children hold the text of a body: one of several alternatives."""
    if content_type != "multipart/alternative":
        return [True] * len(children)
    types = [child.get_content_type() for child in children]
    plain = next((n for n, kind in enumerate(types) if kind == "text/plain"), None)
    rich = next((n for n, kind in enumerate(types) if kind == "text/html"), None)
    if rich is None:
        rich = next((n for n, kind in enumerate(types) if kind.startswith("multipart/")), None)
    if plain is None:
        chosen = rich if rich is not None else 0
    elif rich is None or not _is_stub(children[plain], children[rich]):
        chosen = plain
    else:
        chosen = rich
    return [n == chosen for n in range(len(children))]


def _is_stub(plain: Message, rich: Message) -> bool:
    size = len(payload(plain).split())
    if size * 5 > _STUB_LENGTH:
        return False
    page = next((part for part in leaves(rich) if part.get_content_type() == "text/html"), None)
    if page is None:
        return size == 0
    try:
        length = len(html_text(_decoded(page)).split())
    except DamagedError:
        return size == 0
    return length > _STUB_TIMES * size


def leaves(message: Message) -> Iterator[Message]:
    """Yield the parts of a mail that have no parts, in order."""
    stack = [message]
    while stack:
        part = stack.pop()
        if part.is_multipart():
            stack += reversed(_children(part))
        else:
            yield part


def _with_true_boundary(part: Message) -> Message | None:
    """Return a multipart whose header names the wrong boundary, cut at the one that it has."""
    content = payload(part)
    line = re.search(rb"(?:\A|\n)--([^\s\"]{1,200})[ \t]*\r?\n[\w-]+:", content)
    if line is None or part.get("x-groundup-repaired"):
        return None
    return _multipart(part.get_content_type(), line[1], content)


def _bare_parts(part: Message) -> Message | None:
    """Return a body without headers that has parts, as one of parts."""
    content = b"" if "content-type" in part else payload(part)
    line = _BARE_PARTS.match(content)
    return _multipart("multipart/mixed", line[1], content) if line else None


def _multipart(content_type: str, boundary: bytes, content: bytes) -> Message:
    kind = content_type.encode("ascii", "replace")
    head = b'X-Groundup-Repaired: 1\nContent-Type: %s; boundary="%s"\n\n' % (kind, boundary)
    return parse_mail(head + content)


def _add_leaf(part: Message, content_type: str, is_body: bool, parts: Parts) -> None:
    """Add a part without parts to the text, the attachments, or what cannot be read."""
    name = " ".join(_safely(part.get_filename).split())
    name = header_text(name) if "=?" in name else name
    is_attached = _safely(part.get_content_disposition) == "attachment" or bool(name)
    is_attached &= _BODY_NAME.fullmatch(name) is None
    label = name or content_type
    if content_type in _SIGNATURES:
        return
    if content_type in ("application/ms-tnef", "application/vnd.ms-tnef"):
        detail = f"{label}: a package of Outlook; unpack it first, for example with tnef"
        parts.unread.append(("unsupported-format", detail))
    elif content_type in ("application/pkcs7-mime", "application/x-pkcs7-mime"):
        parts.unread.append(("encrypted", f"{label}: S/MIME that only its receiver can read"))
    elif content_type.startswith(_UNREAD) or content_type in _UNREAD_TEXTS:
        parts.unread.append(("unsupported-format", f"{label}: {content_type}"))
    elif is_attached or content_type not in _TEXT_TYPES:
        if part.get_payload():
            parts.attachments.append(Attachment(label, part))
    elif is_body:
        _add_text(part, content_type, parts)


def header_text(value: str) -> str:
    """Return a value of a header with its encoded words decoded."""
    holder = Message()
    holder["x"] = value[:MAX_HEADER]
    return header(holder, "x")


def _add_text(part: Message, content_type: str, parts: Parts) -> None:
    try:
        text = _without_boundaries(_decoded(part, parts), parts.boundaries)
        if "content-transfer-encoding" not in part:
            text = _decoded_again(text)
        if content_type != "text/plain" or _LOOKS_LIKE_HTML.match(text):
            text = html_text(text)
        elif _safely(partial(part.get_param, "format")).lower() == "flowed":
            delete_space = _safely(partial(part.get_param, "delsp")).lower() == "yes"
            text = unwrap_flowed(text, delete_space)
        text, mails = _split_digest(text)
        parts.mails += mails
        if _MASTHEAD.match(text) is None:
            parts.texts.append(text)
    except DamagedError as damage:
        parts.unread.append((damage.reason, f"the text of a mail: {damage.detail}"))


def _split_digest(text: str) -> tuple[str, list[Message]]:
    """Return what stands above the mails of a digest, and the mails; none of another text."""
    start = _DIGEST_START.search(text)
    if start is None:
        return text, []
    mails = []
    for mail in _DIGEST_LINE.split(text[start.end() :].removeprefix("Message: 1\n")):
        # The text is decoded, whatever the mail says of itself.
        head = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"
        mails.append(parse_mail(f"{head}{mail}".encode("utf-8", "surrogatepass")))
    return text[: start.start()], [mail for mail in mails if header(mail, "from")]


def _without_boundaries(text: str, boundaries: set[str]) -> str:
    """Return a text without lines that were meant to end a part, such as `--NAME-`."""
    if len(boundaries) < 2:
        return text
    lines = text.split("\n")
    return "\n".join(
        line
        for line in lines
        if not (line.startswith("--") and (name := line.strip().strip("-")) and name in boundaries)
    )


def charset_of(part: Message) -> str:
    """Return the charset that a part declares, or one that holds it; "" for none."""
    return _charset(_safely(part.get_content_charset))


def _decoded(part: Message, parts: Parts | None = None) -> str:
    """Return the text of a part, up to bytes that no text holds; `parts` lists the rest."""
    data = payload(part)
    if parts is not None and is_binary(data) and (intact := _INTACT.match(data)):
        data = intact[0]
        parts.unread.append(
            ("damaged", "the text of a mail ends where bytes are that no text holds")
        )
    charset = charset_of(part)
    if charset.lower() in _SEVEN_BIT and data.isascii():
        return data.decode(charset, "replace").replace("\r\n", "\n")
    return decode(data, charset)


def _decoded_again(text: str) -> str:
    """Return the text of a body that is still encoded though no header says so, else the same."""
    if (match := _BARE_BASE64.fullmatch(text)) is not None:
        data = binascii.a2b_base64(match[1])
        return "" if is_binary(data) else decode(data, "")
    if _BARE_QUOTED.search(text) and not _NOT_QUOTED.search(text):
        return decode(quopri.decodestring(text.encode("utf-8", "replace")), "")
    return text


def html_text(page: str) -> str:
    """Return the text of a page in a mail, its quotes marked as they are in plain text.

    Raises DamagedError if it nests too deeply, or holds little but links.
    """
    is_cited: list[bool] = []

    def mark(tag: re.Match[str]) -> str:
        if tag[1]:
            return f"<p>{_CLOSE}</p></blockquote>" if is_cited and is_cited.pop() else tag[0]
        is_cited.append(_CITED.search(tag[2]) is not None)
        return f"{tag[0]}<p>{_OPEN}</p>" if is_cited[-1] else tag[0]

    page = _ITEM.sub(r"\g<0>- ", _BLOCKQUOTE.sub(mark, _UNSEEN.sub("", page)))
    text = _EMPTY_ITEM.sub("- ", page_text(page))
    lines, depth = [], 0
    for line in _FILLER.sub("", text).replace("\xa0", " ").split("\n"):
        depth = max(0, depth + line.count(_OPEN) - line.count(_CLOSE))
        content = line.replace(_OPEN, "").replace(_CLOSE, "")
        if content.strip() or content == line:
            lines.append("> " * depth + content)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
