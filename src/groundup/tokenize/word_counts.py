"""Counts words by shard, and merges the counts: all that BPE has to know about the text.

    shard    "the cat, the mat"   →   the 1 · " cat" 1 · "," 1 · " the" 1 · " mat" 1
                                          │ written by partition, 16 ranges of the words' hash
    all shards                    →   each partition: a sum by word, thinned out if it is too large

Counts are 64-bit and exact. Memory follows the number of distinct words. They can be nearly as many
bytes as the text (Chinese has no spaces, so a clause is a word). So what is kept for the merges has
a limit, MOST_BYTES, and rare words are sampled beyond it: for a threshold t a word with count c is
kept with the probability c / t, and then counts t ("threshold sampling", Duffield, Lund and Thorup
2005). The expected count of each word, and of each pair of bytes in it, stays what it is. The draw
is the word's hash. So the outcome is the same for any number of shards and workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, text_buffers
from groundup.artifacts.corpus import RefinedShard
from groundup.artifacts.jit import inlined, kernel
from groundup.artifacts.splitter import Splitter
from groundup.runtime.run import build_step
from groundup.runtime.store import Facts

WORDS = "words.arrow"
SCHEMA = pa.schema([("word", pa.binary()), ("count", pa.int64())])

# Longer words (in characters) are no words of any language, but base64 and lines of dashes. A merge
# visits every word with the pair: it would visit a word of 10 MB thousands of times.
LONGEST = 1000

# Record batches of a file are one for each partition, again and again.
PARTITIONS = 16
# Bytes of distinct words that a worker holds before it writes them out; it takes 6 times as much.
_SPILL_BYTES = 64 << 20
# Bytes of words of all shards that are merged at a time, which takes 6 times as much memory.
_MERGE_BYTES = 192 << 20
# Bytes of distinct words that are kept for the merges, which take up to 28 times as much memory.
MOST_BYTES = 96 << 20

# Texts are split and counted in blocks that stay in the cache of the processor.
_BLOCK_BYTES = 1 << 20

# A scalar inside a kernel.
Number: TypeAlias = Any


class Words(NamedTuple):
    """Distinct words: word i is data[ends[i - 1] : ends[i]] and occurs counts[i] times."""

    data: Array  # uint8
    ends: Array  # int64
    counts: Array  # int64; 0 for a word that is left out


@build_step("tokenize/words", version=1)
def count_words(folder: Path, shard: RefinedShard, below: str) -> Facts:
    """Count the words of the documents of the train split whose id sorts before `below`.

    The facts are documents and bytes of text, bytes of distinct words, and how many words are left
    out as longer than LONGEST.
    """
    table, documents, size, distinct = WordTable(), 0, 0, 0
    with pa.ipc.new_file(folder / WORDS, SCHEMA, options=_COMPRESSED) as file:
        for batch in shard.batches(["id", "text"], "train"):
            texts = batch.filter(pc.less(batch["id"], pa.scalar(below)))["text"]
            documents += len(texts)
            size += pc.sum(pc.binary_length(texts)).as_py() or 0
            table.add_texts(texts)
            if table.bytes > _SPILL_BYTES:
                distinct += table.bytes
                table.write(file)
                table.clear()
        distinct += table.bytes
        table.write(file)
    return {
        "documents": documents,
        "bytes": size,
        "word_bytes": distinct,
        "long_words": table.long_words,
    }


_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")


def merge_counts(paths: Sequence[Path], word_bytes: int, most: int = MOST_BYTES) -> Iterator[Words]:
    """Yield the words of the files, which hold `word_bytes` in all, a part at a time.

    Words without a count are left out: beyond `most` bytes a share of the rare ones, of which the
    others count more.
    """
    parts = min(PARTITIONS, max(1, -(-word_bytes // _MERGE_BYTES)))
    for part in np.array_split(np.arange(PARTITIONS), parts):
        table = WordTable()
        for path in paths:
            with pa.ipc.open_file(path) as file:
                for batch in range(file.num_record_batches):
                    if batch % PARTITIONS in part:
                        table.add_counts(file.get_batch(batch))
        yield thinned(table.words, most // PARTITIONS)


def thinned(words: Words, most: int) -> Words:
    """Return words of which each partition has at most `most` bytes: rare ones are sampled."""
    hashes = word_hashes(words.data, words.ends)
    partitions, sizes = _partition(hashes), np.diff(words.ends, prepend=0)
    counts = words.counts.copy()
    for partition in np.flatnonzero(np.bincount(partitions, sizes) > most):
        rows = np.flatnonzero(partitions == partition)
        # Of the hash, this half decides neither the partition nor the place in a table.
        draws = ((hashes[rows] & np.uint64(0xFFFFFFFF)).astype(np.float64) + 1) / 2**32
        threshold, kept = 1, np.ones(len(rows), np.bool_)
        while sizes[rows[kept]].sum() > most:
            threshold += max(1, threshold // 4)
            kept = counts[rows] >= threshold * draws
        counts[rows] = np.where(kept, np.maximum(counts[rows], threshold), 0)
    return words._replace(counts=counts)


def _partition(hashes: Array) -> Array:
    return (hashes >> np.uint64(60)).astype(np.int64)


class WordTable:
    """Counts of distinct words: a hash table (open addressing) over one array of bytes."""

    def __init__(self) -> None:
        self.splitter = Splitter("qwen2")
        self.long_words = 0
        self.clear()

    def clear(self) -> None:
        """Forget the words."""
        self._size = 0
        # Words and bytes grow to twice as many at least, so that adding takes constant time.
        self._data = np.empty(1 << 16, np.uint8)
        self._ends, self._counts = np.empty(1 << 12, np.int64), np.empty(1 << 12, np.int64)
        # Upper half: 31 bits of the hash; lower half: index of the word plus 1; 0 for free.
        self._slots = np.zeros(1 << 13, np.int64)

    @property
    def words(self) -> Words:
        """The words in the order in which they came."""
        return Words(self._data[: self.bytes], self._ends[: self._size], self._counts[: self._size])

    @property
    def bytes(self) -> int:
        """Bytes of the words."""
        return int(self._ends[self._size - 1]) if self._size else 0

    def add_texts(self, texts: pa.StringArray) -> None:
        """Count the words of texts."""
        for block in _blocks(texts):
            offsets, data = text_buffers(block)
            ends, _ = self.splitter.words((offsets, data))
            self._add(data, int(offsets[0]), ends, np.ones(len(ends), np.int64))

    def add_counts(self, batch: pa.RecordBatch) -> None:
        """Add the counts of a file of words."""
        offsets, data = text_buffers(batch.column("word"))
        self._add(data, int(offsets[0]), offsets[1:], batch.column("count").to_numpy())

    def _add(self, data: Array, begin: int, ends: Array, counts: Array) -> None:
        """Add the words that lie one after the other in `data` from `begin` on."""
        if not len(ends):
            return
        size = self._size + len(ends)
        self._data = _with_room(self._data, self.bytes, self.bytes + int(ends[-1]) - begin)
        self._ends = _with_room(self._ends, self._size, size)
        self._counts = _with_room(self._counts, self._size, size)
        if 2 * size > len(self._slots):
            self._slots = _spread_out(self._slots, 1 << (3 * size).bit_length())
        words = Words(self._data, self._ends, self._counts)
        # As Arrow's are: the kernel is compiled once for each kind.
        ends, counts = ends.view(), counts.view()
        ends.flags.writeable = counts.flags.writeable = False
        self._size, long_words = _count(self._slots, words, self._size, data, begin, ends, counts)
        self.long_words += long_words

    def write(self, file: pa.ipc.RecordBatchFileWriter) -> None:
        """Write a record batch for each partition."""
        words = self.words
        partitions = _partition(word_hashes(words.data, words.ends))
        order = np.argsort(partitions, kind="stable")
        bounds = np.searchsorted(partitions[order], range(PARTITIONS + 1))
        offsets = np.concatenate([[0], words.ends]).astype(np.int32)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(words.data)]
        column = pa.Array.from_buffers(pa.binary(), self._size, buffers)
        table = pa.record_batch([column, pa.array(words.counts)], schema=SCHEMA)
        for first, last in pairwise(bounds):
            file.write_batch(table.take(pa.array(order[first:last])))


def _with_room(array: Array, used: int, size: int) -> Array:
    """Return an array of at least `size` with the `used` first values."""
    if size <= len(array):
        return array
    larger = np.empty(max(size, 2 * len(array)), array.dtype)
    larger[:used] = array[:used]
    return larger


def _blocks(texts: pa.StringArray) -> Iterator[pa.StringArray]:
    """Yield texts in slices of about _BLOCK_BYTES, or of one text."""
    offsets, row = text_buffers(texts)[0], 0
    while row < len(texts):
        limit = int(offsets[row]) + _BLOCK_BYTES
        end = max(row + 1, int(np.searchsorted(offsets, limit, "right")) - 1)
        yield texts.slice(row, end - row)
        row = end


# The kernels. All of them are in this file: numba compiles a kernel again when its file changes,
# but not when it calls code of another file that changed. Those of a few instructions are inlined:
# passing arrays costs more.


@kernel
def word_hashes(data: Array, ends: Array) -> Array:
    """Return the hash of each word (uint64), in which each bit depends on every byte."""
    hashes, begin = np.empty(len(ends), np.uint64), np.int64(0)
    for word in range(len(ends)):
        hashes[word] = _hash(data, begin, ends[word])
        begin = ends[word]
    return hashes


@kernel
def _count(
    slots: Array, words: Words, size: int, data: Array, begin: Number, ends: Array, counts: Array
) -> tuple[int, int]:
    """Add words to `words`, of which there are `size`.

    Returns how many there are then, and how many words were left out as too long.
    """
    mask, long_words = len(slots) - 1, 0
    for k in range(len(ends)):
        end = np.int64(ends[k])
        if end - begin > LONGEST and _characters(data, begin, end) > LONGEST:
            long_words += 1
            begin = end
            continue
        tag = np.int64(_hash(data, begin, end) >> np.uint64(33))
        slot = tag & mask
        while slots[slot]:
            word = (slots[slot] & 0xFFFFFFFF) - 1
            if slots[slot] >> 32 == tag and _equal(words, word, data, begin, end):
                words.counts[word] += counts[k]
                break
            slot = (slot + 1) & mask
        else:
            slots[slot] = tag << 32 | (size + 1)
            first = words.ends[size - 1] if size else 0
            for i in range(begin, end):
                words.data[first + i - begin] = data[i]
            words.ends[size], words.counts[size] = first + end - begin, counts[k]
            size += 1
        begin = end
    return size, long_words


@kernel
def _spread_out(slots: Array, size: int) -> Array:
    """Return a larger hash table, of `size` slots, with the same words."""
    larger = np.zeros(size, np.int64)
    for k in range(len(slots)):
        if slots[k]:
            slot = (slots[k] >> 32) & (size - 1)
            while larger[slot]:
                slot = (slot + 1) & (size - 1)
            larger[slot] = slots[k]
    return larger


@inlined
def _hash(data: Array, begin: int, end: int) -> Number:
    # FNV-1a, of which the upper bits hardly depend on the last bytes, and the mixer of SplitMix64.
    hashed = np.uint64(0xCBF29CE484222325)
    for i in range(begin, end):
        hashed = (hashed ^ np.uint64(data[i])) * np.uint64(0x100000001B3)
    hashed = (hashed ^ (hashed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashed = (hashed ^ (hashed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashed ^ (hashed >> np.uint64(31))


@inlined
def _equal(words: Words, word: int, data: Array, begin: int, end: int) -> bool:
    first = words.ends[word - 1] if word else 0
    if words.ends[word] - first != end - begin:
        return False
    same = True
    for i in range(end - begin):
        same = same and words.data[first + i] == data[begin + i]
    return same


@inlined
def _characters(data: Array, begin: int, end: int) -> int:
    count = 0
    for i in range(begin, end):
        count += data[i] & 0xC0 != 0x80
    return count
