"""The last steps from wikitext to text: tags, quotes and entities out, then lines. Reads text
without templates; returns text.

Where something was taken out stands `GAP`, so that the punctuation around it is mended there and
nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Marks that no wikitext can hold: what was dropped, and what was set aside as it is.
GAP, MARK = "\x01", "\x00"
_KEPT = re.compile(rf"{MARK}(\d+){MARK}")
_BREAK = re.compile(
    r"<(?:br|hr)\b[^<>]*>|</(?:p|div|li|tr|dd|dt|h[1-6]|blockquote|center|poem|table)\s*>",
    re.IGNORECASE,
)
_SMALL = re.compile(r"<su([pb])\b[^<>]*>([-+−0-9n]{1,8})</su[pb]\s*>", re.IGNORECASE)
_RAISED = str.maketrans("0123456789+-−n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻ⁿ")
_LOWERED = str.maketrans("0123456789+-−", "₀₁₂₃₄₅₆₇₈₉₊₋₋")
_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]{0,500})?/?>")
_CONVERSION = re.compile(r"-\{([^{}]*)\}-")
_SWITCH = re.compile(r"__[A-Z]{3,25}__")
_QUOTES = re.compile(r"'''''|'''|''")
_HEADING = re.compile(r"(={1,6})\s*(.+?)\s*\1$")
_LIST = re.compile(r"([*#:;]+)\s*")
_ADDRESS = re.compile(r"[-*#:;\s]*(?:https?|ftp)://\S+$")
_SEPARATORS = " \t,;:،、，；"
_OPENING, _CLOSING = ("(", "（", "[", "「"), (")", "）", "]", "」")
_MARKS = (",", ";", ".", ":", "،", "、", "，", "；", "。")
_LINE_START = ("", "\n", "*", "#")
_NO_TEXT = " \t-–—.,;:()[]{}|!/'\"*#=_…،、。（）·•"


def plain(text: str) -> str:
    """Take out what is left of markup inside lines, and close gaps."""
    if "<" in text:
        text = _SMALL.sub(
            lambda small: small[2].translate(_RAISED if small[1] in "pP" else _LOWERED), text
        )
        text = _TAG.sub("", _BREAK.sub("\n", text))
    if "-{" in text:
        text = _CONVERSION.sub(lambda rule: _variant(rule[1]), text)
    return closed(_QUOTES.sub("", _SWITCH.sub("", text)))


def _variant(rule: str) -> str:
    """Return the first form of a rule of language conversion; nothing for one that only declares."""
    flags, bar, forms = rule.rpartition("|")
    if bar and set(flags) & set("HT-"):
        return ""
    first = forms.partition(";")[0]
    return (
        first.partition(":")[2].strip()
        if re.match(r"\s*[a-z]{2,3}(?:-[a-z]+)?\s*:", first)
        else forms
    )


def closed(text: str) -> str:
    """Close the gaps: no empty parentheses, no separators without what they separated, no double
    spaces.
    """
    pieces = text.split(GAP)
    done: list[str] = []
    left = pieces[0]
    for piece in pieces[1:]:
        left, right = _joint(left, piece)
        if right:
            done.append(left)
            left = right
    return "".join([*done, left])


def _joint(left: str, right: str) -> tuple[str, str]:
    """Return the two sides of a gap as they read when nothing stands between them."""
    if not right.strip(" "):
        return (left if left[-1:] in ("", " ", "\n") else left + right[:1]), ""
    before, after = left.rstrip(_SEPARATORS), right.lstrip(_SEPARATORS)
    if before.endswith(_OPENING):
        return (
            (before[:-1].rstrip(" "), after[1:]) if after.startswith(_CLOSING) else (before, after)
        )
    if after.startswith(_CLOSING):
        return before, after
    if before[-1:] in _LINE_START:
        return left, after
    spaced, near = left.rstrip(" "), right.lstrip(" ")
    if near.startswith(_MARKS):
        # Two separators meet: one goes, and the space before it.
        return (spaced, after) if spaced.endswith(":") else (before, near)
    return (spaced, right) if right[:1] in (" ", "\n") else (left, right)


def lay_out(text: str, kept: Sequence[str]) -> str:
    """Normalise headings, lists and blank lines, drop headings and bullets that nothing follows,
    and put back what was set aside.
    """
    lines: list[str] = []
    pending: list[tuple[int, str]] = []
    for raw in _spaced(text).split("\n"):
        line = raw.strip()
        heading = _HEADING.match(line) if line[:1] == "=" else None
        if heading is not None:
            depth = len(heading[1])
            pending = [*(held for held in pending if held[0] < depth), (depth, heading[2])]
        elif (
            not line.strip(_NO_TEXT) or line[0] in "|!" or ("://" in line and _ADDRESS.match(line))
        ):
            lines += [""] if lines and lines[-1] else []
        else:
            for _, held in pending:
                lines += [*([""] if lines and lines[-1] else []), held, ""]
            pending = []
            lines.append(_item(line) if line[0] in "*#:;" else line)
    return _KEPT.sub(lambda number: kept[int(number[1])], "\n".join(lines)).strip()


def _spaced(text: str) -> str:
    """Return the text with one plain space where there were spaces, tabs or no-break spaces."""
    for space in "\t\xa0\u2009\u202f\u2003\u2002":
        text = text.replace(space, " ")
    while "  " in text:
        text = text.replace("  ", " ")
    return text


def _item(line: str) -> str:
    match = _LIST.match(line)
    assert match is not None
    return ("- " if match[1][-1] in "*#" else "") + line[match.end() :]


def mark(number: int) -> str:
    """Return the mark of a piece of text that was set aside."""
    return f"{MARK}{number}{MARK}"
