"""Reads the elements of a JSON array, or the entries of a JSON object, one by one. Reads text;
writes nothing.

Memory holds one element, not the file. A malformed element costs itself where its brackets still
match.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from groundup.collect.charset import decode_errors
from groundup.collect.files.streams import DamagedError

MAX_ELEMENT = 256 << 20
_CHUNK = 1 << 20
_DECODER = json.JSONDecoder(strict=False)
_SPACE = re.compile(r"[ \t\r\n\ufeff]*")
# Nothing in a string is tried again: without that, a long one takes a hundred times its size.
_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Malformed:
    """An element that is not JSON."""

    detail: str


class _Window:
    """The part of a text that has been read and not consumed."""

    def __init__(self, source: io.BufferedReader, encoding: str) -> None:
        self._source, self._decoder = (
            source,
            codecs.getincrementaldecoder(encoding)(decode_errors(encoding)),
        )
        self.text, self.position, self.ended = "", 0, False
        # Characters of the value that was consumed last.
        self.length = 0
        self._damage: DamagedError | None = None

    def grow(self) -> None:
        """Read as much again as is left over, or a little more than one element may have, and drop
        what has been consumed.
        """
        left = self.text[self.position :]
        count = min(max(_CHUNK, len(left)), max(_CHUNK, MAX_ELEMENT + 1 - len(left)))
        self.text, self.position = left + "".join(self._parts(count)), 0

    def _parts(self, count: int) -> Iterator[str]:
        """Yield text of about `count` bytes; damage is kept for when all before it has been used."""
        while count > 0 and not self.ended:
            try:
                data = self._source.read1(_CHUNK)
            except DamagedError as damage:
                self._damage, data = damage, b""
            self.ended = not data
            count -= len(data)
            yield self._decoder.decode(data, final=self.ended and self._damage is None)

    def broken(self, detail: str) -> DamagedError:
        """Return why the text goes no further: damage to the file, its end, or a mistake in it."""
        return self._damage or DamagedError("malformed" if self.peek() else "truncated", detail)

    def peek(self) -> str:
        """Return the next character that is no white space, or "" at the end."""
        while True:
            match = _SPACE.match(self.text, self.position)
            self.position = match.end() if match else self.position
            if self.position < len(self.text) or self.ended:
                return self.text[self.position : self.position + 1]
            self.grow()

    def take(self, character: str) -> bool:
        """Consume a character if it comes next."""
        if self.peek() != character:
            return False
        self.position += 1
        return True

    def value(self) -> Any:
        """Consume one JSON value; a Malformed where its brackets match but its inside is wrong.

        Raises:
            DamagedError: the text ends, or the value is too long, before it is complete.
        """
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.position)
                if self.ended or (end < len(self.text) and not self._cut_number(value, end)):
                    self.length, self.position = end - self.position, end
                    return value
            except (ValueError, RecursionError) as error:
                end = 0 if self._is_cut(error) else self._matching()
                if end:
                    self.position = end
                    return Malformed(_reason(error))
            self._more_or_fail()

    def _is_cut(self, error: Exception) -> bool:
        """Return whether a value goes wrong where the window ends: more of it may mend that, and
        looking for its end is slow.
        """
        if self.ended or not isinstance(error, json.JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated string") or error.pos > len(self.text) - 16

    def _cut_number(self, value: Any, end: int) -> bool:
        """Return whether a number may go on beyond the window: `-0.` reads as `-0`."""
        return (
            isinstance(value, (int, float)) and self.text[end] in ".eE" and len(self.text) - end < 4
        )

    def _more_or_fail(self) -> None:
        if self.ended:
            raise self._damage or DamagedError(
                "truncated", "the JSON ends in the middle of a value, or a bracket in it is wrong"
            )
        if len(self.text) - self.position >= MAX_ELEMENT:
            raise DamagedError("too-large", f"one JSON value is longer than {MAX_ELEMENT >> 20} MB")
        self.grow()

    def _matching(self) -> int:
        """Return the end of the bracketed value at the position, or 0 when it does not end here."""
        depth = 0
        for match in _BRACKET.finditer(self.text, self.position):
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
            if depth <= 0:
                # A wrong word or number ends before the next comma or bracket of the element around
                # it.
                return (
                    match.end()
                    if match.start() >= self.position and match[0] in ("]", "}") and depth == 0
                    else 0
                )
        return 0


def _reason(error: Exception) -> str:
    return (
        "nested too deeply"
        if isinstance(error, RecursionError)
        else str(error).partition(": line")[0]
    )


def elements(source: io.BufferedReader, encoding: str) -> Iterator[tuple[str | None, Any, int]]:
    """Yield the elements of an array as (None, value, length), or the entries of an object as (key,
    value, length).

    The length is that of the value in the file, in characters.

    A value is Malformed where one element cannot be read and those after it can.

    Raises:
        DamagedError: the text is no array or object, or ends before it is complete; what came
            before has been yielded.
    """
    window = _Window(source, encoding)
    opening = window.peek()
    if opening not in ("[", "{") or not opening:
        raise DamagedError("malformed", "it starts with neither [ nor {")
    closing = "]" if window.take("[") else "}"
    if closing == "}":
        window.take("{")
    while not window.take(closing):
        key = _key(window) if closing == "}" else None
        value = window.value()
        yield key, value, window.length
        if not window.take(",") and window.peek() != closing:
            raise window.broken("the JSON ends or goes wrong after an element")
    if window.peek():
        raise window.broken("there is more after the end of the JSON")


def _key(window: _Window) -> str:
    key = window.value()
    if not isinstance(key, str) or not window.take(":"):
        raise window.broken("a key of the JSON object is wrong")
    return key
