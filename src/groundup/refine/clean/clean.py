"""Cleans the texts of a batch: encoding, characters, white space, personal data. Reads and writes
nothing on disk.

Every step works on the whole column and touches only the rows that a cheap test picks, so that
plain English costs a few passes over its bytes. Cleaning twice changes nothing more.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import ftfy
import ftfy.fixes
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ftfy.badness import BADNESS_RE

from groundup.artifacts.arrays import Array, mask, replace_rows, text_array, text_buffers
from groundup.recipe import Personal
from groundup.refine.clean.pii import counted, hide
from groundup.refine.clean.whitespace import tidy

_ENTITY = r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][0-9A-Za-z]{1,23});"
_ROUNDS = 8
USUAL = Personal()


def _mojibake() -> str:
    """Return ftfy's own test for bad text in Arrow's dialect (RE2): a text without a match is one
    that ftfy leaves alone.

    Also soft hyphens, which hide mojibake until they are dropped. It is only a suspicion; ftfy
    decides.
    """
    blanks_and_comments = r"(\[[^\]]*\])|#.*|[ \n]+"
    pattern = re.sub(blanks_and_comments, lambda hit: hit[1] or "", BADNESS_RE.pattern)
    # In RE2 \w and \s are ASCII.
    return r"(?m)\x{ad}|" + pattern.replace(r"\w", r"[\pL\pN_]").replace(r"\s", r"[\s\pZ]")


MOJIBAKE = _mojibake()


@dataclass
class Cleaned:
    """Cleaned texts (string array, same rows) and how many rows each step changed."""

    texts: pa.StringArray
    changed: Counter[str] = field(default_factory=Counter)


def clean_texts(texts: pa.StringArray, code: Array, personal: Personal = USUAL) -> Cleaned:
    """Clean a column of texts.

    Args:
        texts: decoded, raw.
        code: boolean mask of the rows that are source code: white space inside lines, entities and
            the encoding are left
            alone there.
        personal: what becomes of addresses and numbers of people.
    """
    done = Cleaned(texts)
    foreign = ~code & ~mask(pc.string_is_ascii(texts))
    touched, unstable = _tidy(done, code, foreign)
    changed = _normalize(done, unstable) | _repair(done, ~code)
    again, unstable = _tidy_rows(done, code, foreign | changed)
    _normalize(done, unstable)
    hidden = _hide(done, code, personal)
    _tidy_rows(done, code, hidden)
    done.changed["white space and controls"] += int((touched | again).sum())
    # Without its addresses, or with plain spaces, a line may look different to the repair; both get
    # fewer every time.
    suspects = _suspects(done, (hidden | again) & ~code)
    if suspects.any():
        rest = clean_texts(done.texts.filter(pa.array(suspects)), code[suspects], personal)
        done.texts = replace_rows(done.texts, suspects, rest.texts)
    return done


def _tidy(done: Cleaned, code: Array, gentle: Array | None = None) -> tuple[Array, Array]:
    """Tidy all rows; return masks of those that changed, and of those that may not be in NFC."""
    offsets, data, changed, unstable = tidy(*text_buffers(done.texts), code, gentle)
    done.texts = text_array(offsets, data)
    return changed, unstable


def _tidy_rows(done: Cleaned, code: Array, rows: Array) -> tuple[Array, Array]:
    """Tidy some rows; return what `_tidy` returns."""
    changed, unstable = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
    if rows.any():
        part = Cleaned(done.texts.filter(pa.array(rows)))
        changed[rows], unstable[rows] = _tidy(part, code[rows])
        done.texts = replace_rows(done.texts, rows, part.texts)
    return changed, unstable


def _normalize(done: Cleaned, unstable: Array) -> Array:
    """NFC, for the rows that may need it."""
    if not unstable.any():
        return unstable
    before = done.texts.filter(pa.array(unstable))
    changed = _replace(done, unstable, pc.utf8_normalize(before, form="NFC"))
    done.changed["normal form"] += int(changed.sum())
    return changed


def _replace(done: Cleaned, rows: Array, after: pa.StringArray) -> Array:
    """Put `after` in place of `rows`; return those among them that differ."""
    differ = pc.not_equal(done.texts.filter(pa.array(rows)), after)
    rows = rows.copy()
    rows[rows] = mask(differ)
    done.texts = replace_rows(done.texts, rows, after.filter(differ))
    return rows


def _suspects(done: Cleaned, rows: Array) -> Array:
    """Return those of `rows` that may hold mojibake or an HTML entity."""
    foreign = rows & ~mask(pc.string_is_ascii(done.texts))
    return _matching(done, foreign, MOJIBAKE) | _matching(
        done, rows & mask(pc.match_substring(done.texts, "&")), _ENTITY
    )


def _repair(done: Cleaned, prose: Array) -> Array:
    """Mojibake and HTML entities in prose, until nothing changes any more; return the rows that
    changed.
    """
    rows, changed = _suspects(done, prose), np.zeros(len(prose), np.bool_)
    for _ in range(_ROUNDS):
        if not rows.any():
            break
        part = Cleaned(_unescaped(_recoded(done.texts.filter(pa.array(rows)))))
        # Brought to where the column is, so that a repair is judged by what becomes of it.
        _normalize(part, _tidy(part, np.zeros(len(part.texts), np.bool_))[1])
        rows = _replace(done, rows, part.texts)
        changed |= rows
        rows = _suspects(done, rows)
    done.changed["encoding and entities"] += int(changed.sum())
    return changed


def _recoded(texts: pa.StringArray) -> pa.StringArray:
    """Undo mojibake (ftfy), line by line: only suspicious lines become Python strings."""
    parts = pc.split_pattern(texts, "\n")
    lines = parts.flatten()
    bad = mask(pc.match_substring_regex(lines, MOJIBAKE))
    mended = [
        _encodable(ftfy.fix_encoding(line)) for line in lines.filter(pa.array(bad)).to_pylist()
    ]
    lines = replace_rows(lines, bad, pa.array(mended, pa.string()))
    return pc.binary_join(pa.ListArray.from_arrays(parts.offsets, lines), "\n")


def _unescaped(texts: pa.StringArray) -> pa.StringArray:
    """Resolve HTML entities, except in a text with "<" in it, which is likely to be about HTML."""
    rows = mask(pc.match_substring(texts, "&")) & ~mask(pc.match_substring(texts, "<"))
    after = [
        _encodable(ftfy.fixes.unescape_html(text))
        for text in texts.filter(pa.array(rows)).to_pylist()
    ]
    return replace_rows(texts, rows, pa.array(after, pa.string()))


def _encodable(text: str) -> str:
    """Replace halves of surrogate pairs, which a character reference may name and no UTF-8 can
    hold.
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def _matching(done: Cleaned, rows: Array, pattern: str) -> Array:
    rows = rows.copy()
    if rows.any():
        rows[rows] = mask(pc.match_substring_regex(done.texts.filter(pa.array(rows)), pattern))
    return rows


def _hide(done: Cleaned, code: Array, personal: Personal) -> Array:
    """Personal data in prose and in code; return the rows that changed."""
    touched = np.zeros(len(code), np.bool_)
    for is_code, rows in ((False, ~code), (True, code)):
        actions = personal.actions(is_code)
        if not rows.any() or not actions:
            continue
        whole = rows.all()
        texts, found = hide(
            done.texts if whole else done.texts.filter(pa.array(rows)), actions, is_code
        )
        done.texts = texts if whole else replace_rows(done.texts, rows, texts)
        done.changed += counted(found)
        touched[rows] = np.logical_or.reduce(list(found.values()))
    return touched


def clean_turns(turns: pa.ListArray, personal: Personal = USUAL) -> pa.ListArray:
    """Clean the `content` of every turn of a column of conversations; turns that become empty stay,
    in their order.
    """
    flat = turns.flatten()
    if len(flat) == 0:
        return turns
    content = pc.fill_null(flat.field("content"), "")
    cleaned = clean_texts(content, np.zeros(len(content), np.bool_), personal).texts
    values = pa.StructArray.from_arrays([flat.field("role"), cleaned], names=["role", "content"])
    counts = pc.fill_null(pc.list_value_length(turns), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, values, mask=turns.is_null())
