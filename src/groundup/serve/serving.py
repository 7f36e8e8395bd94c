"""What is served: one model with its tokenizer, its engine and its limits. Reads a model folder;
writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from groundup.artifacts.tokenizer import Tokenizer
from groundup.engines.own import Engine
from groundup.errors import GroundupError
from groundup.model.transformer import Transformer
from groundup.serve.errors import ApiError
from groundup.serve.limits import Limits
from groundup.serve.metrics import Meters
from groundup.serve.suggestions import suggestions

MOST_SLOTS = 32
# What `groundup sample` draws with; the protocol's own defaults (1 and 1) let a small model wander.
ADVISED = {"temperature": 0.8, "top_p": 0.95, "top_k": 0, "min_p": 0.0, "max_tokens": 256}


@dataclass
class Serving:
    """One model and everything that its routes need.

    Attributes:
        name: of the run, which is the model's id in the API.
        checkpoint: `tuned` or `step-N`.
        content: SHA-256 over the model's files, of which the fingerprint is made.
        context: positions; prompt and answer together.
        vocab_size: of the model.
        prompts: beginnings that suit the training data.
        draining: whether the server is about to stop and takes nothing new.
    """

    name: str
    checkpoint: str
    content: str
    context: int
    vocab_size: int
    tokenizer: Tokenizer
    engine: Engine
    prompts: list[dict[str, str]] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)
    draining: bool = False
    bodies: int = 0
    created: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def meters(self) -> Meters:
        """What is counted of it."""
        return Meters(self.engine)

    @property
    def tuned(self) -> bool:
        """Whether the model learned the form of a chat."""
        return self.checkpoint == "tuned"

    @property
    def fingerprint(self) -> str:
        """What changes when the weights do: then a seed gives another text."""
        return f"fp_{self.content[:12]}"

    @cached_property
    def vocabulary(self) -> list[bytes]:
        """The bytes of each token."""
        strings = self.tokenizer.byte_strings()
        # A model may have more ids than its tokenizer, and they may be among the best of a
        # position.
        return strings + [b""] * (self.vocab_size - len(strings))

    @cached_property
    def longest_token(self) -> int:
        """Bytes of the longest token; a text of more than `context` times that cannot fit."""
        return max(map(len, self.vocabulary))

    def about(self) -> dict[str, Any]:
        """Return what a page wants to know of the model."""
        return {
            "run": self.name,
            "model": self.name,
            "checkpoint": self.checkpoint,
            "context": self.context,
            "tuned": self.tuned,
            "sampling": ADVISED | {"max_tokens": min(ADVISED["max_tokens"], self.context)},
            "prompts": self.prompts,
        }

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold one of the places for bodies that are being read.

        Raises:
            ApiError: all are taken (429), or the server is about to stop (503).
        """
        if self.draining:
            raise stopping()
        if self.bodies >= self.limits.bodies:
            raise self.busy()
        self.bodies += 1
        try:
            yield
        finally:
            self.bodies -= 1

    def busy(self) -> ApiError:
        """Return the answer to a request for which there is no room, and count it."""
        self.meters.refused.inc()
        return ApiError(
            429,
            "The queue is full; try again in a moment.",
            "queue_full",
            headers={"Retry-After": "1"},
        )


def stopping() -> ApiError:
    """Return the answer to what comes while the server stops."""
    return ApiError(
        503,
        "The server is shutting down.",
        "shutting_down",
        headers={"Retry-After": "5", "Connection": "close"},
    )


def open_model(
    root: Path,
    which: str = "",
    slots: int = 0,
    queue: int = 64,
    device: str = "auto",
    dtype: str = "auto",
    limits: Limits | None = None,
) -> Serving:
    """Load a model of a run; its engine is not started yet.

    Args:
        which: `tuned`, `best`, `last` or `step-N`; "" is the tuned one if there is one, else the
            best.
        slots: completions that run at once; 0 is as many as fit into memory, at most 32.
        queue: completions that may wait.
        device: auto, cpu or cuda; auto takes a GPU that is there.
        dtype: auto, float32 or bfloat16; auto is bfloat16 on a GPU.

    Raises:
        GroundupError: there is no such run, model or device, or the slots do not fit into its
            memory.
    """
    from groundup.artifacts.checkpoints import find_model
    from groundup.model.hf_io import load_model
    from groundup.runtime.lock import load_lock

    recipe, found = load_lock(root), find_model(root, which)
    place, number = _machine(device, dtype)
    model, tokenizer = load_model(found.path, place, number), Tokenizer.load(found.path)
    engine = Engine(model, tokenizer, _slots(model, slots), queue)
    config, prompts = model.config, suggestions(root)
    return Serving(
        recipe.name,
        found.name,
        found.content,
        config.context,
        config.vocab_size,
        tokenizer,
        engine,
        prompts,
        limits or Limits(),
    )


def _slots(model: Transformer, wanted: int) -> int:
    from groundup.engines.slot_cache import fitting_slots

    fitting = fitting_slots(
        model.config, model.head_weight.dtype, model.device, wanted or MOST_SLOTS
    )
    if fitting < wanted:
        raise GroundupError(
            f"--slots {wanted}: the memory that is free holds the keys and values of {fitting}; ask"
            " for fewer"
        )
    return fitting


def _machine(device: str, dtype: str) -> tuple[str, Any]:
    import torch

    from groundup.runtime.resources import choose_device

    place = choose_device(device)
    number = dtype if dtype != "auto" else ("bfloat16" if place == "cuda" else "float32")
    return place, {"float32": torch.float32, "bfloat16": torch.bfloat16}[number]
