"""Takes over the tokenizer of the model that is gone on from. Reads its folder and refined
documents; writes tokenizer.json and tokenizer_config.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from groundup.artifacts.corpus import RefinedShard
from groundup.artifacts.pretrained import check_round_trip, read_tokenizer
from groundup.artifacts.tokenizer import FILE, write_config
from groundup.errors import GroundupError
from groundup.tokenize.train_bpe import NO_LIMIT

# Documents of each shard, and characters of each, whose round trip is tried.
TRIED, CHARACTERS = 32, 1 << 16


def adopt_tokenizer(folder: Path, source: Path, shards: Sequence[RefinedShard]) -> dict[str, Any]:
    """Write the tokenizer of the model folder `source` to `folder`; return its facts.

    Raises:
        GroundupError: it cannot be carried exactly, or text of this run does not come back as it
            was.
    """
    foreign = read_tokenizer(source)
    tokenizer = foreign.tokenizer
    texts = list(_some(shards))
    try:
        check_round_trip(tokenizer, texts)
    except ValueError as error:
        raise GroundupError(f"{source / FILE}: cannot be carried exactly: {error}") from None
    (folder / FILE).write_bytes(foreign.data)
    write_config(
        folder,
        NO_LIMIT,
        tokenizer.end,
        [name for name in tokenizer.specials if name != tokenizer.end],
    )
    return {
        "vocab_size": tokenizer.vocab_size,
        "end": tokenizer.end,
        "splitter": tokenizer.splitter,
        "round_trips": len(texts),
    }


def _some(shards: Sequence[RefinedShard]) -> Iterator[str]:
    for shard in shards:
        for batch in shard.batches(["text"]):
            yield from (text[:CHARACTERS] for text in batch["text"].slice(0, TRIED).to_pylist())
            break
