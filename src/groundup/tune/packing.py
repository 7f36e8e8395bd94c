"""Packs several rows into one sequence in which none sees another.

Rows of 3 and 2 tokens in a sequence of 6:

    tokens     a0 a1 a2 b0 b1  0
    positions   0  1  2  0  1  0

A token attends to the tokens before it in its own row only (model/packed_attention.py), and
positions restart in each row, so the loss is that of each row alone.

Shape suffixes: B sequences, T positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from groundup.model.cross_entropy import IGNORED, cross_entropy_sum
from groundup.model.packed_attention import PackedAttention, PackedKernel
from groundup.model.transformer import Transformer
from groundup.tune.data import Row

# Sequences that are filled at the same time. A row goes into the first that has room; with 64,
# about 1 % of positions stay unused.
OPEN = 64

# Indices of the rows that share a sequence.
Pack = list[int]


@dataclass(frozen=True)
class PackedBatch:
    """Packed sequences, each tensor [B, T]; `targets` holds IGNORED where nothing is learned."""

    tokens: Tensor
    targets: Tensor
    positions: Tensor
    sizes: Sequence[Sequence[int]]  # [B] positions of each row, in order

    def to(self, device: torch.device) -> PackedBatch:
        """Return the batch on a device."""
        tokens, targets = self.tokens.to(device), self.targets.to(device)
        return PackedBatch(tokens, targets, self.positions.to(device), self.sizes)


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


def collate(rows: Sequence[Row], packs: Sequence[Pack], width: int = 0) -> PackedBatch:
    """Return packs of rows as tensors, as wide as the longest of them, or `width`."""
    sizes = [[packed_size(rows[n]) for n in pack] for pack in packs]
    width = width or max(map(sum, sizes))
    arrays = np.zeros((3, len(packs), width), np.int64)
    arrays[1] = IGNORED
    for line, pack in enumerate(packs):
        start = 0
        for n, size in zip(pack, sizes[line], strict=True):
            row = rows[n]
            # Position t predicts token t + 1.
            targets = np.where(row.loss_mask[1 : size + 1], row.ids[1 : size + 1], IGNORED)
            arrays[:, line, start : start + size] = row.ids[:size], targets, np.arange(size)
            start += size
    tokens, targets, positions = torch.from_numpy(arrays)
    return PackedBatch(tokens, targets, positions, sizes)


def loss_sum(model: Transformer, batch: PackedBatch, kernel: PackedKernel = "documents") -> Tensor:
    """Return the cross-entropy (nats, float32) summed over the learned tokens."""
    packed = PackedAttention(batch.sizes, batch.tokens.shape[1], kernel, batch.tokens.device)
    x_BTD = model.hidden(batch.tokens, positions_BT=batch.positions, packed=packed)
    learned = batch.targets >= 0
    # Only these positions go through the head, which is most of the work in a small model.
    return cross_entropy_sum(x_BTD[learned], model.head_weight, batch.targets[learned])
