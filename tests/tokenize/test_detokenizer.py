"""Text of ids that come one by one: the same as decoding them all, whole characters only."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.bpe import train_bpe
from tests.helpers.examples import examples
from tests.helpers.hostile import HOSTILE

from groundup.artifacts.tokenizer import SPECIALS, Detokenizer, Tokenizer

# Real prose, and text whose characters take several bytes.
TEXT = [(Path(__file__).parents[2] / "LICENSE").read_text(encoding="utf-8"), *HOSTILE]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_bpe(TEXT, 900))


def pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer.byte_strings())
    return [*map(detokenizer.add, ids), detokenizer.end()]


def test_bytes_of_every_id(tokenizer: Tokenizer) -> None:
    """An id's bytes are those that it decodes to, and as many as are counted for it; specials are
    as written.
    """
    strings, counted = tokenizer.byte_strings(), tokenizer.token_bytes()
    assert [strings[token].decode() for token in (tokenizer.end_id, *tokenizer.chat_ids)] == list(
        SPECIALS
    )
    assert {string for string in strings if len(string) == 1} == {
        bytes([byte]) for byte in range(256)
    }
    for token, string in enumerate(strings):
        assert string.decode("utf-8", "replace") == tokenizer.decode([token])
        assert len(string) == counted[token] or string.decode() in SPECIALS


def test_tokens_that_were_added_by_name(tokenizer: Tokenizer) -> None:
    """A vocabulary that comes from elsewhere may hold names that are no bytes; they are text as
    they stand.
    """
    engine = tokenizers.Tokenizer.from_str(tokenizer._engine.to_str())
    engine.add_tokens(["two words", "中文", "Ġword"])
    engine.add_special_tokens(["<| pad |>"])
    other = Tokenizer(engine)
    for token in range(tokenizer.vocab_size, other.vocab_size):
        assert other.byte_strings()[token].decode() == other.decode([token])


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_comes_in_whole_characters(tokenizer: Tokenizer, text: str) -> None:
    """No piece of a valid text holds a broken character, and together they are the text."""
    found = pieces(tokenizer, tokenizer.encode(text))
    assert "".join(found) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in found)


@examples(400)
@given(st.data())
def test_any_ids_give_what_decoding_them_gives(tokenizer: Tokenizer, data: st.DataObject) -> None:
    """Bytes that are no UTF-8 become as many U+FFFD as `decode` makes of them, wherever the ids cut
    them.
    """
    # Ids 3 to 258 are single bytes: among them broken characters are the rule.
    token = st.integers(3, 258) | st.integers(0, tokenizer.vocab_size - 1)
    ids = data.draw(st.lists(token, max_size=40))
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


@examples(300)
@given(st.binary(max_size=30))
def test_any_bytes_give_what_decoding_them_gives(tokenizer: Tokenizer, data: bytes) -> None:
    """The same for bytes near UTF-8's borders, one id each; what is settled never waits."""
    ids = [tokenizer.byte_strings().index(bytes([byte])) for byte in data]
    found = pieces(tokenizer, ids)
    assert "".join(found) == tokenizer.decode(ids)
    whole = data.decode("utf-8", "ignore").encode() == data
    assert not whole or found[-1] == ""
