"""Several rows in one sequence, none of which sees another. Reads rows of tokens; returns batches.

Two rows of 3 and 2 tokens in a sequence of 6: positions 0 1 2 0 1 0, segments 1 1 1 2 2 0. A token
sees those before it of its own segment only, and positions begin anew, so the loss is that of each
row alone. Segment 0 fills up.

Shape suffixes: B sequences, T positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from groundup.model.cross_entropy import IGNORED, cross_entropy_sum
from groundup.model.transformer import Transformer
from groundup.tune.data import Row

# Sequences that are being filled at once: a row goes into the first that has room, and 64 leave
# about 1 % unused.
OPEN = 64

Pack = list[int]


@dataclass(frozen=True)
class Batch:
    """Packed rows, each part [B, T]: tokens, what to predict at each position, the position, and
    the row that it belongs to.
    """

    tokens: Tensor
    targets: Tensor
    positions: Tensor
    segments: Tensor

    def mask(self) -> Tensor:
        """Return [B, 1, T, T], True where a position (third) sees another (last): one before it, of
        its own row.
        """
        same = self.segments[:, :, None] == self.segments[:, None, :]
        return same.tril()[:, None]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(
            *(
                part.to(device)
                for part in (self.tokens, self.targets, self.positions, self.segments)
            )
        )


def size_of(row: Row) -> int:
    """Return the positions that a row takes: nothing after its last answer, nor that answer's end,
    has to be read.
    """
    return int(np.flatnonzero(row.learned)[-1])


def pack(sizes: Sequence[int], order: Sequence[int], width: int) -> list[Pack]:
    """Return groups of rows that fit into `width` positions, filling the first sequence that has
    room, in `order`.
    """
    packs: list[Pack] = []
    room: dict[int, int] = {}
    for number in order:
        size = sizes[number]
        place = next((place for place, left in room.items() if left >= size), None)
        if place is None:
            place = len(packs)
            packs.append([])
            room[place] = width
            if len(room) > OPEN:
                room.pop(min(room, key=lambda place: room[place]))
        packs[place].append(number)
        if place in room:
            room[place] -= size
    return packs


def steps(
    sizes: Sequence[int], width: int, batch_tokens: int, epochs: int, seed: int
) -> Iterator[tuple[int, list[Pack]]]:
    """Yield for each optimizer step its epoch and its sequences; every epoch has all rows once, in
    an order of its own.
    """
    sequences = max(1, round(batch_tokens / width))
    for epoch in range(epochs):
        packs = pack(
            sizes, np.random.default_rng([seed, epoch]).permutation(len(sizes)).tolist(), width
        )
        for start in range(0, len(packs), sequences):
            yield epoch, packs[start : start + sequences]


def collate(rows: Sequence[Row], packs: Sequence[Pack]) -> Batch:
    """Return sequences of rows as tensors, as wide as the fullest of them."""
    width = max(sum(size_of(rows[number]) for number in group) for group in packs)
    parts = np.zeros((4, len(packs), width), np.int64)
    parts[1] = IGNORED
    for line, group in enumerate(packs):
        start = 0
        for segment, number in enumerate(group, 1):
            row = rows[number]
            size = size_of(row)
            here = slice(start, start + size)
            targets = np.where(row.learned[1 : size + 1], row.ids[1 : size + 1], IGNORED)
            parts[:, line, here] = row.ids[:size], targets, np.arange(size), np.full(size, segment)
            start += size
    return Batch(*torch.from_numpy(parts))


def loss_sum(model: Transformer, batch: Batch) -> Tensor:
    """Return the cross-entropy (nats, float32) summed over the tokens that are learned."""
    x_BTD = model.hidden(batch.tokens, positions_BT=batch.positions, mask=batch.mask())
    counted = batch.targets >= 0
    # Only those go through the head, which is the larger part of the work in a small model.
    return cross_entropy_sum(x_BTD[counted], model.head_weight, batch.targets[counted])
