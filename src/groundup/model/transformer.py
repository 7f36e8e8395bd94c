"""The decoder-only transformer: token ids → logits or loss. Its parameters carry the names of
transformers' Qwen3 and Llama.

Shape suffixes: B batch, T positions, D width, H query heads, K key and value heads, E width of a
head, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from groundup.model.config import ModelConfig
from groundup.model.cross_entropy import cross_entropy_sum
from groundup.model.kv_cache import KeyValues, LayerKeyValues

EMBEDDING_STD = 0.02


class RMSNorm(nn.Module):
    """x / RMS(x) times a learned weight (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.epsilon)


def rotary_table(config: ModelConfig) -> Tensor:
    """Return cosines and sines [2, context, E/2] of the rotary angles (Su et al. 2021, arXiv
    2104.09864).
    """
    exponents = torch.arange(0, config.head_width, 2, dtype=torch.float32) / config.head_width
    angles = torch.outer(
        torch.arange(config.context, dtype=torch.float32), config.rope_theta**-exponents
    )
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn each pair (i, i + E/2) of a head [B, H, T, E] by its position's angle; `table` is [2, T,
    E/2].
    """
    cos, sin = table.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Attention(nn.Module):
    """Causal attention with grouped heads and rotary positions; queries and keys are normalized
    where the layout has it so.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        queries, keys = config.heads * config.head_width, config.kv_heads * config.head_width
        self.head_width = config.head_width
        self.grouped = config.heads != config.kv_heads
        self.q_proj = nn.Linear(config.width, queries, bias=False)
        self.k_proj = nn.Linear(config.width, keys, bias=False)
        self.v_proj = nn.Linear(config.width, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.width, bias=False)
        self.q_norm, self.k_norm = _head_norm(config), _head_norm(config)

    def forward(
        self,
        x_BTD: Tensor,
        table: Tensor,
        cache: LayerKeyValues | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return what attention adds to the residual stream; with a cache, `x_BTD` follows the
        positions in it.

        Attention is causal, unless `mask` (or the cache) says which positions see which.
        """
        batch, length, _ = x_BTD.shape
        heads = (batch, length, -1, self.head_width)
        q_BHTE = rotate(self.q_norm(self.q_proj(x_BTD).view(heads)).transpose(1, 2), table)
        k_BKTE = rotate(self.k_norm(self.k_proj(x_BTD).view(heads)).transpose(1, 2), table)
        v_BKTE = self.v_proj(x_BTD).view(heads).transpose(1, 2)
        if cache is not None:
            k_BKTE, v_BKTE, mask = cache.extend(k_BKTE, v_BKTE)
        causal = mask is None and length > 1
        y_BHTE = F.scaled_dot_product_attention(
            q_BHTE, k_BKTE, v_BKTE, mask, is_causal=causal, enable_gqa=self.grouped
        )
        y_BTD: Tensor = self.o_proj(y_BHTE.transpose(1, 2).reshape(batch, length, -1))
        return y_BTD


def _head_norm(config: ModelConfig) -> nn.Module:
    return (
        RMSNorm(config.head_width, config.norm_epsilon) if config.query_key_norm else nn.Identity()
    )


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.feed_forward, bias=False)
        self.up_proj = nn.Linear(config.width, config.feed_forward, bias=False)
        self.down_proj = nn.Linear(config.feed_forward, config.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return what the feed-forward branch adds to the residual stream."""
        y_BTD: Tensor = self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return y_BTD


class Layer(nn.Module):
    """Attention and feed-forward, each normalized before and added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_epsilon)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_epsilon)
        self.mlp = FeedForward(config)
        self.dropout = config.dropout

    def forward(
        self,
        x_BTD: Tensor,
        table: Tensor,
        cache: LayerKeyValues | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the residual stream after this layer."""
        x_BTD = x_BTD + self._drop(self.self_attn(self.input_layernorm(x_BTD), table, cache, mask))
        return x_BTD + self._drop(self.mlp(self.post_attention_layernorm(x_BTD)))

    def _drop(self, x_BTD: Tensor) -> Tensor:
        return F.dropout(x_BTD, self.dropout, self.training)


class Body(nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # Without first values: drawing them without memory (on "meta") imports torch's compiler,
        # 1.6 s in every process.
        self.embed_tokens = nn.Embedding.from_pretrained(
            torch.empty(config.vocab_size, config.width), freeze=False
        )
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_epsilon)


class Transformer(nn.Module):
    """A language model whose head is its embedding, or one of its own.

    Args:
        config: its sizes.
        seed: of the initial weights, which depend on nothing else; None leaves them unset, for who
            reads them from a file.
    """

    def __init__(self, config: ModelConfig, seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):
            self.model = Body(config)
            self.lm_head = (
                None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)
            )
        self.to_empty(device="cpu")
        # In training, keep only what enters a layer, and compute its inside again in the backward
        # pass (Chen et al. 2016, arXiv 1604.06174); the random state is put back, so that dropout
        # falls alike and no bit differs.
        self.recompute = False
        # No buffer: `.to(bfloat16)` would round its angles.
        self._table = rotary_table(config)
        if seed is not None:
            self.initialise(seed)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head_weight.device

    @property
    def head_weight(self) -> Tensor:
        """Weight of the output head: that of the embedding where they are tied."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw fresh weights: normal, but zero where a branch joins the residual stream, and one in
        norms.

        With zero there, every layer starts as the identity, so depth needs no scale of its own.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()
            else:
                std = EMBEDDING_STD if "embed" in name else 1 / math.sqrt(weight.shape[1])
                weight.normal_(0, std, generator=generator)

    def hidden(
        self,
        tokens_BT: Tensor,
        cache: KeyValues | None = None,
        positions_BT: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the normalized residual stream [B, T, D] before the head.

        Args:
            cache: keys and values of the positions before; the tokens follow those.
            positions_BT: where each token stands, for rows that do not all begin at the same place.
            mask: [B, 1, T, T], True where a query (third) sees a key (last), for several texts in
                one row.

        Raises:
            ValueError: there are more positions than the context.
        """
        length = tokens_BT.shape[1]
        past = cache.length if cache is not None and positions_BT is None else 0
        if past + length > self.config.context:
            raise ValueError(
                f"{past + length} positions do not fit into a context of {self.config.context}"
            )
        self._table = self._table.to(tokens_BT.device)
        x_BTD = F.dropout(self.model.embed_tokens(tokens_BT), self.config.dropout, self.training)
        # [2, T, E/2], or a row of its own for each sequence: [2, B, 1, T, E/2].
        table = (
            self._table[:, past : past + length]
            if positions_BT is None
            else self._table[:, positions_BT].unsqueeze(2)
        )
        for number, layer in enumerate(self.model.layers):
            past_of_layer = cache.layers[number] if cache is not None else None
            if self.recompute and self.training and torch.is_grad_enabled():
                x_BTD = checkpoint(layer, x_BTD, table, past_of_layer, mask, use_reentrant=False)
            else:
                x_BTD = layer(x_BTD, table, past_of_layer, mask)
        if cache is not None:
            cache.advance(length)
        normed: Tensor = self.model.norm(x_BTD)
        return normed

    def forward(self, tokens_BT: Tensor, cache: KeyValues | None = None) -> Tensor:
        """Return logits [B, T, V]; with a cache, the tokens follow those that it holds."""
        return F.linear(self.hidden(tokens_BT, cache), self.head_weight)

    def loss(
        self, tokens_BT: Tensor, targets_BT: Tensor, reduction: Literal["mean", "sum"] = "mean"
    ) -> Tensor:
        """Return the cross-entropy (nats, float32) of `targets_BT` given the tokens up to each
        position.

        Targets below zero do not count. The logits of the whole batch are never held.
        """
        total = cross_entropy_sum(
            self.hidden(tokens_BT).flatten(0, 1), self.head_weight, targets_BT.flatten()
        )
        return total / (targets_BT >= 0).sum().clamp(min=1) if reduction == "mean" else total
