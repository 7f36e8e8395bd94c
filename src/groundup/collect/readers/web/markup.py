"""Markup that changes what a text says, written as text before an extractor drops the tags.

    10<sup>23</sup> → 10²³      x<sub>max</sub> → x_max      <q>yes</q> → “yes”

Numbers, signs and single letters become the superscripts and subscripts of Unicode, as in the
reader of wikitext; other exponents and indexes get ^ and _. Ordinals (1st, XIXe), other
abbreviations and footnote marks stay as they are. Names of emoji, as chats and GitHub have them,
become their characters.

`repair_tree` is for trafilatura, which takes text from paragraphs only, writes tables as rows,
breaks lines where the file does, and drops blank lines of code.
"""

from __future__ import annotations

import html
import re
from contextlib import suppress
from typing import Any
from unicodedata import lookup

SUPERSCRIPTS = str.maketrans("0123456789+-−=()nio", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱº")
SUBSCRIPTS = str.maketrans("0123456789+-−=()aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ")
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
    r"<!--.*?(?:-->|\Z)|<(script|style|textarea|svg)\b.*?(?:</\1\s*>|\Z)|<(/?)q(?=[\s/>])[^<>]*>",
    re.IGNORECASE | re.DOTALL,
)


def write_marks(page: str) -> str:
    """Return a page with its superscripts, subscripts and quotation marks as characters."""
    for _ in range(_MAX_SCRIPTS):
        page, count = _SUP_OR_SUB.subn(_write_script, page)
        if not count:
            break
    if "<q" in page or "<Q" in page:
        parts, end, depth = [], 0, 0
        for tag in _QUOTE.finditer(page):
            if tag[2] is not None:
                depth = max(0, depth - 1) if tag[2] else depth + 1
                marks = "“”" if (depth + (tag[2] == "/")) % 2 else "‘’"
                parts += [page[end : tag.start()], marks[tag[2] == "/"]]
                end = tag.end()
        page = "".join([*parts, page[end:]])
    return page


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


# A line of this many bytes is prose; so is a shorter one that ends like a sentence. Bytes, because
# a sentence is about as long in bytes in any script.
PROSE_BYTES = 120
MIN_SENTENCE = 4
_SENTENCE_END = re.compile(r"[.!?…。！？।۔؟։:：][\"'”’»」)]*\s*\Z")
_ADDRESS = re.compile(r"\s*(?:https?:|www\.)")
# Elements of a line. A run of them between paragraphs is a paragraph.
_INLINE = frozenset(
    "a abbr acronym b bdi bdo big br cite code del dfn em font i img ins kbd mark q s samp small"
    " span strike strong sub sup time tt u var wbr".split()
)
_CONTAINERS = ("div", "section", "article", "main", "body", "center")
_TABLE_PARTS = ("tbody", "tr", "td", "tfoot")
_CELL_TEXT = 600  # a cell this long is no cell of data
_WHITE_SPACE = re.compile(r"[ \t\r\n\f]+")
# Letters that are in no page and that an extractor keeps: they stand for a line end, a space and a
# tab of preformatted text, and for its borders.
_CODE = "\U00010600\U00010601\U00010602\U00010603"
_CODE_BORDER = re.compile(rf"[ \n]*{_CODE[3]}[ \n]*")


def repair_tree(tree: Any) -> None:
    """Change a parsed page so that trafilatura keeps its text."""
    for table in list(tree.iter("table")):
        # A table lays out the page where its cells hold tables, paragraphs or long texts.
        is_layout = table.get("role") == "presentation" or table.find(".//table") is not None
        if not is_layout and next(table.iter("th", "thead", "caption"), None) is None:
            cells = list(table.iter("td"))
            paragraphs = max((len(cell.findall("p")) for cell in cells), default=0)
            longest = max((len(cell.text_content()) for cell in cells), default=0)
            is_layout = len(cells) == 1 or paragraphs > 1 or longest >= _CELL_TEXT
        if is_layout:
            parts = list(table.iter(*_TABLE_PARTS))
            own = [part for part in parts if next(part.iterancestors("table")) is table]
            for part in [table, *own]:
                part.tag = "div"
    _squeeze(tree)
    for container in list(tree.iter(*_CONTAINERS)):
        _wrap_runs(container)
    # White space of preformatted text becomes letters, which no extractor changes.
    for code in list(tree.iter("pre")):
        if next(code.iterancestors("table", "pre"), None) is not None:
            continue
        for line_break in list(code.iter("br")):
            line_break.tail = "\n" + (line_break.tail or "")
        text = code.text_content().strip("\n").rstrip()
        if text and not any(letter in text for letter in _CODE):
            code.clear(keep_tail=True)
            letters = dict(zip(map(ord, "\n \t\xa0"), _CODE[0:3] + _CODE[1], strict=True))
            code.text = f"{_CODE[3]}{text.translate(letters)}{_CODE[3]}"


def _squeeze(tree: Any) -> None:
    """Make one space of the white space that a browser shows as one: lines of the file are none."""
    shaped = [*tree.iter("pre", "textarea"), *tree.xpath("//*[contains(@style, 'white-space')]")]
    inside = {element for parent in shaped for element in parent.iter()}
    inner_tails = inside - set(shaped)
    for element in tree.iter():
        if element.text and element not in inside:
            element.text = _WHITE_SPACE.sub(" ", element.text)
        if element.tail and element not in inner_tails:
            element.tail = _WHITE_SPACE.sub(" ", element.tail)


def restore_code(text: str) -> str:
    """Return the text that trafilatura extracted, with the white space of its code."""
    if _CODE[3] not in text:
        return text
    lines = text.translate(dict(zip(map(ord, _CODE), "\n \t", strict=False)))
    return _CODE_BORDER.sub("\n\n", lines).strip("\n")


def _wrap_runs(container: Any) -> None:
    """Make a paragraph of every run of text and inline elements that is prose."""
    runs: list[tuple[Any, list[Any]]] = [(None, [])]
    for child in container:
        if child.tag in _INLINE:
            runs[-1][1].append(child)
        else:
            runs.append((child, []))
    for before, children in runs:
        lead = (container.text if before is None else before.tail) or ""
        text = lead + "".join(child.text_content() + (child.tail or "") for child in children)
        size = len(text.strip().encode())
        is_prose = size >= PROSE_BYTES or (size >= MIN_SENTENCE and _SENTENCE_END.search(text))
        if not is_prose or _ADDRESS.match(text):
            continue
        paragraph = container.makeelement("p")
        paragraph.text = lead
        if before is None:
            container.text = None
            container.insert(0, paragraph)
        else:
            before.tail = None
            before.addnext(paragraph)
        paragraph.extend(children)
