"""Test texts in two columns: they fit, keep what differs, and hold no control sequence."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples

from groundup.commands.inspect import display_width, text_lines, word_diff, wrap_words

TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from(" \n\té語\u0301\x1b"), max_size=200)


@examples(200)
@given(left=TEXTS, right=TEXTS, width=st.integers(23, 100))
def test_every_line_fits_and_holds_no_control_character(left: str, right: str, width: int) -> None:
    for line in [
        *word_diff(left, right, width, ("kept", "dropped")),
        # Without the titles, which a narrow terminal wraps.
        *(text_lines((left, right), width)[1:] if left != right else []),
    ]:
        assert display_width(line) <= max(width, len("they differ in white space only"))
        assert line.isprintable() or not set(line) & {
            chr(n) for n in (*range(32), *range(127, 160))
        }


@examples(200)
@given(
    words=st.lists(st.text(st.sampled_from("aé語\u0301"), min_size=1, max_size=30)),
    column=st.integers(10, 40),
)
def test_wrapping_keeps_every_character_in_order(words: list[str], column: int) -> None:
    lines = wrap_words(words, column)
    assert "".join("".join(lines).split()) == "".join(words)
    assert all(display_width(line) <= column for line in lines)


def test_differing_words_are_marked() -> None:
    lines = word_diff("the cat sat on the mat", "the dog sat on the mat today", 43)
    rows = [(line[:20].strip(), line[20:23].strip(), line[23:]) for line in lines]
    assert rows == [
        ("the", "", "the"),
        ("cat", "|", "dog"),
        ("sat on the mat", "", "sat on the mat"),
        ("", ">", "today"),
    ]


def test_a_difference_at_the_end_of_a_book() -> None:
    """Only the text after the first difference is compared."""
    start = "word " * 80_000
    lines = "\n".join(word_diff(start + "one end", start + "another end", 60))
    assert "| another" in lines and len(lines) < 500


def test_further_differences_are_counted() -> None:
    left, right = (
        " ".join(f"w{n}" if n % 20 else other for n in range(400)) for other in ("left", "right")
    )
    assert word_diff(left, right, 60)[-1] == "… and 15 more places"


def test_equal_texts() -> None:
    assert word_diff("a b", "a b", 60) == ["the texts are the same"]
    assert word_diff("a b", "a\nb", 60) == ["they differ in white space only"]
