"""Trains the byte-level BPE tokenizer on a sample of the train split.

The `tokenizers` library trains. This module chooses what it sees: a sample of bounded size, chosen
by document id alone, so that the number of shards and workers does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from groundup.artifacts.corpus import RefinedShard
from groundup.artifacts.tokenizer import FILE, QWEN2_PATTERN, SPECIALS, pieces, write_config
from groundup.errors import GroundupError
from groundup.runtime.run import build_step
from groundup.runtime.store import Facts

# A pair that occurs once is not a pattern.
MIN_FREQUENCY = 2

# Each merge visits every word that holds the pair: it would visit a base64 line of 10 MB thousands
# of times. No word of any language is as long as these runs, so they are left out of the sample.
_NO_WORD = re.compile(r"[^\W\d_]{1000,}|[^\w\s]{1000,}|\s{1000,}")

# "auto": (megabytes of training text, vocabulary for less than that). Embeddings of rare tokens
# stay untrained, and a large vocabulary takes parameters from a small model's layers (Tao et al.
# 2024, "Scaling laws with vocabulary": the best size grows more slowly than the model). The
# starter's 15 MB give 4,096; 49,152 = 3 x 2^14 is the usual size for English and code.
AUTO_SIZES = ((2, 1_024), (8, 2_048), (64, 4_096), (256, 8_192), (1_024, 16_384), (8_192, 32_768))
LARGEST_AUTO = 49_152

# Transformers' own "no limit"; export replaces it with the context of the model.
NO_LIMIT = 10**30


@build_step("tokenize/tokenizer", version=1)
def train_tokenizer(
    folder: Path, shards: Sequence[RefinedShard], vocab_size: int | str, sample_megabytes: int
) -> Facts:
    """Train a tokenizer on a sample of the train split, write it to `folder`, return its facts.

    Raises GroundupError if there is no text to train on.
    """
    batches = (batch for shard in shards for batch in shard.batches(["text"], "train"))
    train_bytes = sum(pc.sum(pc.binary_length(batch["text"])).as_py() or 0 for batch in batches)
    if train_bytes == 0:
        look = "`groundup inspect` shows what refine dropped, and why"
        raise GroundupError(f"tokenize: no text is left to train on; {look}")
    size = resolve_vocab_size(vocab_size, train_bytes)
    sample = Sample(shards, train_bytes, sample_megabytes * 1_000_000)
    engine = train_bpe(sample, size)
    engine.save(str(folder / FILE))
    write_config(folder, NO_LIMIT)
    return {
        "vocab_size": engine.get_vocab_size(),
        "asked": size,
        "train_bytes": train_bytes,
        "sample_bytes": sample.bytes,
    }


def resolve_vocab_size(vocab_size: int | str, train_bytes: int) -> int:
    """Return the vocabulary size of the recipe, or for "auto" one that fits the amount of text."""
    if isinstance(vocab_size, int):
        return vocab_size
    fitting = (size for limit, size in AUTO_SIZES if train_bytes < limit * 1_000_000)
    return next(fitting, LARGEST_AUTO)


def train_bpe(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Return a byte-level BPE; it has fewer than `vocab_size` entries if pairs run out."""
    engine = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    parts = (part for text in texts for piece in pieces(text) for part in _NO_WORD.split(piece))
    engine.train_from_iterator(filter(None, parts), trainer)
    return engine


class Sample:
    """Texts of the train split, `limit` bytes or less, spread evenly over all shards.

    A document is in the sample if its id, which is a hash, lies in the first `limit / total` of all
    ids. So whether it is in does not depend on the other documents.
    """

    def __init__(self, shards: Sequence[RefinedShard], total: int, limit: int) -> None:
        self.shards, self.limit = shards, limit
        # Ids are 32 hexadecimal digits: as text they sort like numbers, and "g" follows all.
        self.below = "g" if total <= limit else f"{int(2**64 * (limit / total)):016x}"
        self.bytes = 0

    def __iter__(self) -> Iterator[str]:
        for shard in self.shards:
            for batch in shard.batches(["id", "text"], "train"):
                chosen = batch.filter(pc.less(batch["id"], pa.scalar(self.below)))
                for text in chosen["text"].to_pylist():
                    size = len(text.encode())
                    # Large documents can exceed their share; the limit is one of memory.
                    if self.bytes + size > self.limit:
                        return
                    self.bytes += size
                    yield text
