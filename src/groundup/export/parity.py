"""The gate of an export: the folder must say what our model says. Reads an exported folder; returns
what was compared.

Logits in float32 on random and on real ids, token ids and round trips on hostile Unicode. Compared
with transformers where it is installed, and always with what `load_model` reads back.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundup.artifacts.chat import encode_prompt
from groundup.artifacts.tokenizer import PROBES, Tokenizer
from groundup.errors import GroundupError
from groundup.export.source_model import Origin
from groundup.model.hf_io import load_model
from groundup.model.transformer import Transformer

# Of the largest logit. Two implementations of the same float32 sums differ by about 1e-6; a wrong
# rotary base, norm or head order by whole units.
TOLERANCE = 1e-4

ROWS, ROW_TOKENS = 4, 256

# Conversations whose ids must be those of `groundup.artifacts.chat`: the chat template says the
# same in other programs.
CHATS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "Hello"}],
    [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "  What's 2 + 2?\n"},
    ],
    [
        {
            "role": "user",
            "content": (
                "Say: café, 中文, 👩\u200d👧 and\ttabs\r\n{{ braces }} {% for %} <b>&amp;</b>"
            ),
        },
        {"role": "assistant", "content": "Done.\nAnything else?"},
        {"role": "user", "content": ""},
        {"role": "user", "content": "user\nassistant"},
    ],
)

# Of all 1,112,064 characters, those that llama.cpp's splitter takes for another class than ours
# does: letters and digits that Unicode 16 added in 2024, which its tables lack, and "ſ" after an
# apostrophe, an "s" to Oniguruma's (?i:'s) alone. Both splitters keep every byte, so texts with
# them have other ids in llama.cpp, and the same text.
UNLIKE = re.compile(
    "(?<=')\u017f|[\u1c89\u1c8a\ua7cb-\ua7cd\ua7da-\ua7dc\U000105c0-\U000105f3\U00010d40-\U00010d65\U00010d6f-\U00010d85"
    "\U00010ec2-\U00010ec4\U00011380-\U00011389\U0001138b\U0001138e\U00011390-\U000113b5\U000113b7\U000113d1\U000113d3"
    "\U000116d0-\U000116e3\U00011bc0-\U00011be0\U00011bf0-\U00011bf9\U00013460-\U000143fa\U00016100-\U0001611d"
    "\U00016130-\U00016139\U00016d40-\U00016d6c\U00016d70-\U00016d79\U00018cff\U0001ccf0-\U0001ccf9\U0001e5d0-\U0001e5ed"
    "\U0001e5f0-\U0001e5fa]"
)


def compared_text(text: str) -> str:
    """Return a text without the characters in which llama.cpp's splitter is known to differ from
    ours.
    """
    while UNLIKE.search(text):
        # Again, since what stood behind a character left out may now follow an apostrophe.
        text = UNLIKE.sub("", text)
    return text


def with_specials(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text in which written special tokens count as such, as other programs
    read a chat.
    """
    ids = tokenizer.specials
    # The longest first, where one name begins with another.
    parts = re.split("(" + "|".join(map(re.escape, sorted(ids, key=len, reverse=True))) + ")", text)
    return [i for part in parts for i in ([ids[part]] if part in ids else tokenizer.encode(part))]


def transformers_version() -> str:
    """Return the version of transformers, or "" where it is not installed."""
    try:
        return importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        return ""


def check(
    folder: Path, origin: Origin, model: Transformer, texts: Sequence[str], seed: int
) -> dict[str, Any]:
    """Compare an exported folder with the model that it was made from, and say what was compared.

    Args:
        origin: the folder of the model.
        model: its weights in float32, on the CPU.
        texts: real text, to be compared beside the probes.

    Raises:
        GroundupError: something differs; the export must not be used.
    """
    rows = probe_rows(origin.tokenizer, texts, model.config.context, seed)
    with torch.no_grad():
        logits = [model(row[None])[0] for row in rows]
    own = compare_logits(logits, _ours(load_model(folder), rows), "read back by groundup")
    found: dict[str, Any] = {
        "positions": sum(map(len, rows)),
        "tolerance": TOLERANCE,
        "own_max_difference": own,
    }
    version = transformers_version()
    if not version:
        return found | {
            "transformers": None,
            "note": "transformers is not installed: compared with groundup's own reading only",
        }
    theirs = compare_logits(logits, _theirs(folder, rows), f"read by transformers {version}")
    found |= {"transformers": version, "max_difference": theirs, "texts": len(PROBES) + len(texts)}
    return found | compare_ids(folder, origin, [*PROBES, *texts])


def probe_rows(
    tokenizer: Tokenizer, texts: Sequence[str], context: int, seed: int
) -> list[torch.Tensor]:
    """Return rows of ids: random ones over the whole vocabulary, and those of real text."""
    length = min(context, ROW_TOKENS)
    random = np.random.default_rng(seed).integers(0, tokenizer.vocab_size, (ROWS, length))
    real = [ids[:length] for text in texts if (ids := tokenizer.encode(text[: 8 * length]))]
    return [torch.tensor(row, dtype=torch.long) for row in [*random.tolist(), *real[:ROWS]]]


def _ours(model: Transformer, rows: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [model(row[None])[0] for row in rows]


def _quiet() -> None:
    """Switch off the bars and remarks of transformers; ours are the only ones that concern the
    user.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _theirs(folder: Path, rows: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    from transformers import AutoModelForCausalLM

    _quiet()
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    model, info = loaded
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    if wrong:
        raise GroundupError(
            "export: transformers does not find every weight in its place:"
            f" {', '.join(map(str, wrong))[:300]}"
        )
    with torch.no_grad():
        return [model.eval()(row[None]).logits[0] for row in rows]


def compare_logits(
    ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], what: str
) -> float:
    """Return the largest difference of two lists of logits.

    Raises:
        GroundupError: it exceeds `TOLERANCE` of the largest logit, or is not a number.
    """
    largest = max(float(logits.abs().max()) for logits in ours)
    difference = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    # Written so that NaN fails.
    if not difference <= TOLERANCE * max(1.0, largest):
        raise GroundupError(
            f"export: logits {what} differ by {difference:.2g}, more than {TOLERANCE:g} of the"
            f" largest ({largest:.2g})"
        )
    return difference


def compare_ids(folder: Path, origin: Origin, texts: Sequence[str]) -> dict[str, int]:
    """Compare token ids with those of transformers; text goes there and back exactly, a chat has
    the ids of `groundup.artifacts.chat`.

    Returns:
        The number of ids and of conversations compared.

    Raises:
        GroundupError: naming the first text that differs.
    """
    from transformers import AutoTokenizer

    _quiet()
    theirs, tokenizer = AutoTokenizer.from_pretrained(folder), origin.tokenizer
    count = 0
    for text in texts:
        # As text, "<|im_end|>" is text. Without the argument transformers reads it as the special
        # token, for chats.
        ids = theirs(text, split_special_tokens=True)["input_ids"]
        if ids != tokenizer.encode(text) or theirs.decode(ids) != tokenizer.normalized(text):
            raise GroundupError(f"export: transformers tokenizes {text[:40]!r} differently")
        count += len(ids)
    if theirs.eos_token_id != origin.eos:
        raise GroundupError(
            f"export: transformers ends texts with id {theirs.eos_token_id}, not {origin.eos}"
        )
    chats = CHATS if origin.template else ()
    for turns in chats:
        if theirs.apply_chat_template(
            turns, add_generation_prompt=True, return_dict=False
        ) != encode_prompt(tokenizer, turns):
            raise GroundupError(
                f"export: transformers writes the conversation {str(turns)[:80]} differently"
            )
    return {"ids": count, "chats": len(chats)}
