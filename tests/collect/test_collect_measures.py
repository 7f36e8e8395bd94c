"""Measures of the benchmarks: what counts as lost, as a hole, and as kept markup."""

from __future__ import annotations

import pytest
from benchmarks import maintext, tables, wild, wild_references
from benchmarks.wikitext_holes import Counts, count

REST = " It is one of the oldest towns of the valley and has a market on every second Monday."


def holes(markup: str, text: str, language: str = "en") -> tuple[int, int, int, int]:
    counts = count(markup + REST, text + REST, language)
    return counts.with_hole, counts.figures, counts.figure_lost, counts.dropped


@pytest.mark.parametrize(
    ("markup", "text", "expected"),
    [
        # The figure is there, whatever its form.
        ("The lake covers {{cvt|5|km2}} of land.", "The lake covers 5 km² of land.", (0, 1, 0, 0)),
        ("The lake covers {{cvt|5|km2}}.", "The lake covers 5 km2 (1.9 sq mi).", (0, 1, 0, 0)),
        # It is lost without a trace; with one.
        ("The lake covers {{cvt|5|km2}} of land.", "The lake covers of land.", (1, 1, 1, 0)),
        ("The lake covers {{cvt|5|km2}} of land.", "The lake covers  of land.", (1, 1, 1, 0)),
        # The sentence is left out as a whole.
        ("The lake covers {{cvt|5|km2}} of land.", "", (0, 1, 0, 1)),
        # Notes, and digits in names of files or behind names of arguments, are no figures.
        ("The lake {{sfn|Bloch|2007}} is old.", "The lake is old.", (0, 0, 0, 0)),
        ("The lake {{clear|date=May 2012}} is old.", "The lake is old.", (0, 0, 0, 0)),
        ("The lake {{sound|X2.ogg}} is old.", "The lake is old.", (0, 0, 0, 0)),
        # Words in the place of the figure are no hole.
        ("On {{USS|Hornet|CV-12}} they ate.", "On USS Hornet they ate.", (0, 1, 0, 0)),
        # Traces, unless the page has them.
        ("He was born {{x}}.", "He was born .", (1, 0, 0, 0)),
        ("He was born .", "He was born .", (0, 0, 0, 0)),
        ("The lake ({{x}}) is old.", "The lake () is old.", (1, 0, 0, 0)),
        ("It stood between {{x}} and was old.", "It stood between and was old.", (1, 0, 0, 0)),
    ],
)
def test_holes(markup: str, text: str, expected: tuple[int, int, int, int]) -> None:
    assert holes(markup, text) == expected


def test_holes_in_scripts_without_spaces_and_other_languages() -> None:
    markup, end = "自転車利用者は{{convert|620|km}}の自転車道を利用することができ" * 2, "。"
    counts = count(markup + REST + end, markup.replace("{{convert|620|km}}", "") + REST + end, "ja")
    assert (counts.figures, counts.figure_lost) == (2, 2)
    assert holes("Er wurde am {{x}} in Berlin geboren.", "Er wurde am in Berlin geboren.", "de")[0]


def test_counts_add_up() -> None:
    total = Counts()
    total.add(Counts(3, 1, figures=2, figure_lost=1))
    total.add(Counts(4, 2, figures=1, dropped=1))
    assert (total.sentences, total.with_hole, total.figures) == (7, 3, 3)
    assert (total.figure_lost, total.dropped) == (1, 1)


@pytest.mark.parametrize(
    ("text", "kept", "joined"),
    [("10²³ kg", 1, 0), ("10^23 kg", 1, 0), ("10 23 kg", 1, 0), ("1023 kg", 0, 1), ("ten", 0, 0)],
)
def test_exponents(text: str, kept: int, joined: int) -> None:
    wanted = maintext.patterns("<p>10<sup>23</sup> kg</p>")
    found = maintext.kept_marks("tool", [("", wanted)], [text])
    assert found["tool: exponents kept"] == kept
    assert found["tool: exponents joined to their base"] == joined


def test_quotations_and_blank_lines() -> None:
    page = "<q>one <b>or</b> two</q><pre>first\n  second\n\n  third</pre>"
    rows = [("", maintext.patterns(page))]
    good = maintext.kept_marks("tool", rows, ["“one or\ntwo” first\n  second\n\n  third"])
    bad = maintext.kept_marks("tool", rows, ["one or two first\n  second\n  third"])
    assert (good["tool: quotations kept"], good["tool: blank lines of code kept"]) == (1, 1)
    assert (bad["tool: quotations kept"], bad["tool: blank lines of code kept"]) == (0, 0)


def test_markup_is_planted_into_the_marked_article_only() -> None:
    words = "The harvest had been late that year and nobody in the valley had expected so little"
    menu, article = f"<p>Menu {'of things ' * 20}</p>", f"<p>{words}, {'as ever, ' * 8}it was.</p>"
    planted = maintext.plant(menu + article, words)
    assert planted.startswith(menu) and maintext.SENTENCE in planted
    assert maintext.plant(menu, words) == ""


def test_visible_characters() -> None:
    page = (
        "<body><nav>Menu</nav><script>x</script><div hidden>no</div>"
        "<i style='display: none'>no</i> tail<p>a b<!-- c --></p></body>"
    )
    assert maintext.visible_size(page) == len("tailab")


def test_lost_text_is_counted_page_by_page() -> None:
    body = "one two three four five six seven eight nine ten"
    rows = [("", body), ("", body)]
    found = maintext.lost("tool", "articles", rows, [body, "one two three four five"])
    assert found["tool: pages that lose over 20 % of it"] == 1
    assert found["tool: marked text lost, median page"] == pytest.approx(5 / 14)


def test_many_sides_get_a_table_for_each_set() -> None:
    tools = tables.SIDES["maintext"][0]
    figures = {f"{which}: {tool}: F1": 0.5 for which in ("snippets", "articles") for tool in tools}
    page = tables.document({"maintext": {"figures": figures}})
    assert "| snippets | F1 |" in page and "| articles | F1 |" in page


def test_words_recovered() -> None:
    """Equal texts lose nothing; of two words of four one is recovered, and one of ours is wrong."""
    tally = wild.Tally()
    tally.add("equal", wild.words("A cat sat."), wild.words("a CAT\n\nsat"))
    assert (tally.recovered, tally.rubbish) == (1.0, 0.0)
    assert tally.worst() == []
    tally = wild.Tally()
    tally.add("half", wild.words("a cat sat sat"), wild.words("cat sat dog menu"))
    assert (tally.recovered, tally.rubbish) == (0.5, 0.5)
    tally.add("nothing", wild.words("four words are lost"), wild.words(""))
    assert (tally.recovered, tally.rubbish) == (0.25, 0.5)
    assert [entry["file"] for entry in tally.worst()] == ["half", "nothing"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See https://a.org/b?c and ann@a.org.", "see and"),
        ("1. one\n  b) two", "one two"),
        ("a hyphen-\nated line", "a hyphenated line"),
        ("Ann Bo: hi", "hi"),
        ("the ﬁrst 日本", "the first 日 本"),
    ],
)
def test_words_that_count(text: str, expected: str) -> None:
    assert list(wild.words(text, ["Ann Bo"])) == expected.split()


def test_words_without_formulas() -> None:
    assert list(wild.words("so $x + y$ is \\[z\\] left", removed=wild.FORMULA)) == [
        "so",
        "is",
        "left",
    ]


def test_what_the_writer_of_a_mail_wrote() -> None:
    text = "Yes.\n\nOn Monday, Ann wrote:\n> May I?\n\nBo\n-- \nBo, Example Ltd."
    assert wild_references.written(text).split() == ["Yes.", "Bo"]
