"""Identify the language of prose from slices spread over a text.

The model is data (language_model.py); a kernel applies it to the texts of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, Texts, mask, replace_rows, text_array, text_buffers
from groundup.refine.filter.language_model import SCALE, STATE_BITS, language_model
from groundup.refine.kernels import Number, kernel

# A text is read in slices from its beginning to its end, so that neither a title page nor a license
# decides. A short text is read whole. The size of a slice was measured together with the next two
# constants: docs/experiments.md.
SLICE_CHARACTERS = 150
# A slice per so many bytes of text, within these limits.
SLICE_EVERY, MIN_SLICES, MAX_SLICES = 1_000, 4, 16
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
# A text of which no language is named is kept from this share of the wanted ones. English lists and
# title pages have 0.05 and more, texts in languages that the model does not know at most 0.03.
MIN_UNSURE_SHARE = 0.05
# The model's class for numbers, markup and the like, which does not count as text. With less text
# than this share, no language is named.
NO_LANGUAGE, MIN_TEXT = "zxx", 0.5
# What a feature counts by how often it occurs; divided by SCALE, which weights are multiplied by. A
# window is shorter than twice its size, so no feature occurs more often.
_LOGARITHMS = np.log1p(np.arange(2 * WINDOW_BYTES + 1)).astype(np.float32) / np.float32(SCALE)


class DetectedLanguages(NamedTuple):
    """The languages of texts."""

    code: pa.StringArray  # ISO 639 code of each text, "" if unsure
    share: Array  # of each text in the languages asked for


def detect(texts: pa.StringArray, languages: Sequence[str] = ()) -> DetectedLanguages:
    """Detect the language of every text; the share of a text too short to tell is 1."""
    model = language_model()
    samples = text_array(*sample_slices(text_buffers(texts)))
    letters = ascii_letters(text_buffers(samples))
    # The model learned from lowercase: headlines in capitals would mislead it.
    capitals = letters[:, 0] == 0
    capitals[capitals] = mask(pc.utf8_is_upper(samples.filter(pa.array(capitals))))
    lowered = pc.utf8_lower(samples.filter(pa.array(capitals)))
    samples = replace_rows(samples, capitals, lowered)
    shares = _shares(text_buffers(samples), model[:6], model.start, len(model.codes), _LOGARITHMS)
    nothing = model.codes.index(NO_LANGUAGE)
    text = 1 - shares[:, nothing]
    enough = letters.sum(axis=1) >= MIN_LETTERS
    # Of other scripts. Most texts begin with letters; where a row of numbers stands there, read on.
    for characters in (3 * MIN_LETTERS, None):
        unread = pc.utf8_slice_codeunits(samples.filter(pa.array(~enough)), 0, characters)
        if len(unread):
            of_scripts = pc.replace_substring_regex(unread, r"\PL+", "")
            enough[~enough] = mask(pc.greater_equal(pc.binary_length(of_scripts), MIN_LETTERS))
    enough &= text >= MIN_TEXT
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
def ascii_letters(texts: Texts) -> Array:
    """Return how many small and capital letters of ASCII each text has, shape (n, 2), int64."""
    offsets, data = texts
    out = np.zeros((len(offsets) - 1, 2), np.int64)
    for text in range(len(offsets) - 1):
        small = capital = 0
        for byte in data[offsets[text] : offsets[text + 1]]:
            small += (byte >= 0x61) & (byte <= 0x7A)
            capital += (byte >= 0x41) & (byte <= 0x5A)
        out[text, 0], out[text, 1] = small, capital
    return out


@kernel
def sample_slices(texts: Texts) -> Texts:
    """Return slices of each text from its beginning to its end, with a space between two.

    The cost of a text is bounded: at most MAX_SLICES * (SLICE_CHARACTERS + 1) characters.
    """
    offsets, data = texts
    size = 0
    for text in range(len(offsets) - 1):
        # A code point has at most four bytes.
        size += min(offsets[text + 1] - offsets[text], 4 * SLICE_CHARACTERS * MAX_SLICES)
    out = np.empty(size + MAX_SLICES * len(offsets), np.uint8)
    ends = np.zeros(len(offsets), np.int32)
    to = 0
    for text in range(len(offsets) - 1):
        begin, stop = offsets[text], offsets[text + 1]
        slices = min(max((stop - begin) // SLICE_EVERY, MIN_SLICES), MAX_SLICES)
        done, width = begin, 0
        for k in range(slices):
            # With the size of the first slice, the last one ends near the end of the text.
            i = max(done, begin + (stop - begin - width) * k // (slices - 1))
            while i < stop and data[i] & 0xC0 == 0x80:
                i += 1
            if k and i > done:
                out[to] = 0x20
                to += 1
            characters = 0
            while i < stop and (characters < SLICE_CHARACTERS or data[i] & 0xC0 == 0x80):
                characters += data[i] & 0xC0 != 0x80
                out[to] = data[i]
                to, i = to + 1, i + 1
            done = i
            width = width or i - begin
        ends[text + 1] = to
    return ends, out[:to]


@kernel
def _shares(
    texts: Texts, model: tuple[Array, ...], start: int, codes: int, logarithms: Array
) -> Array:
    """Return the share of each text in each language, shape (texts, codes), float32.

    The share is the mean of the probabilities of its windows.
    """
    (offsets, data), (_, _, _, weights, priors, code_of) = texts, model
    shares = np.zeros((len(offsets) - 1, codes), np.float32)
    counts, seen = np.zeros(len(weights), np.int32), np.empty(len(logarithms), np.int32)
    scores = np.empty(len(priors), np.float32)
    for text in range(len(offsets) - 1):
        begin, size, state = offsets[text], offsets[text + 1] - offsets[text], start
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
    state: Number,
    model: tuple[Array, ...],
    logarithms: Array,
    counts: Array,
    seen: Array,
    scores: Array,
) -> Number:
    """Write the log-probability of each class, up to a constant; return the state at the end.

    `counts` (of features, all zero) and `seen` (the features that occur) are scratch space.
    """
    moves, first, features, weights, priors, _ = model
    distinct = 0
    for byte in data:
        state = np.int64(moves[state >> STATE_BITS, byte])
        feature = features[first[state >> STATE_BITS] + (state & ((1 << STATE_BITS) - 1))]
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
            scores[c] += times * np.float32(weights[feature, c])
    return state
