"""Log-probabilities of given tokens under a model, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from groundup.model.cross_entropy import log_probabilities
from groundup.model.transformer import Transformer

# Positions in one forward pass; the activations of the 300M preset then take about 100 MB.
BATCH_TOKENS = 8192


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
    batch, length = tokens_BT.shape
    tokens_BT = tokens_BT.to(model.device, torch.long)
    scores_BT = torch.zeros(batch, max(length - 1, 0), dtype=torch.float32, device=model.device)
    if length < 2:
        return scores_BT
    rows = max(1, BATCH_TOKENS // (length - 1))
    with evaluating(model):
        for start in range(0, batch, rows):
            part_BT = tokens_BT[start : start + rows]
            x_ND = model.hidden(part_BT[:, :-1]).flatten(0, 1)
            scores_N = log_probabilities(x_ND, model.head_weight, part_BT[:, 1:].flatten())
            scores_BT[start : start + rows] = scores_N.view(len(part_BT), length - 1)
    return scores_BT
