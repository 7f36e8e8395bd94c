"""Continue a prompt, or answer it, with the model of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from groundup.artifacts.chat import encode_prompt
from groundup.artifacts.checkpoints import find_model
from groundup.artifacts.tokenizer import Detokenizer, Tokenizer
from groundup.runtime.resources import choose_device


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
    """Yield the continuation of a prompt in pieces of whole characters; with `chat`, the answer.

    Raises GroundupError if the run has no such model.
    """
    folder = find_model(root, which).path
    from groundup.model.generate import generate
    from groundup.model.hf_io import load_model

    # The model's own tokenizer: that of the run may have changed since.
    tokenizer = Tokenizer.load(folder)
    # An argument that is not UTF-8 comes with surrogates, which no tokenizer can encode.
    plain = prompt.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if chat:
        ids = encode_prompt(tokenizer, [{"role": "user", "content": plain}])
    else:
        ids = tokenizer.encode(plain) or [tokenizer.end_id]
    stop = {tokenizer.end_id, tokenizer.stop_id}
    model = load_model(folder, choose_device())
    stream = generate(model, ids, tokens, temperature, top_p=top_p, seed=seed, stop=stop)
    text = Detokenizer(tokenizer.byte_strings())
    yield from filter(None, map(text.add, stream))
    yield text.end()
