"""LoRA (Hu et al. 2021, arXiv 2106.09685): W + alpha / rank · B A, of which only A and B learn.
Writes an adapter in PEFT's format.

The embeddings of the chat tokens learn too, which PEFT calls trainable tokens: text never held
those tokens, so training has only pushed <|im_end|> away, and the small matrices alone are slow to
bring it back. Where the output head is no embedding, its rows of those tokens learn as well.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import save_file
from torch import Tensor, nn

from groundup.model.transformer import Transformer

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Of all tokens: a row each.
TABLES = ("model.embed_tokens.", "lm_head.")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class LoraLinear(nn.Module):
    """A linear layer that stays as it is, and beside it a product of two small matrices, which
    begins at zero.
    """

    def __init__(
        self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.base, self.scale = base, alpha / rank
        # As PEFT draws it: uniform, with the variance of 1 / (3 inputs).
        bound = 1 / math.sqrt(base.in_features)
        self.a = nn.Parameter(
            torch.empty(rank, base.in_features)
            .uniform_(-bound, bound, generator=generator)
            .to(base.weight.device)
        )
        self.b = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer gives, and the product's share."""
        return F.linear(x, self.base.weight) + F.linear(F.linear(x, self.a), self.b) * self.scale

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Add the product to the layer's weight and return the layer."""
        self.base.weight += self.scale * (self.b @ self.a)
        return self.base


class Adapter(nn.Module):
    """The small matrices of a model, put into it; of the model itself only the embeddings of some
    tokens go on learning.

    Args:
        tokens: ids whose embeddings learn.
        seed: of the matrices A, which depend on nothing else.
    """

    def __init__(
        self, model: Transformer, rank: int, alpha: float, tokens: tuple[int, ...], seed: int
    ) -> None:
        super().__init__()
        self.rank, self.alpha, self.tokens = rank, alpha, list(tokens)
        model.requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        # Dictionaries hide them from nn.Module: the weights of the model are no parameters of its
        # adapter.
        self._model = {"model": model}
        self._layers: dict[str, LoraLinear] = {}
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Linear) and name.endswith(TARGETS):
                self._layers[name] = LoraLinear(module, rank, alpha, generator)
                _put(model, name, self._layers[name])
        self.matrices = nn.ParameterList(
            [part for layer in self._layers.values() for part in (layer.a, layer.b)]
        )
        self._tables = {
            name: weight for name, weight in model.named_parameters() if name.startswith(TABLES)
        }
        self.embeddings = nn.ParameterList(
            [weight.detach()[self.tokens].clone() for weight in self._tables.values()]
        )
        for weight in self._tables.values():
            weight.requires_grad_()

    def gather(self) -> None:
        """Take the gradients of the tokens' rows out of those of the whole tables."""
        for whole, rows in zip(self._tables.values(), self.embeddings, strict=True):
            if whole.grad is not None and rows.grad is not None:
                rows.grad.copy_(whole.grad[self.tokens])
            whole.grad = None

    @torch.no_grad()
    def spread(self) -> None:
        """Put the tokens' rows back into the tables, after a step."""
        for whole, rows in zip(self._tables.values(), self.embeddings, strict=True):
            whole[self.tokens] = rows

    def merge(self) -> None:
        """Add the matrices to the model's weights, and leave the model without an adapter."""
        for name, layer in self._layers.items():
            _put(self._model["model"], name, layer.merge())
        self._model["model"].requires_grad_()

    def save(self, folder: Path, base: str) -> None:
        """Write adapter_config.json and adapter_model.safetensors.

        Args:
            base: name of the model that it belongs to.
        """
        places = [name.removesuffix(".weight") for name in self._tables]
        tensors = {
            f"base_model.model.{place}.token_adapter.trainable_tokens_delta": r
            for place, r in zip(places, self.embeddings, strict=True)
        }
        for name, layer in self._layers.items():
            tensors |= {
                f"base_model.model.{name}.lora_A.weight": layer.a,
                f"base_model.model.{name}.lora_B.weight": layer.b,
            }
        copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        save_file(copies, folder / WEIGHTS, metadata={"format": "pt"})
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": list(TARGETS),
            "trainable_token_indices": self.tokens
            if len(places) == 1
            else {place.rpartition(".")[2]: self.tokens for place in places},
            "inference_mode": True,
        }
        (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
