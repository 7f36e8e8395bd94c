"""The tokenizer: exact round trips, no specials from text, ids that do not depend on how a text is
cut.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.bpe import train_bpe
from tests.helpers.examples import examples
from tests.helpers.hostile import HOSTILE
from tokenizers import pre_tokenizers

from groundup.artifacts import tokenizer as module
from groundup.artifacts.tokenizer import (
    AT_SPACES_AND_LINES,
    END,
    QWEN2_PATTERN,
    SPECIALS,
    Tokenizer,
    pieces,
    write_config,
)
from groundup.errors import GroundupError
from groundup.tokenize.train_bpe import resolve_vocab_size

TEXT = [
    "The cat sat on the mat. " * 20,
    "def f(x):\n    return x + 1\n" * 20,
    "Über die Brücke gehen wir, 中文 中文。\n" * 20,
]
SHORT = 24


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_bpe(TEXT, 400))


@pytest.mark.parametrize("text", HOSTILE)
def test_round_trip_of_hostile_text(tokenizer: Tokenizer, text: str) -> None:
    """Nothing is normalized, lost or taken for a special token."""
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not {tokenizer.end_id, *tokenizer.chat_ids} & set(ids)


@given(st.text(max_size=200))
def test_round_trip_of_any_text(tokenizer: Tokenizer, text: str) -> None:
    """Every valid string survives, whatever the vocabulary was trained on, and its bytes can be
    counted by token.
    """
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes()[ids].sum() == len(text.encode())


@examples(300)
@given(st.text("ab Z'9.\n\r\t\u3000é中\u0301_-", max_size=120), st.integers(8, 40))
def test_pieces_encode_to_the_same_ids(tokenizer: Tokenizer, text: str, limit: int) -> None:
    """A text that is cut gives the ids of the whole, as long as no piece was cut at the limit for
    want of a safe place.
    """
    cut = list(pieces(text, limit))
    assert "".join(cut) == text
    assert all(len(piece) <= limit for piece in cut)
    safe = {m.start() for m in AT_SPACES_AND_LINES.finditer(text)}
    if all(sum(map(len, cut[:n])) in safe for n in range(1, len(cut))):
        assert [i for piece in cut for i in tokenizer.encode(piece)] == tokenizer.encode(text)


def test_batches_are_flat_and_do_not_depend_on_grouping(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow arrays and lists, small groups and large ones give the same ids, text by text."""
    plain = [tokenizer.encode(text) for text in HOSTILE]
    monkeypatch.setattr(module, "BATCH_CHARACTERS", 10)
    flat, lengths = tokenizer.encode_batch(pa.array(HOSTILE))
    assert [part.tolist() for part in np.split(flat, np.cumsum(lengths)[:-1])] == plain


def test_long_runs_do_not_hang(tokenizer: Tokenizer) -> None:
    """Without the cut, the splitter panics at ten million spaces (its limit of retries)."""
    for text in (" " * 10_000_000, "\n" * 1_000_000, "é" * 1_000_000):
        ids, _ = tokenizer.encode_batch([text])
        assert tokenizer.token_bytes()[ids].sum() == len(text.encode())


def test_small_text_gives_a_small_vocabulary(tokenizer: Tokenizer) -> None:
    """Text too small for the vocabulary size is no error; specials and all bytes come first."""
    small = Tokenizer(train_bpe(["ab ab"], 50_000))
    assert 256 + len(SPECIALS) <= small.vocab_size < 300
    assert (small.end_id, *small.chat_ids) == (0, 1, 2)
    assert small.decode(small.encode("wholly other: Ω")) == "wholly other: Ω"


def test_ids_of_a_smaller_vocabulary_are_a_prefix() -> None:
    """Merges are learned in order, so a smaller vocabulary differs only by its end."""
    small, large = (json.loads(train_bpe(TEXT, size).to_str())["model"] for size in (300, 350))
    assert large["merges"][: len(small["merges"])] == small["merges"]
    assert small["vocab"].items() <= large["vocab"].items()


def test_training_does_not_depend_on_threads(tokenizer: Tokenizer) -> None:
    """The same text gives the same tokenizer.json with one thread and with many."""
    code = f"from tests.helpers.bpe import train_bpe; print(train_bpe({TEXT!r}, 400).to_str())"
    outputs = set()
    for threads in ("1", "4"):
        environment = os.environ | {
            "RAYON_NUM_THREADS": threads,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        outputs.add(
            subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, check=True
            ).stdout
        )
    assert len(outputs) == 1


@examples(60)
@given(st.lists(st.text("abcde '\n1中", max_size=40) | st.text(max_size=40), max_size=12))
def test_the_library_trains_the_same(texts: list[str]) -> None:
    """The same tokenizer.json, byte for byte."""
    assert train_bpe(texts, 320).to_str() == library_bpe(texts, 320).to_str()


def test_the_library_trains_the_same_on_real_text() -> None:
    """Text of all kinds, and a vocabulary for which pairs run out."""
    texts = [
        *HOSTILE[:-2],
        *TEXT,
        *(path.read_text() for path in Path(__file__).parent.glob("*.py")),
    ]
    for size in (400, 5_000, 100_000):
        assert train_bpe(texts, size).to_str() == library_bpe(texts, size).to_str()


def library_bpe(texts: list[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Return what `tokenizers` trains."""
    engine = tokenizers.Tokenizer(tokenizers.models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(QWEN2_PATTERN), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    engine.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    engine.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    engine.train_from_iterator(texts, trainer)
    return engine


def test_runs_that_are_no_words_are_not_trained_on() -> None:
    """One endless word would make each merge walk through it."""
    texts = ["one " + "x" * 2000 + " two"] * 2
    assert "xx" not in train_bpe(texts, 400).get_vocab()
    assert {"one", "Ġtwo"} <= set(train_bpe(texts, 400).get_vocab())
    assert len(train_bpe(["中" * 900], 400).encode("中").ids) == 1


def test_auto_vocabulary_grows_with_the_text() -> None:
    """The sizes are what the starter and the reference job want; a number in the recipe is taken as
    it is.
    """
    sizes = [
        resolve_vocab_size("auto", size)
        for size in (100_000, 15_000_000, 500_000_000, 45_000_000_000)
    ]
    assert sizes == [1_024, 4_096, 16_384, 49_152]
    assert resolve_vocab_size(50_000, 10) == 50_000


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    """A missing or foreign tokenizer.json names itself."""
    for text in (None, "{", json.dumps({"version": "1.0"})):
        if text is not None:
            (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(GroundupError, match=r"tokenizer\.json: cannot be read as a tokenizer"):
            Tokenizer.load(tmp_path)


def test_transformers_gives_the_same_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A folder of a Qwen3 model with our files keeps our splitter in transformers, which would
    build Qwen's own otherwise.
    """
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    tokenizer._engine.save(str(tmp_path / "tokenizer.json"))
    write_config(tmp_path, 256)
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]})
    )
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in HOSTILE:
        ids = theirs(text, split_special_tokens=True)["input_ids"]
        assert ids == tokenizer.encode(text)
        assert theirs.decode(ids) == text
    assert theirs.eos_token == END and theirs.eos_token_id == tokenizer.end_id
    assert theirs("a<|im_end|>")["input_ids"][-1] == tokenizer.chat_ids[1]


def test_first_ids_are_the_tokenizer_trained_so_far(tokenizer: Tokenizer) -> None:
    """One trained tokenizer tells what any smaller vocabulary would have given."""
    trained = Tokenizer(train_bpe(TEXT, 300))
    cut = tokenizer.first(300)
    assert cut.vocab_size == 300
    for text in [*HOSTILE, *TEXT]:
        assert cut.encode(text) == trained.encode(text)
        assert cut.decode(cut.encode(text)) == text
    assert tokenizer.first(tokenizer.vocab_size).encode(TEXT[0]) == tokenizer.encode(TEXT[0])
    for size in (256 + len(SPECIALS) - 1, tokenizer.vocab_size + 1):
        with pytest.raises(ValueError, match="must lie between"):
            tokenizer.first(size)
