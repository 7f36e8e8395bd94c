"""What a pool of workers is: takes calls by number, says how each ended. Reads and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Outcome:
    """How a call ended: with the answer of `node.attempt`, or without one when its worker was lost,
    and how.
    """

    answer: bytes = b""
    lost: str = ""


class Pool(Protocol):
    """Who does the work."""

    def start(self) -> None:
        """Make ready, and check what can be checked before there is any work."""

    def room(self) -> bool:
        """Whether one more call would be taken now."""

    def submit(self, number: int, call: bytes) -> None:
        """Take a call: a pickled (function, arguments)."""

    def wait(self) -> list[tuple[int, Outcome]]:
        """Wait until calls have ended, and return them; perhaps none, to be asked again."""

    def drop(self) -> None:
        """Give up the calls that have not ended."""

    def close(self) -> None:
        """Stop at once; the next call starts it again."""
