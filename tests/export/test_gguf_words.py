"""llama.cpp's tokenizer and ours give the same ids: on any text, and on every character that
Unicode has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples
from tests.helpers.exporting import (
    FACTS,
    needs_llama,
    random_model,
    write_source_model,
    write_tokenizer,
)
from tests.helpers.hostile import HOSTILE
from tokenizers import Regex, decoders, models, pre_tokenizers

from groundup.artifacts.chat import encode_prompt
from groundup.artifacts.tokenizer import FILE, QWEN2_PATTERN, SPECIALS, Tokenizer, write_config
from groundup.export import gguf as gguf_file
from groundup.export.llamacpp import Llama, opened
from groundup.export.parity import UNLIKE, compared_text, encode_with_specials
from groundup.export.source_model import SourceModel

pytestmark = needs_llama


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SourceModel, Llama]]:
    """A model with a tokenizer as ours are, loaded in llama.cpp."""
    folder = tmp_path_factory.mktemp("words")
    tokenizer = write_tokenizer(folder / "tokenizer")
    source = write_source_model(
        folder / "model", tokenizer, random_model(Tokenizer.load(tokenizer).vocab_size)
    )
    gguf_file.write_file(folder / "x.gguf", source, "f32", FACTS)
    with opened(folder / "x.gguf", 64) as llama:
        yield source, llama


def same(loaded: tuple[SourceModel, Llama], text: str) -> None:
    source, llama = loaded
    ids = source.tokenizer.encode(text)
    assert llama.ids(text) == ids
    assert llama.ids(text, special=True) == encode_with_specials(source.tokenizer, text)
    assert llama.ask("/detokenize", tokens=ids)["content"] == text


# Characters that decide where a splitter cuts, beside any other.
PIECES = st.sampled_from(
    [
        "'",
        "'S",
        "'re",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "1",
        "٣",
        "a",
        "É",
        "中",
        "👩\u200d👧",
        "\u0301",
        "!?",
        *SPECIALS,
        "\0",
        "\u3000",
    ]
)


@examples(150)
@given(text=st.lists(PIECES | st.text(max_size=8), max_size=12).map("".join))
def test_any_text(loaded: tuple[SourceModel, Llama], text: str) -> None:
    same(loaded, compared_text(text))


def test_hostile_texts(loaded: tuple[SourceModel, Llama]) -> None:
    for text in HOSTILE:
        same(loaded, compared_text(text))


def test_a_long_run_of_one_character(loaded: tuple[SourceModel, Llama]) -> None:
    for character in (" ", "a", "\n", "é", "!"):
        same(loaded, character * 20_000)


@examples(30)
@given(
    contents=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=3
    )
)
def test_chatml_has_our_ids(loaded: tuple[SourceModel, Llama], contents: list[str]) -> None:
    """Any talk of a user written in the form of the template, as `groundup.artifacts.chat` encodes
    it.
    """
    source, llama = loaded
    turns = [
        {"role": "user", "content": compared_text(text)}
        for text in contents
        if not any(token in text for token in SPECIALS)
    ]
    written = (
        "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns)
        + "<|im_start|>assistant\n"
    )
    assert llama.ids(written, special=True) == encode_prompt(source.tokenizer, turns)


def test_what_is_left_out_is_left_out_whole() -> None:
    """Taking one character out can bring an apostrophe before the next."""
    assert compared_text("'ſ 'ſſ ſ a\u1c89'\u1c89ſ") == "' ' ſ a'"
    assert not UNLIKE.search("ſ it'S ẞ 中 ٣")


# In a text of digits no token crosses from one to the next, so contexts between them do not meet.
CONTEXTS = (
    "x{c}",
    "{c}x",
    " {c}",
    "{c}\n",
    "!{c}",
    "{c}!",
    "{c}{c}",
    "'{c}x",
    "  {c}",
    "{c} x",
    "{c} {c}",
    "\n{c}",
)


def telltale(folder: Path) -> Path:
    """Write a tokenizer with a merge across every border between a character and its neighbor, so
    that ids show the cuts.
    """
    alphabet = dict(zip(range(256), byte_names(), strict=True))
    vocab = {token: number for number, token in enumerate([*SPECIALS, *alphabet.values()])}
    high = [alphabet[byte] for byte in range(128, 256)]
    near = [alphabet[ord(character)] for character in "x !'\n"]
    pairs = [(a, b) for a in near for b in high] + [(b, a) for a in near for b in high]
    pairs += [
        (alphabet[last], alphabet[first])
        for last in range(0x80, 0xC0)
        for first in range(0xC2, 0xF5)
    ]
    for a, b in pairs:
        vocab[a + b] = len(vocab)
    engine = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    engine.add_special_tokens(list(SPECIALS))
    split = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    engine.decoder = decoders.ByteLevel()
    folder.mkdir()
    engine.save(str(folder / FILE))
    write_config(folder, 64)
    return folder


def byte_names() -> list[str]:
    """Return the character that stands for each byte in a byte-level vocabulary (GPT-2, 2019)."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def differing(loaded: tuple[SourceModel, Llama], characters: list[str]) -> list[str]:
    """Return the characters that llama.cpp splits differently, by halving the texts that differ."""
    source, llama = loaded
    text = "1" + "1".join(context.format(c=c) for c in characters for context in CONTEXTS) + "1"
    if llama.ids(text) == source.tokenizer.encode(text):
        return []
    if len(characters) == 1:
        return characters
    half = len(characters) // 2
    return differing(loaded, characters[:half]) + differing(loaded, characters[half:])


def unlike_characters() -> list[str]:
    return [chr(point) for point in range(0x80, 0x110000) if UNLIKE.search(f"'{chr(point)}")]


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SourceModel, Llama]]:
    folder = tmp_path_factory.mktemp("telltale")
    tokenizer = telltale(folder / "tokenizer")
    assert json.loads((tokenizer / FILE).read_text())["model"]["merges"]
    sizes = {"layers": 1, "width": 32, "heads": 1, "kv_heads": 1, "feed_forward": 32}
    source = write_source_model(
        folder / "model", tokenizer, random_model(Tokenizer.load(tokenizer).vocab_size, **sizes)
    )
    gguf_file.write_file(folder / "x.gguf", source, "f32", FACTS)
    with opened(folder / "x.gguf", 64) as llama:
        yield source, llama


def test_a_sample_of_all_characters(telling: tuple[SourceModel, Llama]) -> None:
    """Those that we say are split alike are: every 61st character, and the neighbors of each that
    is not.
    """
    unlike = set(unlike_characters())
    assert len(unlike) == 4_383
    around = {chr(ord(c) + step) for c in unlike for step in (-1, 1)}
    points = {chr(point) for point in range(0x80, 0x110000, 61) if not 0xD800 <= point < 0xE000}
    chosen = sorted((around | points | {chr(point) for point in range(0x80, 0x600)}) - unlike)
    assert [
        hex(ord(c))
        for start in range(0, len(chosen), 500)
        for c in differing(telling, chosen[start : start + 500])
    ] == []


@pytest.mark.torture
def test_all_characters(telling: tuple[SourceModel, Llama]) -> None:
    """The list of characters that are split differently is exact for the wheel that CI installs;
    two minutes.
    """
    everything = [chr(point) for point in range(0x80, 0x110000) if not 0xD800 <= point < 0xE000]
    found = [
        c
        for start in range(0, len(everything), 2_000)
        for c in differing(telling, everything[start : start + 2_000])
    ]
    assert {hex(ord(c)) for c in found} == {hex(ord(c)) for c in unlike_characters()}
