"""Whether the owner of a page wants it kept out of training data. Reads headers, the head of a page
and a robots.txt; writes nothing.

No standard settles it, so what others who gather training data honor, by their own word, is honored
here:

- `noai` (DeviantArt 2022) and `noindex`, which img2dataset leaves out by default; `noarchive`,
  which Bing and Amazon take for
  "not for training"; `none`. In `<meta name="robots">` or the header X-Robots-Tag, for all robots
  or for this one.
- `tdm-reservation: 1`, as a header or in a `<meta>` (TDM Reservation Protocol, W3C community group
  2024).
- `Content-Signal: ai-train=no` (Cloudflare 2025) and `Content-Usage: train-ai=n` (IETF,
  draft-ietf-aipref-attach), as headers or in a
  robots.txt.

`nofollow` and `noimageai` say nothing of text: no link is followed, and no picture is kept.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from urllib.parse import urlsplit

_RULES = frozenset(("noai", "noindex", "noarchive", "none"))
# Rules that have a value, and are no name of a robot.
_VALUED = frozenset(("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"))
_NO_TRAINING = re.compile(
    r"(?<![\w-])(?:ai-train\s*=\s*no|train-ai\s*=\s*n)(?![\w-])", re.IGNORECASE
)
_TRAINING = re.compile(r"(?<![\w-])(?:ai-train|train-ai)\s*=", re.IGNORECASE)
_SIGNALS = ("content-signal", "content-usage")
# Beyond so much of a page nobody looks for a <meta>.
_HEAD_BYTES = 256 << 10
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_META = re.compile(r"<meta\b([^<>]{0,1000})>", re.IGNORECASE)
_ATTRIBUTE = re.compile(
    r"\b(name|content)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))", re.IGNORECASE
)

# The paths that signals in a robots.txt are about, and whether each keeps them out.
Signals = tuple[tuple[str, bool], ...]


def opted_out(head: bytes, body: bytes, robot: str) -> str:
    """Return what in an answer keeps it out of training data, "" when nothing does.

    Args:
        head: status line and headers, as they were sent.
        body: the page, perhaps gzipped.
        robot: the name that this robot goes by.
    """
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if said := _said(name.strip().lower(), value, robot):
            return f"{name.strip()}: {said}"
    for name, value in _metas(body):
        if said := _said(
            "x-robots-tag" if name in ("robots", robot.lower()) else name, value, robot
        ):
            return f'<meta name="{name}">: {said}'
    return ""


def _said(name: str, value: str, robot: str) -> str:
    """Return what a header, or a <meta> that stands for it, says against training."""
    if name == "x-robots-tag":
        return next((rule for rule in _rules(value, robot) if rule in _RULES), "")
    if name == "tdm-reservation":
        return "1" if value.strip() == "1" else ""
    match = _NO_TRAINING.search(value) if name in _SIGNALS else None
    return match[0] if match else ""


def _rules(value: str, robot: str) -> Iterator[str]:
    """Yield the rules that are for this robot: those behind no name of a robot, or behind its own."""
    meant = True
    for part in value.lower().split(","):
        name, colon, rule = part.partition(":")
        if name.strip() in _VALUED:
            continue
        if colon:
            meant = name.strip() in ("robots", robot.lower())
        if meant:
            yield (rule if colon else name).strip()


def _metas(body: bytes) -> Iterator[tuple[str, str]]:
    """Yield name, in small letters, and content of the <meta> elements in the head of a page."""
    head = _COMMENT.sub("", _unpacked(body).decode("latin-1"))
    for meta in _META.finditer(head):
        found = {
            match[1].lower(): match[2] or match[3] or match[4] or ""
            for match in _ATTRIBUTE.finditer(meta[1])
        }
        yield found.get("name", "").strip().lower(), found.get("content", "")


def _unpacked(body: bytes) -> bytes:
    if not body.startswith(b"\x1f\x8b"):
        return body[:_HEAD_BYTES]
    try:
        return zlib.decompressobj(31).decompress(body, _HEAD_BYTES)
    except zlib.error:
        return b""


def signals_in(robots: str, robot: str) -> Signals:
    """Return what a robots.txt says about training, in the group of this robot, else in that of all
    robots.
    """
    groups: dict[str, list[tuple[str, bool]]] = {}
    names, naming = ["*"], False
    for line in robots.splitlines():
        key, _, value = (part.strip() for part in line.partition("#")[0].partition(":"))
        if key.lower() == "user-agent":
            names = [*names, value.lower()] if naming else [value.lower()]
            groups.setdefault(value.lower(), [])
        naming = key.lower() == "user-agent" or (naming and not key)
        if key.lower() in _SIGNALS and _TRAINING.search(value):
            path = value.split()[0] if value.startswith("/") else "/"
            for name in names:
                groups.setdefault(name, []).append((path, _NO_TRAINING.search(value) is not None))
    return tuple(groups.get(robot.lower(), groups.get("*", ())))


def reserved(signals: Signals, url: str) -> bool:
    """Return whether the signal for the longest path that an address begins with keeps it out."""
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return max(
        ((len(start), no) for start, no in signals if path.startswith(start)), default=(0, False)
    )[1]
