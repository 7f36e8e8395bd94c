"""What a host allows robots to fetch (RFC 9309). Reads the text of a robots.txt; writes nothing.

By protego: the standard library's parser takes the first rule that fits and not the longest, and
knows no `*` or `$` inside a path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from groundup.collect.scrape.optouts import Signals, reserved, signals_in

# RFC 9309, 2.5: at least so much of it is read.
MAX_ROBOTS_BYTES = 500 << 10


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a host for one robot: parsed, or, where there are none to read, the reason why
    nothing may be fetched.
    """

    parsed: Any
    robot: str
    closed: str = ""
    signals: Signals = ()

    def forbids(self, url: str) -> str:
        """Return why an address may not be fetched, "" when it may."""
        if self.closed or self.parsed is None:
            return self.closed
        return "" if self.parsed.can_fetch(url, self.robot) else "robots.txt forbids it"

    def reserves(self, url: str) -> bool:
        """Return whether an address may be fetched, but not for training."""
        return reserved(self.signals, url)

    @property
    def delay(self) -> float:
        """Seconds between two requests that the host asks for, 0 when it does not say."""
        return float(
            (self.parsed.crawl_delay(self.robot) if self.parsed is not None else None) or 0
        )


def read_rules(body: bytes, user_agent: str) -> Rules:
    """Return the rules in a robots.txt for a robot, by the name that its user agent begins with."""
    from protego import Protego

    text = body[:MAX_ROBOTS_BYTES].decode("utf-8", "replace").replace("\0", "")
    robot = robot_of(user_agent)
    return Rules(Protego.parse(text), robot, signals=signals_in(text, robot))


def robot_of(user_agent: str) -> str:
    """Return the name that rules are looked up by: what a user agent begins with."""
    return user_agent.split("/", maxsplit=1)[0].split(" ", maxsplit=1)[0]


def closed(user_agent: str, why: str) -> Rules:
    """Return the rules of a host whose robots.txt cannot be reached: it forbids everything (RFC
    9309, 2.3.1.4).
    """
    return Rules(None, user_agent, why)


def opened(user_agent: str) -> Rules:
    """Return the rules of a host that has no robots.txt: it forbids nothing (RFC 9309, 2.3.1.3)."""
    return Rules(None, user_agent)
