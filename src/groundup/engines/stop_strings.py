"""Finds stop strings in text that comes in pieces, and holds back what may yet become one. Reads
and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopScanner:
    """Lets text through up to the first place where a stop string ends; where several end there,
    the longest counts.

    Each character moves an automaton for every stop string (Knuth, Morris and Pratt 1977), so the
    cost does not depend on how the text is cut into pieces or on how long the stop strings are.

    Attributes:
        found: whether a stop string was seen; nothing comes through any more.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [(stop, _failures(stop)) for stop in stops]
        self._matched = [0] * len(stops)
        self._held = ""
        self.found = False

    def add(self, text: str) -> str:
        """Return the text that can no longer belong to a stop string."""
        if self.found or not self._stops:
            return "" if self.found else text
        whole, held = self._held + text, len(self._held)
        for place, character in enumerate(text, held + 1):
            self._matched = [
                _step(stop, matched, character)
                for stop, matched in zip(self._stops, self._matched, strict=True)
            ]
            ended = [
                len(stop)
                for (stop, _), matched in zip(self._stops, self._matched, strict=True)
                if matched == len(stop)
            ]
            if ended:
                self.found, self._held = True, ""
                return whole[: place - max(ended)]
        free = len(whole) - max(self._matched)
        self._held = whole[free:]
        return whole[:free]

    def end(self) -> str:
        """Return what was held back: the text is over, so it belongs to no stop string."""
        rest, self._held = self._held, ""
        return rest


def _step(stop: tuple[str, list[int]], matched: int, character: str) -> int:
    """Return how many first characters of a stop string the text ends with, after one more
    character.
    """
    text, failures = stop
    while matched and text[matched] != character:
        matched = failures[matched - 1]
    return matched + (text[matched] == character)


def _failures(text: str) -> list[int]:
    """Return for each beginning of `text` the length of its longest proper beginning that it also
    ends with.
    """
    found = [0] * len(text)
    for place in range(1, len(text)):
        found[place] = _step((text, found), found[place - 1], text[place])
    return found
