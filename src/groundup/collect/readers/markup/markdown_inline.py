"""Marks inside the lines of Markdown: links, images, code, formulas, emphasis, HTML.

The patterns run over the lines of a whole file at once, and none goes beyond the end of a line.
"""

from __future__ import annotations

import re

from groundup.collect.readers.markup.plain import Stash, html_words
from groundup.collect.readers.web.markup import write_emoji

_SPECIAL = re.compile(r"[`*_\[\]<>&\\!~=$^%{:]")
# Patterns begin with a character, not a choice or a look back: they are found ten times faster.
_ROLE = re.compile(r"\{([\w:+.-]+)\}`([^`\n]++)`")
_CODE = re.compile(r"`(?<!``)(?:([^`\n]++)`(?!`)|`((?:[^`\n]++|`(?!`))++)``(?!`))")
_MATH = re.compile(
    r"\$(?:\$[^$\n]++\$\$|(?<![\\$\w]\$)(?=[^\s$])(?:[^$\n\\]|\\[^\n])++\$(?<!\s\$)(?![\d$]))"
)
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
_CITATION = re.compile(r"\[(?=[^\[\]\n@]{0,80}(?<!\w)-?@\w)[^\[\]\n]{0,300}\](?![(\[])")
_WIKI_LINK = re.compile(r"\[\[([^\[\]\n|]++)(?:\|([^\[\]\n]*+))?\]\]")
_EMBED = re.compile(r"!\[\[[^\[\]\n]++\]\]")
_LINK = re.compile(
    r"\[([^\[\]\n]*+)\]"
    r"(?:\(((?:[^()\n]++|\((?:[^()\n]++|\([^()\n]*+\))*+\))*+)\)|\[([^\[\]\n]*+)\]|(?!\())"
)
_IMAGE = re.compile(f"!{_LINK.pattern}")
_AUTOLINK = re.compile(r"<([a-z][a-z0-9+.-]{1,31}:[^<>\s]++|[^<>\s@]++@[\w.-]++)>", re.IGNORECASE)
_INLINE_NOTE = re.compile(r"\^\[[^\[\]\n]{1,2000}\]")
_ATTRIBUTES = re.compile(r"\{(?::?[ \t]*[#.:][a-zA-Z][^{}\n]{0,300}|:[^{}\n]{0,300})\}")
_STARS = re.compile(r"(\*(?<!\*\*)\*{0,2})(?![\s*])([^*\n]++)(?<!\s)\1(?!\*)")
# Scripts from Hebrew on have no snake_case: an underscore beside their letters is emphasis.
_WORD = r"[0-9A-Za-z_\u00aa-\u058f]"
_UNDERSCORES = re.compile(
    rf"(_(?<!{_WORD}_)_{{0,2}})(?![\s_])"
    rf"([^\n_]++(?:(?<={_WORD})_+(?={_WORD})[^\n_]++)*+)(?<!\s)\1(?!{_WORD})"
)
_STRUCK = re.compile(r"(~~|==)(?![\s~=])([^~=\n]++)(?<!\s)\1")
_BLOCK_ID = re.compile(r" \^[A-Za-z0-9-]+$", re.MULTILINE)
_HIDDEN = re.compile(r"%%[^%\n]*+%%")
# A field of a plugin of Obsidian: `[due:: 2024-01-01]`.
_FIELD = re.compile(r"\[[\w-]{1,40}::[ \t][^\[\]\n]{0,200}\]")
_EMPTY_ITEM = re.compile(r"^[ \t]*(?:-|\d+[.)])[ \t]*$\n?|^[ \t]*[| ]+$\n?", re.MULTILINE)


def inline_text(text: str, labels: set[str], stash: Stash) -> str:
    """Return lines without the marks inside of them; `labels` are those of links by reference."""
    if not _SPECIAL.search(text):
        return text
    if "}`" in text:
        text = _ROLE.sub(lambda role: _role_words(role, stash), text)
    if "`" in text:
        text = _CODE.sub(lambda code: stash.put((code[1] or code[2]).strip()), text)
    if "$" in text:
        text = _MATH.sub(lambda math: stash.put(math[0]), text)
    if "\\" in text:
        text = _ESCAPE.sub(lambda escape: stash.put(escape[1]), text)
    if "[" in text:
        text = _link_words(text, labels)
    if "{" in text:
        text = _ATTRIBUTES.sub("", text)
    if "%%" in text:
        text = _HIDDEN.sub("", text)
    if "<" in text:
        text = _AUTOLINK.sub(lambda link: stash.put(link[1].removeprefix("mailto:")), text)
    text = write_emoji(html_words(text))
    for mark, pattern in (
        ("*", _STARS),
        ("_", _UNDERSCORES),
        ("~~", _STRUCK),
        ("==", _STRUCK),
    ):
        count = 3 if mark in text else 0
        while count:
            text, changed = pattern.subn(r"\2", text)
            count = count - 1 if changed else 0
    if "^" in text:
        text = _BLOCK_ID.sub("", text)
    return _EMPTY_ITEM.sub("", text)


def _role_words(role: re.Match[str], stash: Stash) -> str:
    """Return the words of a role of MyST: those before its target."""
    name = role[1].rpartition(":")[2]
    if name.startswith("cite"):
        return ""
    if name == "math":
        return stash.put(f"${role[2]}$")
    return stash.put(re.sub(r"\s*<[^<>]*>\Z", "", role[2]).lstrip("~!"))


def _link_words(text: str, labels: set[str]) -> str:
    """Return a text with links as their words, without images and marks of footnotes."""

    def wiki(link: re.Match[str]) -> str:
        # A matrix is no link.
        if not re.search(r"[^\W\d_]", link[1]):
            return link[0]
        return (link[2] or link[1].replace("#^", " ").replace("#", " ")).strip()

    def words(link: re.Match[str]) -> str:
        if link[2] is not None:
            return link[1]
        if link[1].startswith("^") and not link[3]:
            return ""
        return link[1] if (link[3] or link[1]).casefold() in labels else link[0]

    def image(link: re.Match[str]) -> str:
        known = link[2] is not None or (link[3] or link[1]).casefold() in labels
        return "" if known else link[0]

    if ":: " in text:
        text = _FIELD.sub("", text)
    if "[[" in text:
        text = _WIKI_LINK.sub(wiki, _EMBED.sub("", text) if "![[" in text else text)
    if "^[" in text:
        text = _INLINE_NOTE.sub(lambda note: f" ({note[0][2:-1]})", text)
    if "@" in text:
        text = _CITATION.sub("", text)
    for _ in range(3):
        before = text
        text = _LINK.sub(words, _IMAGE.sub(image, text) if "![" in text else text)
        if text == before:
            break
    return text
