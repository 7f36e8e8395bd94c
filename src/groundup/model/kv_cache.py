"""Keys and values of the positions that a model has read, allocated once for the whole context.

Shape suffixes: B batch, K key and value heads, T new positions, C context, E width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from groundup.model.config import ModelConfig


class LayerKeyValues(Protocol):
    """The keys and values of one layer."""

    def extend(self, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store new positions. Return all keys, all values, and a mask if causal is not enough."""
        ...


class KeyValues(Protocol):
    """What the transformer needs of a cache. The engine has one whose rows differ in length."""

    length: int  # positions that every row holds
    layers: Sequence[LayerKeyValues]

    def advance(self, count: int) -> None:
        """Note that all layers have stored `count` new positions."""
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
        self.layers: Sequence[LayerKeyValues] = [
            LayerCache(self, torch.empty(shape, device=device, dtype=dtype))
            for _ in range(config.layers)
        ]

    def advance(self, count: int) -> None:
        """Note that all layers have stored `count` new positions."""
        self.length += count


class LayerCache:
    """The keys and values of one layer of a `Cache`, as one tensor [2, B, K, C, E]."""

    def __init__(self, cache: Cache, store_2BKCE: Tensor) -> None:
        self._cache, self._store = cache, store_2BKCE

    def extend(self, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store new positions behind those of the cache; its length grows in `advance` only."""
        past, new = self._cache.length, k_BKTE.shape[2]
        self._store[0, :, :, past : past + new] = k_BKTE
        self._store[1, :, :, past : past + new] = v_BKTE
        mask = None
        if past and new > 1:
            # Query i is at position past + i and sees all positions up to its own.
            mask = torch.ones(new, past + new, dtype=torch.bool, device=k_BKTE.device).tril(past)
        keys, values = self._store[:, :, :, : past + new].to(k_BKTE.dtype)
        return keys, values, mask
