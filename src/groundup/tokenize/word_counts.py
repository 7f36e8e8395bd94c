"""Counts words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa

from groundup.artifacts.arrays import Array, text_buffers
from groundup.artifacts.splitter import Splitter

LONGEST = 1000
BLOCK_BYTES = 1 << 20
kernel = numba.njit(nogil=True, cache=True)


class WordTable:
    def __init__(self) -> None:
        self.slots = np.zeros(1 << 12, np.int64)
        self.data = np.empty(1 << 15, np.uint8)
        self.ends = np.zeros(1 << 11, np.int64)
        self.counts = np.empty(1 << 11, np.int64)
        self.words = 0
        self.left_out = 0

    @property
    def bytes(self) -> int:
        return int(self.ends[self.words - 1]) if self.words else 0

    def add(self, data: Array, begin: int, ends: Array, counts: Array) -> None:
        if not len(ends):
            return
        words = self.words + len(ends)
        self.data = _with_room(self.data, self.bytes, self.bytes + int(ends[-1]) - begin)
        self.ends = _with_room(self.ends, self.words, words)
        self.counts = _with_room(self.counts, self.words, words)
        self.slots = _slots_for(self.slots, self.words+ len(ends))
        self.words, left_out = _add(self.slots, self.data, self.ends, self.counts, self.words, data, begin, ends, counts)
        self.left_out += left_out

def _with_room(array: Array, used: int, size: int) -> Array:
    if size <= len(array):
        return array
    larger = np.empty(max(size, len(array) * 3 // 2), array.dtype)
    larger[:used] = array[:used]
    return larger

def _slots_for(slots, words):
    size = len(slots)
    while size < 2 * words:
        size *= 2
    return slots if size == len(slots) else _rehash(slots, size)

@kernel
def _rehash(slots, size):
    new = np.zeros(size, np.int64)
    for k in range(len(slots)):
        if slots[k]:
            slot = (slots[k] >> 32) & (size - 1)
            while new[slot]:
                slot = (slot + 1) & (size - 1)
            new[slot] = slots[k]
    return new

@kernel
def _hash(data: Array, begin: int, end: int) -> Any:
    hashed = np.uint64(0xCBF29CE484222325)
    for k in range(begin, end):
        hashed = (hashed ^ np.uint64(data[k])) * np.uint64(0x100000001B3)
    hashed = (hashed ^ (hashed >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    return hashed ^ (hashed >> np.uint64(29))

@kernel
def _add(slots, words, word_ends, word_counts, count, data, begin, ends, weights):
    mask = len(slots) - 1
    left_out = 0
    for k in range(len(ends)):
        end = np.int64(ends[k])
        if end - begin > LONGEST and _characters(data, begin, end) > LONGEST:
            left_out += 1
            begin = end
            continue
        tag = np.int64(_hash(data, begin, end) >> np.uint64(33))
        slot = tag & mask
        while slots[slot]:
            entry = (slots[slot] & 0xFFFFFFFF) - 1
            if slots[slot] >> 32 == tag:
                first = word_ends[entry - 1] if entry else 0
                if _equal(words, first, word_ends[entry], data, begin, end):
                    word_counts[entry] += weights[k]
                    break
            slot = (slot + 1) & mask
        else:
            slots[slot] = tag << 32 | (count + 1)
            pos = word_ends[count - 1] if count else 0
            for i in range(begin, end):
                words[pos] = data[i]
                pos += 1
            word_ends[count], word_counts[count] = pos, weights[k]
            count += 1
        begin = end
    return count, left_out

@kernel
def _equal(words, first, last, data, begin, end):
    if last - first != end - begin:
        return False
    for i in range(last - first):
        if words[first + i] != data[begin + i]:
            return False
    return True

@kernel
def _characters(data, begin, end):
    n = 0
    for i in range(begin, end):
        n += data[i] & 0xC0 != 0x80
    return n

def blocks(texts: pa.StringArray) -> Iterator[pa.StringArray]:
    offsets, _ = text_buffers(texts)
    row = 0
    while row < len(texts):
        limit = int(offsets[row]) + BLOCK_BYTES
        end = max(row + 1, int(np.searchsorted(offsets, limit, "right")) - 1)
        yield texts.slice(row, end - row)
        row = end

def count_texts(splitter: Splitter, table: WordTable, texts: pa.StringArray) -> None:
    for block in blocks(texts):
        buffers = text_buffers(block)
        ends, _ = splitter.words(buffers)
        table.add(buffers[1], int(buffers[0][0]), ends, np.ones(len(ends), np.int64))
