"""Identify the language of prose from its first characters.

The model is langid.py (Lui and Baldwin 2012), retrained on 139 languages, from the package
py3langid: an automaton over bytes counts features, naive Bayes weighs them. The model is only data,
so a kernel of ours applies it to the texts of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, Texts, mask, replace_rows, text_buffers
from groundup.recipe import MEMBERS
from groundup.refine.kernels import kernel

# Measured together with the next two: docs/experiments.md.
PREFIX_CHARACTERS = 600
# Each window is classified separately, so a text in two languages is half of each; over the whole
# text naive Bayes would be sure of one of them. Windows in an unknown language disagree.
WINDOW_BYTES = 160
# The log-probabilities of a window are divided by its bytes to this power, because its features are
# not independent.
TEMPERATURE = 0.4
# With fewer letters, every answer is a guess. In bytes: a Han character says as much as three Latin
# letters.
MIN_LETTERS = 20
# Below this share of the text, no language is named.
MIN_SHARE = 0.5
# The model's class for numbers, markup and the like, which does not count as text. With less text
# than this share, no language is named.
NO_LANGUAGE, MIN_TEXT = "zxx", 0.5
# A window is shorter than twice its size, so no feature occurs more often.
_LOGARITHMS = np.log1p(np.arange(2 * WINDOW_BYTES + 1)).astype(np.float32)


@dataclass(frozen=True)
class DetectedLanguages:
    """The languages of texts.

    Attributes:
        code: ISO 639 code of each text, "" if unsure.
        share: of each text in the languages asked for.
    """

    code: pa.StringArray
    share: Array


class _LangidModel(NamedTuple):
    """The model of py3langid.

    Attributes:
        moves: next states by byte, one row of 256 per distinct row.
        rows: row in `moves` of each state.
        features: feature that each state completes, or -1.
        weights: shape (features, classes).
        priors: of classes.
        code_of: for each class the index of its code.
        codes: ISO 639 codes, sorted.
    """

    moves: Array
    rows: Array
    features: Array
    weights: Array
    priors: Array
    code_of: Array
    codes: tuple[str, ...]


@cache
def _model() -> _LangidModel:
    from py3langid.langid import MODEL_DIR, MODEL_FILE
    from py3langid.modelio import load_model

    weights, priors, classes, moves, rows, features = load_model(MODEL_DIR / MODEL_FILE)
    names = [MEMBERS.get(name, name) for name in classes]
    codes = tuple(sorted(set(names)))
    return _LangidModel(
        np.array(moves, np.int32).reshape(-1, 256),
        np.array(rows, np.int32),
        np.array(features, np.int32),
        np.asarray(weights, np.float32),
        np.asarray(priors, np.float32),
        np.array([codes.index(name) for name in names], np.int32),
        codes,
    )


def detect(texts: pa.StringArray, languages: Sequence[str] = ()) -> DetectedLanguages:
    """Detect the language of every text; the share of a text too short to tell is 1."""
    model = _model()
    prefixes = pc.utf8_slice_codeunits(texts, 0, PREFIX_CHARACTERS)
    # The model learned from lowercase: headlines in capitals would mislead it.
    capitals = mask(pc.utf8_is_upper(prefixes))
    lowered = pc.utf8_lower(prefixes.filter(pa.array(capitals)))
    prefixes = replace_rows(prefixes, capitals, lowered)
    shares = _shares(text_buffers(prefixes), tuple(model[:6]), len(model.codes), _LOGARITHMS)
    nothing = model.codes.index(NO_LANGUAGE)
    text = 1 - shares[:, nothing]
    letters = pc.replace_substring_regex(
        pc.utf8_slice_codeunits(prefixes, 0, 3 * MIN_LETTERS), r"\PL+", ""
    )
    enough = mask(pc.greater_equal(pc.binary_length(letters), MIN_LETTERS)) & (text >= MIN_TEXT)
    shares[:, nothing] = 0
    shares /= np.maximum(text, MIN_TEXT)[:, None]
    codes = pa.array(model.codes).take(pa.array(shares.argmax(axis=1)))
    columns = [k for k, code in enumerate(model.codes) if code in languages]
    share = np.minimum(shares[:, columns].sum(axis=1, dtype=np.float64), 1.0)
    return DetectedLanguages(
        pc.if_else(pa.array(enough & (shares.max(axis=1) >= MIN_SHARE)), codes, ""),
        np.where(enough, share, 1.0),
    )


@kernel
def _shares(texts: Texts, model: tuple[Array, ...], codes: int, logarithms: Array) -> Array:
    """Return the share of each text in each language, shape (texts, codes), float32.

    The share is the mean of the probabilities of its windows.
    """
    offsets, data = texts
    moves, rows, features, weights, priors, code_of = model
    shares = np.zeros((len(offsets) - 1, codes), np.float32)
    counts, seen = np.zeros(len(weights), np.int32), np.empty(len(logarithms), np.int32)
    scores = np.empty(len(priors), np.float32)
    for text in range(len(offsets) - 1):
        begin, size, state = offsets[text], offsets[text + 1] - offsets[text], 0
        windows = max(1, round(size / WINDOW_BYTES))
        for window in range(windows):
            first, last = begin + size * window // windows, begin + size * (window + 1) // windows
            state, distinct = _count(data[first:last], state, moves, rows, features, counts, seen)
            _weigh(seen[:distinct], counts, weights, priors, logarithms, scores)
            _add(scores, max(1, last - first), code_of, shares[text], np.float32(1 / windows))
    return shares


@kernel
def _count(
    data: Array, state: int, moves: Array, rows: Array, features: Array, counts: Array, seen: Array
) -> tuple[int, int]:
    """Count the features of a window; return the state after it, and how many are in `seen`."""
    distinct = 0
    for byte in data:
        state = moves[rows[state], byte]
        feature = features[state]
        if feature >= 0:
            if counts[feature] == 0:
                seen[distinct] = feature
                distinct += 1
            counts[feature] += 1
    return state, distinct


@kernel
def _weigh(
    seen: Array, counts: Array, weights: Array, priors: Array, logarithms: Array, scores: Array
) -> None:
    """Write the log-probability of each class, up to a constant, and reset the counts."""
    scores[:] = priors
    for feature in seen:
        times = logarithms[counts[feature]]
        counts[feature] = 0
        for c in range(len(scores)):
            scores[c] += times * weights[feature, c]


@kernel
def _add(scores: Array, size: int, code_of: Array, shares: Array, part: float) -> None:
    """Add the probabilities of a window to those of its text."""
    scores -= scores.max()
    np.exp(scores / np.float32(size**TEMPERATURE), scores)
    whole = scores.sum()
    for c in range(len(scores)):
        shares[code_of[c]] += part * scores[c] / whole
