"""Turns of any speakers become user and assistant, or are refused with the reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.tune.data import Unusable, to_chat

Pairs = list[tuple[str, str]]


def turns(*said: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in said]


def chat(*said: tuple[str, str]) -> Pairs:
    return [(turn["role"], turn["content"]) for turn in to_chat(turns(*said))]


def test_answers_are_stripped_and_empty_turns_gone() -> None:
    assert chat(("user", " Hi \n"), ("user", ""), ("assistant", "\n Hello. ")) == [
        ("user", "Hi"),
        ("assistant", "Hello."),
    ]


def test_consecutive_turns_of_one_speaker_are_one() -> None:
    said = [("user", "Hi."), ("user", "Who are you?"), ("assistant", "A"), ("assistant", "B")]
    assert chat(*said) == [("user", "Hi.\nWho are you?"), ("assistant", "A\nB")]


def test_what_nobody_answers_goes() -> None:
    assert chat(("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")) == [
        ("user", "Hi"),
        ("assistant", "Hello"),
    ]


def test_the_last_speaker_of_a_dialogue_answers() -> None:
    said = [("ann", "A1"), ("bob", "B1"), ("ann", "A2"), ("carl", "C1"), ("carl", "C2")]
    assert chat(*said) == [
        ("user", "A1"),
        ("assistant", "B1"),
        ("user", "A2"),
        ("assistant", "C1\nC2"),
    ]
    # An odd number: the first has nobody to answer.
    assert chat(*said[:3]) == [("user", "B1"), ("assistant", "A2")]


def test_turns_without_a_name_are_not_one_speaker() -> None:
    assert chat(("speaker", "A"), ("speaker", "B")) == [("user", "A"), ("assistant", "B")]


def test_a_label_is_an_answer() -> None:
    assert chat(("user", "good film"), ("label", "positive")) == [
        ("user", "good film"),
        ("assistant", "positive"),
    ]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([], "empty"),
        ([("user", " "), ("assistant", "\n")], "empty"),
        ([("user", "Hi")], "no-answer"),
        ([("system", "Be kind.")], "no-answer"),
        ([("user", "Hi"), ("assistant", "  ")], "no-answer"),
        ([("a member", "I rise to speak.")], "no-answer"),
        ([("assistant", "Hello"), ("user", "Hi"), ("assistant", "?")], "roles-out-of-order"),
        ([("user", "Hi"), ("system", "Be kind."), ("assistant", "Hello")], "roles-out-of-order"),
        (
            [
                ("user", "Weather?"),
                ("function_call", "{}"),
                ("observation", "{}"),
                ("assistant", "Rain."),
            ],
            "tool-calls",
        ),
    ],
)
def test_what_cannot_be_learned_from_says_why(said: Pairs, reason: str) -> None:
    with pytest.raises(Unusable) as verdict:
        to_chat(turns(*said))
    assert verdict.value.reason == reason


def test_no_turns_at_all_is_no_crash() -> None:
    """Documents of a text source have none."""
    with pytest.raises(Unusable):
        to_chat(None)


ROLES = st.sampled_from(["system", "user", "assistant", "label", "ann", "bob", "speaker", "tool"])


@given(st.lists(st.tuples(ROLES, st.text(max_size=5)), max_size=8))
def test_whatever_was_said_user_and_assistant_alternate(said: Pairs) -> None:
    try:
        found = to_chat(turns(*said))
    except Unusable:
        return
    rest = found[1:] if found[0]["role"] == "system" else found
    assert [turn["role"] for turn in rest] == ["user", "assistant"] * (len(rest) // 2) and rest
    assert all(turn["content"] == turn["content"].strip() != "" for turn in found)
