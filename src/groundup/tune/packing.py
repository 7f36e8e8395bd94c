"""Packs several rows into one sequence in which none sees another.

Rows of 3 and 2 tokens in a sequence of 6:

    tokens     a0 a1 a2 b0 b1  0
    positions   0  1  2  0  1  0
    segments    1  1  1  2  2  0

A token attends to the tokens before it in its own segment only, and positions restart in each
segment, so the loss is that of each row alone. Segment 0 is padding.

Shape suffixes: B sequences, T positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from groundup.model.cross_entropy import IGNORED, cross_entropy_sum
from groundup.model.transformer import Transformer
from groundup.tune.data import Row

# Sequences that are filled at the same time. A row goes into the first that has room; with 64,
# about 1 % of positions stay unused.
OPEN = 64

# Indices of the rows that share a sequence.
Pack = list[int]


class PackedBatch(NamedTuple):
    """Packed sequences, each tensor [B, T]; `targets` holds IGNORED where nothing is learned."""

    tokens: Tensor
    targets: Tensor
    positions: Tensor
    segments: Tensor

    def mask(self) -> Tensor:
        """Return [B, 1, T, T], True where a position (dim 2) attends to another (dim 3)."""
        same_segment = self.segments[:, :, None] == self.segments[:, None, :]
        return same_segment.tril()[:, None]

    def to(self, device: torch.device) -> PackedBatch:
        """Return the batch on a device."""
        return PackedBatch(*(tensor.to(device) for tensor in self))


def packed_size(row: Row) -> int:
    """Return the positions that a row takes: the model need not read the last learned token."""
    return int(np.flatnonzero(row.loss_mask)[-1])


def pack(sizes: Sequence[int], order: Sequence[int], width: int) -> list[Pack]:
    """Return rows grouped into sequences of `width` positions, by first fit in `order`."""
    packs: list[Pack] = []
    room: dict[int, int] = {}  # Index of an open pack → positions left in it.
    for row in order:
        size = sizes[row]
        place = next((place for place, left in room.items() if left >= size), None)
        if place is None:
            place = len(packs)
            packs.append([])
            room[place] = width
            if len(room) > OPEN:
                room.pop(min(room, key=lambda place: room[place]))
        packs[place].append(row)
        if place in room:
            room[place] -= size
    return packs


def packed_steps(
    sizes: Sequence[int], width: int, batch_tokens: int, epochs: int, seed: int
) -> Iterator[tuple[int, list[Pack]]]:
    """Yield epoch and packs of each optimizer step; each epoch shuffles all rows differently."""
    sequences = max(1, round(batch_tokens / width))
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(sizes)).tolist()
        packs = pack(sizes, order, width)
        for start in range(0, len(packs), sequences):
            yield epoch, packs[start : start + sequences]


def collate(rows: Sequence[Row], packs: Sequence[Pack]) -> PackedBatch:
    """Return packs of rows as tensors, as wide as the longest of them."""
    width = max(sum(packed_size(rows[n]) for n in pack) for pack in packs)
    arrays = np.zeros((4, len(packs), width), np.int64)
    arrays[1] = IGNORED
    for line, pack in enumerate(packs):
        start = 0
        for segment, n in enumerate(pack, 1):
            row, size = rows[n], packed_size(rows[n])
            # Position t predicts token t + 1.
            targets = np.where(row.loss_mask[1 : size + 1], row.ids[1 : size + 1], IGNORED)
            values = row.ids[:size], targets, np.arange(size), np.full(size, segment)
            arrays[:, line, start : start + size] = values
            start += size
    return PackedBatch(*torch.from_numpy(arrays))


def loss_sum(model: Transformer, batch: PackedBatch) -> Tensor:
    """Return the cross-entropy (nats, float32) summed over the learned tokens."""
    x_BTD = model.hidden(batch.tokens, positions_BT=batch.positions, mask=batch.mask())
    learned = batch.targets >= 0
    # Only these positions go through the head, which is most of the work in a small model.
    return cross_entropy_sum(x_BTD[learned], model.head_weight, batch.targets[learned])
