"""Continues a prompt, or answers it, with the model of a run. Reads a model folder; writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from groundup.artifacts.chat import encode_prompt
from groundup.artifacts.checkpoints import find_model
from groundup.artifacts.tokenizer import Detokenizer, Tokenizer


def continue_prompt(
    root: Path,
    prompt: str,
    tokens: int = 100,
    temperature: float = 0.8,
    top_p: float = 0.95,
    seed: int = 1,
    which: str = "",
    chat: bool = False,
) -> Iterator[str]:
    """Yield the prompt's continuation piece by piece, never splitting a character; with `chat`, the
    answer to it.

    Raises:
        GroundupError: the run has no such model.
    """
    folder = find_model(root, which).path
    from groundup.model.generate import generate
    from groundup.model.hf_io import load_model

    # The model's own: the run's may be another one by now.
    tokenizer = Tokenizer.load(folder)
    # An argument that is not UTF-8 reaches us with surrogates, which no tokenizer can encode.
    plain = prompt.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    ids = (
        encode_prompt(tokenizer, [{"role": "user", "content": plain}])
        if chat
        else tokenizer.encode(plain) or [tokenizer.end_id]
    )
    stop = {tokenizer.end_id, tokenizer.stop_id}
    stream = generate(
        load_model(folder), ids, tokens, temperature=temperature, top_p=top_p, seed=seed, stop=stop
    )
    text = Detokenizer(tokenizer.byte_strings())
    yield from filter(None, map(text.add, stream))
    yield text.end()
