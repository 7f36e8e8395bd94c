"""Filters: every rule at its bound, kinds, languages, thresholds, and functions of users."""

from __future__ import annotations

import gc
import os
import weakref
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.artifacts.document import DOCUMENT
from groundup.errors import GroundupError, RecipeError
from groundup.plan import make_plan
from groundup.recipe import LANGUAGES, Recipe, Refine, Source
from groundup.refine.filter.apply import (
    Thresholds,
    applicable_filters,
    apply_filters,
    check_filters,
    score_bounds,
    thresholds_for,
)
from groundup.refine.filter.rules import (
    ENDED_LINES,
    RULE_SETS,
    UNKNOWN,
    WORD_LENGTH,
    WORDS_WITH_LETTERS,
)
from groundup.refine.filter.statistics import SHORT_LINE, Statistics
from groundup.runtime.user_code import code_digest

Judge = Callable[..., list[str]]
ROOT = Path()


def batch(*texts: str, kind: str = "web", code: str = "en", turns: object = None) -> pa.RecordBatch:
    rows = [{"text": text, "kind": kind, "language": code, "turns": turns} for text in texts]
    return pa.RecordBatch.from_pylist(rows, schema=DOCUMENT)


def reasons(
    *texts: str,
    kind: str = "web",
    filters: tuple[str, ...] = tuple(RULE_SETS),
    code: str = "en",
    turns: object = None,
) -> list[str]:
    """Return the drop reason of each text, "" if it is kept."""
    return list(
        apply_filters(
            batch(*texts, kind=kind, code=code, turns=turns),
            kind,
            applicable_filters(filters, kind),
            ROOT,
        ).reason
    )


def prose(count: int, seed: int = 1) -> str:
    """Return `count` different words in sentences of ten, with stop words."""
    chance = np.random.default_rng(seed)
    made = ["".join(chance.choice(list("abcdefghij"), 5)) for _ in range(count)]
    made[: min(count, 2)] = ["the", "and"][: min(count, 2)]
    return ". ".join(" ".join(made[i : i + 10]) for i in range(0, count, 10)) + "."


def test_bounds_gopher() -> None:
    """A document beyond a published bound is dropped with the reason of the rule."""
    good = prose(100)
    cases = {
        good: "",
        prose(50): "",
        prose(49): "few_words",
        " ".join(["the and a b"] + ["aa b" for _ in range(40)]): "word_length",
        good + " #" * 12: "hash_signs",
        good + " #" * 11: "",
        good + " x..." * 20: "ellipses",
        "\n".join(f"- {prose(5, n)}" for n in range(20)): "bullet_lines",
        "\n".join(f"{prose(20, n)} and so..." for n in range(20)): "ellipsis_lines",
        good + " 12345" * 30: "words_without_letters",
        good.replace("the", "foo"): "few_stop_words",
        "\n".join(
            [prose(30), *["the same line and it is short"] * 3, "end of it"]
        ): "repeated_lines",
        "\n".join([prose(50), *[prose(9, 5)] * 2, *(prose(10, n) for n in range(9, 12))]): "",
        good + " over and" * 30: "frequent_2gram",
        " ".join(
            ["the", "and", *prose(60).split()[2:], *["½", "¼", "٣"] * 8]
        ): "words_without_letters",
    }
    assert dict(zip(cases, reasons(*cases, filters=("gopher",)), strict=True)) == cases


SPECIES = """Sylvicat

Sylvicat (Sylvafelis minor) is a small cat of the northern hills; it hunts mice and
birds along the edges of the woods that are left there. It was long thought to be extinct.

Length of the body: 48—61 cm

Subspecies

There are eight subspecies:
""" + "\n".join(
    f"- Sylvafelis minor {name}, {year}"
    for year, name in enumerate("alba bruna clara dora flava nigra rufa viridis".split(), 1901)
)
PEOPLE = """Millbrook is a town on the river Ald, known for its mills.

Born in Millbrook
""" + "\n".join(
    f"- {name} Miller ( {year} — {year + 70} ) — painter, founder of the school"
    for year, name in enumerate("Ann Bert Carl Dora Emil Fay Gus Hal Ida Jon".split(), 1801)
)
ANTHEM = """Song of the Valley

The Song of the Valley is sung at fairs and weddings, and has been its anthem since the old
schoolmaster wrote it down with the three stanzas that follow here.

Over the meadows the larks are calling
Wake with the river, wake with the day

Cold on the hilltop the snow is falling
Wake with the river, wake with the day

Far in the village the bells have spoken
Wake with the river, wake with the day

Here is the bread that my mother has broken
Wake with the river, wake with the day
"""


@pytest.mark.parametrize(
    ("article", "web"),
    [
        (SPECIES, "frequent_2gram"),
        (PEOPLE, "words_without_letters"),
        (ANTHEM, "repeated_line_bytes"),
        (prose(60).replace(" ", " , "), "words_without_letters"),
        # 300 letters are 150 words of Chinese.
        (
            "".join("甲乙丙丁" * (n % 8 == 0) + chr(0x4E20 + n) for n in range(200)),
            "frequent_2gram",
        ),
    ],
)
def test_articles(article: str, web: str) -> None:
    """Lists, refrains and tokenized text are kept in an encyclopedia, and dropped as web pages."""
    code = "zh" if "甲" in article else "en"
    filters = ("gopher_quality", "gopher_repetition")
    assert reasons(article, kind="wikipedia", code=code, filters=filters) == [""]
    assert reasons(article, code=code, filters=filters) == [web]


def test_bounds_of_articles() -> None:
    """Repetition is judged by Gopher's bounds from 250 words on; half of a short article is."""
    texts = [
        prose(169) + " over and" * 40,
        prose(170) + " over and" * 40,
        prose(60) + " over and" * 60,
        prose(100) + " 12345" * 30,
    ]
    verdict = apply_filters(batch(*texts, kind="wikipedia"), "wikipedia", ["gopher"], ROOT)
    assert verdict.reason.tolist() == ["", *["frequent_2gram"] * 2, "words_without_letters"]
    assert verdict.detail[1] == "gopher: at most 0.2, or 0.5 below 250 words"
    thresholds: Thresholds = {"gopher": {"frequent_2gram": 0.2}}
    short = batch(texts[0], kind="wikipedia")
    verdict = apply_filters(short, "wikipedia", ["gopher"], ROOT, thresholds)
    assert (verdict.reason[0], verdict.detail[0]) == ("frequent_2gram", "gopher: at most 0.2")


@pytest.mark.parametrize("kind", ["documents", "text"])
def test_bounds_of_own_texts(kind: str) -> None:
    """Short notes, rows and repeated code of a team are kept; pages of repetition are not."""
    cases = {
        "Printer on floor two is out of toner.": "",  # no stop word is asked of so few words
        "Out of toner.": "few_words",
        "\n".join([*(prose(10, n) for n in range(20)), *["    return self.name"] * 12]): "",
        "\n".join([prose(50), *["the same line and it is short"] * 50]): "repeated_lines",
        prose(40) + " | 12 | 14 |" * 5: "",
        prose(60).replace("the ", "foo "): "few_stop_words",
    }
    assert dict(zip(cases, reasons(*cases, kind=kind, filters=("gopher",)), strict=True)) == cases
    assert "" not in reasons(*list(cases)[:3], filters=("gopher",))


def test_bounds_c4() -> None:
    """The page rules of C4 do not apply to books."""
    good = prose(60)
    cases = {
        good: "",
        good + " Lorem Ipsum dolor": "lorem_ipsum",
        good + " {x}": "curly_brackets",
        prose(60).replace(".", ","): "few_sentences",
    }
    assert dict(zip(cases, reasons(*cases, filters=("c4",)), strict=True)) == cases
    assert reasons(*cases, kind="books", filters=("c4",)) == [""] * 4


def test_bounds_code() -> None:
    """Generated and minified files are dropped; documentation in long lines stays."""
    cases = {
        "x = 1\n" * 5: "",
        "y" * 101: "long_lines",
        "x = 1\n" * 100 + "z" * 1001: "longest_line",
        "+-*/ " * 9: "few_alphanumeric",
    }
    assert dict(zip(cases, reasons(*cases, kind="code", code="python"), strict=True)) == cases
    assert reasons("a paragraph " * 100, kind="code", code="markdown") == [""]


def test_bounds_conversations() -> None:
    """Short conversations stay; empty, symbolic and one-sided ones are dropped."""
    cases = {
        "User: Hi\nAssistant: Hello": "",
        "User: Hi": "few_words",
        "User: 1 2 3 4 5": "words_without_letters",
    }
    assert dict(zip(cases, reasons(*cases, kind="conversations"), strict=True)) == cases
    for turns, want in (
        ([("user", "hi there"), ("bot", "")], "one_sided"),
        ([("user", "hi"), ("bot", "yes")], ""),
        ([("user", "a speech")], ""),
    ):
        talk = [{"role": role, "content": content} for role, content in turns]
        assert reasons("User: some words to count", kind="conversations", turns=talk) == [want]


def test_unspaced_scripts() -> None:
    """Rules that count words do not drop Chinese text."""
    text = "".join(chr(0x4E00 + n) for n in range(120)) + "。"
    assert reasons(text, code="zh", filters=("gopher",)) == [""]


def test_stop_words_only_in_english() -> None:
    """The stop-word rule applies to English only."""
    assert reasons(prose(100).replace("the", "der"), code="de", filters=("gopher",)) == [""]


PAGES = {
    "ko": "항구 도시는 작은 강의 하구에 자리 잡고 있으며 사람들은 수 세기 동안 바다에서 살아왔다."
    " 철도는 그 뒤에 개통되어 절벽과 등대를 보려는 첫 방문객을 데려왔다. ",
    "fi": "Satamakaupungin kaupunginvaltuuston puheenjohtaja esitteli kehittämissuunnitelman."
    " Rautatieaseman rakennustyöt aloitettiin vuosisadan vaihteessa. ",
    "ml": "തുറമുഖനഗരം സ്ഥിതിചെയ്യുന്നത് നദീമുഖത്താണ്. മത്സ്യത്തൊഴിലാളികൾ നൂറ്റാണ്ടുകളായി കടലിനെയാശ്രയിച്ചാണു ജീവിക്കുന്നത്. ",
    "dz": "བོད་ཡིག་ནི་བོད་མིའི་སྐད་ཡིག་ཡིན་ཞིང་། རྒྱ་གར་གྱི་ཡི་གེ་ལས་བཟོས་པ་རེད། ",
    "am": "ሁሉም፡የሰው፡ልጆች፡ነጻ፡ሆነው፡ተወልደዋል።፡በወንድማማችነት፡መንፈስ፡እርስ፡በርሳቸው፡መተያየት፡ይገባቸዋል።፡",
}


@pytest.mark.parametrize("code", PAGES)
def test_word_length_by_language(code: str) -> None:
    """Languages with short or long words pass; the bound in the detail is theirs."""
    text = PAGES[code] * 8
    assert reasons(text, code=code, filters=("gopher_quality",)) == [""]
    endless = apply_filters(
        batch("endlessword" * 9 * 60, code=code), "web", ["gopher_quality"], ROOT
    )
    assert endless.reason[0] in ("few_words", "word_length")
    row = apply_filters(batch(("x" * 40 + " ") * 60, code=code), "web", ["gopher_quality"], ROOT)
    low, high = WORD_LENGTH[code]
    assert row.detail[0] == f"gopher_quality: at least {low:g} and at most {high:g}"


def test_bounds_without_a_language() -> None:
    """Text in no known language is not held to English words; a threshold holds for all."""
    text = ("ab " * 4 + "cd " * 3 + "ef. ") * 20
    page = text + prose(60)
    assert reasons(page, code="en", filters=("gopher_quality",)) == ["word_length"]
    for code in ("", "xx"):
        assert reasons(page, code=code, filters=("gopher_quality",)) == [""]
    assert set(WORD_LENGTH) - {UNKNOWN} == set(LANGUAGES) - {"en"}
    for table in (WORD_LENGTH, WORDS_WITH_LETTERS, ENDED_LINES):
        assert all(low < high for low, high in table.values())
    thresholds: Thresholds = {"gopher_quality": {"word_length": [4, 9]}}
    for code in ("en", "ko", ""):
        row = apply_filters(batch(page, code=code), "web", ["gopher_quality"], ROOT, thresholds)
        assert row.detail[0] == "gopher_quality: at least 4 and at most 9"


@pytest.mark.parametrize("language", ["my", "km", "lo", "th", "ja"])
def test_repetition_without_spaces(language: str) -> None:
    """Letters that recur are no repetition: a Burmese word is four of them or more."""
    folder = os.environ.get("GROUNDUP_TEST_DATA")
    if not folder:
        pytest.skip("needs GROUNDUP_TEST_DATA (a folder of real data)")
    name = {"my": "mya", "km": "khm", "lo": "lao", "th": "tha", "ja": "jpn"}[language]
    with zipfile.ZipFile(Path(folder) / "langid/udhr2.zip") as archive:
        text = archive.read(f"udhr2/{name}.txt").decode("utf-8-sig")
    text = " ".join(text.split())
    assert reasons(text, code=language, filters=("gopher",)) == [""]
    copied = (text[:300] + " ") * 3
    assert reasons(copied, code=language, filters=("gopher",))[0].startswith("repeated_")


def test_scores() -> None:
    """A dropped document has its score, and the bound in words."""
    verdict = apply_filters(batch(prose(30)), "web", ["gopher"], ROOT)
    assert (verdict.score[0], verdict.detail[0]) == (30, "gopher: at least 50")


def test_unknown_name() -> None:
    """An unknown filter is an error with the nearest name, before anything is read."""
    with pytest.raises(RecipeError, match='"gofer" is unknown; did you mean "gopher"'):
        applicable_filters(["gofer"], "web")
    with pytest.raises(RecipeError, match='"gofer" is unknown'):
        make_plan(Recipe(source=(Source("nowhere"),), refine=Refine(filters=("gofer",))))


def test_user_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of a user filters; its source is its digest; its errors are one line."""
    module = tmp_path / "own_filter_of_a_test.py"
    source = (
        "import pyarrow.compute as pc\ndef short(batch):\n    size ="
        " pc.utf8_length(batch.column('text'))\n    return pc.less(size, 9), size\n"
    )
    module.write_text(
        source + "def bad(batch):\n    return [True], [0.0]\ndef worse(batch):\n    raise"
        " ValueError('no')\ndef leaves(batch):\n    raise SystemExit(0)\n"
    )
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    name = "own_filter_of_a_test:short"
    verdict = apply_filters(
        batch("few", "many more words"), "web", applicable_filters([name], "web"), tmp_path
    )
    assert (verdict.keep.tolist(), verdict.reason[1], verdict.score[1]) == ([True, False], name, 15)
    assert len(code_digest(name, tmp_path, "filter")) == 64
    exits = ("leaves", "SystemExit: 0")
    for broken, message in (("bad", "returned"), ("worse", "ValueError: no"), exits):
        with pytest.raises(GroundupError, match=message):
            apply_filters(batch("a", "b"), "web", [f"own_filter_of_a_test:{broken}"], tmp_path)
    (tmp_path / "exits_of_a_test.py").write_text("import sys\nsys.exit(0)\n")
    names = ("own_filter_of_a_test:nothing", "no_such_module_of_a_test:f", "exits_of_a_test:f")
    for missing in names:
        with pytest.raises(RecipeError, match="cannot be imported"):
            apply_filters(batch("a"), "web", [missing], tmp_path)


def test_bounds_fineweb() -> None:
    """Unended lines, short lines, repeated lines and many line breaks."""
    line = "A line of prose that is longer than thirty characters {}."
    page = [line.format(n) for n in range(10)]
    cases = {
        "\n".join(page): "",
        "\n".join([*page[:1], *(text.rstrip(".") for text in page[1:7])]): "",
        "\n".join([*page[:1], *(text.rstrip(".") for text in page[1:9])]): "unended_lines",
        "\n".join(
            [*page[:1], *["It is thirty letters long, so."] * 1, "And this is short.", "This too."]
        ): "short_lines",
        "\n".join([*page[:2], "And this is short.", "This too.", "And a third.", *page[2:3]]): "",
        "\n".join([*page, *page[:1]]): "repeated_line_share",
        "\n".join(
            f"{n}verylongwordthatisnotbroken anywhereatall." for n in range(9)
        ): "many_line_breaks",
    }
    assert dict(zip(cases, reasons(*cases, filters=("fineweb",)), strict=True)) == cases
    assert reasons("\n".join(f"行{n}。" for n in range(9)), filters=("fineweb",), code="zh") == [
        "short_lines"
    ]


@given(st.lists(st.text(st.sampled_from("ab é.。!…\n "), max_size=80), min_size=1, max_size=5))
def test_lines_against_a_plain_count(texts: list[str]) -> None:
    """Ended lines, short lines and line breaks equal a count in Python."""
    found = Statistics(batch(*texts))
    lines = [[line for line in text.split("\n") if line.strip()] for text in texts]
    assert found["ended_lines"].tolist() == [
        sum(line.rstrip()[-1] in ".。!" for line in of) for of in lines
    ]
    assert found["short_lines"].tolist() == [
        sum(len(line) <= SHORT_LINE for line in of) for of in lines
    ]
    assert found["line_breaks"].tolist() == [text.count("\n") for text in texts]


def test_thresholds() -> None:
    """A threshold replaces the bound of its set only, and appears in the detail."""
    texts = [prose(30), prose(60)]
    thresholds: Thresholds = {"gopher": {"few_words": 70, "word_length": [1, 4.5]}}
    verdict = apply_filters(batch(*texts), "web", ["gopher"], ROOT, thresholds)
    assert list(zip(verdict.reason, verdict.score, verdict.detail, strict=True)) == [
        ("few_words", 30, "gopher: at least 70"),
        ("few_words", 60, "gopher: at least 70"),
    ]
    long = apply_filters(batch(prose(100)), "web", ["gopher"], ROOT, thresholds)
    assert (long.reason[0], long.detail[0]) == ("word_length", "gopher: at least 1 and at most 4.5")
    assert apply_filters(batch(prose(60)), "web", ["gopher_quality"], ROOT, thresholds).keep.all()
    assert score_bounds(["gopher"], "web", thresholds)["word_length"] == (1, 4.5)
    assert thresholds_for(["gopher", "code"], "code", thresholds) == {}
    assert thresholds_for(["gopher"], "books", {"gopher": {"many_words": 9, "few_words": 8}}) == {
        "gopher": {"few_words": 8}
    }


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({"c5": {}}, '"c5" is not a rule set among the filters of the recipe; did you mean "c4"'),
        ({"code": {"long_lines": 9}}, '"code" is not a rule set among the filters'),
        ({"gopher": {"few_word": 9}}, 'gopher has no rule "few_word"; did you mean "few_words"'),
        (
            {"gopher": {"few_words": (1, 2)}},
            "gopher.few_words needs one number; the published bound is at least 50",
        ),
        (
            {"gopher": {"word_length": 4}},
            r"gopher.word_length needs a minimum and a maximum, such as \[3, 10\]",
        ),
        ({"gopher": {"word_length": (9, 4)}}, "needs a minimum and a maximum"),
    ],
)
def test_invalid_thresholds(thresholds: dict[str, dict[str, float]], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_filters(["gopher", "c4"], thresholds)


def test_statistics_leave_no_cycle() -> None:
    """A batch's words are freed with it: waiting for the collector, shards took a gigabyte more."""
    found = Statistics(batch("The cat sat on the mat."))
    assert found["words"].tolist() == [6]
    alive = weakref.ref(found)
    gc.disable()
    try:
        del found
        assert alive() is None
    finally:
        gc.enable()
