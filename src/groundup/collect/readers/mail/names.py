"""Names of people in a mail, and what stands for them: where they are greeted, and where they sign.

    Hi Bob,                     Hi Vafera,
    ask Ann Example.       →    ask Dobiru.
    Dr. Ann Example, PhD        Dobiru
    +49 89 1234567

Anywhere else only whole names are replaced: a first name alone may be a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from groundup.collect.readers.mail.text import CONTACT

_GREETING = re.compile(
    r"\s*(?:hi|hello|hey|dear|good (?:morning|afternoon|evening)|hallo|liebe[rs]?|sehr geehrte[rs]?"
    r"|guten (?:tag|morgen)|bonjour|salut|cher|chère|hola|buenos días|ciao|caro|cara|olá|beste|hej"
    r"|moi|cześć|привет|здравствуйте)\b",
    re.IGNORECASE,
)
_SIGN_OFF_LINES, _ADDRESS_LINES = 6, 20
_TITLES = frozenset("dr prof professor mr mrs ms phd ph md msc mba ing dipl jr sr".split())
# What people call themselves may have words in it, such as "stuck in traffic".
_WORDS = frozenset("an and at by com for from in is it me my no of on or org the to you".split())
_MAX_NAMES = 100


def hide_names(text: str, sender: str, names: Mapping[str, str]) -> str:
    """Return a text with names of people replaced; `names` maps each to what stands for it.

    A whole name is replaced everywhere. Its parts are where people are greeted, and the sender's
    where the mail is signed; an address or a telephone number below that is cut.
    """
    names = dict(list(names.items())[:_MAX_NAMES])
    lower = text.lower()
    whole = {
        " ".join(name.lower().split()): new
        for name, new in names.items()
        if " " in name and name.split()[0].lower() in lower
    }
    if whole:
        pattern = "|".join(r"\s+".join(map(re.escape, name.split())) for name in whole)
        text = re.sub(
            rf"(?<!\w)(?:{pattern})(?!\w)",
            lambda name: whole.get(" ".join(name[0].lower().split()), name[0]),
            text,
            flags=re.IGNORECASE,
        )
    lines = text.split("\n")
    for index in range(min(3, len(lines))):
        if _GREETING.match(lines[index]):
            for name, new in names.items():
                lines[index] = _replace_parts(lines[index], name, new)
    if sender in names:
        lines = _hide_sign_off(lines, sender, names[sender])
    return "\n".join(lines)


def _name_parts(name: str) -> list[str]:
    parts = re.findall(r"\w[\w'’-]+", name)
    return [part for part in parts if not part.isdigit() and part not in _WORDS]


def _replace_parts(line: str, name: str, new: str) -> str:
    lower = line.lower()
    # A pattern is made only where it finds something: it takes most of the time.
    if not any(part.lower() in lower for part in _name_parts(name)):
        return line
    parts = "|".join(map(re.escape, _name_parts(name)))
    middle = r"(?:(?-i:[A-ZÀ-ÞА-Я])[\w.'’-]*\s+)?"
    pattern = rf"(?<!\w)(?:{parts})(?:\s+{middle}(?:{parts}))*(?!\w)"
    return re.sub(pattern, new, line, flags=re.IGNORECASE)


def _hide_sign_off(lines: list[str], sender: str, new: str) -> list[str]:
    """Replace the sender's name below a mail, and cut the address that may follow it."""
    parts = {part.lower() for part in _name_parts(sender)} | {new.lower()}
    initials = "".join(part[0] for part in _name_parts(sender)).lower()
    written = [index for index, line in enumerate(lines) if line.strip()][-_ADDRESS_LINES:]
    for index in written:
        words = re.findall(r"\w[\w'’-]*", lines[index].lower())
        words = [word for word in words if word not in _TITLES]
        named = {word for word in words if word in parts or _is_short_for(word, parts)}
        is_whole = bool(named) and all(word in named or len(word) == 1 for word in words)
        is_short = index == written[-1] and words == [initials]
        is_full = len(named) > 1 or new.lower() in named
        if is_short or (is_whole and (is_full or index in written[-2 * _SIGN_OFF_LINES :])):
            below = lines[index + 1 :]
            return [*lines[:index], new, *([] if CONTACT.search("\n".join(below)) else below)]
        if index in written[-_SIGN_OFF_LINES:] and len(words) <= 5:
            lines[index] = _replace_parts(lines[index], sender, new)
    return lines


def _is_short_for(word: str, parts: set[str]) -> bool:
    """Return whether a word is how a person calls themselves, such as "brad" of "bradley"."""
    return len(word) > 2 and any(part.startswith(word) for part in parts)
