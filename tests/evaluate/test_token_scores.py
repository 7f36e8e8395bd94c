"""Scores token by token: they are the model's own, and their characters are the text."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.bpe import train_bpe
from tests.helpers.hostile import HOSTILE
from tests.helpers.trained import WORDS, tiny_model

from groundup.artifacts.tokenizer import Tokenizer
from groundup.errors import GroundupError
from groundup.evaluate.loglikelihood import next_tokens, score_text, token_texts
from groundup.evaluate.perplexity import model_scores, sliding_windows
from groundup.evaluate.validation_data import Stream
from groundup.model.transformer import Transformer, token_log_probabilities


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_bpe([" ".join(WORDS) * 20], 350))


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    return tiny_model(tokenizer.vocab_size)


@given(st.text(max_size=60))
def test_the_characters_of_all_tokens_are_the_text(tokenizer: Tokenizer, text: str) -> None:
    """Also where a character takes several tokens: it stands in the first, and is never torn."""
    sizes = tokenizer.token_bytes()[tokenizer.encode(text)]
    assert "".join(token_texts(text, sizes)) == text


def test_a_character_of_several_tokens_stands_in_the_first() -> None:
    assert token_texts("aé中b", np.array([2, 1, 2, 1, 1])) == [
        "aé",
        "",
        "中",
        "",
        "b",
    ]


def test_scores_are_those_of_the_model_in_one_pass(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    text = "the old cat sat"
    ids = tokenizer.encode(text)
    wanted = token_log_probabilities(model, torch.tensor([[tokenizer.end_id, *ids]]))[0]
    found = score_text(model, tokenizer, text)
    assert [score.id for score in found] == ids
    assert torch.allclose(
        torch.tensor([score.log_probability for score in found]), wanted, atol=1e-5
    )
    assert found[0].bits == pytest.approx(-float(wanted[0]) / math.log(2))


@pytest.mark.parametrize("repeats", [6, 100])
def test_a_text_beyond_the_context_is_scored_as_evaluation_scores_it(
    model: Transformer, tokenizer: Tokenizer, repeats: int
) -> None:
    """Its windows are read together, a batch at a time; each token sees what it would see alone."""
    text = " ".join(WORDS) * repeats
    ids = np.array(tokenizer.encode(text), np.uint16)
    assert len(ids) > 2 * model.config.context
    windows = sliding_windows([Stream("books", ids, tokenizer.end_id)], model.config.context // 2)
    wanted = np.concatenate(list(model_scores(model, windows)))
    found = [score.log_probability for score in score_text(model, tokenizer, text)]
    assert np.allclose(found, wanted, atol=1e-4)


def test_rank_and_alternatives_agree(model: Transformer, tokenizer: Tokenizer) -> None:
    """The token of rank 0 is the first alternative; the best alternative is never less probable
    than the token.
    """
    found = score_text(model, tokenizer, "the cat and a dog", alternatives=5)
    for score in found:
        values = [value for _, value in score.alternatives]
        assert values == sorted(values, reverse=True)
        assert (score.rank == 0) == (score.log_probability == values[0])
        if score.rank < 5:
            assert score.log_probability == pytest.approx(values[score.rank])
    most = score_text(model, tokenizer, "the", alternatives=10**6)
    assert math.fsum(math.exp(value) for _, value in most[0].alternatives) == pytest.approx(
        1, abs=1e-4
    )


def test_next_tokens_are_what_the_position_after_the_text_expects(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    """Also when the text is longer than the context, and when there is none."""
    for text in ("the cat sat", "", " ".join(WORDS) * 6):
        ids = [tokenizer.end_id, *tokenizer.encode(text)][-model.config.context :]
        with torch.no_grad():
            wanted = torch.log_softmax(model(torch.tensor([ids]))[0, -1], dim=0).topk(4)
        found = next_tokens(model, tokenizer, text, 4)
        assert [word for word, _ in found] == [
            tokenizer.decode([i]) for i in wanted.indices.tolist()
        ]
        assert [value for _, value in found] == pytest.approx(wanted.values.tolist(), abs=1e-5)


@pytest.mark.parametrize("text", ["", *HOSTILE])
def test_hostile_text_is_scored_like_any_other(
    model: Transformer, tokenizer: Tokenizer, text: str
) -> None:
    found = score_text(model, tokenizer, text)
    assert "".join(score.text for score in found) == text
    assert all(math.isfinite(score.log_probability) for score in found)


def test_half_a_surrogate_pair_is_one_line(model: Transformer, tokenizer: Tokenizer) -> None:
    with pytest.raises(GroundupError, match="surrogate"):
        score_text(model, tokenizer, "a\ud800b")
    with pytest.raises(GroundupError, match="surrogate"):
        next_tokens(model, tokenizer, "a\ud800b", 3)
