"""Wikitext → readable text: prose, headings and lists stay; tables, templates, references and files go.

Balanced markup is removed by our own scanner first, so that mwparserfromhell sees little more than prose.
"""

from __future__ import annotations

import html
import re

# Markup that holds no prose, whole; the second form has no closing tag.
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_DROPPED_TAGS = "|".join(
    "ref gallery timeline score imagemap graph mapframe maplink templatestyles templatedata inputbox categorytree hiero chem ce "
    "syntaxhighlight source".split()
)
_EMPTY_TAG = re.compile(rf"<(?:{_DROPPED_TAGS}|references|section|noinclude|onlyinclude|nowiki)\b[^<>]*/>", re.IGNORECASE)
_DROPPED = re.compile(rf"<(?P<tag>{_DROPPED_TAGS})\b[^<>]*>.*?(?:</(?P=tag)\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_MATH = re.compile(r"<math\b[^<>]*>(.*?)</math\s*>", re.IGNORECASE | re.DOTALL)
_NOWIKI = re.compile(r"<(nowiki|pre)\b[^<>]*>(.*?)</\1\s*>", re.IGNORECASE | re.DOTALL)
_BREAK = re.compile(r"<br\s*/?>|</(?:p|div|li|tr|blockquote|center|poem)\s*>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>\n]{0,300}>")
_SWITCH = re.compile(r"__[A-Z]{3,25}__")
_BRACKET = re.compile(r"\{\{\{|\}\}\}|\{\{|\}\}|^[ \t:*]*\{\||^[ \t]*\|\}(?!\})|\[\[|\]\]", re.MULTILINE)
_HEADING = re.compile(r"^(={1,6})[ \t]*(.+?)[ \t]*\1[ \t]*$", re.MULTILINE)
_LIST = re.compile(r"^([*#:;]+)[ \t]*", re.MULTILINE)
_EXTERNAL = re.compile(r"\[(?:https?:|ftp:|mailto:|//)[^\s\]]*[ \t]*([^\]\n]*)\]", re.IGNORECASE)
_QUOTES = re.compile(r"'{2,5}")
_BLANK_PARENTHESES = re.compile(r"[ \t]*\((?:[\s,;:–—]|or|also)*\)")
_NAMESPACE = re.compile(r"^:?\s*([^\s:|\[\]][^:|\[\]]{0,30}?)\s*:", re.IGNORECASE)
_LANGUAGE_LINK = re.compile(r"^[a-z]{2,3}(?:-[a-z]{2,12})*$")
# Namespaces whose links show no text where they stand, in the languages of the largest wikis; `_FILE_NAME` finds others.
_SILENT = frozenset(
    "file image category media datei bild kategorie fichier catégorie archivo imagen categoría immagine categoria arquivo imagem "
    "ficheiro categorie bestand afbeelding plik grafika kategoria файл изображение категория категорія картинка "
    "文件 图像 分类 檔案 圖像 分類 ファイル 画像 カテゴリ 파일 그림 분류 fil kategori tiedosto kuva luokka "
    "soubor kép fájl kategória dosya resim ملف صورة تصنيف קובץ תמונה קטגוריה پرونده رده "
    "αρχείο εικόνα κατηγορία fișier imagine berkas gambar slika kategorija datoteka".split()
)
_FILE_NAME = re.compile(r"\.(?:jpe?g|png|gif|svg|webp|tiff?|og[gva]|webm|pdf|djvu|mp[34]|wav|flac|mid)\s*$", re.IGNORECASE)
# Templates that stand for words of the sentence around them: name → which argument is shown (-1 is the last one).
_SHOWN = {
    **dict.fromkeys(("lang", "transl", "transliteration", "small", "nowrap", "nobr", "nobold", "smaller", "big", "larger", "lang-x"), -1),
    **dict.fromkeys(
        (
            "quote",
            "blockquote",
            "cquote",
            "quotation",
            "abbr",
            "tooltip",
            "em",
            "strong",
            "not a typo",
            "sic",
            "mvar",
            "math",
            "vr",
            "visible anchor",
        ),
        0,
    ),
    **dict.fromkeys(
        (
            "ill",
            "interlanguage link",
            "ship",
            "ws",
            "code",
            "tt",
            "kbd",
            "var",
            "angbr",
            "as of",
            "since",
            "linktext",
            "l",
            "m",
            "sup",
            "sub",
        ),
        0,
    ),
    **dict.fromkeys(
        ("ship", "sclass", "circa", "c.", "floruit", "year", "date", "start date", "death year", "frac", "gaps", "val", "formatnum"), 0
    ),
}
_SPELT = {
    "ndash": "–",
    "snd": " – ",
    "spnd": " – ",
    "spaced ndash": " – ",
    "mdash": "—",
    "spaced mdash": " — ",
    "nbsp": " ",
    "'": "'",
    "'s": "'s",
    "pi": "π",
    "!": "|",
    "=": "=",
}
_MEASURES = frozenset({"convert", "cvt"})
_MAX_DEPTH = 60


def to_text(wikitext: str) -> str:
    """Return the prose of a page; "" when it holds none.

    Source of the idea: templates carry layout and citations, and wikis differ in them, so what is not known is removed.
    """
    text = _COMMENT.sub("", wikitext.replace("\r\n", "\n"))
    kept: list[str] = []
    text = _NOWIKI.sub(lambda match: _kept(match[2], kept), text)
    text = _MATH.sub(lambda match: _kept(_formula(match[1]), kept), text)
    text = _DROPPED.sub("", _EMPTY_TAG.sub("", text))
    text = _balanced(text)
    text = _plain(text)
    return _tidy(re.sub("\x00(\\d+)\x00", lambda match: kept[int(match[1])], text))


def _kept(literal: str, kept: list[str]) -> str:
    """Put text that is no markup aside, and leave a mark in its place."""
    kept.append(literal)
    return f"\x00{len(kept) - 1}\x00"


def _formula(source: str) -> str:
    """Return a formula as TeX between dollar signs, on one line."""
    return f"${' '.join(source.split())}$"


def _balanced(text: str) -> str:
    """Resolve templates, tables and links from the inside out, in one pass over their brackets."""
    stack: list[tuple[str, list[str]]] = [("", [])]
    position = 0
    for match in _BRACKET.finditer(text):
        stack[-1][1].append(text[position : match.start()])
        position = match.end()
        token = match[0].lstrip(" \t:*")
        if token in _PAIRS and len(stack) < _MAX_DEPTH:
            stack.append((token, []))
        elif any(_PAIRS.get(opening) == token for opening, _ in stack):
            _close(stack, token)
        elif token == "}}}" and any(opening == "{{" for opening, _ in stack):
            _close(stack, "}}")
    stack[-1][1].append(text[position:])
    while len(stack) > 1:
        opening, parts = stack.pop()
        # What is never closed is layout up to the next blank line, and prose after it.
        stack[-1][1].append("".join(parts) if opening == "[[" else "".join("".join(parts).partition("\n\n")[1:]))
    return "".join(stack[0][1])


_PAIRS = {"{{": "}}", "{{{": "}}}", "{|": "|}", "[[": "]]"}


def _close(stack: list[tuple[str, list[str]]], token: str) -> None:
    """Close the nearest bracket that `token` fits, and everything left open inside it."""
    while len(stack) > 1:
        opening, parts = stack.pop()
        inside = "".join(parts)
        if _PAIRS[opening] == token:
            stack[-1][1].append({"{{": _template, "[[": _link}.get(opening, _nothing)(inside))
            return
        stack[-1][1].append(inside)


def _nothing(inside: str) -> str:
    return ""


def _template(inside: str) -> str:
    """Return what a template shows, for those that stand inside sentences; "" for all others."""
    name, *arguments = (part.strip() for part in inside.split("|"))
    name = name.lower().replace("_", " ")
    if name in _SPELT:
        return _SPELT[name]
    plain = [argument for argument in arguments if not re.match(r"^[\w -]{1,24}=", argument)]
    if name in _MEASURES:
        return " ".join(plain[:2])
    # Quotations name their text, too.
    named = {key.strip(): value.strip() for key, _, value in (argument.partition("=") for argument in arguments)}
    shown = _SHOWN.get("lang-x" if name.startswith("lang-") else name)
    if shown is None:
        return ""
    return plain[shown] if plain else named.get("text", named.get("1", named.get("quote", "")))


def _link(inside: str) -> str:
    """Return the text that a link shows; "" for files, categories and links to other languages."""
    target, bar, label = inside.partition("|")
    space = _NAMESPACE.match(target)
    if space is not None and not target.lstrip().startswith(":"):
        name = space[1].strip().lower()
        if name in _SILENT or _LANGUAGE_LINK.match(name) or _FILE_NAME.search(target):
            return ""
    shown = label.rpartition("|")[2] if bar else target.lstrip().removeprefix(":")
    return shown or target.partition("(")[0].rpartition(":")[2].strip()


def _plain(text: str) -> str:
    """Take the markup out of what is left, by mwparserfromhell where there is any that a pattern cannot judge."""
    text = _BREAK.sub("\n", text)
    text = _EXTERNAL.sub(r"\1", text)
    text = _SWITCH.sub("", _TAG.sub("", text))
    text = _QUOTES.sub(lambda match: "'" if len(match[0]) == 4 else "", text)
    if "{{" in text or "[[" in text or "{|" in text:
        import mwparserfromhell

        text = str(mwparserfromhell.parse(text).strip_code(normalize=True, collapse=True))
    return html.unescape(text)


def _tidy(text: str) -> str:
    """Normalise headings, lists and blank lines, and drop headings that nothing follows."""
    text = _LIST.sub(lambda match: "- " if match[1][-1] in "*#" else "", text)
    text = _BLANK_PARENTHESES.sub("", text)
    text = re.sub(r"[ \t\xa0]+", " ", text)
    lines: list[str] = []
    pending: list[str] = []
    for line in text.split("\n"):
        heading = _HEADING.match(line.strip())
        if heading is not None:
            depth = len(heading[1])
            pending = [*(held for held in pending if int(held[0]) < depth), f"{depth}{heading[2]}"]
        elif line.strip(" -|!}{") and not line.lstrip().startswith(("|", "!")):
            for held in pending:
                lines += [*([""] if lines and lines[-1] else []), held[1:], ""]
            pending = []
            lines.append(line.strip())
        elif lines and lines[-1]:
            lines.append("")
    return "\n".join(lines).strip()


def redirect_target(wikitext: str) -> str | None:
    """Return where a redirect leads, or None when the page is none; the word for it depends on the wiki's language."""
    match = re.match(r"\s*#\s*[^\W\d_][\w ]{2,30}\s*:?\s*\[\[([^\]|\n]+)", wikitext[:400])
    return match[1].strip() if match else None
