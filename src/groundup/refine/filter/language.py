"""Finds the languages of prose from its first characters. Reads the model inside py3langid; writes
nothing.

The model is Lui and Baldwin's langid.py (2012), trained anew on 139 languages: an automaton over
bytes counts features, naive Bayes weighs them. It is data alone, so the texts of a batch go through
a kernel of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, mask, replace_rows, text_buffers
from groundup.recipe import MEMBERS
from groundup.refine.kernels import kernel

# Measured together with the two below: docs/experiments.md.
PREFIX_CHARACTERS = 600
# Each window is judged alone, so that a text in two languages is said to be half of each; over a
# whole text naive Bayes is sure of one of them. Windows of a text in a language that the model does
# not know disagree.
WINDOW_BYTES = 160
# Log-probabilities of a window are divided by its bytes to this power, since its features are not
# independent.
TEMPERATURE = 0.4
# With fewer letters (in bytes, since one Han character says as much as three Latin ones) every
# guess is a guess.
FEW_LETTERS = 20
# Below this share of the text no language is named.
SURE = 0.5
# The model's class for numbers, markup and the like, which is not counted as text; with less text
# than this share no guess is made.
NO_LANGUAGE, LEAST_TEXT = "zxx", 0.5
# A window is shorter than twice its size, so no feature occurs more often.
_LOGARITHMS = np.log1p(np.arange(2 * WINDOW_BYTES + 1)).astype(np.float32)


@dataclass(frozen=True)
class Languages:
    """For each text: its ISO 639 code ("" when unsure), and the share of it that is in the wanted
    ones, between 0 and 1.
    """

    code: pa.StringArray
    wanted: Array


class _Model(NamedTuple):
    """Rows of next states by byte, the row and the feature (-1: none) of each state, weights
    (features, classes), priors.
    """

    moves: Array
    rows: Array
    features: Array
    weights: Array
    priors: Array
    # Codes in order, and for each class the number of its code.
    codes: tuple[str, ...]
    code_of: Array


@cache
def _model() -> _Model:
    from py3langid.langid import MODEL_DIR, MODEL_FILE
    from py3langid.modelio import load_model

    weights, priors, classes, moves, rows, features = load_model(MODEL_DIR / MODEL_FILE)
    own = [MEMBERS.get(name, name) for name in classes]
    codes = tuple(sorted(set(own)))
    code_of = np.array([codes.index(name) for name in own], np.int32)
    tables = (
        np.array(moves, np.int32).reshape(-1, 256),
        np.array(rows, np.int32),
        np.array(features, np.int32),
    )
    return _Model(
        *tables, np.asarray(weights, np.float32), np.asarray(priors, np.float32), codes, code_of
    )


def known_codes() -> tuple[str, ...]:
    """Return the codes that a text may be given."""
    return tuple(code for code in _model().codes if code != NO_LANGUAGE)


def detect(texts: pa.StringArray, wanted: Sequence[str] = ()) -> Languages:
    """Find the language of every text. A text that is too short or has too few words to tell counts
    as wanted (share 1).
    """
    model, prefixes = _model(), _small_letters(pc.utf8_slice_codeunits(texts, 0, PREFIX_CHARACTERS))
    shares = _shares(
        *text_buffers(prefixes), *model[:5], model.code_of, len(model.codes), _LOGARITHMS
    )
    nothing = model.codes.index(NO_LANGUAGE)
    text = 1 - shares[:, nothing]
    enough = _enough(prefixes) & (text >= LEAST_TEXT)
    shares[:, nothing] = 0
    shares /= np.maximum(text, LEAST_TEXT)[:, None]
    codes = pa.array(model.codes).take(pa.array(shares.argmax(axis=1)))
    columns = [number for number, code in enumerate(model.codes) if code in wanted]
    share = np.minimum(shares[:, columns].sum(axis=1, dtype=np.float64), 1.0)
    return Languages(
        pc.if_else(pa.array(enough & (shares.max(axis=1) >= SURE)), codes, ""),
        np.where(enough, share, 1.0),
    )


def _small_letters(texts: pa.StringArray) -> pa.StringArray:
    """Return the texts, those in capitals alone in small letters, which the model learned from."""
    capitals = mask(pc.utf8_is_upper(texts))
    return replace_rows(texts, capitals, pc.utf8_lower(texts.filter(pa.array(capitals))))


def _enough(texts: pa.StringArray) -> Array:
    letters = pc.replace_substring_regex(
        pc.utf8_slice_codeunits(texts, 0, 3 * FEW_LETTERS), r"\PL+", ""
    )
    return mask(pc.greater_equal(pc.binary_length(letters), FEW_LETTERS))


@kernel
def _shares(
    offsets: Array,
    data: Array,
    moves: Array,
    rows: Array,
    features: Array,
    weights: Array,
    priors: Array,
    code_of: Array,
    codes: int,
    logarithms: Array,
) -> Array:
    """Return the share of each text in each language, shape (texts, codes), float32: the mean of
    what its windows say.
    """
    shares = np.zeros((len(offsets) - 1, codes), np.float32)
    counts, seen = np.zeros(len(weights), np.int32), np.empty(len(logarithms), np.int32)
    scores = np.empty(len(priors), np.float32)
    for text in range(len(offsets) - 1):
        begin, size, state = offsets[text], offsets[text + 1] - offsets[text], 0
        windows = max(1, round(size / WINDOW_BYTES))
        for window in range(windows):
            first, last = begin + size * window // windows, begin + size * (window + 1) // windows
            state, found = _count(data[first:last], state, moves, rows, features, counts, seen)
            _weigh(seen[:found], counts, weights, priors, logarithms, scores)
            _add(scores, max(1, last - first), code_of, shares[text], np.float32(1 / windows))
    return shares


@kernel
def _count(
    data: Array, state: int, moves: Array, rows: Array, features: Array, counts: Array, seen: Array
) -> tuple[int, int]:
    """Count the features of a window in `counts`, list them in `seen`; return the state after it,
    and how many there are.
    """
    found = 0
    for byte in data:
        state = moves[rows[state], byte]
        feature = features[state]
        if feature >= 0:
            if counts[feature] == 0:
                seen[found] = feature
                found += 1
            counts[feature] += 1
    return state, found


@kernel
def _weigh(
    seen: Array, counts: Array, weights: Array, priors: Array, logarithms: Array, scores: Array
) -> None:
    """Write the log-probability of each class, up to a constant, and set the counts back to 0."""
    scores[:] = priors
    for feature in seen:
        times = logarithms[counts[feature]]
        counts[feature] = 0
        for c in range(len(scores)):
            scores[c] += times * weights[feature, c]


@kernel
def _add(scores: Array, size: int, code_of: Array, shares: Array, part: float) -> None:
    """Add a window's probabilities to its text."""
    scores -= scores.max()
    np.exp(scores / np.float32(size**TEMPERATURE), scores)
    whole = scores.sum()
    for c in range(len(scores)):
        shares[code_of[c]] += part * scores[c] / whole
