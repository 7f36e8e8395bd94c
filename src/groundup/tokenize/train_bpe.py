"""Trains the byte-level BPE tokenizer on a sample of the train split.

    shard ──► count_words ──► words and counts ─┐
    shard ──► count_words ──► words and counts ─┼──► train_tokenizer ──► tokenizer.json
    ...       in parallel                       ┘    merges (merges.py)

The sample is chosen by document id alone, so the number of shards and workers does not matter. The
result is the tokenizer that the library `tokenizers` trains on the same text in eight times as long
(`python -m benchmarks bpe_train`). So little text is left to the library, and our kernels need
not be compiled for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from groundup.artifacts.corpus import RefinedShard
from groundup.artifacts.tokenizer import (
    BYTE_NAMES,
    FAST_BYTES,
    FILE,
    QWEN2_PATTERN,
    SPECIALS,
    write_config,
)
from groundup.runtime.run import build_step
from groundup.runtime.store import Facts
from groundup.tokenize.merges import learn_merges, pack_words
from groundup.tokenize.word_counts import LONGEST, Words, merge_counts

# A pair that occurs once is not a pattern.
MIN_FREQUENCY = 2

# "auto": (megabytes of training text, vocabulary for less than that). Embeddings of rare tokens
# stay untrained, and a large vocabulary takes parameters from a small model's layers (Tao et al.
# 2024, "Scaling laws with vocabulary": the best size grows more slowly than the model). The
# starter's 15 MB give 4,096; 49,152 = 3 x 2^14 is the usual size for English and code.
AUTO_SIZES = ((2, 1_024), (8, 2_048), (64, 4_096), (256, 8_192), (1_024, 16_384), (8_192, 32_768))
LARGEST_AUTO = 49_152

# Transformers' own "no limit"; export replaces it with the context of the model.
NO_LIMIT = 10**30

# Ids are hexadecimal digits, so this sorts after all of them.
ALL_IDS = "g"

# The library trains on less text than this.
SMALL_BYTES = FAST_BYTES


@build_step("tokenize/tokenizer", version=1)
def train_tokenizer(
    folder: Path,
    counts: Sequence[tuple[Path, Facts]],
    vocab_size: int | str,
    train_bytes: int,
    small: Sequence[RefinedShard] = (),
) -> Facts:
    """Train a tokenizer, write it to `folder`, and return its facts.

    `counts` are the files of words of all shards with the facts of `count_words`; the train split
    has `train_bytes` of text. If these are few, `small` are the shards, and there are no counts.
    """
    size = resolve_vocab_size(vocab_size, train_bytes)
    names = ("bytes", "word_bytes", "long_words")
    sums = {name: sum(facts[name] for _, facts in counts) for name in names}
    if small:
        batches = (batch for shard in small for batch in shard.batches(["text"], "train"))
        texts = (text for batch in batches for text in batch["text"].to_pylist())
        engine, sums["long_words"] = library_bpe(texts, size)
        sums["bytes"] = train_bytes
    else:
        engine = build_tokenizer(
            merge_counts([path for path, _ in counts], sums["word_bytes"]), size
        )
    engine.save(str(folder / FILE))
    write_config(folder, NO_LIMIT)
    return {
        "vocab_size": engine.get_vocab_size(),
        "asked": size,
        "train_bytes": train_bytes,
        "sample_bytes": sums["bytes"],
        "long_words": sums["long_words"],
    }


def resolve_vocab_size(vocab_size: int | str, train_bytes: int) -> int:
    """Return the vocabulary size of the recipe, or for "auto" one that fits the amount of text."""
    if isinstance(vocab_size, int):
        return vocab_size
    fitting = (size for limit, size in AUTO_SIZES if train_bytes < limit * 1_000_000)
    return next(fitting, LARGEST_AUTO)


def sampled_ids(train_bytes: int, limit: int) -> str:
    """Return what sorts after the ids of the sample, which is to have about `limit` bytes.

    Ids are hashes, so the first `limit / train_bytes` of all possible ids are that share of the
    documents. Whether a document is in the sample does not depend on the others.
    """
    if train_bytes <= limit:
        return ALL_IDS
    # Ids are 32 hexadecimal digits: as text they sort like numbers.
    return f"{int(2**64 * (limit / train_bytes)):016x}"


def build_tokenizer(parts: Iterable[Words], vocab_size: int) -> tokenizers.Tokenizer:
    """Return the BPE that is learned from words, which are used up."""
    # Specials, bytes in the order of their names, then what is merged: as in `tokenizers`.
    names = [*SPECIALS, *sorted(BYTE_NAMES)]
    ids = np.array([names.index(name) for name in BYTE_NAMES], np.int32)
    words = np.concatenate([pack_words(*part, ids) for part in parts])
    merges = learn_merges(words, len(names), vocab_size, MIN_FREQUENCY).tolist()
    for left, right in merges:
        names.append(names[left] + names[right])
    vocab = {name: index for index, name in enumerate(names)}
    pairs = [(names[left], names[right]) for left, right in merges]
    return _with_parts(tokenizers.Tokenizer(models.BPE(vocab, pairs)))


def library_bpe(texts: Iterable[str], vocab_size: int) -> tuple[tokenizers.Tokenizer, int]:
    """Return the BPE that the library trains, and how many words are left out as too long."""
    split, long_words = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated"), 0

    def words() -> Iterator[list[str]]:
        nonlocal long_words
        for text in texts:
            found = [word for word, _ in split.pre_tokenize_str(text)]
            short = [word for word in found if len(word) <= LONGEST]
            long_words += len(found) - len(short)
            yield short

    engine = tokenizers.Tokenizer(models.BPE())
    engine.pre_tokenizer = _BYTE_LEVEL
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(BYTE_NAMES),
        show_progress=False,
    )
    engine.train_from_iterator(words(), trainer)
    return _with_parts(engine), long_words


def _with_parts(engine: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Return a BPE with splitter, decoder and special tokens."""
    split = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")
    engine.pre_tokenizer = pre_tokenizers.Sequence([split, _BYTE_LEVEL])
    engine.decoder = decoders.ByteLevel()
    engine.add_special_tokens(list(SPECIALS))
    return engine


_BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
