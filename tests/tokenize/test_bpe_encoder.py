"""The fast encoder gives the ids of `tokenizers`, for any text and each family of tokenizers."""

from __future__ import annotations

import itertools
import os
import random
import re
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.bpe import train_bpe
from tests.helpers.examples import examples
from tests.helpers.hf_models import ADDED, FAMILIES, SPECIALS, engine_of
from tests.helpers.hostile import HOSTILE
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Engine

from groundup.artifacts import tokenizer as module
from groundup.artifacts.splitter import Splitter
from groundup.artifacts.tokenizer import PROBES, Tokenizer, byte_pieces, pieces

ALPHABET = "ab Z'9.\n\r\t\u3000é中_-sStTreRvVmlLdDſK\u0301\u00a0\u2028½Ⅷ१😀\U00011de0"


def fast(engine: Engine, end: str = "<|endoftext|>") -> Tokenizer:
    """Return a tokenizer that has its encoder already."""
    tokenizer = Tokenizer(engine, end)
    tokenizer._encoder = tokenizer._fast_encoder()
    assert tokenizer._encoder
    return tokenizer


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    of_families = {
        family: fast(engine_of(family), SPECIALS[family][1 if family == "llama-bpe" else 0])
        for family in FAMILIES
    }
    ours = train_bpe(["The cat sat on the mat. It's 12 o'clock.\n" * 20, *HOSTILE], 400)
    return of_families | {"ours": fast(ours), "bytes": fast(train_bpe(["a"], 300))}


KINDS = (*FAMILIES, "ours", "bytes")


def check(tokenizer: Tokenizer, texts: list[str]) -> None:
    """Assert that whole arrays give the ids of the library."""
    ids, lengths = tokenizer.encode_batch(pa.array(texts, pa.string()))
    right, right_lengths = tokenizer._encode_texts(texts)
    assert lengths.tolist() == right_lengths.tolist()
    assert ids.tolist() == right.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_texts(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    names = [f"a{name} b" for name in (*ADDED, *SPECIALS.get(kind, ()))]
    check(tokenizers[kind], [*HOSTILE, *PROBES, *names, "".join(names)])


@pytest.mark.parametrize("kind", KINDS)
@examples(150)
@given(texts=st.lists(st.text(ALPHABET, max_size=60) | st.text(max_size=40), max_size=4))
def test_any_texts(tokenizers: dict[str, Tokenizer], kind: str, texts: list[str]) -> None:
    check(tokenizers[kind], texts)


@examples(60)
@given(text=st.text("abcdeé", min_size=80, max_size=400))
def test_long_words(tokenizers: dict[str, Tokenizer], text: str) -> None:
    """Protects: words are compared by all of their bytes, and a heap merges as a list does."""
    for tokenizer in tokenizers.values():
        check(tokenizer, [text, text[:90], f"{text[:90]}a", f"b{text[1:90]}", text[:20], text * 9])


def test_slices_and_many_small_texts(tokenizers: dict[str, Tokenizer]) -> None:
    texts = [f"text {n} é" for n in range(40_000)]
    ids, lengths = tokenizers["ours"].encode_batch(pa.array(["skipped", *texts, "too"])[1:-1])
    assert ids.tolist() == tokenizers["ours"]._encode_texts(texts)[0].tolist()
    assert len(lengths) == len(texts)


def test_more_words_than_the_cache_holds(tokenizers: dict[str, Tokenizer]) -> None:
    """Protects: a full cache is emptied, and memory does not follow the number of words."""
    rng = random.Random(1)
    for kind, size, count in (("ours", 5, 280_000), ("llama-bpe", 200, 23_000)):
        words = (f"{rng.getrandbits(5 * size):0{size}x}"[:size] for _ in range(count))
        text = re.sub("[0-9]", "z", " ".join(words))
        check(tokenizers[kind], [text[:900_000], text[900_000:]])
        assert tokenizers[kind]._encoder._cache.used[0] < count  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text", ["a" * 600_000, " " * 700_000 + "b", "é中" * 300_000, "\n" * 600_000]
)
def test_endless_words_are_cut_where_the_library_is_given_pieces(
    tokenizers: dict[str, Tokenizer], text: str
) -> None:
    for kind in ("ours", "gpt-2"):
        check(tokenizers[kind], [text, "a b"])


@examples(200)
@given(text=st.text("ab Z'9.\n\r\té中😀_-", max_size=120), limit=st.integers(4, 40))
def test_pieces_of_bytes_are_those_of_text(text: str, limit: int) -> None:
    for cuts in (module.AT_SPACES, module.AT_SPACES_AND_LINES):
        data = np.frombuffer(f"ab{text}".encode() + b"\xff", np.uint8)
        ends = [2, *byte_pieces(data, 2, len(data) - 1, limit, cuts), len(data) - 1]
        cut = [data[a:b].tobytes().decode() for a, b in itertools.pairwise(ends)]
        assert [piece for piece in cut if piece] == list(pieces(text, limit, cuts))


def test_text_that_a_normalizer_may_change_is_not_for_the_encoder() -> None:
    """Protects: what `_STABLE` calls stable is NFC, whatever stands around it."""
    points = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    changed = pc.match_substring_regex(pa.array(points), f"[^{module._STABLE}]")
    stable = pa.array(points).filter(pc.invert(changed)).to_pylist()
    assert len(stable) > 30_000
    seconds = {
        parts[1]
        for point in range(0x110000)
        if len(parts := unicodedata.decomposition(chr(point)).split()) == 2 and "<" not in parts[0]
    }
    for character in stable:
        assert unicodedata.normalize("NFC", character) == character
        assert unicodedata.combining(character) == 0
        assert f"{ord(character):04X}" not in seconds


def test_only_what_is_known_is_encoded_fast() -> None:
    """Protects: another splitter, a missing byte, and options of BPE go to the library."""
    engine = train_bpe(["a b c"], 300)
    assert Tokenizer(engine)._fast_encoder()
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\S+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    assert Tokenizer(engine)._fast_encoder() is False
    for change in ({"dropout": 0.1}, {"vocab": {"a": 0, "<|endoftext|>": 1}, "merges": []}):
        engine = train_bpe(["a b c"], 300)
        engine.model = models.BPE(**{"vocab": engine.get_vocab(), "merges": []} | change)
        assert Tokenizer(engine)._fast_encoder() is False


def test_other_ids_are_found_and_the_library_encodes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects: a library with another version of Unicode is followed, with one line."""
    monkeypatch.setattr(module, "FAST_BYTES", 0)
    whole = Splitter.__init__

    def older(self: Splitter, name: str) -> None:
        whole(self, name)
        self.classes[0x10D40:0x10D66] = 0

    monkeypatch.setattr(Splitter, "__init__", older)
    tokenizer = Tokenizer(train_bpe(["a b c"], 300))
    text = "a\U00010d4a1"
    ids, _ = tokenizer.encode_batch(pa.array([text]))
    assert tokenizer._encoder is False
    assert ids.tolist() == tokenizer.encode(text)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_real_text(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    folder = os.environ.get("GROUNDUP_TEST_DATA")
    if not folder:
        pytest.skip("GROUNDUP_TEST_DATA does not name the folder of real data")
    files = sorted((Path(folder) / "langid" / "lingua-sentences").iterdir())
    files += sorted((Path(folder) / "wikipedia" / "plain").rglob("*.txt"))[:5]
    check(
        tokenizers[kind], [path.read_bytes()[:30_000].decode("utf-8", "replace") for path in files]
    )
