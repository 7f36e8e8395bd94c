"""Identify the language of prose from its first characters.

The model is langid.py (Lui and Baldwin 2012), retrained on 139 languages, from the package
py3langid: an automaton over bytes counts features, naive Bayes weighs them. The model is only data,
so a kernel of ours applies it to the texts of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class DetectedLanguages(NamedTuple):
    """The languages of texts."""

    code: pa.StringArray  # ISO 639 code of each text, "" if unsure
    share: Array  # of each text in the languages asked for


class _LangidModel(NamedTuple):
    """The model of py3langid."""

    moves: Array  # next states by byte, one row of 256 per distinct row
    rows: Array  # row in `moves` of each state
    features: Array  # feature that each state completes, or -1
    weights: Array  # shape (features, classes)
    priors: Array  # of classes
    code_of: Array  # for each class the index of its code
    codes: tuple[str, ...]  # ISO 639 codes, sorted


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
    (offsets, data), (_, _, _, weights, priors, code_of) = texts, model
    shares = np.zeros((len(offsets) - 1, codes), np.float32)
    counts, seen = np.zeros(len(weights), np.int32), np.empty(len(logarithms), np.int32)
    scores = np.empty(len(priors), np.float32)
    for text in range(len(offsets) - 1):
        begin, size, state = offsets[text], offsets[text + 1] - offsets[text], 0
        windows = max(1, round(size / WINDOW_BYTES))
        part = np.float32(1 / windows)
        for window in range(windows):
            first, last = begin + size * window // windows, begin + size * (window + 1) // windows
            state = _score_window(data[first:last], state, model, logarithms, counts, seen, scores)
            scores -= scores.max()
            np.exp(scores / np.float32(max(1, last - first) ** TEMPERATURE), scores)
            whole = scores.sum()
            for c in range(len(scores)):
                shares[text, code_of[c]] += part * scores[c] / whole
    return shares


@kernel
def _score_window(
    data: Array,
    state: int,
    model: tuple[Array, ...],
    logarithms: Array,
    counts: Array,
    seen: Array,
    scores: Array,
) -> int:
    """Write the log-probability of each class, up to a constant; return the state at the end.

    `counts` (of features, all zero) and `seen` (the features that occur) are scratch space.
    """
    moves, rows, features, weights, priors, _ = model
    distinct = 0
    for byte in data:
        state = moves[rows[state], byte]
        feature = features[state]
        if feature >= 0:
            if counts[feature] == 0:
                seen[distinct] = feature
                distinct += 1
            counts[feature] += 1
    scores[:] = priors
    for feature in seen[:distinct]:
        times = logarithms[counts[feature]]
        counts[feature] = 0
        for c in range(len(scores)):
            scores[c] += times * weights[feature, c]
    return state
