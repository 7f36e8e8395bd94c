"""Cleaning: what is removed, what stays, and that cleaning is idempotent."""

from __future__ import annotations

import re
import unicodedata

import ftfy
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples

from groundup.artifacts.arrays import text_array, text_buffers
from groundup.refine.clean.mojibake import MOJIBAKE, has_mojibake
from groundup.refine.clean.normal_form import normalize_form, unstable_lines
from groundup.refine.clean.pipeline import clean_texts, clean_turns
from groundup.refine.clean.unicode_classes import (
    BREAK,
    CLEANING_CLASSES,
    PLAIN,
    UNSPACED,
    WORD_CLASSES,
)
from groundup.refine.clean.whitespace import normalize_whitespace


def clean(*texts: str, code: bool = False) -> list[str]:
    return clean_texts(pa.array(texts, pa.string()), np.full(len(texts), code)).texts.to_pylist()


# Pieces that meet the rules, so that random texts hit them and their seams often.
PIECES = st.sampled_from(
    "a|B|7| | "
    " |\t|\n|\r\n|\r|\u00a0|\u200b|\u200d|\u200c|\ufeff|\x00|\x85|\x93|\u2028|é|"
    "e\u0301|\u0301|Ã©|â€œ".split("|")
    + "&amp;|&lt;|<|>|&#8203;|&#1;|&|;|http://x.y/z|https://|www.foo.com|://|a@b.org|@|.|,|(|)".split(
        "|"
    )
    + "می|👩|中|。|{|}|x|\u00ad|\u202e|Å\u030a|\u1100\u1161|Ã|Â|€|в|\ufffd|&#xad;|&nbsp;".split("|")
)
TEXTS = (
    st.lists(PIECES | st.text(max_size=3), max_size=30)
    .map("".join)
    .filter(lambda text: not any(0xD800 <= ord(c) < 0xE000 for c in text))
)


# What UTF-8 looks like when read in one byte a character, and what may stand beside it.
SUSPICIOUS = st.sampled_from(
    "ÃÂâ€œ™ĆÄ¥ØÙРСВГœΓ∂√≈├┬║ð×²°«»©áàß \u00a0\u2003\x85\x93\n.,?aZ7_é\ufffd\u00ad"
)


def test_golden_prose() -> None:
    """Each rule of cleaning prose, by example."""
    cases = {
        "schÃ¶n â€œquoteâ€\x9d": "schön “quote”",
        "sjokolade pĆ¥ bordet": "sjokolade på bordet",
        "che salterÃ  la partita": "che salterà la partita",
        "L&amp;amp;R caf&eacute;": "L&R café",
        "&lt;b&gt;": "<b>",
        "<p> &amp; stays": "<p> &amp; stays",
        "a\u200bb\u202ec\ufeff \x07d": "abc d",
        "x  y \t z\u00a0w  \n": "x y z w",
        "one\r\ntwo\rthree\n\n\n\n\nfour": "one\ntwo\nthree\n\n\nfour",
        "verse\n    indented\n one space": "verse\n    indented\none space",
        "e\u0301": "é",
        "see (http://a.b/c_(d)) or www.x.org/y. End": "see or. End",
        "http://a.b\nfirst": "first",
        "write to john.doe+x@mail.example.org, please": "write to, please",
        "请看http://x.com/。中文": "请看 。中文",
        "می\u200cخواهم 👩\u200d👩 e\u200dx": "می\u200cخواهم 👩\u200d👩 ex",
        "3 < 4 & 5 > 2 at 5@ home": "3 < 4 & 5 > 2 at 5@ home",
    }
    assert dict(zip(cases, clean(*cases), strict=True)) == cases


def test_golden_code() -> None:
    """Code keeps indentation, inner spaces, entities, URLs and mojibake; addresses go."""
    source = (
        "\r\n\r\nif  x:\r\n\ty = 1   # see http://a.b/c &amp; Ã©\r\n\u200b    z = m@w.to(x)\r\n# by"
        " jo@site.org\r\n\r\n"
    )
    assert clean(source, code=True) == [
        "if  x:\n\ty = 1   # see http://a.b/c &amp; Ã©\n    z = m@w.to(x)\n# by\n"
    ]


@examples(200)
@given(st.lists(TEXTS, min_size=1, max_size=4), st.booleans())
def test_idempotent(texts: list[str], code: bool) -> None:
    """Cleaning is idempotent, never raises, and treats each text independently."""
    once = clean(*texts, code=code)
    assert clean(*once, code=code) == once
    assert once == [clean(text, code=code)[0] for text in texts]


@examples(300)
@given(st.text(st.characters(min_codepoint=0, max_codepoint=126), max_size=80))
def test_ascii_exact(text: str) -> None:
    """The fast path for ASCII equals a reference with regular expressions."""
    want = re.sub(r"\r\n?|\x0b|\x0c", "\n", text)
    want = re.sub(r"[\x00-\x08\x0e-\x1f\x7f]", "", want)
    want = "\n".join(_plain_line(line) for line in want.split("\n"))
    want = re.sub(r"\n{4,}", "\n\n\n", want.strip("\n")).lstrip(" \t")
    prose = np.array([False])
    offsets, data, *_ = normalize_whitespace(text_buffers(pa.array([text])), prose, prose)
    assert text_array(offsets, data)[0].as_py() == want


def _plain_line(line: str) -> str:
    line = line.rstrip(" \t")
    body = line.lstrip(" \t")
    indent = line[: len(line) - len(body)]
    return ("" if indent == " " else indent) + re.sub(r"[ \t]{2,}", " ", body)


def test_nothing_left() -> None:
    """A text of blanks and controls becomes empty; an empty column stays empty."""
    assert clean(" \n\t\u200b\x00", "") == ["", ""]
    assert clean() == []


def test_turns() -> None:
    """Turns are cleaned like texts, in their order; a missing list stays missing."""
    turns = [
        [{"role": "user", "content": "a  b\r\nhttp://x.y c"}, {"role": "bot", "content": None}],
        None,
        [],
    ]
    column = pa.array(turns, pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))
    cleaned = clean_turns(column).to_pylist()
    assert cleaned == [
        [{"role": "user", "content": "a b\nc"}, {"role": "bot", "content": ""}],
        None,
        [],
    ]
    assert clean_turns(column.slice(1)).to_pylist() == [None, []]


def test_stable_characters_are_nfc() -> None:
    """A text of PLAIN code points is in NFC, so normalization can be skipped."""
    stable = [
        chr(point)
        for point in np.flatnonzero(CLEANING_CLASSES == PLAIN)
        if not 0xD800 <= point < 0xE000
    ]
    assigned = [c for c in stable if unicodedata.category(c) != "Cn"]
    assert unicodedata.is_normalized("NFC", "".join(assigned))
    assert not any(unicodedata.combining(c) for c in assigned)


def test_word_classes() -> None:
    """Letters, marks and digits belong to words; punctuation and symbols do not."""
    spans = [
        (0x20, 0x24F),
        (0x370, 0x58F),
        (0x5D0, 0x6D3),
        (0x900, 0x97F),
        (0x2010, 0x206F),
        (0x3000, 0x30FF),
        (0x4E00, 0x4FFF),
        (0xAC00, 0xACFF),
    ]
    for point in (p for first, last in spans for p in range(first, last)):
        category = unicodedata.category(chr(point))
        if category != "Cn" and category[:2] not in ("Cf", "Cc"):
            assert (WORD_CLASSES[point] != BREAK) == (category[0] in "LMN"), (hex(point), category)
    assert all(WORD_CLASSES[ord(c)] == UNSPACED for c in "中の가カไทยລາວមြ".replace("가", ""))


@given(st.lists(st.text(SUSPICIOUS, max_size=6), min_size=1, max_size=8))
def test_the_screen_misses_nothing(texts: list[str]) -> None:
    """ftfy does not change a text that MOJIBAKE does not match."""
    suspected = pc.match_substring_regex(pa.array(texts), MOJIBAKE).to_pylist()
    assert [
        text
        for text, hit in zip(texts, suspected, strict=True)
        if not hit and ftfy.fix_encoding(text) != text
    ] == []


@given(st.lists(st.text(SUSPICIOUS, max_size=6), min_size=1, max_size=8))
def test_mojibake_is_found_by_lines(texts: list[str]) -> None:
    """The lines with a pair of suspicious characters decide like the expression on whole texts."""
    column, rows = pa.array(texts), np.ones(len(texts), np.bool_)
    matches = pc.match_substring_regex(column, MOJIBAKE).to_pylist()
    assert has_mojibake(column, rows).tolist() == matches
    assert not has_mojibake(column, ~rows).any()


@examples(300)
@given(st.lists(st.text(max_size=8) | TEXTS, max_size=6))
def test_normal_form_by_lines(texts: list[str]) -> None:
    """Only the lines that may not be in NFC are normalized, and the texts are in NFC then."""
    column = pa.array(texts, pa.string())
    found, changed = normalize_form(column, np.ones(len(texts), np.bool_))
    whole = pc.utf8_normalize(column, form="NFC")
    assert found.to_pylist() == whole.to_pylist()
    assert changed.tolist() == [
        before != after for before, after in zip(texts, whole.to_pylist(), strict=True)
    ]


def test_marks_in_order_are_stable() -> None:
    """Vowel signs, tones and viramas need no normalization; two marks in a row may."""
    texts = ["ক্ষ", "हिन्दी", "ที่", "e\u0301", "مُحَمَّد", "plain"]
    spans = unstable_lines(text_buffers(pa.array(texts)), np.ones(len(texts), np.bool_))
    assert sorted(set(spans[:, 0].tolist())) == [3, 4]


def test_real_mojibake(mojibake: list[tuple[str, str]]) -> None:
    """Nearly all real mojibake is repaired; typographic quotes and ligatures stay."""
    plain = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "„": '"', "‚": "'"})
    right = [
        clean(dirty)[0].translate(plain) == clean(fixed)[0].translate(plain)
        for dirty, fixed in mojibake
    ]
    assert len(right) > 50
    assert sum(right) / len(right) >= 0.95


@pytest.fixture
def mojibake() -> list[tuple[str, str]]:
    import json
    import os
    from pathlib import Path

    folder = Path(os.environ.get("GROUNDUP_TEST_DATA", "")) / "web" / "mojibake"
    if not os.environ.get("GROUNDUP_TEST_DATA") or not folder.is_dir():
        pytest.skip("GROUNDUP_TEST_DATA does not name a folder with web/mojibake")
    cases = [
        case
        for path in sorted(folder.glob("*.json"))
        for case in json.loads(path.read_text(encoding="utf-8"))
    ]
    return [(case["original"], case["fixed"]) for case in cases if case.get("expect") != "fail"]
