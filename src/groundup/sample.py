"""Continues a prompt with the model of a run. Reads a checkpoint and the tokenizer; writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from groundup.checkpoints import find_checkpoint
from groundup.tokenizer import Tokenizer


def continue_prompt(
    root: Path, prompt: str, tokens: int = 100, temperature: float = 0.8, top_p: float = 0.95, seed: int = 1, which: str = "best"
) -> Iterator[str]:
    """Yield the prompt's continuation piece by piece, never splitting a character.

    Raises:
        GroundupError: the run has no checkpoint, or the prompt is not text.
    """
    folder = find_checkpoint(root, which).path
    from groundup.model.files import load_model
    from groundup.model.generate import generate

    # The checkpoint's own: the run's may be another one by now.
    tokenizer = Tokenizer.load(folder)
    # An argument that is not UTF-8 reaches us with surrogates, which no tokenizer can encode.
    ids = tokenizer.encode(prompt.encode("utf-8", "surrogateescape").decode("utf-8", "replace")) or [tokenizer.end_id]
    stream = generate(load_model(folder), ids, tokens, temperature=temperature, top_p=top_p, seed=seed, stop={tokenizer.end_id})
    yield from whole_characters(tokenizer, stream)


def whole_characters(tokenizer: Tokenizer, stream: Iterator[int]) -> Iterator[str]:
    """Yield the text of tokens as soon as it ends with a whole character."""
    pending: list[int] = []
    for token in stream:
        pending.append(token)
        text = tokenizer.decode(pending)
        # A character may take several tokens; four bytes are the most, so four tokens settle it.
        if not text.endswith("\N{REPLACEMENT CHARACTER}") or len(pending) > 4:
            yield text
            pending.clear()
    if pending:
        yield tokenizer.decode(pending)
