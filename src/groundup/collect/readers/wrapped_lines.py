"""Joins the lines of prose that were wrapped at a margin; verse, lists and tables stay as they are.

    It was a bright morning in early spring        It was a bright morning in early spring when the
    when the old schoolmaster set out.         →   old schoolmaster set out.

A line of wrapped prose ends where the next word did not fit; a line of verse ends where the poet
ended it. Indents, lengths and first words of the lines tell the two apart. They are measured as
arrays, for many blocks of lines at once: a text has 20,000 lines a MB.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

# A run of spaces is tried from its start only.
_TRAILING_SPACE = re.compile(r"(?<![ \t])[ \t]+$", re.MULTILINE)
_FEW_SPACES = 4
_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")
# About this many characters are measured at once.
_PART_CHARACTERS = 1 << 20
# A line that ends this many characters before the next word would overflow was still wrapped.
_SLACK = 3
_MIN_WIDTH, _MAX_WIDTH = 50, 120  # margins that prose is wrapped at
# Share of the lines of a block that have to be wrapped, in prose and where most lines start with a
# capital letter.
_WRAPPED_SHARE, _WRAPPED_SHARE_CAPITALS = 0.75, 0.97
_SAMPLE_BLOCKS = 4000
_QUOTES = "\"'“‘("
_QUOTE_CODES = np.array(list(map(ord, _QUOTES)))
_SPACES = np.array([code for code in range(0x3001) if chr(code).isspace()])
_ASCII_CAPITAL = np.array([chr(code).isupper() for code in range(128)])

_NONE = np.zeros(0, np.int64)

_Numbers = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]


def unwrap(text: str) -> str:
    """Return text with every wrapped paragraph on one line.

    Blank lines between blocks become one, or two where there were many.
    """
    text = _strip_lines(text.expandtabs(4) if "\t" in text else text).strip("\n")
    parts = map(_Lines, _parts(text))
    sample, blocks = list[_Lines](), 0
    while blocks < _SAMPLE_BLOCKS and (lines := next(parts, None)):
        sample.append(lines)
        blocks += len(lines.first)
    width = _wrap_width(*_line_lengths(sample))
    if width == 0:
        return text.strip()
    # Not a list: millions of short blocks would take a hundred times their size.
    out = io.StringIO()
    for lines in chain(sample, parts):
        spans = (lines.starts[lines.first], lines.stops[lines.last], lines.breaks_after())
        columns = (*spans, lines.is_wrapped(width), lines.are_bare())
        for start, stop, breaks, is_wrapped, is_bare in zip(
            *map(np.ndarray.tolist, columns), strict=True
        ):
            block = lines.text[start:stop]
            out.write(_join_lines(block, is_bare) if is_wrapped else block)
            if breaks:
                out.write("\n\n" if breaks < 4 else "\n\n\n")
    return out.getvalue().strip()


def has_wrapped_lines(text: str) -> bool:
    """Return whether the lines of a text are wrapped at a margin."""
    blocks = _BLANK_LINES.split(text.replace("\r", ""))[:_SAMPLE_BLOCKS]
    lengths = [list(map(len, block.split("\n"))) for block in blocks]
    inner = [length for of_block in lengths for length in of_block[:-1]]
    return _wrap_width(np.array(inner), np.concatenate(lengths)) > 0


def _line_lengths(parts: Sequence[_Lines]) -> tuple[_Numbers, _Numbers]:
    """Return the lengths of lines of the first blocks: without the last of each block, and all."""
    inner, every, left = [_NONE], [_NONE], _SAMPLE_BLOCKS
    for lines in parts:
        end = lines.last[:left][-1] + 1
        is_shown = ~lines.is_blank[:end]
        lengths = (lines.stops - lines.starts)[:end]
        every.append(lengths[is_shown])
        is_shown[lines.last[:left]] = False
        inner.append(lengths[is_shown])
        left -= len(lines.first)
    return np.concatenate(inner), np.concatenate(every)


def _wrap_width(inner: _Numbers, every: _Numbers) -> int:
    """Return the column that prose is wrapped at, by lengths of lines; 0 when it is not wrapped.

    The last line of a paragraph is short, so it tells nothing: it is not among `inner`.
    """
    lengths = np.sort(inner if len(inner) >= 8 else every)
    width = int(lengths[min(len(lengths) - 1, int(len(lengths) * 0.95))]) if len(lengths) else 0
    return width if _MIN_WIDTH <= width <= _MAX_WIDTH else 0


def _strip_lines(text: str) -> str:
    """Return a text without the spaces at the ends of its lines."""
    # The pattern looks at each space. Most texts have few at the ends of lines, or one or two.
    text = text.rstrip(" ")
    for _ in range(_FEW_SPACES):
        if " \n" not in text:
            return text
        text = text.replace(" \n", "\n")
    return _TRAILING_SPACE.sub("", text)


def _parts(text: str) -> Iterator[str]:
    """Yield a text in parts that end with blank lines."""
    start = 0
    while start < len(text):
        blank = _BLANK_LINES.search(text, start + _PART_CHARACTERS)
        stop = blank.end() if blank else len(text)
        yield text[start:stop]
        start = stop


def _join_lines(block: str, is_bare: bool) -> str:
    """Return the lines of a block as one; without spaces at their ends if they are bare."""
    if is_bare and "-\n" not in block and "—\n" not in block:
        return block.replace("\n", " ")
    joined, *rest = map(str.strip, block.split("\n"))
    for line in rest:
        # A dash, and a hyphen inside a word, join without a space.
        is_glued = joined.endswith(("-", "—")) and joined[-2:-1] not in ("", " ")
        joined += line if is_glued else f" {line}"
    return joined


class _Lines:
    """The lines of a text, and the blocks of lines between its blank lines.

    Line `i` is `text[starts[i]:stops[i]]`: `indents[i]` characters of white space, then `sizes[i]`
    characters up to white space at its end. Block `b` goes from line `first[b]` to line `last[b]`.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._codes = np.frombuffer(text.encode("latin-1"), np.uint8)
        except UnicodeEncodeError:
            self._codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        breaks = np.flatnonzero(self._codes == ord("\n"))
        self.starts, self.stops = np.append(0, breaks + 1), np.append(breaks, len(text))
        self.indents, self.sizes = np.zeros_like(self.starts), self.stops - self.starts
        self._measure_spaces()
        self.is_blank = self.sizes == 0
        # Only below a blank line is one of other white space than spaces blank, too.
        for line in np.flatnonzero(self.is_blank & (self.starts < self.stops)):
            self.is_blank[line] = line > 0 and self.is_blank[line - 1]
        is_first = np.append(True, self.is_blank[:-1]) & ~self.is_blank
        self.first = np.flatnonzero(is_first)
        self.last = np.flatnonzero(np.append(self.is_blank[1:], True) & ~self.is_blank)
        self._block = np.cumsum(is_first) - 1  # that each line is in or below
        # White space above a block goes up to its first character.
        below = self.first[self.first > 0]
        self.starts[below] += self.indents[below]
        self.indents[below] = 0

    def _measure_spaces(self) -> None:
        """Take white space at both ends of lines out of their sizes."""
        shown = np.flatnonzero(self.sizes)
        ends = (self._codes[self.starts[shown]], self._codes[self.stops[shown] - 1])
        is_spaced = np.logical_or(*(np.isin(codes, _SPACES) for codes in ends))
        for number in shown[is_spaced].tolist():
            line = self.text[self.starts[number] : self.stops[number]]
            self.indents[number] = len(line) - len(line.lstrip())
            self.sizes[number] = len(line.strip())

    def breaks_after(self) -> _Numbers:
        """Return the number of line breaks after each block, 0 after the last one of a text."""
        return np.append(self.first[1:], len(self.starts) - 1) - self.last

    def are_bare(self) -> _Flags:
        """Return for each block whether its lines have no white space at their ends."""
        spaced = np.append(0, np.cumsum(self.stops - self.starts - self.sizes))
        return spaced[self.last + 1] == spaced[self.first]

    def is_wrapped(self, width: int) -> _Flags:
        """Return for each block whether the margin ended its lines, not its writer.

        An indented block (a letter, a quotation) has its own margin: its longest line.
        """
        breaks, ends = self.last - self.first, self.indents + self.sizes
        indent = self._reduce(np.minimum, self.indents)
        has_one_indent = self._reduce(np.maximum, self.indents) - indent <= 2
        longest = np.maximum(self._reduce(np.maximum, ends), ends[self.first])
        is_prose = (breaks > 0) & has_one_indent & (longest >= _MIN_WIDTH) & ~self._are_spread()
        # Two lines cannot show their own margin; that of the text judges them.
        has_own_margin = ((indent > 2) | (longest > width + _SLACK)) & (breaks > 2)
        margin = np.where(has_own_margin, longest, width) - _SLACK - 1
        # The line above is longer than the margin with a space and the first word of this one.
        room = margin[self._block] - np.append(0, ends[:-1])
        is_full = room < 0
        asked = np.flatnonzero(is_prose[self._block] & ~is_full)
        is_full[asked] = self._first_words(asked) > room[asked]
        share = self._reduce(np.add, is_full) / breaks.clip(1)
        is_prose &= share >= _WRAPPED_SHARE
        # Verse starts every line with a capital letter; prose one line in eight.
        asked = np.flatnonzero(is_prose[self._block])
        is_capital = np.zeros(len(ends), bool)
        is_capital[asked] = self._are_capital(asked)
        capitals = self._reduce(np.add, is_capital) / breaks.clip(1)
        is_prose &= (capitals <= 0.9) | (breaks <= 2)
        return is_prose & ((capitals < 0.7) | (share >= _WRAPPED_SHARE_CAPITALS))

    def _reduce(self, operation: np.ufunc, values: _Numbers | _Flags) -> _Numbers:
        """Return an operation over the values of all lines of a block but the first.

        What it gives for a block of one line means nothing.
        """
        spans = np.column_stack((self.first + 1, self.last + 1)).ravel()
        return operation.reduceat(np.append(values.astype(np.int64), 0), spans)[::2]

    def _are_spread(self) -> _Flags:
        """Return for each block whether it has columns, three spaces apart."""
        spaces = np.flatnonzero(self._codes == ord(" "))
        wide = spaces[:-2][spaces[2:] - spaces[:-2] == 2]
        lines = np.searchsorted(self.starts, wide, "right") - 1
        inside = self.starts[lines] + self.indents[lines] <= wide
        inside &= wide < self.starts[lines] + self.indents[lines] + self.sizes[lines]
        found = np.zeros(len(self.first), bool)
        found[self._block[lines[inside]]] = True
        return found

    def _first_words(self, lines: _Numbers) -> _Numbers:
        """Return the length of the first word of lines."""
        starts = self.starts[lines] + self.indents[lines]
        spaces = np.append(np.flatnonzero(self._codes == ord(" ")), len(self.text))
        ends = spaces[np.searchsorted(spaces, starts)]
        return np.minimum(ends - starts, self.sizes[lines])

    def _are_capital(self, lines: _Numbers) -> _Flags:
        """Return whether lines start with a capital letter, maybe behind a quotation mark."""
        starts = self.starts[lines] + self.indents[lines]
        codes = np.append(self._codes, 0)[starts]
        found = _ASCII_CAPITAL[codes.clip(max=127)]
        is_other = (codes >= 128) | np.isin(codes, _QUOTE_CODES)
        for number in np.flatnonzero(is_other).tolist():
            line = self.text[starts[number] : self.stops[lines[number]]]
            found[number] = line.lstrip(_QUOTES)[:1].isupper()
        return found
