"""LoRA (Hu et al. 2021, arXiv 2106.09685): W + alpha / rank · B A; only A and B are trained.

The embeddings of the chat tokens are trained too, which PEFT calls trainable tokens: no training
text holds these tokens, so training has only made <|im_end|> less probable, and the small matrices
alone are slow to undo that. In an untied model the head's rows of these tokens are trained as well.

An adapter is saved in PEFT's format: adapter_config.json and adapter_model.safetensors, with
`base_model.model.LAYER.lora_A.weight` and `lora_B.weight` for each linear layer, and
`base_model.model.TABLE.token_adapter.trainable_tokens_delta` for each embedding table.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import save_file
from torch import Tensor, nn

from groundup.model.transformer import Transformer
from groundup.runtime.files import write_json

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Tables with one row per token.
TABLES = ("model.embed_tokens.", "lm_head.")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class LoraLinear(nn.Module):
    """A frozen linear layer plus the product of two small matrices, which starts at zero."""

    def __init__(
        self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.base, self.scale = base, alpha / rank
        # As PEFT draws it: uniform, with variance 1 / (3 · in_features).
        bound = 1 / math.sqrt(base.in_features)
        a = torch.empty(rank, base.in_features).uniform_(-bound, bound, generator=generator)
        self.a = nn.Parameter(a.to(base.weight.device))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the layer plus that of the adapter."""
        return F.linear(x, self.base.weight) + F.linear(F.linear(x, self.a), self.b) * self.scale

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Add the product to the layer's weight and return the layer."""
        self.base.weight += self.scale * (self.b @ self.a)
        return self.base


class Adapter(nn.Module):
    """The LoRA matrices of a model, which it inserts into the model, and the rows of `tokens`.

    The seed alone decides the initial matrices A.
    """

    def __init__(
        self, model: Transformer, rank: int, alpha: float, tokens: tuple[int, ...], seed: int
    ) -> None:
        super().__init__()
        self.rank, self.alpha, self.tokens = rank, alpha, list(tokens)
        model.requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        # In dictionaries, nn.Module does not register the model's weights as the adapter's.
        self._model = {"model": model}
        self._layers: dict[str, LoraLinear] = {}
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Linear) and name.endswith(TARGETS):
                self._layers[name] = LoraLinear(module, rank, alpha, generator)
                model.set_submodule(name, self._layers[name])
        matrices = [matrix for layer in self._layers.values() for matrix in (layer.a, layer.b)]
        self.matrices = nn.ParameterList(matrices)
        tables = {n: weight for n, weight in model.named_parameters() if n.startswith(TABLES)}
        self._tables = {name: table.requires_grad_() for name, table in tables.items()}
        # The optimizer sees copies of the trained rows only: AdamW would move every row of a table.
        rows = [table.detach()[self.tokens].clone() for table in tables.values()]
        self.embeddings = nn.ParameterList(rows)

    def read_token_gradients(self) -> None:
        """Copy the gradients of the tokens' rows from those of the whole tables."""
        for table, rows in zip(self._tables.values(), self.embeddings, strict=True):
            if table.grad is not None and rows.grad is not None:
                rows.grad.copy_(table.grad[self.tokens])
            table.grad = None

    @torch.no_grad()
    def write_token_rows(self) -> None:
        """Copy the tokens' rows back into the tables, after a step."""
        for table, rows in zip(self._tables.values(), self.embeddings, strict=True):
            table[self.tokens] = rows

    def merge(self) -> None:
        """Add the matrices to the model's weights, and remove the adapter from the model."""
        for name, layer in self._layers.items():
            self._model["model"].set_submodule(name, layer.merge())
        self._model["model"].requires_grad_()

    def save(self, folder: Path, base: str) -> None:
        """Write adapter_config.json and adapter_model.safetensors; `base` names the base model."""
        tables = [name.removesuffix(".weight") for name in self._tables]
        delta = "base_model.model.{}.token_adapter.trainable_tokens_delta"
        tensors = dict(zip(map(delta.format, tables), self.embeddings, strict=True))
        for name, layer in self._layers.items():
            tensors[f"base_model.model.{name}.lora_A.weight"] = layer.a
            tensors[f"base_model.model.{name}.lora_B.weight"] = layer.b
        copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        save_file(copies, folder / WEIGHTS, metadata={"format": "pt"})
        token_indices = {table.rpartition(".")[2]: self.tokens for table in tables}
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": list(TARGETS),
            "trainable_token_indices": token_indices if len(tables) > 1 else self.tokens,
            "inference_mode": True,
        }
        write_json(folder / CONFIG, config)
