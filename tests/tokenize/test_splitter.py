"""The kernels that cut words against the pretokenizers of `tokenizers`."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples
from tests.helpers.hf_models import FAMILIES, splitter_of
from tests.helpers.hostile import HOSTILE

from groundup.artifacts.arrays import text_buffers
from groundup.artifacts.splitter import NAMES, Splitter
from groundup.artifacts.tokenizer import PROBES

SPLITTERS = {name: Splitter(name) for name in NAMES}
LIBRARY = {name: splitter_of(name) for name in FAMILIES}
# One or two of each class of code points, and everything that a pattern names.
ALPHABET = "ab Z'9.\n\r\t\u3000é中_-sStTreRvVmlLdDſK\u0301\u00a0\u2028½Ⅷ१😀\U0001d7d8\U00011de0"
SURROGATES = range(0xD800, 0xE000)


def words(family: str, texts: list[str]) -> list[list[str]]:
    """Return the words of each text by our kernel."""
    offsets, data = text_buffers(pa.array(texts, pa.string()))
    ends, first = SPLITTERS[family].words((offsets, data))
    starts = np.concatenate([offsets[:1], ends[:-1]]) if len(ends) else ends
    cut = [data[a:b].tobytes().decode() for a, b in zip(starts, ends, strict=True)]
    return [cut[a:b] for a, b in itertools.pairwise(first)]


def reference(family: str, text: str) -> list[str]:
    """Return the words of a text by the library."""
    spans = (span for _, span in LIBRARY[family].pre_tokenize_str(text))
    return [text[begin:end] for begin, end in spans]


def check(family: str, texts: list[str]) -> None:
    for text, cut in zip(texts, words(family, texts), strict=True):
        assert cut == reference(family, text), (family, text)


@pytest.mark.parametrize("family", FAMILIES)
def test_hostile_texts_are_cut_alike(family: str) -> None:
    check(family, [*HOSTILE, *PROBES])


@pytest.mark.parametrize("family", FAMILIES)
@examples(300)
@given(texts=st.lists(st.text(ALPHABET, max_size=40) | st.text(max_size=40), max_size=4))
def test_any_texts_are_cut_alike(family: str, texts: list[str]) -> None:
    check(family, texts)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_code_point_has_the_class_of_the_library(family: str) -> None:
    """Protects: splitter.toml is the Unicode of the installed library."""
    points = [chr(point) for point in range(0x110000) if point not in SURROGATES]
    # Behind a letter and before a digit, each class is cut in another way.
    texts = [
        "".join(f"a{point}1 " for point in points[start : start + 10_000])
        for start in range(0, len(points), 10_000)
    ]
    check(family, texts)


def test_a_slice_of_an_array_is_cut_in_its_place() -> None:
    offsets, data = text_buffers(pa.array(["skipped", "a b", "", "c"])[1:])
    ends, first = SPLITTERS["qwen2"].words((offsets, data))
    assert (ends.tolist(), first.tolist()) == ([8, 10, 11], [0, 2, 2, 3])


def test_damaged_utf8_is_cut_within_its_text() -> None:
    """A sequence that a text ends in never takes bytes of the next text."""
    for tail in (b"\xc3", b"\xe4\xb8", b"\xf0\x9f\x98", b"\xff"):
        data = np.frombuffer(b"ab " + tail + b"\x80\x80", np.uint8)
        stop = len(data) - 2
        for splitter in SPLITTERS.values():
            ends, _ = splitter.words((np.array([0, stop], np.int32), data))
            assert ends[-1] == stop


@pytest.mark.parametrize("family", FAMILIES)
def test_real_text_in_many_languages_is_cut_alike(family: str) -> None:
    folder = os.environ.get("GROUNDUP_TEST_DATA")
    if not folder:
        pytest.skip("GROUNDUP_TEST_DATA does not name the folder of real data")
    files = sorted((Path(folder) / "langid" / "lingua-sentences").iterdir())
    files += sorted((Path(folder) / "conversations" / "ubuntu_irc").iterdir())[:20]
    check(family, [path.read_bytes()[:20_000].decode("utf-8", "replace") for path in files])
