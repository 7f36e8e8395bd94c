"""Takes the times and numbers out of subtitles (SRT, WebVTT). Reads and returns text."""

from __future__ import annotations

import re

_TIME = r"(?:\d\d?:)?\d\d?:\d\d[.,]\d{1,3}"
_CUE = re.compile(rf"^(?:\d+[ \t]*\n)?{_TIME}[ \t]*-->[ \t]*{_TIME}[^\n]*\n?", re.MULTILINE)
_FRONT = re.compile(r"\A\s*WEBVTT[^\n]*\n")
_TAG = re.compile(
    r"</?(?:[bicuv]|ruby|rt|lang|font)\b[^<>\n]{0,200}>|\{\\[^{}\n]{0,100}\}", re.IGNORECASE
)
_HEAD_CHARACTERS = 2000


def spoken(text: str) -> str:
    """Return subtitles without numbers, times and styles, a line for each one on the screen; any
    other text as it is.
    """
    if len(_CUE.findall(text[:_HEAD_CHARACTERS])) < 3:
        return text
    bare = _TAG.sub("", _CUE.sub("", _FRONT.sub("", text)))
    return "\n".join(filter(None, (line.strip() for line in bare.split("\n"))))
