"""Wikitext to plain text: prose, headings, lists, formulas and code stay; the rest goes.

    '''Berlin''' ({{IPA|de|bɛʁˈliːn}}; {{audio|x.ogg}}) is the [[capital city|capital]] of
    [[Germany]].<ref>A source.</ref>
    →
    Berlin ([bɛʁˈliːn]) is the capital of Germany.

Templates carry layout and citations and differ between wikis, so a template that is not known
(`templates.py`) is removed, and with it the sentence that needs its words (`holes.py`). The steps
of `read_wikitext`:

1. Comments, references and other extension tags are cut out. Code and formulas are set aside.
2. All brackets are matched in one pass. The page is rendered from the outside in, so that what is
   not shown is skipped with everything inside it. A bracket that is never closed costs its
   paragraph, or only itself.
3. Tags and quotes go, lines are laid out, and what was set aside is put back.

Where something was removed stands a GAP until step 3, so that the punctuation around it is repaired
there and nowhere else.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from html import unescape

from groundup.collect.readers.wiki.arguments import WIKI, Arguments
from groundup.collect.readers.wiki.holes import HOLE, drop_sentences, is_hole, stands_inside
from groundup.collect.readers.wiki.templates import (
    COORDINATES,
    NO_WORDS,
    find_template,
    is_computed,
)

# Characters that wikitext cannot hold: what was removed, and the number of what was set aside.
GAP, _LITERAL_MARK = "\x01", "\x00"
_LITERAL_NUMBER = re.compile(rf"{_LITERAL_MARK}(\d+){_LITERAL_MARK}")

# Step 1. Tags whose content is no wikitext.
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_CODE_TAGS = ("syntaxhighlight", "source")
_LITERAL_TAGS = ("nowiki", "pre", *_CODE_TAGS)
_DROPPED_TAGS = (
    "ref gallery timeline score imagemap graph mapframe maplink templatestyles templatedata"
    " inputbox categorytree hiero".split()
)
_EXTENSION = re.compile(
    rf"<(/?)({'|'.join((*_LITERAL_TAGS, 'math', *_DROPPED_TAGS))})\b([^<>]*)>", re.IGNORECASE
)
_REST_OF_LINE = re.compile(r"[^\n<]*")

# Step 2. A template, link or parameter with no bracket inside is one match.
_BRACKET = re.compile(
    r"\{\{\{[^{}]*\}\}\}|\{\{[^{}\[\]]*\}\}|\[\[[^{}\[\]]*\]\]|\{\{|\}\}|\[\[|\]\]|\{\||\|\}(?!\})"
)
_OPENED_BY = {"}}": "{{", "]]": "[[", "|}": "{|"}
_BRACKETS = (*_OPENED_BY, *_OPENED_BY.values())
# Links without a namespace, with what they show as the one group. Replacing them first removes most
# brackets of a page.
_SIMPLE_LINK = re.compile(r"\[\[(?:[^\[\]{}|<>\n:]+\|)?([^\[\]{}|\n:#]+)\]\]")
# A label may hold brackets, one level deep.
_EXTERNAL_LINK = re.compile(
    r"\[(?:https?:|ftps?:|mailto:|news:|irc:|//)[^\s\[\]]*+[ \t]*+"
    r"((?:[^\[\]\n]++|\[[^\[\]\n]*+\])*+)\]",
    re.IGNORECASE,
)
_MAX_DEPTH, _MAX_INDENT, _MAX_LINE, _MAX_NAME = 40, 30, 300, 255
_TABLE_ATTRIBUTES = re.compile(r"\s*(?:class|style|border|width|align|cellpadding)\s*=")
_CELL = re.compile(r"\n[ \t]*(?:\|[-+}]?|!)|\|\||!!")
_CELL_STYLE = re.compile(r"\A[^|\n]{0,300}=[^|\n]{0,300}\|")
_SENTENCE_END = re.compile(r"[.!?。।؟]\W*$")
_MIN_CELL_PROSE = 150  # a shorter cell is a figure, a name or a label
_TEMPLATE_NAME = re.compile(r"[^|{}\[\]<\n]*")
# The start of a template, up to its last argument.
_OUTER_TEMPLATE = re.compile(r"\{\{[^{}\n]*[|:] *$")
_WORD = re.compile(r"\w")
# One argument without a name, markup or brackets, and longer than a language code.
_PHRASE = re.compile(r"(?![a-z]{1,3}$)[^|={}\[\]<>\n]*\w[^|={}\[\]<>\n]*")
_MAX_PHRASE = 200
_NAMESPACE = re.compile(r"\s*([^\s:|\[\]][^:|\[\]]{0,40}?)\s*:")
_LANGUAGE_CODE = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,12})*$")
_FILE_NAME = re.compile(
    r"\.(?:jpe?g|png|gif|svg|webp|tiff?|og[gvax]|webm|pdf|djvu|mp[34]|wav|flac|mid)\s*$",
    re.IGNORECASE,
)
_HIDDEN_NAMESPACES = frozenset(WIKI["no_words"]["namespaces"].split())
_LINK_OR_TEMPLATE = re.compile(r"\[\[[^\[\]]*\]\]|\{\{[^{}]*\}\}")
# Brackets without partners. An open template or table is layout up to the next blank line.
_STRAY_BRACKET = re.compile(
    r"\[\[|\]\]|\}\}+|^[ \t]*\|\}|(?:\{\{|^[ \t:*]*\{\|).*?(?=\n[ \t]*\n|\Z)",
    re.DOTALL | re.MULTILINE,
)
_LAST_BRACKETS = re.compile(r"[\[\]{}]+")

# Step 3.
_LINE_BREAK = re.compile(
    r"<(?:br|hr)\b[^<>]*>|</(?:p|div|li|tr|dd|dt|h[1-6]|blockquote|center|poem|table)\s*>",
    re.IGNORECASE,
)
_SUB_OR_SUP = re.compile(r"<su([pb])\b[^<>]*>([-+−0-9n]{1,8})</su[pb]\s*>", re.IGNORECASE)
_SUPERSCRIPTS = str.maketrans("0123456789+-−n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻ⁿ")
_SUBSCRIPTS = str.maketrans("0123456789+-−", "₀₁₂₃₄₅₆₇₈₉₊₋₋")
_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]{0,500})?/?>")
# A rule of language conversion: its flags, and the first form, with or without its language.
_CONVERSION = re.compile(
    r"-\{(?:([^{}]*)\|)?(?:\s*[a-z]{2,3}(?:-[a-z]+)?\s*:([^{}|;]*)[^{}|]*|([^{}|]*))\}-"
)
_SWITCH = re.compile(r"__[A-Z]{3,25}__")
_QUOTES = re.compile(r"'''''|'''|''")
_HEADING = re.compile(r"(={1,6})\s*(.+?)\s*\1$")
_LIST_MARKER = re.compile(r"([*#:;]+)\s*")
_BARE_URL = re.compile(r"[-*#:;\s]*(?:https?|ftp)://\S+$")
# It begins with characters, not with a repetition: so the places to try are found faster.
_BLANK_LINES = re.compile(r"\n\n\n+")
_SEPARATORS = " \t,;:،、，；"
_OPENING, _CLOSING = ("(", "（", "[", "「"), (")", "）", "]", "」")
_PUNCTUATION = (",", ";", ".", ":", "،", "、", "，", "；", "。")
_LINE_START = ("", "\n", "*", "#")
_NO_TEXT = " \t-–—.,;:()[]{}|!/'\"*#=_…،、。（）·•"


def read_wikitext(wikitext: str, hidden: Iterable[str] = (), language: str = "") -> tuple[str, int]:
    """Return the text of a page, and how many sentences were left out.

    A sentence is left out when a template that is not known stands for words of it. `hidden` names
    the wiki's own namespaces, in lower case, whose links show nothing.
    """
    text = wikitext.replace("\r\n", "\n")
    # One by one: `str.translate` would look up every character, and take half of all time.
    for mark in (GAP, HOLE, _LITERAL_MARK):
        text = text.replace(mark, "")
    # A comment that is not closed reaches to the end of the page.
    before, arrow, after = text.rpartition("-->")
    text = _COMMENT.sub("", before + arrow) + after.partition("<!--")[0]
    text, literals = _cut_extensions(text)
    text = "".join(_SIMPLE_LINK.split(text))
    text = _Page(text, _HIDDEN_NAMESPACES.union(hidden), language).render()
    text, left_out = drop_sentences(_drop_marks(text))
    text = _drop_brackets(close_gaps(text))
    # The most frequent entities, ten times faster than as any.
    text = text.replace("&nbsp;", "\xa0").replace("&ndash;", "–")
    text = _lay_out_lines(unescape(text))
    if literals:
        text = _LITERAL_NUMBER.sub(lambda number: literals[int(number[1])], text)
    return text.strip(), left_out


def _drop_marks(text: str) -> str:
    """Return a rendered page without external links, tags, rules of language and quotes."""
    text = _EXTERNAL_LINK.sub(lambda link: link[1] or GAP, text)
    if "<" in text:
        text = _SUB_OR_SUP.sub(
            lambda tag: tag[2].translate(_SUPERSCRIPTS if tag[1] in "pP" else _SUBSCRIPTS), text
        )
        text = _TAG.sub("", _LINE_BREAK.sub("\n", text))
    if "-{" in text:
        # A rule with one of these flags only declares.
        text = _CONVERSION.sub(
            lambda rule: (
                "" if set("HT-") & set(rule[1] or "") else rule[3] or (rule[2] or "").strip()
            ),
            text,
        )
    if "__" in text:
        text = _SWITCH.sub("", text)
    lines = text.split("\n")
    return "\n".join([_drop_quotes(line) if "''" in line else line for line in lines])


def _drop_brackets(text: str) -> str:
    """Return a page without the brackets that have no partners."""
    # They come last: both sides of a tag or gap may have met as one, and so may both sides of a
    # stray. Looking for one character first takes a tenth of the time.
    for pattern in (_STRAY_BRACKET, _STRAY_BRACKET, _LAST_BRACKETS):
        if not any(bracket[0] in text and bracket in text for bracket in _BRACKETS):
            break
        text = pattern.sub("", text)
    return text


def is_redirect(wikitext: str) -> bool:
    """Return whether a page redirects to another; the keyword depends on the wiki's language."""
    match = re.match(r"\s*#\s*[^\W\d_][\w ]{2,30}\s*:?\s*\[\[([^\]|\n]+)", wikitext[:400])
    return match is not None and bool(match[1].strip())


def _cut_extensions(text: str) -> tuple[str, list[str]]:
    """Return the text without extension elements, and the literal texts set aside from it.

    A literal leaves its number between two marks, a lone tag nothing, everything else a gap.
    """
    tags = list(_EXTENSION.finditer(text))
    literals: list[str] = []
    parts: list[str] = []
    position = 0
    for tag, close in zip(tags, _closing_tags(tags), strict=True):
        if tag.start() < position:
            continue
        parts.append(text[position : tag.start()])
        position, name, content = tag.end(), tag[2].lower(), ""
        is_closed = tag[1] or tag[3].endswith("/")
        if close is not None and close[1] and not is_closed:
            position, content = close.end(), text[position : close.start()]
        elif name == "ref" and not is_closed:
            # A reference that is never closed costs the rest of its line.
            rest = _REST_OF_LINE.match(text, position)
            position = rest.end() if rest else position
        else:
            continue
        if name in _DROPPED_TAGS:
            parts.append(GAP)
            continue
        if name == "math":
            content = f"${' '.join(content.split())}$"
        elif name not in _CODE_TAGS:
            content = unescape(content)
        parts.append(f"{_LITERAL_MARK}{len(literals)}{_LITERAL_MARK}")
        literals.append(content)
    return "".join([*parts, text[position:]]), literals


def _closing_tags(tags: Sequence[re.Match[str]]) -> list[re.Match[str] | None]:
    """Return for each extension tag the next one that closes its name.

    References do not nest: another one that opens first leaves this one open.
    """
    latest: dict[str, re.Match[str]] = {}
    found: list[re.Match[str] | None] = []
    for tag in reversed(tags):
        name = tag[2].lower()
        found.append(latest.get(name))
        if tag[1] or (name == "ref" and tag[3][-1:] != "/"):
            latest[name] = tag
    return found[::-1]


class _Page:
    """A page with matched brackets; renders any part of it, skipping what is not shown.

    A link is closed only as the innermost bracket. A template or table also closes over brackets
    left open inside it.
    """

    def __init__(self, text: str, hidden: frozenset[str], language: str) -> None:
        self.text, self.hidden, self.language = text, hidden, language
        # Position of every bracket that is closed → the position after its partner.
        self.ends: dict[int, int] = {}
        stack: list[tuple[str, int]] = []
        open_count: Counter[str] = Counter()
        for match in _BRACKET.finditer(text):
            token, start = match[0], match.start()
            if len(token) > 2:
                self.ends[start] = match.end()
                continue
            if token in ("{|", "|}"):
                # A table starts and ends at the start of a line; in pages that lost their line
                # breaks, where it looks like one.
                _, newline, indent = text[max(0, start - _MAX_INDENT) : start].rpartition("\n")
                is_edge = open_count["{|"] > 0 and indent.endswith(" ")
                if token == "{|":
                    is_edge = _TABLE_ATTRIBUTES.match(text, match.end()) is not None
                starts_line = newline or start <= _MAX_INDENT
                if not is_edge and (not starts_line or indent.strip(" \t:*#")):
                    continue
            opened_by = _OPENED_BY.get(token)
            if opened_by is None:
                stack.append((token, start))
                open_count[token] += 1
            elif open_count[opened_by] and (token != "]]" or stack[-1][0] == "[["):
                opening = ""
                while opening != opened_by:
                    opening, position = stack.pop()
                    open_count[opening] -= 1
                self.ends[position] = match.end()
        self.openings = sorted(self.ends)

    def render(self, start: int = 0, end: int | None = None, depth: int = 0) -> str:
        """Return what is shown of the text between two positions."""
        end = len(self.text) if end is None else end
        parts, position = [], start
        index = bisect_left(self.openings, start)
        while index < len(self.openings) and (opening := self.openings[index]) < end:
            parts.append(self.text[position:opening])
            position = self.ends[opening]
            inside = (opening + 2, position - 2, depth + 1)
            is_table = self.text[opening + 1] == "|"
            if depth >= _MAX_DEPTH or (is_table and inside[1] - inside[0] < _MIN_CELL_PROSE):
                parts.append(GAP)
            elif self.text[opening] == "[":
                parts.append(self._render_link(*inside))
            elif self.text[opening + 1] == "{":
                parts.append(self._render_template(*inside))
            else:
                # Cells of a table that hold sentences, as paragraphs: tables also lay out columns.
                cells = _CELL.split(self.render(*inside))
                cells = [_CELL_STYLE.sub("", cell).strip() for cell in cells]
                cells = [cell for cell in cells if len(cell) >= _MIN_CELL_PROSE]
                prose = [cell for cell in cells if _SENTENCE_END.search(cell, len(cell) - 5)]
                parts.append("\n\n".join(["", *prose, ""]) if prose else GAP)
            index = bisect_left(self.openings, position, index)
        parts.append(self.text[position:end])
        return "".join(parts)

    def _render_inside(self, start: int, end: int, depth: int) -> str:
        """Return what is shown between two positions that rarely hold a bracket."""
        inside = self.text[start:end]
        return self.render(start, end, depth) if "[[" in inside or "{" in inside else inside

    def _render_template(self, start: int, end: int, depth: int) -> str:
        """Return the words that a template stands for; a gap where it is layout.

        An unknown one with one argument stands for it where it follows a word, as a word does. One
        that stands for words that are not known leaves a hole in its sentence.
        """
        match = _TEMPLATE_NAME.match(self.text, start, end)
        assert match is not None
        name = match[0].strip().lower().replace("_", " ")
        # No wiki has longer names, and those of 1,000 templates are kept in a cache.
        show = find_template(name[:_MAX_NAME], self.language)
        before = unescape(self.text[max(0, start - _MAX_PHRASE) : start - 2].rpartition("\n")[2])
        after = unescape(self.text[end + 2 : end + 2 + _MAX_PHRASE])
        # A template that is the last argument of others stands where they stand.
        while after.startswith("}}") and (outer := _OUTER_TEMPLATE.search(before)):
            before, after = before[: outer.start()], after[2:]
        if name in COORDINATES and not stands_inside(before):
            return GAP
        if show is None:
            size = end - match.end() - 1
            phrase = self.text[end - size : end] if 0 < size < _MAX_PHRASE else ""
            is_words = _PHRASE.fullmatch(phrase) is not None and not _FILE_NAME.search(phrase)
            in_sentence = before.endswith((" ", "(", "（", '"')) and _WORD.search(before)
            is_shown = is_words and in_sentence and not is_computed(name)
            if not is_shown or name in NO_WORDS:
                return HOLE if is_hole(name, self.text[match.end() : end], before, after) else GAP
        inside = name.partition(":")[2]
        # The first bar may stand on a line of its own.
        bar = self.text.find("|", match.end(), end)
        if bar >= 0 and not self.text[match.end() : bar].strip():
            inside = self._render_inside(bar + 1, end, depth)
        elif ":" in name:
            # {{formatnum:{{...}}}}
            inside = self._render_inside(start + match[0].index(":") + 1, end, depth)
        arguments = Arguments.parse(inside, self.language)
        return (show(arguments) if show else arguments.positional[0]) or GAP

    def _render_link(self, start: int, end: int, depth: int) -> str:
        """Return the text that a link shows; a gap for files, categories and other languages."""
        bar = self.text.find("|", start, end)
        target = self.text[start : bar if bar >= 0 else end].strip()
        namespace = _NAMESPACE.match(target)
        if namespace is not None:
            name = namespace[1].lower()
            if name in self.hidden or _LANGUAGE_CODE.match(name) or _FILE_NAME.search(target):
                return GAP
            # "Category:X" in any language: no space behind the colon, and no text on the line.
            if target[namespace.end() : namespace.end() + 1] not in ("", " "):
                before = self.text[max(0, start - _MAX_LINE) : start - 2].rpartition("\n")[2]
                after = self.text[end + 2 : end + _MAX_LINE].partition("\n")[0]
                around = (_LINK_OR_TEMPLATE.sub("", part).strip() for part in (before, after))
                if not any(around):
                    return GAP
        if bar >= 0:
            label = self._render_inside(bar + 1, end, depth)
            # An empty label shows the target without namespace and parentheses.
            return label.rpartition("|")[2] or target.partition("(")[0].rpartition(":")[2].strip()
        if target.startswith(":"):
            return target.removeprefix(":").rpartition(":")[2]
        return target.lstrip("#")


def _drop_quotes(line: str) -> str:
    """Return a line without the quotes of bold and italic text.

    Where both are left open, an apostrophe met italic quotes, as in l'''Iliade'' and ''Eagle'''s:
    the parser of MediaWiki takes the first triple behind a lone letter, else behind a word.
    """
    runs = list(_QUOTES.finditer(line))
    triples = [run.start() for run in runs if len(run[0]) == 3]
    bold = sum(len(run[0]) != 2 for run in runs)
    if triples and bold % 2 and (len(runs) - len(triples)) % 2:
        behind_word = [start for start in triples if line[start - 1 : start] != " "]
        behind_letter = [start for start in behind_word if line[start - 2 : start - 1] == " "]
        apostrophe = [*behind_letter, *behind_word, *triples][0]
        line = f"{line[:apostrophe]}&#39;{line[apostrophe + 3 :]}"
    return _QUOTES.sub("", line)


def close_gaps(text: str) -> str:
    """Return text without gaps: no empty parentheses, doubled separators or double spaces."""
    left, *pieces = text.split(GAP)
    done: list[str] = []
    for piece in pieces:
        if not piece.strip(" "):
            left = left if left[-1:] in ("", " ", "\n") else left + piece[:1]
            continue
        right, spaced, near = piece, left.rstrip(" "), piece.lstrip(" ")
        before, after = left.rstrip(_SEPARATORS), piece.lstrip(_SEPARATORS)
        if before.endswith(_OPENING) and after.startswith(_CLOSING):
            # "(GAP)" goes with its parentheses; "(GAP, x)" becomes "(x)".
            left, right = before[:-1].rstrip(" "), after[1:]
        elif before.endswith(_OPENING) or after.startswith(_CLOSING):
            left, right = before, after
        elif before[-1:] in _LINE_START:
            right = after
        elif near.startswith(_PUNCTUATION):
            # Two separators meet: one goes, and the space before it.
            left, right = (spaced, after) if spaced.endswith(":") else (before, near)
        elif right[:1] in (" ", "\n"):
            left = spaced
        if right:
            done.append(left)
            left = right
    return "".join([*done, left])


def _is_markup(line: str) -> bool:
    """Return whether a line has no text, is left over from a table, or is the address of a page."""
    return not line.strip(_NO_TEXT) or line[0] in "|!" or _BARE_URL.match(line) is not None


def _lay_out_lines(text: str) -> str:
    """Return text with plain headings and lists, without headings and bullets that stay empty."""
    for space in "\t\xa0\u2009\u202f\u2003\u2002":
        text = text.replace(space, " ")
    while "  " in text:
        text = text.replace("  ", " ")
    lines: list[str] = []
    headings: list[tuple[int, str]] = []  # levels and titles that have no text below them yet
    for raw_line in text.split("\n"):
        line = raw_line.strip()
        # Most lines, which need no pattern.
        is_prose = line[:1].isalnum() and not line.startswith(("http", "ftp"))
        heading = _HEADING.match(line) if line[:1] == "=" else None
        if heading is not None:
            level = len(heading[1])
            headings = [*(above for above in headings if above[0] < level), (level, heading[2])]
        elif not is_prose and _is_markup(line):
            lines.append("")
        else:
            for _, title in headings:
                lines += ["", title, ""]
            headings = []
            marker = None if is_prose else _LIST_MARKER.match(line)
            bullet = "- " if marker and marker[1][-1] in "*#" else ""
            lines.append(bullet + line[marker.end() :] if marker else line)
    return _BLANK_LINES.sub("\n\n", "\n".join(lines))
