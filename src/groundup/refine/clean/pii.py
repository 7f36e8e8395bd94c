"""Hides e-mail and web addresses, IP addresses and phone numbers in a column of texts. Reads and
writes nothing on disk.

What is removed goes with the space around it, and a space stays in its place, so that what stood on
both sides can never join into a new address. What is masked leaves one word, and nothing else of
the text changes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, mask, replace_rows, text_buffers
from groundup.refine.clean.pii_numbers import IP, PHONE, Found, find_numbers

# What stands in place of what is masked, by kind.
MASKS = {"email": "[email]", "url": "[url]", IP: "[ip]", PHONE: "[phone]"}
# What the manifest calls texts in which a kind was hidden.
COUNTED = {
    "email": "e-mail addresses",
    "url": "web addresses",
    IP: "IP addresses",
    PHONE: "phone numbers",
}
# "mask" or "remove" for each kind that does not stay.
Actions = Mapping[str, str]

# ASCII only, as RFC 3986 has it: in Chinese text the sentence goes on right after the address.
# Brackets belong to it in pairs only, and no stop ends it.
_URL_CHARACTER = r"[A-Za-z0-9._~:/?#@!$&'*+,;=%\-]"
_URL_TAIL = rf"(?:{_URL_CHARACTER}|\({_URL_CHARACTER}*\))*(?:[A-Za-z0-9_~/#@$&*+=%\-]|\({_URL_CHARACTER}*\))"
_URL = rf"(?i:https?|ftp)://{_URL_TAIL}|\bwww\.[A-Za-z0-9-]+\.{_URL_TAIL}"
_LOCAL, _HOST = r"[A-Za-z0-9._%+-]+", r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*"
_MAIL = rf"(?:mailto:)?{_LOCAL}@{_HOST}\.[A-Za-z]{{2,}}"
# In code an address is hidden too, for the sake of its owner, but `matrix@weights.to` is no
# address: known domains only.
_DOMAINS = "com|org|net|edu|gov|mil|info|dev|au|be|br|ca|ch|cn|cz|de|dk|es|eu|fi|fr|jp|kr|nl|no|pl|ru|se|uk|us"
_CODE_MAIL = rf"{_LOCAL}@{_HOST}\.(?:{_DOMAINS})\b"
# Kinds that a pattern finds, with what every one of them holds.
_NEEDLES = {"url": ("://", "www."), "email": ("@",)}
# Numbers on both sides of a removed one may join into another; what is still found after so many
# rounds is masked.
_ROUNDS = 4


def hide(
    texts: pa.StringArray, actions: Actions, code: bool = False
) -> tuple[pa.StringArray, dict[str, Array]]:
    """Hide what `actions` names.

    Args:
        texts: without nulls, tidy.
        actions: by kind ("email", "url", "ip", "phone").
        code: whether they are source code.

    Returns:
        The texts, and for each kind a mask of those in which something of it was hidden.
    """
    touched = {}
    for kind, pattern in {"url": _URL, "email": _CODE_MAIL if code else _MAIL}.items():
        if kind in actions:
            steps = (
                _removal(pattern, code) if actions[kind] == "remove" else ((pattern, MASKS[kind]),)
            )
            texts, touched[kind] = _hide_pattern(texts, _NEEDLES[kind], steps)
    numbers = {kind: actions[kind] for kind in (IP, PHONE) if kind in actions}
    texts, found = _hide_numbers(texts, numbers)
    return texts, touched | found


def _hide_pattern(
    texts: pa.StringArray, needles: Sequence[str], steps: Sequence[tuple[str, str]]
) -> tuple[pa.StringArray, Array]:
    """Apply (pattern, replacement) steps to the texts that hold one of the needles; return them,
    and a mask of those that changed.
    """
    rows = np.zeros(len(texts), np.bool_)
    for needle in needles:
        rows |= mask(pc.match_substring(texts, needle))
    if not rows.any():
        return texts, rows
    before = after = texts.filter(pa.array(rows))
    for pattern, replacement in steps:
        after = pc.replace_substring_regex(after, pattern, replacement)
    rows[rows] = mask(pc.not_equal(before, after))
    return replace_rows(texts, rows, after.filter(pc.not_equal(before, after))), rows


def _removal(pattern: str, code: bool) -> Sequence[tuple[str, str]]:
    """Return the steps that remove what matches, in prose with brackets around it: "at x@y.org."
    becomes "at.".
    """
    if code:
        return ((pattern, " "),)
    whole = rf"(?:\((?:{pattern})\)|<(?:{pattern})>|\[(?:{pattern})\]|{pattern})"
    return (rf"(?m)(?:[ \t]*{whole})+([.,;:!?]+(?:\s|$))", r"\1"), (
        rf"(?:[ \t]*{whole})+[ \t]*",
        " ",
    )


def _hide_numbers(
    texts: pa.StringArray, actions: Actions
) -> tuple[pa.StringArray, dict[str, Array]]:
    touched = {kind: np.zeros(len(texts), np.bool_) for kind in actions}
    rows = np.arange(len(texts))
    for left in reversed(range(_ROUNDS)):
        part = texts.take(pa.array(rows))
        found = find_numbers(text_buffers(part), actions)
        if not found:
            break
        ways = actions if left else dict.fromkeys(actions, "mask")
        whole = {row: list(own) for row, own in groupby(found, lambda one: one.row)}
        for one in found:
            touched[one.kind][rows[one.row]] = True
        changed = np.zeros(len(texts), np.bool_)
        changed[rows[list(whole)]] = True
        after = [
            _replaced(part[row].as_py().encode(), own, ways).decode() for row, own in whole.items()
        ]
        texts, rows = replace_rows(texts, changed, after), np.flatnonzero(changed)
    return texts, touched


def _replaced(text: bytes, found: Sequence[Found], actions: Actions) -> bytes:
    pieces, at = [], 0
    for one in found:
        begin, end, put = one.begin, one.end, MASKS[one.kind].encode()
        if actions[one.kind] == "remove":
            begin, end, put = _with_space(text, begin, end)
            # One space in place of neighbors, as tidying would leave: numbers are looked for with
            # that much between them.
            put = put if at < begin or not at else b""
        pieces += [text[at : max(at, begin)], put]
        at = end
    return b"".join([*pieces, text[at:]])


_STOP = re.compile(rb"[.,;:!?]+(?:\s|$)")


def _with_space(text: bytes, begin: int, end: int) -> tuple[int, int, bytes]:
    """Widen a span over brackets and blanks around it; return it and what stays in its place."""
    if text[begin - 1 : begin] + text[end : end + 1] in (b"()", b"<>", b"[]"):
        begin, end = begin - 1, end + 1
    while begin and text[begin - 1] in b" \t":
        begin -= 1
    if _STOP.match(text, end):
        return begin, end, b""
    while end < len(text) and text[end] in b" \t":
        end += 1
    return begin, end, b" "


def counted(touched: Mapping[str, Array]) -> Counter[str]:
    """Return how many texts each kind was hidden in, as the manifest names it."""
    return Counter({COUNTED[kind]: int(rows.sum()) for kind, rows in touched.items()})
