"""BPE with 50,000 entries from real text of all kinds: ours, two workers that count and one process
that merges, beside `tokenizers`, gigabpe and gigatoken with two threads.

Bytes per token are those of text that was held out. gigabpe has GPT-2's splitter only, and
gigatoken its own, so their tokens are not compared.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers
from tokenizers import Regex, models, pre_tokenizers, trainers

from benchmarks.corpora import ALL_KINDS, collected, texts
from benchmarks.machine import machine, test_data, watched
from benchmarks.peers import peer
from groundup.artifacts.corpus import TRAIN, RefinedShard
from groundup.artifacts.document import DOCUMENT, TableWriter, document_id
from groundup.artifacts.tokenizer import QWEN2_PATTERN, SPECIALS
from groundup.runtime.workers.map import Workers
from groundup.tokenize.train_bpe import ALL_IDS, MIN_FREQUENCY, train_tokenizer
from groundup.tokenize.word_counts import WORDS, count_words

ENTRIES, SHARDS, HELD_OUT, WORKERS = 50_000, 12, 20, 2


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        held_out, size = _write(data, folder)
        figures: dict[str, object] = {"MB of text": size / 1e6}
        for name in TRAINERS:
            if name not in ("ours", "tokenizers") and peer(name) is None:
                continue
            command = [sys.executable, "-m", "benchmarks.bpe_train", name, root]
            out, peaks = watched(command)
            figures[f"MB/s, {name}"] = size / 1e6 / float(out.split()[-1])
            figures[f"GB of memory, the process that merges, {name}"] = peaks["resident"]
            trained = folder / f"{name}.json"
            if trained.exists():
                engine = tokenizers.Tokenizer.from_file(str(trained))
                tokens = sum(len(each.ids) for each in engine.encode_batch_fast(held_out))
                held_out_bytes = sum(len(text.encode()) for text in held_out)
                figures[f"bytes per token, {name}"] = held_out_bytes / tokens
    figures["others' load on this machine (processes)"] = os.getloadavg()[0]
    what = " ".join((__doc__ or "").split())
    return {"what": what, "figures": figures, "machine": machine()}


def _write(data: Path, folder: Path) -> tuple[list[str], int]:
    """Write shards and plain text to train on; return what is held out, and the bytes."""
    with tempfile.TemporaryDirectory() as root:
        documents = list(texts(collected(data, Path(root), ALL_KINDS)))
    train = [text for number, text in enumerate(documents) if number % HELD_OUT]
    (folder / "documents").mkdir()
    (folder / "split").mkdir()
    for shard in range(SHARDS):
        mine = train[shard::SHARDS]
        with TableWriter(folder / f"documents/all.{shard}.parquet", DOCUMENT) as writer:
            for record, text in enumerate(mine):
                row = {"id": document_id("all", str(shard), record), "text": text}
                writer.add(row, len(text.encode()))
        np.save(folder / f"split/all.{shard}.npy", np.full(len(mine), TRAIN, np.uint8))
    text = "\n".join(train)
    (folder / "train.txt").write_text(text, encoding="utf-8")
    return documents[::HELD_OUT], len(text.encode())


def ours(folder: Path) -> float:
    shards = [RefinedShard(folder, f"all.{shard}") for shard in range(SHARDS)]
    items = [(folder / f"words-{shard.name}", shard, ALL_IDS) for shard in shards]
    for words, _, _ in items:
        words.mkdir()
    workers = Workers(WORKERS)
    workers.start()
    # The first time kernels are compiled.
    for chosen, size in ((items[:2], 300), (items, ENTRIES)):
        start = time.perf_counter()
        facts = workers.map(count_words, chosen)
        counts = [(item[0] / WORDS, each) for item, each in zip(chosen, facts, strict=True)]
        train_tokenizer(folder, counts, size, 1)
        seconds = time.perf_counter() - start
    workers.close()
    (folder / "tokenizer.json").rename(folder / "ours.json")
    return seconds


def library(folder: Path) -> float:
    engine = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    engine.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES,
        min_frequency=MIN_FREQUENCY,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    paths = sorted((folder / "documents").glob("*.parquet"))
    start = time.perf_counter()
    engine.train_from_iterator(_documents(paths), trainer)
    seconds = time.perf_counter() - start
    engine.save(str(folder / "tokenizers.json"))
    return seconds


def _documents(paths: Sequence[Path]) -> Any:
    for path in paths:
        yield from pq.read_table(path, columns=["text"])["text"].cast(pa.string()).to_pylist()


def gigabpe(folder: Path) -> float:
    start = time.perf_counter()
    options = {"min_frequency": MIN_FREQUENCY, "pretokenizer": "bytelevel", "threads": WORKERS}
    peer("gigabpe").train_bpe([str(folder / "train.txt")], ENTRIES, **options)  # type: ignore[union-attr]
    return time.perf_counter() - start


def gigatoken(folder: Path) -> float:
    os.environ["RAYON_NUM_THREADS"] = str(WORKERS)
    module: Any = peer("gigatoken")
    start = time.perf_counter()
    module.train_bpe(module.TextFileSource([str(folder / "train.txt")]), ENTRIES, list(SPECIALS))
    return time.perf_counter() - start


TRAINERS: dict[str, Callable[[Path], float]] = {
    "ours": ours,
    "tokenizers": library,
    "gigabpe": gigabpe,
    "gigatoken": gigatoken,
}

if __name__ == "__main__":
    print(TRAINERS[sys.argv[1]](Path(sys.argv[2])))
