"""Attention in sequences that several documents share, each of which sees itself alone.

A packed batch of B sequences of T positions, here two of six with documents a to d:

    a a a b b .        documents  a 3, b 2, padding 1
    c c d d d d                   c 2, d 4

There are three ways to the same values. A dense mask computes all T · T pairs of a sequence and
throws most of them away. The others compute the pairs of each document only: one causal call per
document, or one call of a kernel for variable lengths, which takes the documents one after another.
The padding counts as a document; nothing reads what it gives.

Shape suffixes: B sequences, T positions, H heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

# How attention within documents is computed.
PackedKernel = Literal["documents", "mask", "varlen"]


def choose_packed_kernel(device: str, precision: str) -> PackedKernel:
    """Return the fastest way there is on a device.

    One call per document is fastest on a CPU (docs/experiments.md); a GPU would wait for calls so
    small. The kernel for variable lengths exists for the half precisions of NVIDIA's GPUs.
    """
    if device == "cpu":
        return "documents"
    return "varlen" if device == "cuda" and precision != "fp32" and _varlen() else "mask"


class PackedAttention:
    """Attention within the documents of a batch; `sizes` [B] are their positions in order."""

    def __init__(
        self, sizes: Sequence[Sequence[int]], length: int, kernel: PackedKernel, device: Any = "cpu"
    ) -> None:
        # With the padding, so that each sequence is divided up to its end.
        padded = [[*row, length - sum(row)] for row in sizes]
        self.sizes = [[size for size in row if size] for row in padded]
        self.kernel = kernel
        flat = torch.tensor([size for row in self.sizes for size in row])
        self._longest = int(flat.max())
        self._mask = self._bounds = None
        if kernel == "mask":
            counts = torch.tensor([len(row) for row in self.sizes])
            documents_BT = torch.arange(len(flat)).repeat_interleave(flat).view(len(counts), -1)
            same_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]
            self._mask = same_BTT.tril()[:, None].to(device)
        if kernel == "varlen":
            # Where each document begins among all positions of the batch, and where the last ends.
            self._bounds = F.pad(flat.cumsum(0), (1, 0)).to(device, torch.int32)

    @classmethod
    def from_mask(cls, mask_B1TT: Tensor) -> PackedAttention:
        """Return attention by a mask of one's own, True where a query (third) sees a key (last)."""
        batch, _, length, _ = mask_B1TT.shape
        packed = cls([[length]] * batch, length, "documents")
        packed.kernel, packed._mask = "mask", mask_B1TT
        return packed

    @classmethod
    def keep_from_compiler(cls) -> None:
        """Let compiled layers call it as it is: each batch of documents would be compiled anew."""
        cls.__call__ = torch.compiler.disable(cls.__call__)  # type: ignore[method-assign]

    def __call__(self, q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor) -> Tensor:
        """Return what each position reads of those before it in its document [B, H, T, E]."""
        if self._mask is not None:
            return _attend(q_BHTE, k_BKTE, v_BKTE, self._mask)
        if self._bounds is not None:
            return self._attend_varlen(q_BHTE, k_BKTE, v_BKTE, self._bounds)
        rows = zip(self.sizes, q_BHTE.unbind(0), k_BKTE.unbind(0), v_BKTE.unbind(0), strict=True)
        # Split and joined, not cut out: then the gradients are joined and split, and never added.
        return torch.stack(
            [
                torch.cat(
                    [
                        _attend(*document)
                        for document in zip(*(each.split(sizes, 1) for each in qkv), strict=True)
                    ],
                    dim=1,
                )
                for sizes, *qkv in rows
            ]
        )

    def _attend_varlen(
        self, q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, bounds: Tensor
    ) -> Tensor:
        attend, longest = _varlen(), self._longest
        # [B, H, T, E] → [B · T, H, E], in the type in which the kernel multiplies.
        q, k, v = (
            x.to(v_BKTE.dtype).transpose(1, 2).flatten(0, 1) for x in (q_BHTE, k_BKTE, v_BKTE)
        )
        grouped = q.shape[1] != k.shape[1]
        # A window without a limit to the left, and of nothing to the right, is causal.
        y = attend(
            q, k, v, bounds, bounds, longest, longest, window_size=(-1, 0), enable_gqa=grouped
        )
        return y.unflatten(0, (len(q_BHTE), -1)).transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    grouped = q.shape[-3] != k.shape[-3]
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=grouped)


def _varlen() -> Any:
    """Return PyTorch's kernel for variable lengths, or None if this version has none that fits."""
    try:
        # Late: it imports torch's compiler.
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = varlen_attn.__kwdefaults__ or {}
    return varlen_attn if {"window_size", "enable_gqa"} <= known.keys() else None
