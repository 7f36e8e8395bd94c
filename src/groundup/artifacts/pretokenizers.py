"""How a tokenizer cuts text into words before it looks for tokens. Reads a `tokenizers` engine;
writes nothing.

llama.cpp has a few such splitters compiled in, under names. A tokenizer whose splitter is none of
them works everywhere but there.
"""

from __future__ import annotations

import json
import re
from typing import Any

import tokenizers

# The splitter of Qwen2 to Qwen3 (huggingface.co/Qwen): contractions, words with one leading
# character, single digits, punctuation with its line breaks, white space. llama.cpp has it compiled
# in under the name "qwen2".
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Llama 3's takes up to three digits together.
LLAMA3_PATTERN = QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

# Where these always cut, whatever stands further left or right: before a space that follows a
# visible character (no alternative of a pattern takes a space after one), and after a newline that
# precedes a letter, digit or underscore (whitespace that ends in a newline never joins what
# follows). So pieces cut here encode to the same ids.
AT_SPACES_AND_LINES = re.compile(r"(?<=[\w!-~])(?= )|(?<=\n)(?=\w)")
# GPT-2's leaves the last of several newlines to the word after them, so a cut there would show.
AT_SPACES = re.compile(r"(?<=[\w!-~])(?= )")

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
_GPT2 = _BYTES | {"use_regex": True}
# Parts of the splitter, and whether a word that is a token is taken whole before any merge.
_KNOWN: dict[str, tuple[list[dict[str, Any]], bool]] = {
    "qwen2": (
        [
            {
                "type": "Split",
                "pattern": {"Regex": QWEN2_PATTERN},
                "behavior": "Isolated",
                "invert": False,
            },
            _BYTES,
        ],
        False,
    ),
    "llama-bpe": (
        [
            {
                "type": "Split",
                "pattern": {"Regex": LLAMA3_PATTERN},
                "behavior": "Isolated",
                "invert": False,
            },
            _BYTES,
        ],
        True,
    ),
    "gpt-2": ([_GPT2], False),
    "smollm": ([{"type": "Digits", "individual_digits": True}, _GPT2], False),
}
LINES_KNOWN = ("qwen2", "llama-bpe")


def splitter(engine: tokenizers.Tokenizer) -> str:
    """Return the name under which llama.cpp has an engine's splitter, "" where it has none."""
    found = splitter_parts(engine), bool(getattr(engine.model, "ignore_merges", False))
    return next((name for name, known in _KNOWN.items() if found == known), "")


def splitter_parts(engine: tokenizers.Tokenizer) -> list[dict[str, Any]]:
    """Return the parts of an engine's splitter as tokenizer.json has them, without what only
    concerns offsets.
    """
    if engine.pre_tokenizer is None:
        return []
    table = json.loads(engine.pre_tokenizer.__getstate__())
    listed = table["pretokenizers"] if table["type"] == "Sequence" else [table]
    return [{key: value for key, value in part.items() if key != "trim_offsets"} for part in listed]


def safe_cuts(name: str) -> re.Pattern[str]:
    """Return where a splitter cuts for certain; of one without a name spaces are taken, as nearly
    all do.
    """
    return AT_SPACES_AND_LINES if name in LINES_KNOWN else AT_SPACES
