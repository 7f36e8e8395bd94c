"""Markup that changes what a text says, written as text before an extractor drops the tags.

    10<sup>23</sup> → 10²³      x<sub>max</sub> → x_max      <q>yes</q> → “yes”

Numbers, signs and single letters become the superscripts and subscripts of Unicode, as in the
reader of wikitext; other exponents and indexes get ^ and _. Ordinals (1st, XIXe), other
abbreviations and footnote marks stay as they are. Names of emoji, as chats and GitHub have them,
become their characters.
"""

from __future__ import annotations

import html
import re
from contextlib import suppress
from unicodedata import lookup

SUPERSCRIPTS = str.maketrans("0123456789+-−=()nio", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱº")
SUBSCRIPTS = str.maketrans("0123456789+-−=()aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ")
_MARK = re.compile(r"<(?:su[pb]|q)[\s/>]", re.IGNORECASE)
# Innermost elements only, so that the search takes linear time.
_SUP_OR_SUB = re.compile(
    r"<su([pb])(?=[\s/>])([^<>]*)>((?:[^<>]|<(?!/?su[pb]\b)[^<>]*>)*+)</su\1\s*>", re.IGNORECASE
)
_TAG = re.compile(r"(<[^<>]*>)")
_WORD = re.compile(r"[^\W\d_]{2}")
# What an exponent or index belongs to, through the tags of inline elements.
_BASE = re.compile(r"[\w)\]}|'′’⁰-₟](?:</?(?:i|b|em|var|strong|span|a|font)\b[^<>]*>)*\Z")
_ORDINAL_BASE = re.compile(r"(?:\d|\b[IVXLCM]+)(?:</[a-z]+>)*\Z")
_ORDINAL = re.compile(
    r"(?:st|nd|rd|th|e|er|ers|re|res|ère|es|d|nd|nde|de|ème|eme|ste|te|a|as|os|bis|ter|m)\Z",
    re.IGNORECASE,
)
_ABBREVIATION = re.compile(r"(?:tm|sm|mc|me|mes|lle|lles|gr|rs|os)\Z", re.IGNORECASE)
_EXPRESSION = re.compile(r"[\w.,+\-−–*/=()′'√π∞ ]{1,24}\Z")
_PLAIN = re.compile(r"[\w.,]+\Z")
_MAX_SCRIPTS = 4  # how deep exponents of exponents may go
_QUOTE = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<(script|style|textarea|svg)\b[^<]*+(?:<(?!/\1\s*>)[^<]*+)*+(?:</\1\s*>|\Z)"
    r"|<(/?)q(?=[\s/>])[^<>]*>",
    re.IGNORECASE | re.DOTALL,
)


def write_marks(page: str) -> str:
    """Return a page with its superscripts, subscripts and quotation marks as characters."""
    if not _MARK.search(page):
        return page
    for _ in range(_MAX_SCRIPTS):
        page, count = _SUP_OR_SUB.subn(_write_script, page)
        if not count:
            break
    parts, end, depth = [], 0, 0
    for tag in _QUOTE.finditer(page):
        if tag[2] is not None:
            depth = max(0, depth - 1) if tag[2] else depth + 1
            marks = "“”" if (depth + (tag[2] == "/")) % 2 else "‘’"
            parts += [page[end : tag.start()], marks[tag[2] == "/"]]
            end = tag.end()
    return "".join([*parts, page[end:]])


def _write_script(tag: re.Match[str]) -> str:
    """Return a superscript or subscript as an element that leaves its text as it is."""
    letter, attributes, inner = tag.groups()
    table, mark = (SUPERSCRIPTS, "^") if letter in "pP" else (SUBSCRIPTS, "_")
    pieces = _TAG.split(inner)  # texts at even places, the tags between them at odd ones
    pieces[::2] = map(html.unescape, pieces[::2])
    text = "".join(pieces[::2]).strip()
    before = tag.string[max(0, tag.start() - 80) : tag.start()]
    ordinal = _ORDINAL.match(text) and _ORDINAL_BASE.search(before)
    if text and all(ord(char) in table for char in text) and not _WORD.search(text) and not ordinal:
        pieces[::2] = [piece.translate(table) for piece in pieces[::2]]
        inner = "".join(pieces)
    elif (
        _EXPRESSION.match(text)
        and _BASE.search(before)
        and not ordinal
        and not (mark == "^" and _ABBREVIATION.match(text))
        # A link is a footnote mark.
        and not re.search(r"<a\b", inner, re.IGNORECASE)
    ):
        inner = f"{mark}{inner.strip()}" if _PLAIN.match(text) else f"{mark}({inner.strip()})"
    # Classes stay: they tell footnote marks of books.
    return f"<span{attributes}>{inner}</span>"


# Names between colons, several in a row, too: ":wave::skin-tone-2:". The pattern begins with a
# character, not with a look back: it is found ten times faster.
_EMOJI = re.compile(
    r":(?<![\w:]:)[A-Za-z+-][\w+'-]{0,60}:(?::[A-Za-z+-][\w+'-]{0,60}:){0,99}(?![\w:])"
)
_EMOJI_NAMES = {
    "+1": "thumbs up sign",
    "thumbsup": "thumbs up sign",
    "-1": "thumbs down sign",
    "smile": "smiling face with open mouth and smiling eyes",
    "simple_smile": "slightly smiling face",
    "joy": "face with tears of joy",
    "wink": "winking face",
    "heart": "heavy black heart",
    "tada": "party popper",
    "wave": "waving hand sign",
    "pray": "person with folded hands",
    "clap": "clapping hands sign",
    "ok_hand": "ok hand sign",
    "bulb": "electric light bulb",
    "warning": "warning sign",
}
_FIRST_EMOJI = "\u2190"


def write_emoji(text: str) -> str:
    """Return a text with characters for names of emoji; one that Unicode does not know goes."""
    return _EMOJI.sub(_emoji_characters, text)


def _emoji_characters(names: re.Match[str]) -> str:
    characters = []
    for name in names[0].strip(":").split("::"):
        with suppress(KeyError, UnicodeError):
            characters.append(lookup(_EMOJI_NAMES.get(name, name.replace("_", " "))))
    return "".join(character for character in characters if character >= _FIRST_EMOJI)
