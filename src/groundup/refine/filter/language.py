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
from groundup.refine.kernels import kernel

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
LOGARITHMS = np.log1p(np.arange(2 * WINDOW_BYTES + 1)).astype(np.float32) / np.float32(SCALE)
# Texts that are read at the same time.
SIDE_BY_SIDE = 8


class DetectedLanguages(NamedTuple):
    """The languages of texts."""

    code: pa.StringArray  # ISO 639 code of each text, "" if unsure
    share: Array  # of each text in the languages asked for


def detect(texts: pa.StringArray, languages: Sequence[str] = ()) -> DetectedLanguages:
    """Detect the language of every text, and its share in the languages asked for.

    The share of a text too short to tell is 1. Without languages to ask for, it means nothing.
    """
    model = language_model()
    samples = text_array(*sample_slices(text_buffers(texts)))
    letters = ascii_letters(text_buffers(samples))
    # The model learned from lowercase: headlines in capitals would mislead it.
    capitals = letters[:, 0] == 0
    capitals[capitals] = mask(pc.utf8_is_upper(samples.filter(pa.array(capitals))))
    lowered = pc.utf8_lower(samples.filter(pa.array(capitals)))
    samples = replace_rows(samples, capitals, lowered)
    offsets, data = text_buffers(samples)
    found = read_features((offsets, data), model.moves, model.first, model.features, model.start)
    bayes = (model.weights, model.priors, model.code_of)
    shares = _shares(offsets, found, bayes, len(model.codes), LOGARITHMS, bool(languages))
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
def read_features(texts: Texts, moves: Array, first: Array, features: Array, start: int) -> Array:
    """Return the feature that ends at each byte of the texts, or -1.

    Each move waits for the memory, and the next one for it. So texts are read side by side, one
    byte of each in turn.
    """
    (offsets, data), following, ended = texts, 0, 0
    found = np.empty(len(data), np.int32)
    for i in range(len(found)):
        found[i] = -1
    # Of the texts that are being read: the next byte, the end, and the state.
    pos, stop, states = np.zeros((3, SIDE_BY_SIDE), np.int64)
    while ended < SIDE_BY_SIDE:
        ended = 0
        for k in range(SIDE_BY_SIDE):
            i = pos[k]
            if i < stop[k]:
                state = np.int64(moves[states[k] >> STATE_BITS, data[i]])
                found[i] = features[first[state >> STATE_BITS] + (state & (1 << STATE_BITS) - 1)]
                pos[k], states[k] = i + 1, state
            elif following < len(offsets) - 1:
                pos[k], stop[k], states[k] = offsets[following], offsets[following + 1], start
                following += 1
            else:
                ended += 1
    return found


@kernel
def _shares(
    offsets: Array,
    found: Array,
    bayes: tuple[Array, ...],
    codes: int,
    logarithms: Array,
    is_exact: bool,
) -> Array:
    """Return the share of each text in each language, shape (texts, codes), float32.

    The share is the mean of the probabilities of its windows. Unless all must be exact, a text is
    left as soon as one share is more than half: the rest of the text cannot change that.
    """
    weights, priors, code_of = bayes
    shares = np.zeros((len(offsets) - 1, codes), np.float32)
    counts, seen = np.zeros(len(weights), np.uint16), np.empty(len(logarithms) + 3, np.int32)
    chances = np.empty(len(priors), np.float32)
    for text in range(len(offsets) - 1):
        begin, size = offsets[text], offsets[text + 1] - offsets[text]
        windows = max(1, round(size / WINDOW_BYTES))
        part, most = np.float32(1 / windows), np.float32(0)
        for window in range(windows):
            first, last = begin + size * window // windows, begin + size * (window + 1) // windows
            score_window(found[first:last], weights, priors, logarithms, counts, seen, chances)
            largest, whole = chances[0], np.float32(0)
            for chance in chances:
                largest = max(largest, chance)
            heat = np.float32(max(1, last - first) ** TEMPERATURE)
            for c in range(len(chances)):
                chances[c] = np.exp((chances[c] - largest) / heat)
                whole += chances[c]
            for c in range(len(chances)):
                shares[text, code_of[c]] += part * chances[c] / whole
                most = max(most, shares[text, code_of[c]])
            if most > 0.5 and not is_exact:
                break
    return shares


@kernel
def score_window(
    found: Array,
    weights: Array,
    priors: Array,
    logarithms: Array,
    counts: Array,
    seen: Array,
    scores: Array,
) -> None:
    """Write the log-probability of each class, up to a constant, from the features of a window.

    `counts` (of features, all zero) and `seen` (the features that occur) are scratch space.
    """
    distinct = 0
    for feature in found:
        if feature >= 0:
            seen[distinct] = feature
            distinct += counts[feature] == 0
            counts[feature] += np.uint16(1)
    for c in range(len(scores)):
        scores[c] = priors[c]
    # Four at a time, since their weights come from memory; the last ones may count 0 times.
    seen[distinct : distinct + 3] = seen[0]
    for k in range(0, distinct, 4):
        f, g, h, i = seen[k], seen[k + 1], seen[k + 2], seen[k + 3]
        of_f, of_g = logarithms[counts[f]], logarithms[counts[g] * (k + 1 < distinct)]
        of_h = logarithms[counts[h] * (k + 2 < distinct)]
        of_i = logarithms[counts[i] * (k + 3 < distinct)]
        for c in range(len(scores)):
            score = scores[c] + of_f * np.float32(weights[f, c]) + of_g * np.float32(weights[g, c])
            scores[c] = score + of_h * np.float32(weights[h, c]) + of_i * np.float32(weights[i, c])
    for k in range(distinct):
        counts[seen[k]] = np.uint16(0)
