"""Keys and values of the positions already read, allocated once for a whole context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from groundup.model.config import ModelConfig


class LayerKeyValues(Protocol):
    """One layer's share of the keys and values."""

    def extend(self, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store new positions; return all keys, all values, and a mask where `is_causal` does not
        describe them.
        """
        ...


class KeyValues(Protocol):
    """What the transformer asks of a cache; the server has one whose rows are of unequal length."""

    @property
    def length(self) -> int:
        """Positions that every row holds."""
        ...

    @property
    def layers(self) -> Sequence[LayerKeyValues]:
        """One for each layer."""
        ...

    def advance(self, count: int) -> None:
        """All layers have stored `count` new positions."""
        ...


class Cache:
    """Keys and values of all layers for `batch` sequences of equal length."""

    def __init__(
        self,
        config: ModelConfig,
        batch: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.length = 0
        shape = (2, batch, config.kv_heads, config.context, config.head_width)
        self.layers = [
            LayerCache(self, torch.empty(shape, device=device, dtype=dtype))
            for _ in range(config.layers)
        ]

    def advance(self, count: int) -> None:
        """Let the next positions follow `count` new ones."""
        self.length += count


class LayerCache:
    """One layer's share of a cache."""

    def __init__(self, whole: Cache, store_2BKCE: Tensor) -> None:
        self._whole = whole
        self._store = store_2BKCE

    def extend(self, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store new positions; return all keys, all values, and a mask where `is_causal` does not
        describe them.

        The length grows only when all layers are through: `advance` does that.
        """
        past, new = self._whole.length, k_BKTE.shape[2]
        self._store[0, :, :, past : past + new] = k_BKTE
        self._store[1, :, :, past : past + new] = v_BKTE
        mask = None
        if past and new > 1:
            # Query i stands at position past + i and sees all positions up to its own.
            mask = torch.ones(new, past + new, dtype=torch.bool, device=k_BKTE.device).tril(past)
        keys, values = self._store[:, :, :, : past + new].to(k_BKTE.dtype)
        return keys, values, mask
