"""The decoder-only transformer: token ids → logits or loss.

The architecture of Qwen3 (Yang et al. 2025, arXiv 2505.09388) and Llama (Touvron et al. 2023, arXiv
2302.13971). Parameters carry the names that transformers gives them, so a checkpoint of ours loads
there without custom code.

    tokens_BT                                x_BTD ─────────────┐ a Block
        │ Embedding                            │ RMSNorm        │
      x_BTD                                    │ Attention      │
        │ Block 0 … Block n - 1                ├────── + ───────┤
        │ RMSNorm                              │ RMSNorm        │
      x_BTD  (`hidden`)                        │ FeedForward    │
        │ head: the embedding, if tied         └────── + ───────┘
    logits_BTV (`forward`), or loss (`loss`)                  x_BTD

An example, preset "tiny" with 8,000 ids: 3 sequences of 128 tokens are tokens_BT [3, 128]. The
embedding makes x_BTD [3, 128, 64] of them, which keeps its shape through both blocks. Attention
splits it into one head of 64: q_BHTE [3, 1, 128, 64]. The head gives logits [3, 128, 8000], of
which `loss` holds only a few rows at a time (cross_entropy.py).

Shape suffixes: B batch, T positions, D width, H query heads, K key and value heads, E width of a
head, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from groundup.model.block_attention import block_attention
from groundup.model.config import ModelConfig
from groundup.model.cross_entropy import cross_entropy_sum, log_probabilities
from groundup.model.kv_cache import LayerRows, SlotRows
from groundup.model.packed_attention import PackedAttention

EMBEDDING_STD = 0.02
# Positions in one forward pass that scores tokens; the activations of the 300M preset then take
# about 100 MB.
BATCH_TOKENS = 8192


class RMSNorm(nn.Module):
    """x / RMS(x) times a learned weight (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.epsilon)


class Linear(nn.Linear):
    """A matrix product in the type of its input; the weight may have another one."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T."""
        return F.linear(x, self.weight.to(x.dtype))


def rotary_table(config: ModelConfig) -> Tensor:
    """Return the cosines and sines [2, context, E/2] of rotary position embedding.

    Su et al. 2021, arXiv 2104.09864. Pair i of a head turns by position · theta^(-2i / E): the
    first pairs count nearby positions, the last ones far distances.
    """
    exponents = torch.arange(0, config.head_width, 2, dtype=torch.float32) / config.head_width
    positions = torch.arange(config.context, dtype=torch.float32)
    # In float32: bfloat16 cannot tell neighboring positions beyond 256 apart.
    angles = torch.outer(positions, config.rope_theta**-exponents)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x_BHTE: Tensor, table: Tensor) -> Tensor:
    """Turn each pair (i, i + E/2) of a head by its position's angle; `table` is [2, T, E/2]."""
    cos, sin = table.to(x_BHTE.dtype)
    # The halves are paired, as in Llama's own code; interleaved pairs are another function.
    first, second = x_BHTE.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Attention(nn.Module):
    """Causal grouped-query attention with rotary positions (Ainslie et al. 2023, arXiv 2305.13245).

    H / K query heads share one key and value head. Qwen3 normalizes queries and keys of each head,
    which keeps the logits of attention small in bfloat16; Llama does not.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        queries, keys = config.heads * config.head_width, config.kv_heads * config.head_width
        self.head_width = config.head_width
        self.groups = config.heads // config.kv_heads
        # Whether training uses block_attention.py.
        self.in_blocks = False
        self.q_proj = Linear(config.width, queries, bias=False)
        self.k_proj = Linear(config.width, keys, bias=False)
        self.v_proj = Linear(config.width, keys, bias=False)
        self.o_proj = Linear(queries, config.width, bias=False)
        self.q_norm: nn.Module = nn.Identity()
        self.k_norm: nn.Module = nn.Identity()
        if config.query_key_norm:
            self.q_norm = RMSNorm(config.head_width, config.norm_epsilon)
            self.k_norm = RMSNorm(config.head_width, config.norm_epsilon)

    def forward(
        self,
        x_BTD: Tensor,
        table: Tensor,
        cache: LayerRows | None,
        packed: PackedAttention | None,
    ) -> Tensor:
        """Return what attention adds to the residual stream [B, T, D].

        `table` has the cosines and sines of the positions of `x_BTD`, `cache` the keys and values
        of those before. Attention is causal, and within each document if they are `packed`.
        """
        batch, length, _ = x_BTD.shape
        heads = (batch, length, -1, self.head_width)
        # [B, T, D] → [B, T, H, E] → [B, H, T, E]
        q_BHTE = rotate(self.q_norm(self.q_proj(x_BTD).view(heads)).transpose(1, 2), table)
        k_BKTE = rotate(self.k_norm(self.k_proj(x_BTD).view(heads)).transpose(1, 2), table)
        v_BKTE = self.v_proj(x_BTD).view(heads).transpose(1, 2)
        mask = None
        if cache is not None:
            # Keys are stored turned, so a cached position is never turned again.
            k_BKTE, v_BKTE, mask = cache.extend(k_BKTE, v_BKTE)
        # A single new position sees everything before it, so it needs no mask.
        causal = mask is None and length > 1
        if packed is not None:
            y_BHTE = packed(q_BHTE, k_BKTE, v_BKTE)
        elif self.in_blocks and causal and cache is None:
            k_BHTE, v_BHTE = (x.repeat_interleave(self.groups, 1) for x in (k_BKTE, v_BKTE))
            y_BHTE = block_attention(q_BHTE, k_BHTE, v_BHTE)
        else:
            y_BHTE = F.scaled_dot_product_attention(
                q_BHTE, k_BKTE, v_BKTE, mask, is_causal=causal, enable_gqa=self.groups > 1
            )
        y_BTD: Tensor = self.o_proj(y_BHTE.transpose(1, 2).reshape(batch, length, -1))
        return y_BTD


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.width, config.feed_forward, bias=False)
        self.up_proj = Linear(config.width, config.feed_forward, bias=False)
        self.down_proj = Linear(config.feed_forward, config.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return what the feed-forward adds to the residual stream [B, T, D]."""
        y_BTD: Tensor = self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return y_BTD


class Block(nn.Module):
    """Attention and feed-forward, each with a norm before it, both added to the residual stream."""

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
        cache: LayerRows | None,
        packed: PackedAttention | None,
    ) -> Tensor:
        """Return the residual stream [B, T, D] after this block."""
        # Norms come before each branch, and the stream itself is never normalized (pre-norm).
        y_BTD = self.self_attn(self.input_layernorm(x_BTD), table, cache, packed)
        x_BTD = x_BTD + F.dropout(y_BTD, self.dropout, self.training)
        y_BTD = self.mlp(self.post_attention_layernorm(x_BTD))
        return x_BTD + F.dropout(y_BTD, self.dropout, self.training)


class Decoder(nn.Module):
    """Embedding, blocks and the last norm; a module of its own because of the parameters' names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # From an empty tensor: nn.Embedding would draw values, and drawing on "meta" imports
        # torch's compiler, 1.6 s in every process.
        self.embed_tokens = nn.Embedding.from_pretrained(
            torch.empty(config.vocab_size, config.width), freeze=False
        )
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_epsilon)


class Transformer(nn.Module):
    """A language model. Its output head is the embedding, or a matrix of its own.

    The seed decides the initial weights; None leaves them unset, to be read from a file. On the
    device "meta" they have shapes only.
    """

    def __init__(self, config: ModelConfig, seed: int | None = 0, device: str = "cpu") -> None:
        super().__init__()
        self.config = config
        # Built without memory, then given some: no time goes into values that are replaced anyway.
        with torch.device("meta"):
            self.model = Decoder(config)
            self.lm_head: nn.Linear | None = None
            if not config.tied:
                self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.to_empty(device=device)
        # Activation checkpointing (Chen et al. 2016, arXiv 1604.06174): keep only the input of each
        # block, and compute its inside again in the backward pass. The random state is restored
        # too, so dropout and every bit stay the same.
        self.recompute = False
        # Type of the residual stream, and so of all products, without a cache; None is that of the
        # weights.
        self.residual: torch.dtype | None = None
        # Not a buffer: `.to(bfloat16)` would round the angles.
        self._table = rotary_table(config)
        if seed is not None:
            self.init_weights(seed)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head_weight.device

    @property
    def head_weight(self) -> Tensor:
        """Weight of the output head [V, D]; that of the embedding if they are tied."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Draw initial weights: normal, but zero where a branch ends, and one in norms.

        Zero there makes every block start as the identity, so no scale depends on the depth.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.ndim == 1:
                # The weights of norms.
                weight.fill_(1)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()
            else:
                # 1 / sqrt(inputs) keeps the variance of what a matrix returns.
                std = EMBEDDING_STD if "embed" in name else 1 / math.sqrt(weight.shape[1])
                weight.normal_(0, std, generator=generator)

    def hidden(
        self,
        tokens_BT: Tensor,
        cache: SlotRows | None = None,
        positions_BT: Tensor | None = None,
        packed: PackedAttention | None = None,
    ) -> Tensor:
        """Return the normalized residual stream [B, T, D] before the head.

        The tokens follow those in the cache. Several texts in one row need the position of each
        token, and attention within each text. Raises ValueError if there are more positions than
        the context.
        """
        end, context = tokens_BT.shape[1], self.config.context
        positions: slice | Tensor = slice(0, end) if positions_BT is None else positions_BT
        if cache is not None:
            end, positions = cache.longest, cache.positions
        if end > context:
            raise ValueError(f"{end} positions do not fit into a context of {context}")
        self._table = self._table.to(tokens_BT.device)
        table = self._table[:, positions]  # [2, T, E/2]
        if isinstance(positions, Tensor):
            table = table.unsqueeze(2)  # [2, B, 1, T, E/2]
        x_BTD = self.model.embed_tokens(tokens_BT)
        if self.residual is not None and cache is None:
            x_BTD = x_BTD.to(self.residual)
        x_BTD = F.dropout(x_BTD, self.config.dropout, self.training)
        recompute = self.recompute and self.training and torch.is_grad_enabled()
        for layer, block in enumerate(self.model.layers):
            past_keys = cache.layers[layer] if cache is not None else None
            if recompute:
                x_BTD = checkpoint(block, x_BTD, table, past_keys, packed, use_reentrant=False)
            else:
                x_BTD = block(x_BTD, table, past_keys, packed)
        normed_BTD: Tensor = self.model.norm(x_BTD)
        return normed_BTD

    def forward(self, tokens_BT: Tensor, cache: SlotRows | None = None) -> Tensor:
        """Return logits [B, T, V]; with a cache, the tokens follow those that it holds."""
        x_BTD = self.hidden(tokens_BT, cache)
        return F.linear(x_BTD, self.head_weight.to(x_BTD.dtype))

    def loss(
        self, tokens_BT: Tensor, targets_BT: Tensor, reduction: Literal["mean", "sum"] = "mean"
    ) -> Tensor:
        """Return the cross-entropy (nats, float32) of `targets_BT` given the tokens up to there.

        Negative targets are ignored (ignore_index). The logits of the whole batch never exist at
        once.
        """
        x_ND = self.hidden(tokens_BT).flatten(0, 1)
        # N = B · T rows: the head and the loss treat every position alike.
        total = cross_entropy_sum(x_ND, self.head_weight, targets_BT.flatten())
        return total / (targets_BT >= 0).sum().clamp(min=1) if reduction == "mean" else total


@contextmanager
def evaluating(model: Transformer) -> Iterator[None]:
    """Switch dropout and gradients off, and restore the model's mode afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def token_log_probabilities(model: Transformer, tokens_BT: Tensor) -> Tensor:
    """Return log p(tokens[:, i + 1] | tokens[:, : i + 1]), [B, T - 1] float32.

    Shorter rows may be padded on the right with any id, since a position never sees what follows.
    Raises ValueError if T - 1 is larger than the context.
    """
    tokens_BT = tokens_BT.to(model.device, torch.long)
    scores_BT = torch.zeros_like(tokens_BT[:, 1:], dtype=torch.float32)
    if not scores_BT.numel():
        return scores_BT
    rows = max(1, BATCH_TOKENS // scores_BT.shape[1])
    with evaluating(model):
        for part_BT, out_BT in zip(tokens_BT.split(rows), scores_BT.split(rows), strict=True):
            x_ND = model.hidden(part_BT[:, :-1]).flatten(0, 1)
            scores_N = log_probabilities(x_ND, model.head_weight, part_BT[:, 1:].flatten())
            out_BT.copy_(scores_N.view_as(out_BT))
    return scores_BT
