"""Wikitext → readable text: prose, headings, lists, formulas and code stay; tables, layout,
references and files go.

A page is read once for its brackets, which are matched, and once from the outside in: what is not
shown is passed over whole, with everything inside it. No bracket is left open: one that the page
never closes costs its paragraph, or only itself.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from html import unescape

from groundup.collect.readers.wiki.layout import GAP, MARK, lay_out, mark, plain
from groundup.collect.readers.wiki.templates import NO_WORDS, Arguments, shown_by

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
# Tags whose content is no wikitext. Code and formulas stay as they are; the rest is no prose.
_CODE = ("syntaxhighlight", "source")
_LITERAL = ("nowiki", "pre", *_CODE)
_RUN = re.compile(r"[^\n<]*")
_DROPPED = (
    "ref gallery timeline score imagemap graph mapframe maplink templatestyles templatedata"
    " inputbox categorytree hiero".split()
)
_EXTENSION = re.compile(
    rf"<(/?)({'|'.join((*_LITERAL, 'math', *_DROPPED))})\b([^<>]*)>", re.IGNORECASE
)
# A template, link or parameter with no bracket inside is one match.
_BRACKET = re.compile(
    r"\{\{\{[^{}]*\}\}\}|\{\{[^{}\[\]]*\}\}|\[\[[^{}\[\]]*\]\]|\{\{|\}\}|\[\[|\]\]|\{\||\|\}(?!\})"
)
_TABLE = ("{|", "|}")
_OPENED_BY = {"}}": "{{", "]]": "[[", "|}": "{|"}
_BRACKETS = (*_OPENED_BY, *_OPENED_BY.values())
# A link whose target has no namespace, in one group: split at it and joined again, a page is rid of
# most of its brackets.
_SIMPLE_LINK = re.compile(r"\[\[(?:[^\[\]{}|<>\n:]+\|)?([^\[\]{}|\n:#]+)\]\]")
_ATTRIBUTES = re.compile(r"\s*(?:class|style|border|width|align|cellpadding)\s*=")
_NAME = re.compile(r"[^|{}\[\]<\n]*")
# A label may hold brackets of its own, one level deep.
_EXTERNAL = re.compile(
    r"\[(?:https?:|ftps?:|mailto:|news:|irc:|//)[^\s\[\]]*+["
    r" \t]*+((?:[^\[\]\n]++|\[[^\[\]\n]*+\])*+)\]",
    re.IGNORECASE,
)
_CELL = re.compile(r"\n[ \t]*(?:\|[-+}]?|!)|\|\||!!")
_CELL_STYLE = re.compile(r"\A[^|\n]{0,300}=[^|\n]{0,300}\|")
_SENTENCE_END = re.compile(r"[.!?。।؟]\W*$")
# A cell that is shorter is a figure, a name or a label.
_MIN_PROSE = 150
# Brackets without partners. What was to be a template or a table is layout up to the next blank
# line.
_STRAY = re.compile(
    r"\[\[|\]\]|\}\}+|^[ \t]*\|\}|(?:\{\{|^[ \t:*]*\{\|).*?(?=\n[ \t]*\n|\Z)",
    re.DOTALL | re.MULTILINE,
)
_NAMESPACE = re.compile(r"\s*([^\s:|\[\]][^:|\[\]]{0,40}?)\s*:")
_LANGUAGE_LINK = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,12})*$")
_FILE_NAME = re.compile(
    r"\.(?:jpe?g|png|gif|svg|webp|tiff?|og[gvax]|webm|pdf|djvu|mp[34]|wav|flac|mid)\s*$",
    re.IGNORECASE,
)
# Local names of the namespaces File and Category, for pages that come without a dump's list of
# namespaces.
_SILENT = frozenset(
    "file image category media datei bild kategorie fichier catégorie archivo imagen categoría"
    " immagine categoria arquivo imagem ficheiro categorie bestand afbeelding plik grafika"
    " kategoria файл изображение категория категорія картинка 文件 图像 分类 檔案 圖像 分類"
    " ファイル 画像 カテゴリ 파일 그림 분류 fil kategori tiedosto kuva luokka soubor kép fájl"
    " kategória dosya resim ملف صورة تصنيف קובץ תמונה קטגוריה پرونده رده αρχείο εικόνα κατηγορία"
    " fișier imagine berkas gambar slika kategorija datoteka".split()
)
_MAX_DEPTH = 40
_MAX_INDENT = 30
_BARE = re.compile(r"\[\[[^\[\]]*\]\]|\{\{[^{}]*\}\}")
_MAX_LINE = 300
_WORD = re.compile(r"\w")
# One argument without a name, markup or brackets, and more than the code of a language.
_PHRASE = re.compile(r"(?![a-z]{1,3}$)[^|={}\[\]<>\n]*\w[^|={}\[\]<>\n]*")
_MAX_PHRASE = 200


def to_text(wikitext: str, silent: Iterable[str] = ()) -> str:
    """Return the prose of a page; "" when it holds none.

    Source of the idea: templates carry layout and citations, and wikis differ in them, so what is
    not known is removed.

    Args:
        wikitext: the page.
        silent: names of the wiki's own namespaces, in small letters, whose links show nothing where
            they stand.
    """
    text = _uncommented(wikitext.replace("\r\n", "\n").replace(MARK, "").replace(GAP, ""))
    text, kept = _set_aside(text)
    text = "".join(_SIMPLE_LINK.split(text))
    text = plain("".join(_EXTERNAL.split(_Page(text, _SILENT.union(silent)).shown())))
    # What stood on both sides of a tag or a gap may have met as a bracket, so strays are looked for
    # last.
    return lay_out(unescape(_without_strays(text)), kept)


def _without_strays(text: str) -> str:
    """Return the text without brackets that have no partner; once they are out, others may have met
    where they stood.
    """
    for pattern in (_STRAY, _STRAY, re.compile(r"[\[\]{}]+")):
        if not any(bracket in text for bracket in _BRACKETS):
            break
        text = pattern.sub("", text)
    return text


def _uncommented(text: str) -> str:
    """Return the text without comments; one that is not closed goes to the end of the page."""
    closed, arrow, rest = text.rpartition("-->")
    return _COMMENT.sub("", closed + arrow) + rest.partition("<!--")[0]


def _set_aside(text: str) -> tuple[str, list[str]]:
    """Take out what stands between extension tags; what is shown as it is leaves a mark with its
    number in the list.
    """
    kept: list[str] = []
    parts: list[str] = []
    position = 0
    for start, end, name, inside in _elements(text):
        parts.append(text[position:start])
        position = end
        if name == "math" or name in _LITERAL:
            kept.append(
                f"${' '.join(inside.split())}$"
                if name == "math"
                else inside
                if name in _CODE
                else unescape(inside)
            )
            parts.append(mark(len(kept) - 1))
        elif name:
            parts.append(GAP)
    parts.append(text[position:])
    return "".join(parts), kept


def _elements(text: str) -> Iterator[tuple[int, int, str, str]]:
    """Yield start, end, name and content of extension elements; a tag that has no partner is one
    without a name.
    """
    tags = list(_EXTENSION.finditer(text))
    last = {tag[2].lower(): number for number, tag in enumerate(tags) if tag[1]}
    number = 0
    while number < len(tags):
        tag, name = tags[number], tags[number][2].lower()
        alone = tag[1] or tag[3].endswith("/") or number > last.get(name, -1)
        close = None if alone else _partner(tags, number, name)
        if close is not None:
            yield tag.start(), tags[close].end(), name, text[tag.end() : tags[close].start()]
            number = close
        elif name == "ref" and not tag[1] and not tag[3].endswith("/"):
            # A reference that is never closed costs what follows it on its line.
            yield tag.start(), _RUN.match(text, tag.end()).end(), name, ""  # type: ignore[union-attr]
        else:
            yield tag.start(), tag.end(), "", ""
        number += 1


def _partner(tags: Sequence[re.Match[str]], number: int, name: str) -> int | None:
    """Return which tag closes this one; references do not nest, so another one that opens first
    means that there is none.
    """
    for at in range(number + 1, len(tags)):
        if tags[at][2].lower() == name and (
            tags[at][1] or (name == "ref" and not tags[at][3].endswith("/"))
        ):
            return at if tags[at][1] else None
    return None


def _matched(text: str) -> dict[int, int]:
    """Return where brackets end: position of each one that opens and is closed → position after
    what closes it.

    A link is closed only as the innermost bracket; a template or a table closes over what was left
    open inside it.
    """
    ends: dict[int, int] = {}
    stack: list[tuple[str, int]] = []
    waiting: Counter[str] = Counter()
    for match in _BRACKET.finditer(text):
        token, start = match[0], match.start()
        if len(token) > 2:
            ends[start] = match.end()
            continue
        if token in _TABLE and not _is_table(text, start, bool(waiting["{|"])):
            continue
        opened_by = _OPENED_BY.get(token)
        if opened_by is None:
            stack.append((token, start))
            waiting[token] += 1
        elif waiting[opened_by] and (token != "]]" or stack[-1][0] == "[["):
            opening = ""
            while opening != opened_by:
                opening, at = stack.pop()
                waiting[opening] -= 1
            ends[at] = match.end()
    return ends


def _is_table(text: str, at: int, inside: bool) -> bool:
    """Return whether a table begins or ends at a position: where a line does, or, in pages that
    lost their lines, where it looks so.
    """
    _, newline, indent = text[max(0, at - _MAX_INDENT) : at].rpartition("\n")
    if (newline or at <= _MAX_INDENT) and not indent.strip(" \t:*#"):
        return True
    return (
        inside and indent.endswith(" ")
        if text[at] == "|"
        else _ATTRIBUTES.match(text, at + 2) is not None
    )


class _Page:
    """A page with its brackets matched; renders any part of itself, what is not shown without
    looking inside.
    """

    def __init__(self, text: str, silent: frozenset[str]) -> None:
        self.text, self.silent = text, silent
        self.ends = _matched(text)
        self.openings = sorted(self.ends)

    def shown(self, start: int = 0, end: int | None = None, depth: int = 0) -> str:
        """Return what is shown of the text between two positions."""
        end = len(self.text) if end is None else end
        parts, position = [], start
        number = bisect_left(self.openings, start)
        while number < len(self.openings) and (at := self.openings[number]) < end:
            parts.append(self.text[position:at])
            position = self.ends[at]
            parts.append(self._bracket(at, position, depth + 1) if depth < _MAX_DEPTH else GAP)
            number = bisect_left(self.openings, position, number)
        parts.append(self.text[position:end])
        return "".join(parts)

    def _bracket(self, start: int, end: int, depth: int) -> str:
        if self.text[start] == "[":
            return self._link(start + 2, end - 2, depth)
        return (self._template if self.text[start + 1] == "{" else self._table)(
            start + 2, end - 2, depth
        )

    def _table(self, start: int, end: int, depth: int) -> str:
        """Return the cells of a table that hold sentences, as paragraphs: layout in columns is made
        of tables, too.
        """
        if end - start < _MIN_PROSE:
            return GAP
        cells = (
            _CELL_STYLE.sub("", cell).strip() for cell in _CELL.split(self.shown(start, end, depth))
        )
        prose = [
            cell
            for cell in cells
            if len(cell) >= _MIN_PROSE and _SENTENCE_END.search(cell, len(cell) - 5)
        ]
        return "\n\n".join(["", *prose, ""]) if prose else GAP

    def _template(self, start: int, end: int, depth: int) -> str:
        """Return what a template shows in the text around it; a gap where it is layout."""
        name = _NAME.match(self.text, start, end)
        assert name is not None
        key = name[0].strip().lower().replace("_", " ")
        bar = name.end() < end and self.text[name.end()] == "|"
        show = shown_by(key)
        if show is None and not self._phrase(key, start, name.end() + 1, end):
            return GAP
        inside = self._inside(name.end() + 1, end, depth) if bar else key.partition(":")[2]
        given = Arguments.of(inside)
        return (show(given) if show else given.plain[0]) or GAP

    def _inside(self, start: int, end: int, depth: int) -> str:
        """Return what is shown between two positions, which seldom holds a bracket."""
        inside = self.text[start:end]
        return self.shown(start, end, depth) if "[[" in inside or "{" in inside else inside

    def _phrase(self, name: str, start: int, argument: int, end: int) -> bool:
        """Return whether an unknown template stands in the middle of a sentence, as a word would,
        and has one argument to show.
        """
        text = self.text
        if (
            text[start - 3 : start - 2] not in (" ", "(", "（", '"')
            or name in NO_WORDS
            or not 0 < end - argument < _MAX_PHRASE
        ):
            return False
        inside = text[argument:end]
        before = text[max(0, start - _MAX_PHRASE) : start - 2].rpartition("\n")[2]
        return (
            bool(_WORD.search(before))
            and _PHRASE.fullmatch(inside) is not None
            and not _FILE_NAME.search(inside)
        )

    def _link(self, start: int, end: int, depth: int) -> str:
        """Return the text that a link shows; a gap for files, categories and links to other
        languages.
        """
        bar = self.text.find("|", start, end)
        target = self.text[start : bar if bar >= 0 else end].strip()
        space = _NAMESPACE.match(target)
        if space is not None:
            name = space[1].lower()
            if (
                name in self.silent
                or _LANGUAGE_LINK.match(name)
                or _FILE_NAME.search(target)
                or self._alone(space, start, end)
            ):
                return GAP
        if bar < 0:
            return (
                target.removeprefix(":").rpartition(":")[2]
                if target.startswith(":")
                else target.lstrip("#")
            )
        label = self._inside(bar + 1, end, depth)
        return label.rpartition("|")[2] or target.partition("(")[0].rpartition(":")[2].strip()

    def _alone(self, space: re.Match[str], start: int, end: int) -> bool:
        """Return whether a link into some namespace stands on a line without text, as those to
        categories do in any language.
        """
        if space.string[space.end() : space.end() + 1] in ("", " "):
            return False
        before = self.text[max(0, start - _MAX_LINE) : start - 2].rpartition("\n")[2]
        after = self.text[end + 2 : end + _MAX_LINE].partition("\n")[0]
        return not _BARE.sub("", before).strip() and not _BARE.sub("", after).strip()


def redirect_target(wikitext: str) -> str | None:
    """Return where a redirect leads, or None when the page is none; the word for it depends on the
    wiki's language.
    """
    match = re.match(r"\s*#\s*[^\W\d_][\w ]{2,30}\s*:?\s*\[\[([^\]|\n]+)", wikitext[:400])
    return match[1].strip() if match else None
