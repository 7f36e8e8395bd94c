"""Loss, perplexity and bits per byte on held-out tokens.

Windows advance by half a context. Each reads a whole context and scores the half that no earlier
window has scored, so every token is scored once, with half a context or more of text before it
(except at the beginning of a stream). With a context of 4:

    stream   0 1 2 3 4 5 6 7          documents follow each other, as in training
    window   r s s                    r: read only, s: read and scored
               r r s s
                   r r s s

End-of-text tokens are tokens: the model must predict them, so they count in loss and perplexity,
and their cost counts in bits per byte. They stand for no byte, so `bits_per_byte` is slightly
pessimistic; `bits_per_byte_text` leaves their cost out. Bytes are those of the scored tokens; over
a whole split they add up to the UTF-8 bytes of its documents.

N-gram models are scored on the same windows by the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from groundup.evaluate.validation_data import Ids, Stream
from groundup.model.transformer import Transformer, token_log_probabilities

Floats = npt.NDArray[np.float64]

# Tokens in one forward pass.
BATCH_TOKENS = 8_192


@dataclass(frozen=True)
class Window:
    """Positions `low` to `high` of a stream, to be scored."""

    stream: Stream
    low: int
    high: int

    def row(self, context: int) -> Ids:
        """Return the ids to read: the window, and the text before it that fits."""
        return self.stream.slice(max(0, self.high - context - 1), self.high)


# Yields the log-probabilities (nats) of the tokens of each window.
Scorer = Callable[[Sequence[Window]], Iterator[Floats]]


def model_scores(model: Transformer, windows: Sequence[Window]) -> Iterator[Floats]:
    """Yield the log-probabilities (nats) of the tokens of each window."""
    context = model.config.context
    count = max(1, BATCH_TOKENS // context)
    for start in range(0, len(windows), count):
        batch = windows[start : start + count]
        rows = [window.row(context) for window in batch]
        width = max(map(len, rows))
        padded = np.stack([np.pad(row, (0, width - len(row))) for row in rows])
        scores_BT = token_log_probabilities(model, torch.from_numpy(padded))
        for window, row, scores in zip(batch, rows, scores_BT.double().cpu().numpy(), strict=True):
            # The first id of a row has no score.
            yield scores[len(row) - 1 - (window.high - window.low) : len(row) - 1]


def sliding_windows(streams: Sequence[Stream], stride: int) -> list[Window]:
    """Return windows that hold every token of the streams once."""
    starts = ((stream, low) for stream in streams for low in range(1, len(stream), stride))
    return [Window(stream, low, min(low + stride, len(stream))) for stream, low in starts]


def sample_windows(windows: Sequence[Window], limit_tokens: int, seed: int) -> list[Window]:
    """Return all windows if they fit into `limit_tokens`, else a random sample, in order."""
    total = sum(window.high - window.low for window in windows)
    if total <= limit_tokens:
        return list(windows)
    count = max(2, len(windows) * limit_tokens // total)
    chosen = np.random.default_rng(seed).choice(len(windows), count, replace=False)
    return [windows[i] for i in np.sort(chosen)]


@dataclass(frozen=True)
class Stratum:
    """Sums over each scored window of one source: one value per window."""

    windows: int  # number of windows of the source, scored or not
    nats: Floats
    text_nats: Floats  # without those of end-of-text tokens
    tokens: Floats
    bytes: Floats


def score_windows(
    scorer: Scorer, windows: Sequence[Window], all_windows: int, token_bytes: npt.NDArray[np.int64]
) -> Stratum:
    """Score `windows`, a sample of the `all_windows` windows of one source.

    `token_bytes` [vocab_size] has the bytes of each id, 0 for end-of-text.
    """
    sums = []
    for window, scores in zip(windows, scorer(windows), strict=True):
        sizes = token_bytes[window.stream.slice(window.low, window.high)]
        sums.append((-scores.sum(), -scores[sizes > 0].sum(), len(scores), sizes.sum()))
    return Stratum(all_windows, *np.array(sums, np.float64).reshape(-1, 4).T)


def ratio(strata: Sequence[tuple[int, Floats, Floats]]) -> tuple[float, float]:
    """Return the ratio of two totals over strata, and its standard error.

    Each stratum is (number of windows, numerators, denominators), the latter two of a random sample
    of its windows. The error is the usual estimate for a ratio in a stratified sample, linearized
    (Cochran 1977, Sampling Techniques, 6.11), without the correction for a finite population: so it
    also tells how far other text of the same kind may lie when every window was scored.
    """
    strata = [stratum for stratum in strata if len(stratum[1])]
    numerator = sum(n * y.mean() for n, y, _ in strata)
    denominator = sum(n * x.mean() for n, _, x in strata)
    if not denominator:
        return math.nan, math.nan
    value = numerator / denominator
    errors = [(n, y - value * x) for n, y, x in strata if len(y) > 1]
    variance = sum(n**2 * np.var(error, ddof=1) / len(error) for n, error in errors)
    return float(value), math.sqrt(variance) / float(denominator)


def figures(strata: Sequence[Stratum]) -> dict[str, float | int]:
    """Return the figures of one source, or of several weighted by their tokens."""
    loss, loss_error = ratio([(s.windows, s.nats, s.tokens) for s in strata])
    bits, bits_error = ratio([(s.windows, s.nats, s.bytes * math.log(2)) for s in strata])
    text_bits, _ = ratio([(s.windows, s.text_nats, s.bytes * math.log(2)) for s in strata])
    return {
        "loss": loss,
        "loss_error": loss_error,
        "perplexity": math.exp(min(loss, 700)),
        "bits_per_byte": bits,
        "bits_per_byte_error": bits_error,
        "bits_per_byte_text": text_bits,
        "tokens": int(sum(s.tokens.sum() for s in strata)),
        "bytes": int(sum(s.bytes.sum() for s in strata)),
        "windows": sum(len(s.nats) for s in strata),
        "windows_in_all": sum(s.windows for s in strata),
    }


def figures_by_source(strata: Mapping[str, Stratum]) -> dict[str, object]:
    """Return the figures in total and for each source with a scored window."""
    scored = {source: stratum for source, stratum in strata.items() if len(stratum.nats)}
    return {
        "total": figures(list(scored.values())),
        "sources": {source: figures([stratum]) for source, stratum in scored.items()},
    }
