"""Continues one prompt again and again while a model learns, so that one watches it learn to write.
Prints only.
"""

from __future__ import annotations

import time
from pathlib import Path

from tokenizers import Tokenizer

from groundup.model.generate import generate
from groundup.model.transformer import Transformer
from groundup.runtime.progress import say
from groundup.train.hardware import uncompiled

SAMPLE_TOKENS = 40
TEMPERATURE, TOP_P = 0.7, 0.95


class Watcher:
    """Goes by the clock, and leaves no trace in what is learned: the randomness is its own, the
    model is only read.
    """

    def __init__(self, tokenizer: Path, prompt: str, every_seconds: float) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer)) if tokenizer.exists() else None
        self._prompt, self._every = prompt, every_seconds
        self._last = time.monotonic()

    def look(self, model: Transformer, step: int, loss: float, now: bool = False) -> None:
        """Print a continuation of the prompt when it is time, or `now`."""
        if self._tokenizer is None or not (now or time.monotonic() - self._last >= self._every):
            return
        prompt = self._tokenizer.encode(self._prompt, add_special_tokens=False).ids or [0]
        with uncompiled():
            tokens = [*prompt, *generate(model, prompt, SAMPLE_TOKENS, TEMPERATURE, top_p=TOP_P)]
        text = " ".join(self._tokenizer.decode(tokens).split())
        say(f"  step {step:>6}  loss {loss:.3f}  {text}")
        self._last = time.monotonic()
