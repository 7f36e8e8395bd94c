"""Keys and values of the requests that run, a slot for each, allocated once. Reads and writes
nothing else.

Shape suffixes: B rows of a forward pass, T their new positions, N all new positions of all rows in
a line, S slots, K key and value heads, C context, E width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import psutil
import torch
from torch import Tensor

from groundup.errors import GroundupError
from groundup.model.config import ModelConfig

# Of the memory that is free at the start. On a CPU the rest of the machine wants some too.
SHARE = {"cpu": 0.25, "cuda": 0.8}


class SlotCache:
    """Keys and values of up to `slots` texts of unequal length.

    What is not in use is zero: a position that the mask hides must still be a number, since 0 times
    NaN is NaN.
    """

    def __init__(
        self,
        config: ModelConfig,
        slots: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (2, slots, config.kv_heads, config.context, config.head_width)
        self._layers = [
            torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.layers)
        ]
        self._used = [0] * slots

    def rows(self, slots: Sequence[int], starts: Sequence[int], counts: Sequence[int]) -> SlotRows:
        """Return the cache of one forward pass, in which row i adds `counts[i]` positions to
        `starts[i]` in `slots[i]`.
        """
        for slot, start, count in zip(slots, starts, counts, strict=True):
            self._used[slot] = max(self._used[slot], start + count)
        return SlotRows(self._layers, slots, starts, counts)

    def clear(self, slot: int) -> None:
        """Forget what is in a slot."""
        for store in self._layers:
            store[:, slot, :, : self._used[slot]] = 0
        self._used[slot] = 0

    def move(self, source: int, target: int) -> None:
        """Bring what is in one slot to another one, which must be clear."""
        length = self._used[source]
        for store in self._layers:
            store[:, target, :, :length] = store[:, source, :, :length]
        self._used[target] = length
        self.clear(source)

    def swap(self, one: int, other: int) -> None:
        """Exchange what is in two slots."""
        length = max(self._used[one], self._used[other])
        for store in self._layers:
            store[:, [one, other], :, :length] = store[:, [other, one], :, :length]
        self._used[one], self._used[other] = self._used[other], self._used[one]


class SlotRows:
    """Some slots of a cache for one forward pass (a `model.cache.KeyValues`).

    Attributes:
        positions_BT: where the new tokens stand. A row with fewer of them than T is padded on the
            right: padding is not
            stored, and no position of its own text sees it.
        longest: positions that the longest row has after the pass; no more are read.
    """

    length = 0

    def __init__(
        self,
        stores: Sequence[Tensor],
        slots: Sequence[int],
        starts: Sequence[int],
        counts: Sequence[int],
    ) -> None:
        device, context = stores[0].device, stores[0].shape[3]
        new = max(counts)
        self.longest = max(start + count for start, count in zip(starts, counts, strict=True))
        table = [
            (row, t, slots[row], starts[row] + t)
            for row, count in enumerate(counts)
            for t in range(count)
        ]
        self.row_N, self.time_N, self.slot_N, self.position_N = torch.tensor(table).T.to(device)
        start_B = torch.tensor(starts, device=device)
        self.positions_BT = (start_B[:, None] + torch.arange(new, device=device)).clamp(
            max=context - 1
        )
        even = new == 1 and all(start + 1 == self.longest for start in starts)
        # `is_causal` describes rows that begin at 0, and one query that sees everything needs no
        # mask.
        self.mask = self._mask(stores[0].dtype) if any(starts) and not even else None
        consecutive = list(slots) == list(range(slots[0], slots[0] + len(slots)))
        self.slots: slice | Tensor = (
            slice(slots[0], slots[0] + len(slots))
            if consecutive
            else torch.tensor(slots, device=device)
        )
        self.layers = [LayerRows(self, store) for store in stores]

    def _mask(self, dtype: torch.dtype) -> Tensor:
        """Return [B, 1, T, longest]: 0 where a position is seen, -inf where not."""
        hidden = (
            torch.arange(self.longest, device=self.positions_BT.device)
            > self.positions_BT[:, None, :, None]
        )
        return torch.zeros(hidden.shape, device=hidden.device, dtype=dtype).masked_fill_(
            hidden, -torch.inf
        )

    def advance(self, count: int) -> None:
        """Nothing to do: whoever makes the rows knows how long they are."""


class LayerRows:
    """One layer's share of some slots."""

    def __init__(self, rows: SlotRows, store_2SKCE: Tensor) -> None:
        self._rows = rows
        self._store = store_2SKCE

    def extend(self, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store new positions; return the keys and values of these rows up to the longest, and the
        mask.

        Rows that lie side by side are read where they lie; others are copied together first.
        """
        rows = self._rows
        for store_SKCE, new_BKTE in zip(self._store, (k_BKTE, v_BKTE), strict=True):
            store_SKCE[rows.slot_N, :, rows.position_N] = new_BKTE.transpose(1, 2)[
                rows.row_N, rows.time_N
            ].to(store_SKCE.dtype)
        keys, values = (
            store[:, :, : rows.longest][rows.slots].to(k_BKTE.dtype) for store in self._store
        )
        return keys, values, rows.mask


def slot_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Return the memory that one slot takes: keys and values of a whole context in every layer."""
    return 2 * config.layers * config.kv_heads * config.context * config.head_width * dtype.itemsize


def fitting_slots(
    config: ModelConfig, dtype: torch.dtype, device: torch.device, most: int, memory_bytes: int = 0
) -> int:
    """Return how many slots fit, at most `most`.

    Args:
        memory_bytes: for all slots; 0 takes `SHARE` of what is free on the device now.

    Raises:
        GroundupError: not even one fits.
    """
    if not memory_bytes:
        free = (
            torch.cuda.mem_get_info(device)[0]
            if device.type == "cuda"
            else psutil.virtual_memory().available
        )
        memory_bytes = int(free * SHARE[device.type])
    one = slot_bytes(config, dtype)
    if one > memory_bytes:
        need, there = one / 1e6, memory_bytes / 1e6
        raise GroundupError(
            f"one request of {config.context} tokens needs {need:,.0f} MB for its keys and values;"
            f" {there:,.0f} MB are free for it"
        )
    return min(most, memory_bytes // one)
