"""Compares an exported Hugging Face folder with the model that it was made from.

Logits in float32 on random and on real ids, token ids and round trips on hostile Unicode. The
folder is compared as `load_model` reads it, and as transformers does if it is installed.
parity.json says what was compared, and by how much it differed. The first difference is a
GroundupError.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groundup.artifacts.chat import encode_prompt
from groundup.artifacts.tokenizer import PROBES, Tokenizer
from groundup.errors import GroundupError
from groundup.export.source_model import SourceModel
from groundup.model.hf_io import load_model
from groundup.model.transformer import Transformer
from groundup.runtime.files import read_json, write_json
from groundup.runtime.run import build_step
from groundup.runtime.store import Facts

PARITY = "parity.json"

# Share of the largest logit. Two implementations of the same float32 sums differ by about 1e-6; a
# wrong rotary base, norm or order of heads by whole units.
TOLERANCE = 1e-4

# Rows of random ids, rows of real text, and tokens of a row.
ROWS, ROW_TOKENS = 4, 256
# Tokens of held-out text from the beginning of each shard, and number of shards.
TEXT_TOKENS, TEXTS = 2_000, 8

# Conversations whose ids must be those of `groundup.artifacts.chat`: the exported chat template
# must say the same in other programs.
HOSTILE_MESSAGE = "Say: café, 中文, 👩\u200d👧 and\ttabs\r\n{{ braces }} {% for %} <b>&amp;</b>"
CHATS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "Hello"}],
    [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "  What's 2 + 2?\n"},
    ],
    [
        {"role": "user", "content": HOSTILE_MESSAGE},
        {"role": "assistant", "content": "Done.\nAnything else?"},
        {"role": "user", "content": ""},
        {"role": "user", "content": "user\nassistant"},
    ],
)

# Of all 1,112,064 characters, those that llama.cpp's pre-tokenizer assigns to another class than
# ours: letters and digits that Unicode 16 added in 2024, which its tables lack, and "ſ" after an
# apostrophe, which is an "s" in Oniguruma's (?i:'s) alone. Both keep every byte, so texts with
# these characters have other ids in llama.cpp, and the same text.
UNLIKE = re.compile(
    "(?<=')\u017f|[\u1c89\u1c8a\ua7cb-\ua7cd\ua7da-\ua7dc\U000105c0-\U000105f3\U00010d40-\U00010d65"
    "\U00010d6f-\U00010d85\U00010ec2-\U00010ec4\U00011380-\U00011389\U0001138b\U0001138e"
    "\U00011390-\U000113b5\U000113b7\U000113d1\U000113d3\U000116d0-\U000116e3\U00011bc0-\U00011be0"
    "\U00011bf0-\U00011bf9\U00013460-\U000143fa\U00016100-\U0001611d\U00016130-\U00016139"
    "\U00016d40-\U00016d6c\U00016d70-\U00016d79\U00018cff\U0001ccf0-\U0001ccf9\U0001e5d0-\U0001e5ed"
    "\U0001e5f0-\U0001e5fa]"
)


def compared_text(text: str) -> str:
    """Return a text without the characters that llama.cpp is known to split differently."""
    while UNLIKE.search(text):
        # Repeat: the character after a removed one may now follow an apostrophe.
        text = UNLIKE.sub("", text)
    return text


def encode_with_specials(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text whose special tokens count as such, as programs read a chat."""
    specials = tokenizer.specials
    # The longest first, where one name begins with another.
    names = "|".join(map(re.escape, sorted(specials, key=len, reverse=True)))
    ids: list[int] = []
    for part in re.split(f"({names})", text):
        ids += [specials[part]] if part in specials else tokenizer.encode(part)
    return ids


def package_version(name: str) -> str:
    """Return the version of an installed package, or "" if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def held_out_files(tokens: Path) -> list[str]:
    """Return the validation shards that texts come from, as names in the view `tokenize`."""
    paths = sorted((tokens / "shards").glob("*.validation.npy"))
    return [f"shards/{path.name}" for path in paths[:TEXTS]]


def held_out_texts(tokens: Path) -> list[str]:
    """Return the beginnings of some validation shards as text."""
    tokenizer = Tokenizer.load(tokens)
    parts = [np.load(tokens / name, mmap_mode="r")[:TEXT_TOKENS] for name in held_out_files(tokens)]
    return [tokenizer.decode(part) for part in parts if len(part)]


def probe_rows(tokenizer: Tokenizer, texts: Sequence[str], context: int, seed: int) -> list[Tensor]:
    """Return rows of ids: random ones from the whole vocabulary, and those of real text."""
    length = min(context, ROW_TOKENS)
    random = np.random.default_rng(seed).integers(0, tokenizer.vocab_size, (ROWS, length))
    real = [ids[:length] for text in texts if (ids := tokenizer.encode(text[: 8 * length]))]
    return [torch.tensor(row, dtype=torch.long) for row in [*random.tolist(), *real[:ROWS]]]


@torch.no_grad()
def log_probabilities(model: Transformer, row: Tensor) -> Tensor:
    """Return the log-probabilities [T, V] of the token after each position of a row [T]."""
    return model(row[None])[0].log_softmax(-1)


def rounding_effect(
    model: Transformer, stored: Transformer, rows: Sequence[Tensor]
) -> dict[str, float]:
    """Return how far the rounding of weights moved the model, over all positions of `rows`.

    Those are the mean Kullback-Leibler divergence (nats a token) of the file's model from the
    checkpoint's, the largest difference of a log-probability, and the share of positions whose most
    probable token is the same.
    """
    divergence, difference, same = 0.0, 0.0, 0
    for row in rows:
        before, after = log_probabilities(model, row), log_probabilities(stored, row)
        divergence += float((before.exp() * (before - after)).sum())
        difference = max(difference, float((before - after).abs().max()))
        same += int((before.argmax(-1) == after.argmax(-1)).sum())
    positions = sum(map(len, rows))
    return {
        "rounding_divergence": divergence / positions,
        "rounding_max_difference": difference,
        "rounding_same": same / positions,
    }


@torch.no_grad()
def check(
    folder: Path, source: SourceModel, model: Transformer, texts: Sequence[str], seed: int
) -> dict[str, Any]:
    """Compare an exported folder with its model in float32; return what was compared.

    `texts` are real text. Raises GroundupError if something differs.
    """
    rows = probe_rows(source.tokenizer, texts, model.config.context, seed)
    expected, own = ([m(row[None])[0] for row in rows] for m in (model, load_model(folder)))
    found: dict[str, Any] = {
        "positions": sum(map(len, rows)),
        "tolerance": TOLERANCE,
        "own_max_difference": compare_logits(expected, own, "read back by groundup"),
    }
    version = package_version("transformers")
    if not version:
        note = "transformers is not installed: compared with groundup's own reading only"
        return found | {"transformers": None, "note": note}
    logits = _transformers_logits(folder, rows)
    found["transformers"] = version
    found["max_difference"] = compare_logits(expected, logits, f"read by transformers {version}")
    found["texts"] = len(PROBES) + len(texts)
    return found | compare_ids(folder, source, [*PROBES, *texts])


@torch.no_grad()
def _transformers_logits(folder: Path, rows: Sequence[Tensor]) -> list[Tensor]:
    from transformers import AutoModelForCausalLM

    _silence_transformers()
    options: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True}
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
    model, info = loaded
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    if wrong:
        names = f"every weight in its place: {', '.join(map(str, wrong))[:300]}"
        raise GroundupError(f"export: transformers does not find {names}")
    return [model.eval()(row[None]).logits[0] for row in rows]


def _silence_transformers() -> None:
    """Turn off the progress bars and warnings of transformers."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def compare_logits(ours: Sequence[Tensor], theirs: Sequence[Tensor], what: str) -> float:
    """Return the largest difference of two lists of logits.

    Raises GroundupError if it exceeds `TOLERANCE` of the largest logit, or is not a number.
    """
    largest = max(float(logits.abs().max()) for logits in ours)
    difference = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    # Written so that NaN fails.
    if not difference <= TOLERANCE * max(1.0, largest):
        more = f"{difference:.2g}, more than {TOLERANCE:g} of the largest ({largest:.2g})"
        raise GroundupError(f"export: logits {what} differ by {more}")
    return difference


def compare_ids(folder: Path, source: SourceModel, texts: Sequence[str]) -> dict[str, int]:
    """Compare token ids, round trips and chats in transformers with ours; return their numbers."""
    from transformers import AutoTokenizer

    _silence_transformers()
    theirs, tokenizer = AutoTokenizer.from_pretrained(folder), source.tokenizer
    count = 0
    for text in texts:
        # As text, "<|im_end|>" is text. Without the argument, transformers reads it as the special
        # token, for chats.
        ids = theirs(text, split_special_tokens=True)["input_ids"]
        if ids != tokenizer.encode(text) or theirs.decode(ids) != tokenizer.normalized(text):
            raise GroundupError(f"export: transformers tokenizes {text[:40]!r} differently")
        count += len(ids)
    end = theirs.eos_token_id
    if end != source.eos:
        raise GroundupError(f"export: transformers ends texts with id {end}, not {source.eos}")
    chats = CHATS if source.template else ()
    for turns in chats:
        ids = theirs.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        if ids != encode_prompt(tokenizer, turns):
            said = str(turns)[:80]
            raise GroundupError(f"export: transformers writes the conversation {said} differently")
    return {"ids": count, "chats": len(chats)}


@build_step("export/parity", version=1)
def join_parity(folder: Path, *, paths: Mapping[str, Path]) -> Facts:
    """Write `parity.json` of all exports, by their names in the view."""
    write_json(folder / PARITY, {name: read_json(path) for name, path in paths.items()})
    return {"exports": len(paths)}
