"""Log-probabilities of tokens as the API reports them: of the model as trained, at temperature 1.
Reads hidden states.

Shape suffixes: N positions, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from groundup.engines.jobs import TokenScore
from groundup.model.cross_entropy import chunks


def token_scores(
    scores_NV: Tensor, tokens_N: Tensor, tops: Sequence[int], byte_strings: Sequence[bytes]
) -> list[TokenScore]:
    """Return the score of one token in each row of log-probabilities, with the `tops` best ids of
    that row.
    """
    own = scores_NV.gather(1, tokens_N[:, None])[:, 0].tolist()
    best = scores_NV.topk(min(max(tops), scores_NV.shape[1]), dim=1)
    rows = zip(
        tokens_N.tolist(), own, best.indices.tolist(), best.values.tolist(), tops, strict=True
    )
    return [
        TokenScore(token, byte_strings[token], score, tuple(zip(ids, values, strict=True))[:top])
        for token, score, ids, values, top in rows
    ]


def prompt_scores(
    x_ND: Tensor, head_VD: Tensor, tokens: Sequence[int], top: int, byte_strings: Sequence[bytes]
) -> list[TokenScore]:
    """Return the scores of `tokens`, each predicted by the row of hidden states in its place.

    Raises:
        FloatingPointError: the model's scores are not numbers.
    """
    tokens_N, found = torch.tensor(tokens, device=x_ND.device), list[TokenScore]()
    for part in chunks(len(tokens), len(head_VD), x_ND.device.type):
        scores_NV = torch.log_softmax(x_ND[part] @ head_VD.T, dim=1, dtype=torch.float32)
        if scores_NV.isnan().any():
            raise FloatingPointError("the model's scores are not numbers")
        found += token_scores(scores_NV, tokens_N[part], [top] * len(scores_NV), byte_strings)
    return found
