"""Cleans the texts of a batch: encoding, characters, white space, personal data. Reads and writes nothing on disk.

Every step works on the whole column and touches only the rows that a cheap test picks, so that plain English costs a
few passes over its bytes. Cleaning twice changes nothing more.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field

import ftfy
import ftfy.fixes
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ftfy.badness import BADNESS_RE

from groundup.recipe import Personal
from groundup.refine.arrays import Array, mask, replace_rows, text_array, text_buffers
from groundup.refine.personal import counted, hide
from groundup.refine.tidy import tidy

_ENTITY = r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][0-9A-Za-z]{1,23});"
_ROUNDS = 8
USUAL = Personal()


def _mojibake() -> str:
    """Return ftfy's own test for bad text in Arrow's dialect (RE2): a text without a match is one that ftfy leaves alone.

    Also soft hyphens, which hide mojibake until they are dropped. It is only a suspicion; ftfy decides.
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
        code: boolean mask of the rows that are source code: white space inside lines, entities and the encoding are left
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
    # Without its addresses, or with plain spaces, a line may look different to the repair; both get fewer every time.
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
    return _replace(done, unstable, pc.utf8_normalize(before, form="NFC"), "normal form")


def _replace(done: Cleaned, rows: Array, after: pa.StringArray, step: str) -> Array:
    """Put `after` in place of `rows`; count and return those among them that differ."""
    differ = pc.not_equal(done.texts.filter(pa.array(rows)), after)
    rows = rows.copy()
    rows[rows] = mask(differ)
    done.texts = replace_rows(done.texts, rows, after.filter(differ))
    done.changed[step] += int(rows.sum())
    return rows


def _suspects(done: Cleaned, rows: Array) -> Array:
    """Return those of `rows` that may hold mojibake or an HTML entity."""
    foreign = rows & ~mask(pc.string_is_ascii(done.texts))
    return _matching(done, foreign, MOJIBAKE) | _matching(done, rows & mask(pc.match_substring(done.texts, "&")), _ENTITY)


def _repair(done: Cleaned, prose: Array) -> Array:
    """Mojibake and HTML entities in prose: only suspicious rows become Python strings."""
    rows = _suspects(done, prose)
    if not rows.any():
        return rows
    after = [repair(text) for text in done.texts.filter(pa.array(rows)).to_pylist()]
    return _replace(done, rows, pa.array(after, pa.string()), "encoding and entities")


def _matching(done: Cleaned, rows: Array, pattern: str) -> Array:
    rows = rows.copy()
    if rows.any():
        rows[rows] = mask(pc.match_substring_regex(done.texts.filter(pa.array(rows)), pattern))
    return rows


def repair(text: str) -> str:
    """Undo mojibake line by line (ftfy) and unescape HTML entities, until nothing changes any more.

    Entities stay in a text with "<" in it, which is likely to be about HTML.
    """
    for _ in range(_ROUNDS):
        before = text
        text = "\n".join(map(ftfy.fix_encoding, text.split("\n")))
        if "<" not in text and "&" in text:
            text = ftfy.fixes.unescape_html(text)
        # A character reference may name half of a surrogate pair, which no UTF-8 can hold.
        text = _settle(text.encode("utf-8", "replace").decode("utf-8"))
        if text == before:
            break
    return text


def _settle(text: str) -> str:
    """Bring one text to where the column would be: tidy and in NFC, so that a repair is judged by what becomes of it."""
    tidied = tidy(*text_buffers(pa.array([text])), np.zeros(1, np.bool_))
    return unicodedata.normalize("NFC", tidied.data.tobytes().decode())


def _hide(done: Cleaned, code: Array, personal: Personal) -> Array:
    """Personal data in prose and in code; return the rows that changed."""
    touched = np.zeros(len(code), np.bool_)
    for is_code, rows in ((False, ~code), (True, code)):
        actions = personal.actions(is_code)
        if not rows.any() or not actions:
            continue
        whole = rows.all()
        texts, found = hide(done.texts if whole else done.texts.filter(pa.array(rows)), actions, is_code)
        done.texts = texts if whole else replace_rows(done.texts, rows, texts)
        done.changed += counted(found)
        touched[rows] = np.logical_or.reduce(list(found.values()))
    return touched


def clean_turns(turns: pa.ListArray, personal: Personal = USUAL) -> pa.ListArray:
    """Clean the `content` of every turn of a column of conversations; turns that become empty stay, in their order."""
    flat = turns.flatten()
    if len(flat) == 0:
        return turns
    content = pc.fill_null(flat.field("content"), "")
    cleaned = clean_texts(content, np.zeros(len(content), np.bool_), personal).texts
    values = pa.StructArray.from_arrays([flat.field("role"), cleaned], names=["role", "content"])
    counts = pc.fill_null(pc.list_value_length(turns), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, values, mask=turns.is_null())
