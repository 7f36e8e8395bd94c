"""A tokenizer trained on texts at hand."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import tokenizers

from groundup.tokenize.train_bpe import build_tokenizer
from groundup.tokenize.word_counts import WordTable


def train_bpe(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Return a byte-level BPE; it has fewer than `vocab_size` entries if pairs run out."""
    table = WordTable()
    for text in texts:
        table.add_texts(pa.array([text], pa.string()))
    return build_tokenizer([table.words], vocab_size)
