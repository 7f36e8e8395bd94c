"""Books: markers of Project Gutenberg, several books in a file, and wrapped lines joined."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.artifacts.document import Document, Reject
from groundup.collect.readers import books, text, wrapped_lines
from groundup.collect.readers.books import find_books, split_books
from groundup.collect.readers.wrapped_lines import unwrap

Read = Callable[..., list[Document | Reject]]
PROSE = (
    "It was a bright morning in early spring when the old schoolmaster set out\n"
    "from the village with nothing in his pockets but a crust of bread and a\n"
    "letter that he had not dared to open. The road ran straight between the\n"
    "fields for a mile or more, and then turned sharply down towards the\n"
    "river."
)
VERSE = (
    "The wind was high, the wind was cold,\nThe sheep were gathered in the fold,\n"
    "The moon had risen, round and bright,\nAnd all the hills were washed in light."
)


def _book(title: str, author: str, body: str) -> str:
    marker = f"OF THIS PROJECT GUTENBERG EBOOK {title.upper()} ***"
    return (
        f"The Project Gutenberg EBook of {title}, by {author}\n\nTitle: {title}\n\nAuthor:"
        f" {author}\n\n*** START {marker}\n\nProduced by Somebody and the\nProofreading"
        f" Team\n\n\n{body}\n\nEnd of the Project Gutenberg EBook of {title}, by {author}\n\n***"
        f" END {marker}\n\nThe license of Project Gutenberg.\n"
    )


def test_one_book(read: Read) -> None:
    """Header, credits and license are removed; CRLF and a byte order mark make no difference."""
    (result,) = read(
        "books",
        "b.txt",
        b"\xef\xbb\xbf" + _book("A Tale", "Jane Doe", PROSE).replace("\n", "\r\n").encode(),
    )
    assert isinstance(result, Document)
    assert result.text == PROSE.replace("\n", " ")
    assert result.group == "a tale|doe jane"


def test_several_books_and_the_rest(read: Read) -> None:
    """Each book of a file is a document; what follows the last license is rejected."""
    data = _book("One", "A B", PROSE) + _book("Two", "C D", VERSE) + "wordlist " * 5000
    first, second, rest = read("books", "big.txt", data)
    assert (
        isinstance(first, Document)
        and first.text.startswith("It was")
        and (first.record, first.group) == (0, "one|a b")
    )
    assert (
        isinstance(second, Document)
        and second.text == VERSE
        and (second.record, second.group) == (1, "two|c d")
    )
    assert isinstance(rest, Reject) and (rest.record, rest.reason) == (2, "outside-book")


def test_title_over_two_lines_in_the_marker() -> None:
    """A long title wraps inside the marker; the text starts after its closing asterisks."""
    marker = "OF THE PROJECT GUTENBERG EBOOK A VERY LONG\nTITLE INDEED ***"
    text = f"*** START {marker}\nBody\n*** END {marker}\n"
    ((_, start, end),) = find_books(text)
    assert text[start:end].strip() == "Body"


def test_editions_share_a_group() -> None:
    """Editions share a group whatever the order of the name, accents and subtitles."""
    headers = (
        "Title: Les Misérables\n       Tome I\n\nAuthor: Hugo, Victor\n",
        "Title: Les Miserables\nAuthor: Victor Hugo\n",
        "no header at all",
    )
    books = [book for header in headers for book in split_books(header, "x.txt")]
    groups = [book.group for book in books if isinstance(book, Document)]
    assert groups == ["les miserables|hugo victor"] * 2 + ["x.txt"]


def test_prose_is_joined_and_verse_is_not() -> None:
    """Wrapped prose is joined; verse, plays and tables keep their lines."""
    contents = "I. The Road\nII. The River\nIII. The Sea"
    play = "KENT.\nI thought the King had more affected the Duke of Albany than\nCornwall."
    whole = unwrap(
        "\n\n".join(
            [
                PROSE,
                contents,
                VERSE,
                PROSE,
                play,
                "  " + VERSE.replace("\n", "\n  "),
                "well-\nknown " + PROSE,
            ]
        )
    )
    blocks = whole.split("\n\n")
    assert blocks[0] == blocks[3] == PROSE.replace("\n", " ")
    assert blocks[1] == contents and blocks[2] == VERSE
    assert blocks[4].startswith("KENT.\n")
    assert blocks[5].count("\n") == 3


@given(
    st.lists(
        st.sampled_from(
            ["a", "word", "longer-word", "Capital", "\n", "\n\n", "   ", "'tis", "1.", "—"]
        ),
        max_size=200,
    )
)
def test_unwrap_keeps_every_word(parts: list[str]) -> None:
    """Joining lines changes white space only."""
    text = " ".join(parts)
    assert "".join(unwrap(text).split()) == "".join(text.split())


def test_parts_of_a_text_are_joined_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that is measured in parts is joined as one that is measured at once."""
    text = "\n\n".join([PROSE, "\x0c", VERSE, "   " + PROSE, "\xa0", PROSE.replace("\n", "-\n")])
    whole = unwrap(text)
    assert PROSE.replace("\n", " ") in whole
    monkeypatch.setattr(wrapped_lines, "_PART_CHARACTERS", 10)
    assert unwrap(text) == whole


def test_markers_in_any_case_and_between_other_characters() -> None:
    """Markers are found in lines that name Gutenberg, whatever characters stand before them."""
    start, end = "*** Start of this Project  GUTENBERG eBook ***", "*** END OF PROJECT gutenberg X"
    text = f"Éé “Gutenberg” 𝄞\n{start}\nthe book\n{end}\n"
    ((_, first, last),) = find_books(text)
    assert text[first:last] == "\nthe book\n"


def test_real_books(read: Read, real_data: Path) -> None:
    """Every real file gives one book; editions share at most 74 groups; licenses are removed."""
    groups, licenses = set(), 0
    for path in sorted(real_data.glob("books/**/*.txt")):
        (result,) = read("books", path.name, path.read_bytes())
        assert isinstance(result, Document), path
        groups.add(result.group)
        licenses += "Project Gutenberg-tm" in result.text
    assert len(groups) <= 74
    assert licenses <= 2


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Transcribers Note: Errors were mended.\n\n", ""),
        ("TRANSCRIBER’S NOTE:\n\nObvious errors were corrected.\n\n\n", ""),
        ("[Transcriber’s Note: Italics are\nmarked.]\n\n", ""),
        (
            (
                "+----------------+\n| Transcriber's note:  |\n|                |\n| Errors."
                " |\n+----------------+\n\n"
            ),
            "",
        ),
        (
            "",
            "\n\n-----\n\nTranscriber's Notes:\n\n1. Errors were corrected.\n\n  2. More of them.",
        ),
        ("", "\n\nTRANSCRIBER NOTES\n\nMisspelled words have been corrected."),
    ],
)
def test_notes_of_transcribers(before: str, after: str, texts: Callable[..., list[str]]) -> None:
    """Notes of transcribers around a book are removed; a sentence about one inside it stays."""
    book = "Once upon a time.\n\n" * 40 + "A transcriber notes what he hears.\n\n" + "The end." * 9
    marked = (
        f"*** START OF THE PROJECT GUTENBERG EBOOK T ***\n\n{before}{book}{after}\n\n*** END OF THE"
        " PROJECT GUTENBERG EBOOK T ***\n"
    )
    assert texts("books", "b.txt", marked) == [book]


def test_a_long_file_without_markers_is_cut(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus of books in one file is cut into pieces, and no text is lost between them."""
    monkeypatch.setattr(books, "MAX_DOCUMENT_BYTES", 4000)
    monkeypatch.setattr(books, "MAX_FILE_BYTES", 16_000)
    monkeypatch.setattr(text, "MAX_DOCUMENT_BYTES", 4000)
    monkeypatch.setattr(text, "PIECE_CHARACTERS", 1000)
    for size in (50, 500):
        whole = "".join(f"{number}. {PROSE}\n\n" for number in range(size))
        results = read("books", "corpus.txt", whole)
        assert "".join(result.text for result in results if isinstance(result, Document)) == whole
        assert len(results) > 4
    marked = _book("One", "A B", PROSE * 30) + _book("Two", "C D", PROSE * 30)
    (found_marked,) = read("books", "corpus.txt", marked)
    assert isinstance(found_marked, Reject) and found_marked.reason == "too-large"
