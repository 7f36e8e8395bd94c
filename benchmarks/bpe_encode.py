"""Real text (42 MB of books, Wikipedia, C4, code and chats) to the ids of a vocabulary of 50,000
that was trained on a quarter of it: our encoder beside tokenizers, tiktoken and gigatoken, first
with no word seen before, then again with all of them; and two processes at once, by wall clock.

`pip install --target DIR tiktoken==0.12.0 gigatoken==0.10.0`, and DIR on PYTHONPATH, brings them.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tests.helpers.bpe import train_bpe

from benchmarks.corpora import collected, texts
from benchmarks.machine import test_data
from benchmarks.peers import megabytes, peer, result
from groundup.artifacts.arrays import Array
from groundup.artifacts.tokenizer import FILE, QWEN2_PATTERN, Tokenizer, write_config

VOCABULARY = 50_000
# Texts that the slow ones are measured on.
SLOW_MEGABYTES = 8
Encode = Callable[[list[str]], Array]


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    with tempfile.TemporaryDirectory() as root:
        documents = sorted(texts(collected(data, Path(root) / "run")), key=len)
        folder = Path(root) / "tokenizer"
        folder.mkdir()
        train_bpe(documents[::4], VOCABULARY).save(str(folder / FILE))
        write_config(folder, 1 << 20)
        figures = compare(folder, documents)
        figures["MB/s, ours, two processes, again"] = two_processes(folder, documents)
    return result(__doc__, figures)


def compare(folder: Path, documents: list[str]) -> dict[str, object]:
    few, size = [], 0
    for text in documents[1::3]:
        size += len(text)
        if size > SLOW_MEGABYTES * 1_000_000:
            break
        few.append(text)
    reference = Tokenizer.load(folder)
    right = reference._encode_texts(few)[0]
    figures: dict[str, object] = {"documents": len(documents), "MB": megabytes(documents)}
    figures["documents whose ids are compared"] = len(few)
    makers = {"ours": ours, "tokenizers": library, "tiktoken": tiktoken, "gigatoken": gigatoken}
    for name, make in makers.items():
        encode = make(folder)
        if encode is None:
            continue
        encode(few[:1])
        given = few if name in ("tokenizers", "tiktoken") else documents
        figures[f"MB/s, {name}, first"] = megabytes(given) / spent(encode, given)
        figures[f"MB/s, {name}, again"] = megabytes(given) / spent(encode, given)
        figures[f"same ids, {name}"] = str(np.array_equal(encode(few), right))
    return figures


def spent(encode: Encode, documents: list[str]) -> float:
    """Return the processor seconds of one call; an Arrow array is made of the texts before."""
    given: Any = pa.array(documents) if encode.__name__ == "encode_array" else documents
    start = time.process_time()
    encode(given)
    return time.process_time() - start


def ours(folder: Path) -> Encode:
    tokenizer = Tokenizer.load(folder)
    # Built before the clock starts, as once in the life of a worker.
    tokenizer._encoder = tokenizer._fast_encoder()

    def encode_array(documents: Any) -> Array:
        return tokenizer.encode_batch(pa.array(documents))[0]

    return encode_array


def library(folder: Path) -> Encode:
    tokenizer = Tokenizer.load(folder)
    return lambda documents: tokenizer._encode_texts(documents)[0]


def tiktoken(folder: Path) -> Encode | None:
    module = peer("tiktoken")
    if module is None:
        return None
    tokenizer = Tokenizer.load(folder)
    special = set(tokenizer.specials.values())
    ranks = {
        name: index for index, name in enumerate(tokenizer.byte_strings()) if index not in special
    }
    encoding = module.Encoding(
        "ours", pat_str=QWEN2_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )

    def encode(documents: list[str]) -> Array:
        batch = encoding.encode_ordinary_batch(documents, num_threads=1)
        return np.concatenate([np.array(ids, np.uint32) for ids in batch])

    return encode


def gigatoken(folder: Path) -> Encode | None:
    module, awkward = peer("gigatoken"), peer("awkward")
    if module is None or awkward is None:
        return None
    # With added tokens, the text "<|im_end|>" would become the special token.
    table = json.loads((folder / FILE).read_text(encoding="utf-8")) | {"added_tokens": []}
    tokenizer = module.Tokenizer.from_json(json.dumps(table))

    def encode(documents: list[str]) -> Array:
        ids = tokenizer.encode_batch(documents, parallel=False)
        return np.asarray(awkward.flatten(ids))

    return encode


def two_processes(folder: Path, documents: list[str]) -> float:
    """Return the MB/s of two processes together that encode the same texts at the same time."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        return sum(pool.map(_rate, [folder] * 2, [documents] * 2))


def _rate(folder: Path, documents: list[str]) -> float:
    encode, given = ours(folder), pa.array(documents)
    encode(given)
    start = time.perf_counter()
    for _ in range(5):
        encode(given)
    return 5 * megabytes(documents) / (time.perf_counter() - start)
