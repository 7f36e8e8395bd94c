"""Clean the texts of a batch: encoding, invisible characters, white space, NFC, PII.

Each step works on the whole column and changes only the rows that a cheap test selects, so plain
English costs a few passes over its bytes. Cleaning is idempotent.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import ftfy.fixes
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, mask, replace_rows, text_array, text_buffers
from groundup.recipe import Personal
from groundup.refine.clean.mojibake import encodable, has_mojibake, repair_lines
from groundup.refine.clean.normal_form import normalize_form
from groundup.refine.clean.pii import PII_LABELS, redact
from groundup.refine.clean.spans import lines_with, screened
from groundup.refine.clean.whitespace import normalize_whitespace

_ENTITY = r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][0-9A-Za-z]{1,23});"
_MAX_REPAIRS = 8
DEFAULT_PERSONAL = Personal()


@dataclass
class CleanedTexts:
    """Texts while they are cleaned, and how many of them each step changed."""

    texts: pa.StringArray
    changed: Counter[str] = field(default_factory=Counter)

    def replace(self, rows: Array, after: pa.StringArray) -> Array:
        """Replace `rows` by `after`; return the mask of those that differ."""
        differ = mask(pc.not_equal(_selected(self.texts, rows), after))
        rows = rows.copy()
        rows[rows] = differ
        self.texts = (
            after if rows.all() else replace_rows(self.texts, rows, after.filter(pa.array(differ)))
        )
        return rows


def _selected(texts: pa.StringArray, rows: Array) -> pa.StringArray:
    """Return the rows of a mask; not a copy of them if they are all."""
    return texts if rows.all() else texts.filter(pa.array(rows))


def clean_texts(
    texts: pa.StringArray, code: Array, personal: Personal = DEFAULT_PERSONAL
) -> CleanedTexts:
    """Clean a column of texts.

    `code` is the mask of source code, whose inner spaces, entities and encoding stay.
    """
    cleaned = CleanedTexts(texts)
    not_ascii = ~mask(pc.string_is_ascii(texts))
    foreign = ~code & not_ascii
    touched = _normalize_rows(cleaned, code, np.ones(len(code), np.bool_), foreign)
    changed = _normalize_nfc(cleaned, not_ascii) | repair(cleaned, ~code)
    again = _normalize_rows(cleaned, code, foreign | changed)
    _normalize_nfc(cleaned, foreign | changed)
    redacted = np.zeros(len(code), np.bool_)
    for is_code, rows in ((False, ~code), (True, code)):
        actions = personal.actions(is_code)
        if not rows.any() or not actions:
            continue
        part, hits = redact(_selected(cleaned.texts, rows), actions, is_code)
        cleaned.texts = part if rows.all() else replace_rows(cleaned.texts, rows, part)
        cleaned.changed += Counter({PII_LABELS[kind]: int(hit.sum()) for kind, hit in hits.items()})
        redacted[rows] = np.logical_or.reduce(list(hits.values()))
    _normalize_rows(cleaned, code, redacted)
    cleaned.changed["white space and controls"] += int((touched | again).sum())
    # A line may match the mojibake test only without its addresses, or with plain spaces. Both
    # shrink with each pass, so this ends.
    rows = suspects(cleaned.texts, (redacted | again) & ~code)
    if rows.any():
        rest = clean_texts(cleaned.texts.filter(pa.array(rows)), code[rows], personal)
        cleaned.texts = replace_rows(cleaned.texts, rows, rest.texts)
    return cleaned


def _normalize_rows(
    cleaned: CleanedTexts, code: Array, rows: Array, gentle: Array | None = None
) -> Array:
    """Normalize the white space of some rows, some of them gently (see `normalize_whitespace`).

    Returns the mask of the rows that changed.
    """
    if not rows.any():
        return rows
    buffers = text_buffers(_selected(cleaned.texts, rows))
    gently = (np.zeros_like(rows) if gentle is None else gentle)[rows]
    return cleaned.replace(rows, text_array(*normalize_whitespace(buffers, code[rows], gently)))


def _normalize_nfc(cleaned: CleanedTexts, rows: Array) -> Array:
    """Bring some rows into NFC; return the mask of those that changed."""
    cleaned.texts, changed = normalize_form(cleaned.texts, rows)
    cleaned.changed["normal form"] += int(changed.sum())
    return changed


def suspects(texts: pa.StringArray, rows: Array) -> Array:
    """Return those of `rows` that may hold mojibake or an HTML entity."""
    buffers, found = text_buffers(texts), has_mojibake(texts, rows)
    found[screened(buffers, lines_with(buffers, rows, ord("&")), _ENTITY)[:, 0]] = True
    return found


def repair(cleaned: CleanedTexts, prose: Array) -> Array:
    """Repair mojibake and HTML entities until nothing changes; return the rows that changed."""
    rows, changed = suspects(cleaned.texts, prose), np.zeros(len(prose), np.bool_)
    for _ in range(_MAX_REPAIRS):
        if not rows.any():
            break
        texts = repair_lines(cleaned.texts.filter(pa.array(rows)))
        # A text with "<" is likely to be about HTML, so its entities stay.
        escaped = mask(pc.match_substring(texts, "&")) & ~mask(pc.match_substring(texts, "<"))
        unescaped = map(ftfy.fixes.unescape_html, texts.filter(pa.array(escaped)).to_pylist())
        texts = replace_rows(texts, escaped, [encodable(text) for text in unescaped])
        # Compare what the repair becomes after normalization.
        part, everything = CleanedTexts(texts), np.ones(len(texts), np.bool_)
        _normalize_rows(part, ~everything, everything)
        _normalize_nfc(part, everything)
        rows = cleaned.replace(rows, part.texts)
        changed |= rows
        rows = suspects(cleaned.texts, rows)
    cleaned.changed["encoding and entities"] += int(changed.sum())
    return changed


def clean_turns(turns: pa.ListArray, personal: Personal = DEFAULT_PERSONAL) -> pa.ListArray:
    """Clean the `content` of every turn of a column of conversations; empty turns stay."""
    flat = turns.flatten()
    if len(flat) == 0:
        return turns
    content = pc.fill_null(flat.field("content"), "")
    cleaned = clean_texts(content, np.zeros(len(content), np.bool_), personal).texts
    values = pa.StructArray.from_arrays([flat.field("role"), cleaned], names=["role", "content"])
    counts = pc.fill_null(pc.list_value_length(turns), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, values, mask=turns.is_null())
