"""Keys and values of the positions that a model has read: one preallocated slot for each sequence.

Shape suffixes: B rows of a forward pass, T new positions of a row, N new positions of all rows,
S slots, K key/value heads, C context, E head width.
"""

from __future__ import annotations

from collections.abc import Sequence

import psutil
import torch
from torch import Tensor

from groundup.errors import GroundupError
from groundup.model.config import ModelConfig

# Share of the free memory for keys and values. On a CPU other programs need memory too.
MEMORY_SHARE = {"cpu": 0.25, "cuda": 0.8}

Ints = Sequence[int]


class SlotCache:
    """Keys and values of up to `slots` sequences, on the device and in the dtype of `like`.

    Unused positions are zero: a masked position still enters a product, and 0 times NaN is NaN.
    """

    def __init__(self, config: ModelConfig, slots: int, like: Tensor) -> None:
        shape = (2, slots, config.kv_heads, config.context, config.head_width)
        self._layers = [like.new_zeros(shape) for _ in range(config.layers)]
        self._lengths = [0] * slots

    def rows(self, slots: Ints, starts: Ints, counts: Ints) -> SlotRows:
        """Return a view for one forward pass.

        Row i writes `counts[i]` new positions to `slots[i]`, from position `starts[i]` on.
        """
        for slot, start, count in zip(slots, starts, counts, strict=True):
            self._lengths[slot] = max(self._lengths[slot], start + count)
        return SlotRows(self._layers, slots, starts, counts)

    def clear(self, slot: int) -> None:
        """Set a slot to zero."""
        for layer in self._layers:
            layer[:, slot, :, : self._lengths[slot]] = 0
        self._lengths[slot] = 0

    def swap(self, a: int, b: int) -> None:
        """Exchange the contents of two slots, of which one may be empty."""
        length = max(self._lengths[a], self._lengths[b])
        for layer in self._layers:
            layer[:, [a, b], :, :length] = layer[:, [b, a], :, :length]
        self._lengths[a], self._lengths[b] = self._lengths[b], self._lengths[a]


class SlotRows:
    """The slots of one forward pass.

    Rows shorter than T are padded on the right; padding is not stored, and the causal mask hides it
    from the row's own tokens.
    """

    def __init__(self, stores: Sequence[Tensor], slots: Ints, starts: Ints, counts: Ints) -> None:
        device, context = stores[0].device, stores[0].shape[3]
        width = max(counts)
        # Positions of the longest row after the pass; no more are read.
        self.longest = max(start + count for start, count in zip(starts, counts, strict=True))
        # Positions of the new tokens: a span if they are the same in all rows, else [B, T].
        self.positions: slice | Tensor = slice(starts[0], starts[0] + width)
        are_equal = len({*zip(starts, counts, strict=True)}) == 1
        # Adjacent slots are read in place; others are gathered into a copy.
        self.slots: slice | Tensor = slice(slots[0], slots[0] + len(slots))
        are_adjacent = list(slots) == list(range(slots[0], slots[0] + len(slots)))
        if not are_adjacent:
            self.slots = torch.tensor(slots, device=device)
        self.is_block = are_equal and are_adjacent
        if not self.is_block:
            steps = [(row, t) for row, count in enumerate(counts) for t in range(count)]
            table = [(row, t, slots[row], starts[row] + t) for row, t in steps]
            self.row_N, self.time_N, self.slot_N, self.position_N = torch.tensor(table).T.to(device)
        self.mask: Tensor | None = None  # [B, 1, T, longest] of 0 and -inf
        # `is_causal` describes rows that start at 0; one query that sees every key needs no mask.
        needs_mask = any(starts) and (width > 1 or not are_equal)
        if needs_mask or not are_equal:
            positions = [[min(start + t, context - 1) for t in range(width)] for start in starts]
            positions_BT = torch.tensor(positions, device=device)
            self.positions = self.positions if are_equal else positions_BT
        if needs_mask:
            hidden = torch.arange(self.longest, device=device) > positions_BT[:, None, :, None]
            self.mask = torch.zeros(hidden.shape, device=device, dtype=stores[0].dtype)
            self.mask.masked_fill_(hidden, -torch.inf)
        self.layers = [LayerRows(self, store) for store in stores]


class LayerRows:
    """One layer of `SlotRows`."""

    def __init__(self, rows: SlotRows, store_2SKCE: Tensor) -> None:
        self._rows, self._store = rows, store_2SKCE

    def extend(self, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store new keys and values; return all of these rows up to the longest, and the mask."""
        rows = self._rows
        for store_SKCE, new_BKTE in zip(self._store, (k_BKTE, v_BKTE), strict=True):
            if rows.is_block:
                store_SKCE[rows.slots, :, rows.positions] = new_BKTE
                continue
            new_NKE = new_BKTE.transpose(1, 2)[rows.row_N, rows.time_N]
            store_SKCE[rows.slot_N, :, rows.position_N] = new_NKE.to(store_SKCE.dtype)
        keys, values = self._store[:, rows.slots, :, : rows.longest].to(k_BKTE.dtype)
        return keys, values, rows.mask


def fitting_slots(config: ModelConfig, like: Tensor, max_slots: int, memory_bytes: int = 0) -> int:
    """Return the number of slots that fit into memory, up to `max_slots`; GroundupError if none.

    `memory_bytes` is for all slots; 0 takes `MEMORY_SHARE` of the device's free memory.
    """
    device = like.device
    if not memory_bytes:
        if device.type == "cuda":
            free_bytes = torch.cuda.mem_get_info(device)[0]
        else:
            free_bytes = psutil.virtual_memory().available
        memory_bytes = int(free_bytes * MEMORY_SHARE[device.type])
    # Keys and values of a whole context in every layer.
    elements = 2 * config.layers * config.kv_heads * config.context * config.head_width
    each = elements * like.dtype.itemsize
    if each > memory_bytes:
        needed, free = f"{each / 1e6:,.0f} MB", f"{memory_bytes / 1e6:,.0f} MB are free for it"
        request = f"one request of {config.context} tokens"
        raise GroundupError(f"{request} needs {needed} for its keys and values; {free}")
    return min(max_slots, memory_bytes // each)
