"""Whether a site lets a robot fetch a page (robots.txt, RFC 9309) and train on it (opt-outs).

robots.txt is parsed by protego: the standard library takes the first rule that matches instead of
the longest, and does not know `*` or `$` inside a path.

No standard settles opt-outs from training, so what others who gather training data honor by their
own word is honored here:

- `noai` (DeviantArt 2022) and `noindex`, which img2dataset leaves out by default; `noarchive`,
  which Bing and Amazon take for "not for training"; `none`. In `<meta name="robots">` or the header
  X-Robots-Tag, for all robots or for this one.
- `tdm-reservation: 1`, as a header or in a `<meta>` (TDM Reservation Protocol, W3C community group
  2024).
- `Content-Signal: ai-train=no` (Cloudflare 2025) and `Content-Usage: train-ai=n` (IETF,
  draft-ietf-aipref-attach), as headers or in a robots.txt.

`nofollow` and `noimageai` do not concern text: no link is followed, and no image is kept.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

# A line that begins or continues a group, as generously as protego reads it.
_USER_AGENT = re.compile(r"^([ \t]*user[ \t-]?agent(?:[ \t]*:|[ \t])[ \t]*)(.*)$", re.I | re.M)
# RFC 9309, 2.5: a robot must read at least this much of a robots.txt.
MAX_ROBOTS_BYTES = 500 << 10
_OPT_OUTS = frozenset(("noai", "noindex", "noarchive", "none"))
# Rules of X-Robots-Tag that have a value; other names before a colon are robots.
_VALUED = frozenset(("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"))
_NO_TRAINING = re.compile(r"(?<![\w-])(?:ai-train\s*=\s*no|train-ai\s*=\s*n)(?![\w-])", re.I)
_TRAINING = re.compile(r"(?<![\w-])(?:ai-train|train-ai)\s*=", re.I)
_SIGNAL_HEADERS = ("content-signal", "content-usage")
# A <meta> is looked for in this much of a page.
_HEAD_BYTES = 256 << 10
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_META = re.compile(r"<meta\b([^<>]{0,1000})>", re.I)
_ATTRIBUTE = re.compile(r"\b(name|content)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))", re.I)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a host for one robot."""

    parsed: Any = None  # by protego; None where there is no robots.txt, or it cannot be read
    robot: str = ""  # name that the rules are looked up by
    closed: str = ""  # reason why nothing may be fetched, "" for none
    # Path prefixes, and whether each keeps its pages out of training.
    signals: tuple[tuple[str, bool], ...] = ()

    def forbids(self, url: str) -> str:
        """Return why a page may not be fetched, "" when it may."""
        if self.closed or self.parsed is None:
            return self.closed
        return "" if self.parsed.can_fetch(url, self.robot) else "robots.txt forbids it"

    def forbids_training(self, url: str) -> bool:
        """Return whether the signal with the longest matching path keeps a page out of training."""
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        matching = [(len(prefix), no) for prefix, no in self.signals if path.startswith(prefix)]
        return max(matching, default=(0, False))[1]

    @property
    def delay(self) -> float:
        """Seconds between two requests that the host asks for, 0 when it does not say."""
        delay = self.parsed.crawl_delay(self.robot) if self.parsed is not None else None
        return float(delay or 0)


def read_rules(body: bytes, user_agent: str) -> Rules:
    """Return the rules in a robots.txt for the robot that a user agent names."""
    from protego import Protego

    robot = robot_name(user_agent)
    text = body[:MAX_ROBOTS_BYTES].decode("utf-8", "replace").replace("\0", "")
    text = _USER_AGENT.sub(lambda line: _hide_other_robot(line, robot.lower()), text)
    # Training signals by user agent; protego knows none.
    groups: dict[str, list[tuple[str, bool]]] = {}
    # Of the names of a group, only those that the answer may depend on.
    ours = frozenset(("*", robot.lower()))
    names, in_names = {"*"}, False
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition("#")[0].partition(":"))
        if key.lower() == "user-agent":
            named = ours & {value.lower()}
            names = names | named if in_names else set(named)
            for name in named:
                groups.setdefault(name, [])
        in_names = key.lower() == "user-agent" or (in_names and not key)
        if key.lower() in _SIGNAL_HEADERS and _TRAINING.search(value):
            path = value.split()[0] if value.startswith("/") else "/"
            for name in names:
                groups.setdefault(name, []).append((path, _NO_TRAINING.search(value) is not None))
    # Those for this robot, else those for all robots.
    signals = groups.get(robot.lower(), groups.get("*", ()))
    return Rules(Protego.parse(text), robot, signals=tuple(signals))


def _hide_other_robot(line: re.Match[str], robot: str) -> str:
    """Return a user agent's line; all robots that are not this one get the same name.

    protego holds the rules of each robot that a group names: 15,000 names and 15,000 rules, which
    fit into the largest robots.txt, would be 225 million.
    """
    name = line[2].partition("#")[0].strip().lower().replace("*", "") or "*"
    # A group is for this robot if its name stands in the robot's.
    return line[0] if name == "*" or name in robot else f"{line[1]}{robot}-other"


def robot_name(user_agent: str) -> str:
    """Return the name that a user agent starts with: `my-lab/1.0 (mail)` → `my-lab`."""
    return user_agent.split("/", maxsplit=1)[0].split(" ", maxsplit=1)[0]


def find_opt_out(head: bytes, body: bytes, robot: str) -> str:
    """Return what in a response keeps its page out of training, "" when nothing does.

    `head` is the status line and headers as they were sent; `body` may be gzipped.
    """
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = map(str.strip, line.partition(":"))
        if opt_out := _opt_out_in_header(name.lower(), value, robot):
            return f"{name}: {opt_out}"
    if body.startswith(b"\x1f\x8b"):
        try:
            body = zlib.decompressobj(31).decompress(body, _HEAD_BYTES)
        except zlib.error:
            body = b""
    for meta in _META.finditer(_COMMENT.sub("", body[:_HEAD_BYTES].decode("latin-1"))):
        attributes = {
            match[1].lower(): match[2] or match[3] or match[4] or ""
            for match in _ATTRIBUTE.finditer(meta[1])
        }
        name = attributes.get("name", "").strip().lower()
        header = "x-robots-tag" if name in ("robots", robot.lower()) else name
        if opt_out := _opt_out_in_header(header, attributes.get("content", ""), robot):
            return f'<meta name="{name}">: {opt_out}'
    return ""


def _opt_out_in_header(name: str, value: str, robot: str) -> str:
    """Return the part of a header, or of the <meta> that replaces it, that opts out."""
    if name == "tdm-reservation":
        return "1" if value.strip() == "1" else ""
    if name in _SIGNAL_HEADERS:
        match = _NO_TRAINING.search(value)
        return match[0] if match else ""
    if name != "x-robots-tag":
        return ""
    # `rule, otherbot: rule, rule`: rules after a name are for that robot, those before for all.
    for_us = True
    for part in value.lower().split(","):
        key, colon, rule = (piece.strip() for piece in part.partition(":"))
        if key in _VALUED:
            continue
        if colon:
            for_us = key in ("robots", robot.lower())
        rule = rule if colon else key
        if for_us and rule in _OPT_OUTS:
            return rule
    return ""
