"""Texts of boards and sites → HTML: BBCode, the XML of phpBB 3.2, blocks of WordPress.

    [quote="Ann"]Will it rain?[/quote]No, [b]never[/b].           →  No, never.
    <r>No, <B><s>[b]</s>never<e>[/b]</e></B>.</r>                  →  No, never.
    <!-- wp:paragraph --><p>No.</p><!-- /wp:paragraph -->[gallery]  →  <p>No.</p>

What others said is left out where it is quoted; pictures and attachments are, too.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

from groundup.collect.files.streams import DamagedError
from groundup.collect.readers.web.html import MAX_HTML_BYTES, page_text

MAX_QUOTES = 20  # levels of quotes within quotes

_TAG = r"\[{0}(?:[=:\s][^\]\n]{{0,500}})?\]"
_QUOTE = re.compile(
    _TAG.format("quote") + r"(?:(?!\[/?quote\b).)*+\[/quote(?::\w+)?\]\s*",
    re.IGNORECASE | re.DOTALL,
)
_CODE = re.compile(
    _TAG.format("(code|php|html|pre)") + r"(.*?)\[/\1(?::\w+)?\]", re.IGNORECASE | re.DOTALL
)
# What shows no text: pictures, films, attachments.
_SHOWN = re.compile(
    _TAG.format("(img|attachment|attach|youtube|media|video|flash|imgur|gallery)")
    + r"[^\[\]]*+\[/\1(?::\w+)?\]",
    re.IGNORECASE,
)
_ITEM = re.compile(r"\[\*(?::\w+)*\]|\[li\]", re.IGNORECASE)
_CELL = re.compile(r"\[/t[dh]\]\s*(?=\[t[dh])", re.IGNORECASE)
_MARK = re.compile(
    r"\[/?(?:b|i|u|s|size|color|colour|font|face|center|left|right|justify|align|indent|url|iurl"
    r"|email|list|ul|ol|/?\*|spoiler|hide|sub|sup|hr|table|tr|td|th|tbody|thead|h[1-6]|noparse"
    r"|nobbc|user|mention|post|thread|quote|code|img|highlight|strike|del|plain|icode|heading"
    r"|anchor|attachment|attach|move|shadow|glow|tt|abbr|acronym|rtl|ltr|br|float|background)"
    r"(?:[=:\s][^\]\n]{0,500})?\]",
    re.IGNORECASE,
)
# The XML of phpBB 3.2: <s>, <e> and <i> hold marks, elements in capitals what they mark.
_S9E_MARK = re.compile(r"<([sei])>[^<>]*+</\1>")
_S9E_CODE = re.compile(r"<CODE\b[^<>]*+>(.*?)</CODE>", re.DOTALL)
_S9E_QUOTE = re.compile(r"<QUOTE\b[^<>]*+>(?:(?!</?QUOTE\b).)*+</QUOTE>\s*", re.DOTALL)
_S9E_SHOWN = re.compile(
    r"<(IMG|ATTACHMENT|YOUTUBE|MEDIA)\b[^<>]*+>(?:(?!</\1>).)*+</\1>", re.DOTALL
)
_S9E_ELEMENT = re.compile(r"</?[A-Z][A-Z0-9_:-]*(?:\s[^<>]*+)?/?>")
_BREAK = re.compile(r"<br\s*/?>\n?", re.IGNORECASE)
# WordPress: [gallery ids="1"], [caption …]…[/caption]; prose has [sic] and [1], too.
_BLOCK_COMMENT = re.compile(r"<!--\s*/?wp:[^>]*+(?:>(?<!-->)[^>]*+)*+>|<!--(?:more|nextpage)-->")
_SHORTCODE = re.compile(
    r"\[/[a-z][\w-]*\]|\[[a-z][\w-]*(?:\s+[\w-]+=(?:\"[^\"]*\"|'[^']*'|[^\s\]]+))+\s*/?\]"
    r"|\[(?:gallery|playlist|caption|embed|audio|video|toc|contact-form|code|vc_\w+|et_pb_\w+)\]",
    re.IGNORECASE,
)
_HAS_BLOCKS = re.compile(r"<(?:p|div|ul|ol|table|h[1-6]|blockquote)\b", re.IGNORECASE)
_HTML_TEXT = re.compile(
    r"</(?:p|div|span|a|b|i|em|strong|li|ul|ol|h[1-6]|td|blockquote)>|<br\s*/?>|<p>", re.IGNORECASE
)


def _phpbb(text: str) -> str:
    """Return a post of phpBB or SMF, which store characters of HTML escaped."""
    if not text.startswith(("<r>", "<t>")):
        return _bbcode(_BREAK.sub("\n", text))
    for _ in range(MAX_QUOTES):
        text, count = _S9E_QUOTE.subn("\n", text)
        if not count:
            break
    text = _S9E_SHOWN.sub("", _S9E_CODE.sub(r"[code]\1[/code]", _BREAK.sub("\n", text)))
    text = _S9E_MARK.sub("", text).replace("<LI>", "\n[*]")
    return _bbcode(_S9E_ELEMENT.sub("", text.removeprefix("<r>").removeprefix("<t>")))


def _bbcode(text: str) -> str:
    """Return BBCode as HTML; characters of HTML in it are escaped already."""
    codes: list[str] = []

    def keep(code: re.Match[str]) -> str:
        codes.append(code[2].strip("\n"))
        return f"\0{len(codes) - 1}\0"

    text = _CODE.sub(keep, text.replace("\r\n", "\n").replace("\0", ""))
    for _ in range(MAX_QUOTES):
        text, count = _QUOTE.subn("\n", text)
        if not count:
            break
    text = _CELL.sub(" | ", _SHOWN.sub("", text))
    text = _MARK.sub("", _ITEM.sub("<br>- ", text))
    text = text.strip().replace("\n", "<br>")
    return re.sub("\0(\\d+)\0", lambda at: f"<pre><code>{codes[int(at[1])]}</code></pre>", text)


def _wordpress(text: str) -> str:
    """Return the HTML of a page; the classic editor writes no paragraphs but blank lines."""
    text = _SHORTCODE.sub("", _BLOCK_COMMENT.sub("", text))
    if _HAS_BLOCKS.search(text):
        return text
    parts = re.split(r"\n\s*\n", text.replace("\r\n", "\n").strip())
    return "".join("<p>{}</p>".format(part.replace("\n", "<br>")) for part in parts)


MARKUPS: dict[str, Callable[[str], str]] = {
    "html": lambda text: text,
    "phpbb": _phpbb,
    "bbcode": lambda text: _bbcode(html.escape(text, quote=False)),
    "wordpress": _wordpress,
}


def prose_text(text: str) -> str:
    """Return a text of a table without its markup, where it is HTML."""
    if len(text) > MAX_HTML_BYTES or not _HTML_TEXT.search(text):
        return text.strip()
    try:
        return page_text(f"<div>{_wordpress(text)}</div>")
    except DamagedError:
        return text.strip()
