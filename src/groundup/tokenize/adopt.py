"""Copies the base model's tokenizer into the run, and checks it on texts of the run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from groundup.artifacts.corpus import RefinedShard
from groundup.artifacts.pretrained import check_round_trip, read_tokenizer
from groundup.artifacts.tokenizer import FILE, write_config
from groundup.errors import GroundupError
from groundup.runtime.run import build_step
from groundup.runtime.store import Facts
from groundup.tokenize.train_bpe import NO_LIMIT

# Documents of each shard, and characters of each document, that are encoded and decoded.
CHECKED_DOCUMENTS, CHECKED_CHARACTERS = 32, 1 << 16


@build_step("tokenize/tokenizer", version=1)
def adopt_tokenizer(folder: Path, source: Path, shards: Sequence[RefinedShard]) -> Facts:
    """Write the tokenizer of the model folder `source` to `folder`; return its facts.

    Raises a GroundupError if it cannot be reproduced exactly, or if a text of this run does not
    survive encoding and decoding.
    """
    foreign = read_tokenizer(source)
    tokenizer = foreign.tokenizer
    texts: list[str] = []
    for shard in shards:
        for batch in islice(shard.batches(["text"]), 1):
            documents = batch["text"].slice(0, CHECKED_DOCUMENTS).to_pylist()
            texts += [text[:CHECKED_CHARACTERS] for text in documents]
    try:
        check_round_trip(tokenizer, texts)
    except ValueError as error:
        raise GroundupError(f"{source / FILE}: cannot be carried exactly: {error}") from None
    (folder / FILE).write_bytes(foreign.data)
    others = [name for name in tokenizer.specials if name != tokenizer.end]
    write_config(folder, NO_LIMIT, tokenizer.end, others)
    return {
        "vocab_size": tokenizer.vocab_size,
        "end": tokenizer.end,
        "splitter": tokenizer.splitter,
        "round_trips": len(texts),
    }
