"""Mails: single files, mailboxes (mbox, archives of lists) and pages saved as MHTML.

A mail becomes its text without headers, quotes and signatures, under its subject; one without a
text that answers no other is its subject. The mails of a
thread in one mailbox become one document with turns. The group is the Message-ID of the mail that a
thread began with, so a thread in many files is never on both sides of the split. A file that is
attached is read by the reader of its format, as a further record of the same group.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from email.message import Message
from email.utils import mktime_tz, parseaddr, parsedate_tz
from typing import Any

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import detect_encoding
from groundup.collect.files.archives import Refused, open_part
from groundup.collect.files.streams import (
    MAX_RECORD,
    DamagedError,
    Item,
    TooLongError,
    deadline,
    read_all,
)
from groundup.collect.readers.chat.layouts import Utterance, render
from groundup.collect.readers.code import DOC_LANGUAGES, language_of
from groundup.collect.readers.mail.mbox import Mail, Threads, split_mails
from groundup.collect.readers.mail.names import hide_names
from groundup.collect.readers.mail.parts import (
    Parts,
    charset_of,
    header,
    leaves,
    parse_mail,
    payload,
    read_parts,
)
from groundup.collect.readers.mail.text import own_text
from groundup.collect.readers.speakers import pseudonym
from groundup.collect.readers.web.html import decode_html, host, page_document
from groundup.recipe import Source

# Reads an attachment.
PartReader = Callable[[Item, Source], Iterator[Document | Reject]]

# What programs put before a subject, in many languages, and the name of the list.
_PREFIX = re.compile(
    r"\s*(?:(re|aw|antw(?:ort)?|sv|vs|ref?|odp|ynt|r|res|回复|答复|回覆|(fwd?|wg|tr|rv|i|enc|vb|vl|pd"
    r"|doorst|転送|转发|轉寄))(?:\[\d+\]|\(\d+\)|\^\d+)?\s?[:：]|\[[^\[\]]{1,40}\](?=\s*\S))\s*",
    re.IGNORECASE,
)
# Some write "[Fwd: Plans]".
_BRACKETED = re.compile(r"\A\s*\[((?:re|fwd?|aw|wg|tr|rv)\s?:.*)\]\s*\Z", re.IGNORECASE)
# Nothing, or what programs write for it: "(no subject)".
_NO_SUBJECT = re.compile(
    r"\W*|None|[(<\[].{1,40}[)>\]]|(?:no subject|kein betreff|(?:sans|aucun) objet|sin asunto"
    r"|senza oggetto|sem assunto|geen onderwerp|без темы|无主题|無主旨|件名なし)",
    re.IGNORECASE,
)
# What says that an archive took the text out.
_SCRUBBED = re.compile(r"was scrubbed\.\.\.|^Skipped content of type ", re.MULTILINE)
_MESSAGE_ID = re.compile(r"<([^<>\s]{1,500})>")
_ROBOTS = re.compile(r"mailer-daemon|mail delivery (?:sub)?system|postmaster@", re.IGNORECASE)
# Apple's .emlx starts with a count of bytes and ends with a property list.
_EMLX = re.compile(rb"\s*(\d{1,10})\s*\n")
MAX_REFERENCES = 50
# Mails in a mail, such as those of a digest.
MAX_MAILS = 1_000


def read_eml(item: Item, source: Source, read_part: PartReader) -> Iterator[Document | Reject]:
    """Yield a mail, then what is attached to it."""
    data = read_all(item.stream, MAX_RECORD)
    if (count := _EMLX.match(data)) is not None:
        data = data[count.end() : count.end() + int(count[1])]
    encoding = detect_encoding(data[:4096])
    if encoding.startswith(("utf-16", "utf-32", "utf-8-sig")):
        data = data.decode(encoding, "replace").encode()
    for result in _read_mail(data.lstrip(b"\r\n"), 0, item, source, read_part):
        yield mail_document([result], item, source) if isinstance(result, Mail) else result


def read_mbox(item: Item, source: Source, read_part: PartReader) -> Iterator[Document | Reject]:
    """Yield what is attached to the mails of a mailbox, then its threads.

    The texts of the mails wait on disk until all were read; memory holds about 400 bytes a mail.
    """
    record = 0
    damage: DamagedError | None = None
    with Threads() as threads:
        try:
            for data in split_mails(item.stream):
                if data is None:
                    yield Reject("too-large", record, f"a mail of over {MAX_RECORD >> 20} MB")
                    record += 1
                    continue
                for result in _read_mail(data, record, item, source, read_part):
                    record = result.record + 1
                    if not isinstance(result, Mail):
                        yield result
                    elif not threads.add(result):
                        detail = "the same mail stands earlier in the mailbox"
                        yield Reject("duplicate-mail", result.record, detail)
        except DamagedError as error:
            # The mails before the damage are whole.
            damage = error
        for mails in threads:
            yield mail_document(mails, item, source)
    if damage is not None:
        raise damage


def read_mhtml(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the main text of a page that a browser saved with its images."""
    message = parse_mail(read_all(item.stream, MAX_RECORD))
    pages = (part for part in leaves(message) if part.get_content_type() == "text/html")
    page = next(pages, None)
    if page is None:
        yield Reject("not-html", detail="no page in it")
        return
    address = header(message, "snapshot-content-location") or header(page, "content-location")
    text = decode_html(payload(page), charset_of(page))
    yield page_document(text, 0, host(address) or item.origin)


@dataclass(slots=True)
class _Opened:
    """A mail and its parts, before attachments are read."""

    mail: Mail
    parts: Parts
    refusal: Reject | None


def _read_mail(
    data: bytes, record: int, item: Item, source: Source, read_part: PartReader
) -> Iterator[Mail | Document | Reject]:
    """Yield a mail, its attachments and the mails in it, numbered from `record`."""
    try:
        with deadline():
            opened = _open_mails(data, source, item.origin, record)
    except DamagedError as error:
        yield Reject(error.reason, record, error.detail)
        return
    except TooLongError as error:
        yield Reject("timeout", record, str(error))
        return
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        # A mail that the parser stumbles over costs itself only.
        yield Reject("malformed", record, f"{type(error).__name__}: {error}"[:300])
        return
    for each in opened:
        each.mail.record = record
        yield each.mail if each.refusal is None else replace(each.refusal, record=record)
        record += 1
        for reason, detail in each.parts.unread:
            yield Reject(reason, record, detail)
            record += 1
        for attachment in each.parts.attachments:
            part = (f"{item.origin}!/{attachment.name}", payload(attachment.part))
            for result in _read_attachment(*part, item, source, read_part):
                yield _numbered(result, record, each.mail.group, attachment.name)
                record += 1


def _numbered(result: Document | Reject, record: int, group: str, name: str) -> Document | Reject:
    if isinstance(result, Document):
        return replace(result, record=record, group=group)
    return replace(result, record=record, detail=f"{name}: {result.detail}".rstrip(": "))


def _read_attachment(
    origin: str, data: bytes, item: Item, source: Source, read_part: PartReader
) -> Iterator[Document | Reject]:
    for part in open_part(data, origin, item.budget):
        if isinstance(part, Refused):
            yield Reject(part.reason, detail=part.detail)
        elif (language := language_of(part.name, part.head)) not in ("", *DOC_LANGUAGES):
            # Much of it is sent by machines, or to harm; a source of code reads what is not.
            yield Reject("wrong-kind", detail=f"source code in {language}")
        else:
            yield from read_part(part, source)


def _open_mails(data: bytes, source: Source, origin: str, record: int) -> list[_Opened]:
    """Return a mail, and the mails that are attached to it."""
    opened: list[_Opened] = []
    messages: list[tuple[Message, str]] = [(parse_mail(data), "")]
    for message, group in messages:
        parts = read_parts(message)
        mail = _make_mail(message, parts, source)
        mail.group = group or mail.group or f"{origin}#{record}"
        opened.append(_Opened(mail, parts, _refusal(message, mail, parts)))
        if len(messages) + len(parts.mails) > MAX_MAILS:
            parts.unread.append(("too-large", f"it holds more than {MAX_MAILS:,} mails"))
        else:
            messages += [(inner, mail.group) for inner in parts.mails]
    return opened


def _refusal(message: Message, mail: Mail, parts: Parts) -> Reject | None:
    """Return why a mail gives no document, if it does not."""
    reason, detail = next(iter(parts.unread), ("", ""))
    if reason == "bounce" or _ROBOTS.search(header(message, "from")):
        parts.unread, parts.mails, parts.attachments = [], [], []
        return Reject("bounce", detail=detail or "a message of a mail server")
    if mail.text.strip():
        return None
    if any("-----BEGIN PGP MESSAGE-----" in text for text in parts.texts):
        return Reject("encrypted", detail="a mail that only its receiver can read")
    if reason and reason != "unsupported-format":
        # The body itself cannot be read.
        parts.unread.pop(0)
        return Reject(reason, detail=detail)
    is_answer = bool(mail.references) or any(_split_subject(header(message, "subject"))[1:])
    is_scrubbed = any(map(_SCRUBBED.search, parts.texts))
    if mail.subject and not (is_answer or is_scrubbed or parts.mails):
        # Its writer said it there: "Lunch at one?"
        mail.text = mail.subject
        return None
    return Reject("empty", detail="a mail without a text of its own")


def _make_mail(message: Message, parts: Parts, source: Source) -> Mail:
    """Return a mail with its text cut to what its writer wrote."""
    subject, is_reply, is_forward = _split_subject(header(message, "subject"))
    subject = "" if _NO_SUBJECT.fullmatch(subject) else subject
    text = "\n\n".join(filter(None, (own_text(text, is_forward) for text in parts.texts)))
    sender = _person(header(message, "from"))
    speaker = sender
    if source.speakers == "pseudonyms":
        others = (header(message, name) for name in ("to", "cc"))
        names = [sender, *(_person(one) for line in others for one in _addresses(line))]
        aliases = {name: pseudonym(name) for name in names if name}
        text, subject = hide_names(text, sender, aliases), hide_names(subject, "", aliases)
        speaker = pseudonym(sender)
    references = _MESSAGE_ID.findall(header(message, "references"))
    references = references or _MESSAGE_ID.findall(header(message, "in-reply-to"))[:1]
    own = _MESSAGE_ID.findall(header(message, "message-id"))
    date = _safe_date(header(message, "date"))
    ids = [*references[:1], *references[1:][-MAX_REFERENCES:], *own[:1]]
    list_id = header(message, "list-id")
    thread = f"{list_id} {subject.lower()}" if len(subject) > 8 else ""
    return Mail(
        *(speaker, subject, text, next(iter(ids), ""), date, own[0] if own else ""),
        references=tuple(ids[: len(ids) - len(own[:1])]),
        is_reply=is_reply,
        topic=thread,
    )


def _split_subject(subject: str) -> tuple[str, bool, bool]:
    """Return a subject without prefixes, and whether it answers or forwards."""
    is_reply = is_forward = False
    while (prefix := _PREFIX.match(subject := _BRACKETED.sub(r"\1", subject))) is not None:
        is_reply |= bool(prefix[1]) and not prefix[2]
        is_forward |= bool(prefix[2])
        subject = subject[prefix.end() :]
    bare = re.sub(r"\s*\(fwd\)\s*$", "", subject, flags=re.IGNORECASE)
    # What stands for bytes that were lost.
    return bare.strip("\ufffd \t"), is_reply, is_forward or bare != subject


def _addresses(line: str) -> list[str]:
    return re.findall(r"(?:\"[^\"]{0,200}\"|[^,;\"]){1,300}", line)[:MAX_REFERENCES]


def _person(address: str) -> str:
    """Return the name of the person at an address: as it is displayed, else as it is in it."""
    if "@" not in address:
        # Archives of lists write addresses like this.
        address = re.sub(r"^(\S+) at (?=\S+(?: |$))", r"\1@", address)
    name, box = parseaddr(address)
    name = re.sub(r"\s+via .*|\s*\([^)]*\)|[\"']", "", name or "").strip()
    if (swapped := re.fullmatch(r"([\w'’ -]+), ([\w'’. -]+)", name)) is not None:
        name = f"{swapped[2]} {swapped[1]}"
    if not name or "@" in name:
        name = (box or address).partition("@")[0].strip("<> ")
        words = [word for word in re.split(r"[._]+", name) if word]
        name = " ".join(words) if all(map(str.isalpha, words)) else name
    return name[:100]


def _safe_date(value: str) -> float | None:
    try:
        parsed: Any = parsedate_tz(value)
        return float(mktime_tz(parsed)) if parsed else None
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def mail_document(mails: Sequence[Mail], item: Item, source: Source) -> Document:
    """Return the mails of a thread, in order, as one document under their subject."""
    first = mails[0]
    if len(mails) == 1:
        text, turns = first.text, None
    else:
        text, turns = render([Utterance(mail.sender, mail.text) for mail in mails])
    if first.subject and not first.text.startswith(first.subject):
        text = f"{first.subject}\n\n{text}"
    record = min(mail.record for mail in mails)
    return Document(text, record, first.group, turns=turns)
