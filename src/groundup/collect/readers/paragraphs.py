"""Joins the hard-wrapped lines of prose to paragraphs, and leaves verse, plays and tables as they
are.

A line of wrapped prose ends where the next word would not have fitted; a line of verse ends where
the poet wanted.
"""

from __future__ import annotations

import re

_BLOCKS = re.compile(r"(\n[ \t]*\n\s*)")
# A line that stops this many characters before the next word would overflow was still cut by the
# margin.
_SLACK = 3
# Narrower than this is no margin that prose is set to.
_MIN_WIDTH = 50
_MAX_WIDTH = 120
_FORCED_SHARE = 0.75
_WIDTH_SAMPLE = 4000


def unwrap(text: str) -> str:
    """Return text with every wrapped paragraph on one line; blank lines between blocks become one,
    or two for a break.
    """
    text = re.sub(r"[ \t]+$", "", text.expandtabs(4) if "\t" in text else text, flags=re.MULTILINE)
    pieces = _BLOCKS.split(text.strip("\n"))
    width = _margin(pieces[::2])
    if width == 0:
        return text.strip()
    for number in range(0, len(pieces), 2):
        pieces[number] = _block(pieces[number], width)
    for number in range(1, len(pieces), 2):
        pieces[number] = "\n\n" if pieces[number].count("\n") < 4 else "\n\n\n"
    return "".join(pieces).strip()


def margin_of(text: str) -> int:
    """Return the column that a text's lines are wrapped at, or 0 when they are not."""
    return _margin(_BLOCKS.split(text.replace("\r", ""))[::2])


def _margin(blocks: list[str]) -> int:
    """Return the column that the prose of a text is wrapped at, or 0 when it is not wrapped."""
    lengths = sorted(
        len(line) for block in blocks[:_WIDTH_SAMPLE] for line in block.split("\n")[:-1]
    )
    if len(lengths) < 8:
        lengths = sorted(
            len(line) for block in blocks[:_WIDTH_SAMPLE] for line in block.split("\n")
        )
    if not lengths:
        return 0
    width = lengths[min(len(lengths) - 1, int(len(lengths) * 0.95))]
    return width if _MIN_WIDTH <= width <= _MAX_WIDTH else 0


def _block(block: str, width: int) -> str:
    lines = block.split("\n")
    if len(lines) < 2:
        return block
    indents = [len(line) - len(line.lstrip()) for line in lines]
    bare = [line.strip() for line in lines]
    inner = min(indents[1:])
    return _joined(bare) if _is_prose(bare, indents, width, inner) else block


def _is_prose(lines: list[str], indents: list[int], width: int, inner: int) -> bool:
    """Return whether the margin cut the lines of a block, not its writer.

    An indented block (a letter, a quotation) has a margin of its own: its longest line.
    """
    if max(indents[1:]) - inner > 2 or any("   " in line for line in lines):
        return False
    longest = max(indent + len(line) for indent, line in zip(indents, lines, strict=True))
    if longest < _MIN_WIDTH:
        return False
    own = inner > 2 or longest > width + _SLACK
    # Two lines cannot show a margin of their own; a text's common one can judge them.
    margin = longest if own and len(lines) > 3 else width
    forced = sum(
        indent + len(line) + 1 + len(following.split(" ", 1)[0]) > margin - _SLACK
        for indent, line, following in zip(indents, lines, lines[1:], strict=False)
    )
    share = forced / (len(lines) - 1)
    # Verse starts every line with a capital; prose one line in eight.
    capitals = sum(line.lstrip("\"'“‘(")[:1].isupper() for line in lines[1:]) / (len(lines) - 1)
    if capitals > 0.9 and len(lines) > 3:
        return False
    return share >= (_FORCED_SHARE if capitals < 0.7 else 0.97)


def _joined(lines: list[str]) -> str:
    """Join lines by a space, or by nothing after a dash or a hyphen inside a word."""
    out = lines[0]
    for line in lines[1:]:
        glued = out.endswith(("-", "—")) and out[-2:-1] not in ("", " ")
        out += line if glued else f" {line}"
    return out
