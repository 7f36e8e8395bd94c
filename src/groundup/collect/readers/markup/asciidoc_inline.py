"""What is inside the lines of AsciiDoc: marks, macros, links and references.

*Press* kbd:[F1], see <<_first_steps>>.     →     Press F1, see First steps.
"""

from __future__ import annotations

import html
import re

from groundup.collect.readers.blocks import raised
from groundup.collect.readers.markup.plain import Stash

# What has two ends is short: else each beginning without an end would be looked for to the end.
_BRACKETS = r"\[((?:\\\]|[^\[\]\n]){0,2000}+)\]"
_MATH = re.compile(rf"\b(?:stem|latexmath|asciimath):[a-z,]*{_BRACKETS}")
_PASS = re.compile(
    rf"\+\+\+([^\n]{{1,500}}?)\+\+\+|\$\$([^\n]{{1,500}}?)\$\$|\bpass:[a-z,]*{_BRACKETS}"
    r"|\+\+(\S|\S[^\n]{0,500}?\S)\+\+|(?<![\w+])\+([^\s+]|[^\s+][^\n]{0,500}?\S)\+(?![\w+])"
)
_ESCAPE = re.compile(r"\\(?<!`\\)([*_`#^~{<\[(&]|[a-z]{3,9}:(?=\S*\[))")
_QUOTED = re.compile(r"\"`(\S|\S[^\n]{0,1000}?\S)`\"|'`(\S|\S[^\n]{0,1000}?\S)`'")
_CODE = re.compile(
    r"`(?:(?<!\w`)|(?=`))(?:`(\S|\S[^\n]{0,500}?\S)``|(\S|\S[^\n`]{0,500}\S)`(?!\w))"
)
_ANGLES = re.compile(r"<((?:https?|ftp|mailto):[^\s<>]+)>")
_MACRO = re.compile(rf"\b([a-z]{{2,12}}2?):([^\s\[\]<>]*+){_BRACKETS}")
_MENU = re.compile(rf"\bmenu:([^\s\[\]:][^\n\[\]:]{{0,100}}){_BRACKETS}")
# An address that is the value of an attribute which another file sets.
_FAR_LINK = re.compile(rf"\{{([\w-]+\}}[^\s\[\]<>]*+){_BRACKETS}")
_XREF = re.compile(r"<<([^<>,\n]{1,200}+)(?:,([^<>\n]{0,500}+))?>>")
_GONE = re.compile(
    r"[\[({](?:(?<=\[)\[\[?[A-Za-z_:][^\[\]\n]*\]\]\]?|(?<=\()\(\([^()\n]{0,300}\)\)\)[ \t]?"
    r"|(?<=\{)(?:set|counter2?):[^{}\n]*\})"
)
_TERM = re.compile(r"\(\(([^()\n]{1,300})\)\)")
_ROLE = re.compile(r"\[[.#\w][^\[\]\n]{0,100}\](?=[*_#`])")
_STRONGER = re.compile(r"([*_#])\1(\S|\S[^\n]{0,500}?\S)\1\1")
_STRONG = re.compile(r"([*_#])(?<![\w;:}*_#]\1)([^\s*_#]|[^\s*_#][^\n]{0,500}?[^\s])\1(?!\w)")
_SCRIPT = re.compile(r"([\^~])([^\s^~]{1,100})\1")
_SIGNS = {"(C)": "©", "(R)": "®", "(TM)": "™"}
_SIGN = re.compile(r"\((?:C|R|TM)\)")
_DASH = re.compile(r"--(?:(?<=\w--)(?=\w)|(?<= --)(?= |$))", re.MULTILINE)
# Settings behind the words of a link: `words^`, `words,window=_blank`.
_LINK_SETTINGS = re.compile(r"\^\Z|,\s*[\w-]+=.*", re.DOTALL)

_LINKS = frozenset("http https ftp irc".split())
_LABELS = frozenset("kbd btn indexterm2".split())
_NOTES = frozenset("footnote footnoteref".split())
_MANUALS = frozenset("linkgit man manpage".split())
_DROPPED = frozenset("image icon anchor indexterm video audio counter counter2".split())


def inline_words(text: str, titles: dict[str, str], stash: Stash) -> str:
    """Return lines without the marks inside of them; `titles` has what references say."""
    text = _MATH.sub(lambda formula: stash.put(f"${formula[1].strip('$')}$"), text)
    if "+" in text or "$$" in text or "pass:" in text:
        text = _PASS.sub(lambda words: stash.put(next(filter(None, words.groups()), "")), text)
    if "\\" in text:
        text = _ESCAPE.sub(lambda escape: stash.put(escape[1]), text)
    text = _macro_words(_GONE.sub("", text), titles)
    if "`" in text:
        text = _QUOTED.sub(lambda words: f"“{words[1]}”" if words[1] else f"‘{words[2]}’", text)
        text = _CODE.sub(lambda code: stash.put(html.unescape(code[1] or code[2])), text)
    for _ in range(2):
        text = _STRONG.sub(r"\2", _STRONGER.sub(r"\2", text))
    if "^" in text or "~" in text:
        text = _SCRIPT.sub(_script_words, text)
    text = _DASH.sub("—", _SIGN.sub(lambda sign: _SIGNS[sign[0]], _TERM.sub(r"\1", text)))
    return html.unescape(text) if "&" in text else text


def _macro_words(text: str, titles: dict[str, str]) -> str:
    """Return a text with the words of its links, references, keys and notes, without images."""

    def words_of(macro: re.Match[str]) -> str:  # noqa: PLR0911 - a table of cases
        name, target, words = macro.groups()
        if name in _LINKS:
            return _link_words(words) or f"{name}:{target}"
        if name in ("link", "mailto"):
            return _link_words(words) or target
        if name == "xref":
            return _link_words(words) or _reference_words(target, titles)
        if name in _MANUALS:
            return f"{target}({words})" if words else target
        if name in _NOTES:
            words = words.partition(",")[2] if name == "footnoteref" else words
            return f"\ufdd7({words.strip()})" if words else ""
        if name in _LABELS:
            return words
        return "" if name in _DROPPED else macro[0]

    if "<" in text:
        text = _ANGLES.sub(r"\1", text)
        text = _XREF.sub(
            lambda link: _link_words(link[2] or "") or _reference_words(link[1], titles), text
        )
    if "[" not in text:
        return text
    text = _FAR_LINK.sub(lambda link: _link_words(link[2]) or f"{{{link[1]}", text)
    text = _MENU.sub(lambda menu: " > ".join(filter(None, (menu[1], menu[2]))), text)
    # A note may hold links.
    text = _ROLE.sub("", _MACRO.sub(words_of, _MACRO.sub(words_of, text)))
    return re.sub("[ \t]*\ufdd7", " ", text)


def _link_words(words: str) -> str:
    """Return the words between the brackets of a link, without its settings."""
    words = words.replace("\\]", "]").strip()
    if quoted := re.match(r'"([^"]*)"', words):
        return quoted[1]
    return "" if re.match(r"[\w-]+=", words) else _LINK_SETTINGS.sub("", words).strip()


def _reference_words(target: str, titles: dict[str, str]) -> str:
    """Return the title that a reference without words leads to, else words of its target."""
    file, _, place = target.partition("#")
    name = place or file.removesuffix(".adoc").removesuffix(".asciidoc")
    if name in titles:
        return titles[name]
    return name.strip("_").replace("_", " ") if name.startswith("_") else name


def _script_words(script: re.Match[str]) -> str:
    """Return an exponent or index in characters of Unicode, where there are some."""
    align = "superscript" if script[1] == "^" else "subscript"
    return raised(script[2], align, script.string[max(0, script.start() - 1) : script.start()])
