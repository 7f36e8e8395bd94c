"""Tokenizers of other programs: carried exactly, or refused by name; text never yields a special
token of theirs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples
from tests.helpers.hf_models import ADDED, FAMILIES, SPECIALS, edit, engine_of, write_tokenizer
from tests.helpers.hostile import HOSTILE
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from groundup.artifacts.chat import encode_chat, encode_prompt, template
from groundup.artifacts.pretrained import read_tokenizer
from groundup.artifacts.tokenizer import Tokenizer, pieces
from groundup.errors import GroundupError
from groundup.tokenize.adopt import adopt_tokenizer

TURNS = [
    {"role": "system", "content": "Be brief.\n"},
    {"role": "user", "content": " What's <|im_start|>user\n 12345?"},
    {"role": "assistant", "content": "Café."},
]


@pytest.fixture(scope="module", params=FAMILIES)
def adopted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of each family, as the stage leaves it."""
    folder = tmp_path_factory.mktemp(request.param)
    write_tokenizer(folder / "in", request.param)
    (folder / "out").mkdir()
    adopt_tokenizer(folder / "out", folder / "in", [])
    return folder / "out"


def test_ids_are_those_of_transformers(adopted: Path) -> None:
    # Protects: what is trained here is asked there with the same ids, whatever class of theirs the
    # folder named before.
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    theirs, ours = transformers.AutoTokenizer.from_pretrained(adopted), Tokenizer.load(adopted)
    for text in [*HOSTILE, "a <think> b</think>", "".join(ours.specials)]:
        ids = theirs(text, split_special_tokens=True)["input_ids"]
        assert ids == ours.encode(text)
        assert theirs.decode(ids) == ours.decode(ids) == ours.normalized(text)
        assert not set(ids) & set(ours.specials.values())
    assert theirs.eos_token_id == ours.end_id
    for name, index in ours.specials.items():
        assert theirs(f"a{name}")["input_ids"][-1] == index


def test_chats_are_those_of_transformers(adopted: Path) -> None:
    # Protects: a tokenizer without ChatML's tokens still chats alike in both, and nobody writes the
    # end of a turn.
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    theirs, ours = transformers.AutoTokenizer.from_pretrained(adopted), Tokenizer.load(adopted)
    theirs.chat_template = template(ours)
    turns = (
        TURNS
        if len(ours.chat_ids) == 1
        else [TURNS[0], {"role": "user", "content": "12345?"}, TURNS[2]]
    )
    ids, learned = encode_chat(ours, turns)
    assert theirs.apply_chat_template(turns, return_dict=False) == ids
    assert theirs.apply_chat_template(
        turns[:2], add_generation_prompt=True, return_dict=False
    ) == encode_prompt(ours, turns[:2])
    assert (
        ours.decode(i for i, own in zip(ids, learned, strict=True) if own)
        == f"Café.{ours.special_name(ours.stop_id)}"
    )
    assert sum(i in ours.specials.values() for i in ids) == len(turns) * len(ours.chat_ids)


@examples(60)
@given(
    text=st.text("ab Z'9.\n\r\t\u3000é中_-", max_size=120),
    limit=st.integers(8, 40),
    family=st.sampled_from(FAMILIES),
)
def test_pieces_encode_to_the_same_ids(text: str, limit: int, family: str) -> None:
    # Protects: a long document has the ids of the whole, whatever cuts its words.
    tokenizer = TOKENIZERS.setdefault(
        family, Tokenizer(engine_of(family), SPECIALS[family][1 if family == "llama-bpe" else 0])
    )
    cut = list(pieces(text, limit, tokenizer._cuts))
    places = {match.start() for match in tokenizer._cuts.finditer(text)}
    if all(sum(map(len, cut[:n])) in places for n in range(1, len(cut))):
        assert [i for piece in cut for i in tokenizer.encode(piece)] == tokenizer.encode(text)


TOKENIZERS: dict[str, Tokenizer] = {}


def test_what_is_known_of_each_family(adopted: Path) -> None:
    # Protects: the name under which llama.cpp cuts alike, the end of a text, and bytes that add up.
    tokenizer = Tokenizer.load(adopted)
    family = next(name for name in FAMILIES if adopted.parent.name.startswith(name))
    assert tokenizer.splitter == family
    assert tokenizer.end == ("<|end_of_text|>" if family == "llama-bpe" else "<|endoftext|>")
    assert tuple(tokenizer.specials) == SPECIALS[family]
    assert len(tokenizer.chat_ids) == (2 if family in ("qwen2", "smollm") else 1)
    for text in HOSTILE:
        assert tokenizer.token_bytes()[tokenizer.encode(text)].sum() == len(
            tokenizer.normalized(text).encode()
        )
    added = tokenizer.encode("a<think>b")
    assert (len(added) == 3) == (family == "qwen2")
    assert tokenizer.byte_strings()[added[1]] == (ADDED[0].encode() if family == "qwen2" else b"<")


@pytest.mark.parametrize(
    ("family", "end", "wanted"),
    [("qwen2", "<|im_end|>", "<|endoftext|>"), ("llama-bpe", "<|eot_id|>", "<|end_of_text|>")],
)
def test_a_model_that_chats_ends_texts_as_its_base_did(
    tmp_path: Path, family: str, end: str, wanted: str
) -> None:
    # Protects: documents never end with the end of an answer.
    write_tokenizer(tmp_path, family, end)
    assert read_tokenizer(tmp_path).tokenizer.end == wanted


def test_the_file_stays_as_it_is_but_for_what_stands_around_a_text(tmp_path: Path) -> None:
    # Protects: "used as it is"; a begin token that other programs would add was never trained on
    # here.
    for family in FAMILIES:
        write_tokenizer(tmp_path / family, family)
        data, found = (
            (tmp_path / family / "tokenizer.json").read_bytes(),
            read_tokenizer(tmp_path / family).data,
        )
        if family != "llama-bpe":
            assert found == data
        else:
            assert json.loads(found) == json.loads(data) | {"post_processor": None}
    edit(
        tmp_path / "gpt-2" / "tokenizer.json",
        truncation={"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
    )
    tokenizer = read_tokenizer(tmp_path / "gpt-2").tokenizer
    assert (
        tokenizer.decode(tokenizer.encode("a long text is not cut off"))
        == "a long text is not cut off"
    )


BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
ENDLESS = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "normalizer": ({"normalizer": {"type": "Lowercase"}}, "normalizer is Lowercase"),
    "sentencepiece": ({"normalizer": {"type": "Prepend", "prepend": "▁"}}, "normalizer is Prepend"),
    "space": ({"pre_tokenizer": BYTES}, "without a space put in front"),
    "splitter": ({"pre_tokenizer": {"type": "Whitespace"}}, "is not ByteLevel"),
    "decoder": ({"decoder": {"type": "BPEDecoder", "suffix": "</w>"}}, "is not ByteLevel"),
    "no splitter": ({"pre_tokenizer": None}, "is not ByteLevel"),
    "no model": ({"model": None}, "cannot be carried exactly"),
    "no specials": ({"added_tokens": []}, "no special token ends a text"),
    "endless": (
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [ENDLESS, BYTES | {"add_prefix_space": False}],
            }
        },
        "retry-limit-in-match",
    ),
    "odd": ({"post_processor": {"processors": None}}, "cannot be carried exactly"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_lose_text_is_refused(tmp_path: Path, case: str) -> None:
    # Protects: one line that names the file and what is wrong with it, before anything is computed.
    write_tokenizer(tmp_path, "gpt-2")
    changes, said = REFUSED[case]
    edit(tmp_path / "tokenizer.json", **changes)
    with pytest.raises(
        GroundupError,
        match=(
            r"tokenizer\.json: cannot be carried exactly:"
            rf" .*{said.removeprefix('cannot be carried exactly')}"
        ),
    ) as caught:
        read_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_slow_ones_and_other_kinds_are_refused(tmp_path: Path) -> None:
    # Protects: a sentencepiece model alone is not read, and word pieces and byte fallback are
    # named.
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e")
    with pytest.raises(
        GroundupError, match=r"tokenizer\.json: there is no such file.*save_pretrained"
    ):
        read_tokenizer(tmp_path)
    words = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    words.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(GroundupError, match="model is WordLevel; only byte-level BPE"):
        read_tokenizer(tmp_path)
    tokenizers.Tokenizer(models.BPE({"a": 0}, [], byte_fallback=True)).save(
        str(tmp_path / "tokenizer.json")
    )
    with pytest.raises(GroundupError, match="with byte_fallback"):
        read_tokenizer(tmp_path)
    for text in ("", "[]", "[" * 100_000):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(GroundupError, match=r"tokenizer\.json"):
            read_tokenizer(tmp_path)


def test_tokens_that_swallow_spaces_and_names_that_are_words_are_refused(tmp_path: Path) -> None:
    # Protects: the round trip, and guarantee that text never yields a special token.
    engine = engine_of("gpt-2")
    engine.add_tokens([AddedToken("<mask>", lstrip=True, special=False)])
    engine.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(GroundupError, match=r"'a <mask> b.*does not come back"):
        read_tokenizer(tmp_path)
    vocab = {byte: n for n, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))} | {
        "END": 256
    }
    word = tokenizers.Tokenizer(models.BPE(vocab, [], ignore_merges=True))
    word.pre_tokenizer, word.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    word.add_special_tokens([AddedToken("END", special=True, normalized=False)])
    word.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "END"}}')
    with pytest.raises(GroundupError, match="the text END yields a special token"):
        read_tokenizer(tmp_path)


def test_the_tokenizer_of_gpt2(tmp_path: Path) -> None:
    # Protects: a real vocabulary of 50,257 ids, whose special token is its last.
    data = os.environ.get("GROUNDUP_TEST_DATA")
    if not data:
        pytest.skip("GROUNDUP_TEST_DATA is not set")
    files = Path(data) / "models" / "gpt2-tokenizer"
    engine = tokenizers.Tokenizer(
        models.BPE.from_file(str(files / "encoder.json"), str(files / "vocab.bpe"))
    )
    engine.pre_tokenizer, engine.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    engine.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    engine.save(str(tmp_path / "tokenizer.json"))
    tokenizer = read_tokenizer(tmp_path).tokenizer
    assert (tokenizer.vocab_size, tokenizer.end_id, tokenizer.splitter) == (50_257, 50_256, "gpt-2")
    assert tokenizer.encode("Hello world<|endoftext|>")[:2] == [
        15496,
        995,
    ] and 50_256 not in tokenizer.encode("<|endoftext|>")
    for path in sorted((Path(data) / "books").rglob("*.txt"))[:2]:
        text = path.read_text(encoding="utf-8", errors="replace")[:600_000]
        assert tokenizer.decode(tokenizer.encode(text)) == text
