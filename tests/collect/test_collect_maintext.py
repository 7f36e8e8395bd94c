"""Main text: the article with its lists, code and tables, without the page around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import resiliparse.extract.html2text
from benchmarks import maintext as measured

from groundup.artifacts.document import Document, Reject
from groundup.collect.readers.web import html
from groundup.collect.readers.web import markup as markup_module
from groundup.collect.readers.web.html import main_text

Read = Callable[..., list[Document | Reject]]
FIRST = (
    "The harvest had been late that year, and nobody in the valley had expected so little of it;"
    " the barns stood half empty in May."
)
SECOND = (
    "Those who could left before the snow. Those who could not counted their sacks, and counted"
    " them again, as if that would help."
)
LAST = (
    "In spring the river took the lower fields as well, and with them the last hope of the miller,"
    " who sold all and went to sea."
)
ARTICLE = f"""<h1>The late harvest</h1><div class="post-meta">By A. Writer, 3 May</div>
<p>{FIRST}</p>
<h2>Winter</h2><p>{SECOND}</p><ul><li>A sack of rye</li><li>Two of oats</li></ul><pre>def sacks(n):
    return n + 1</pre><p>{LAST}</p><p>{FIRST}</p><p>{SECOND}</p><p>{LAST}</p>\
<div class="related"><h3>Read more</h3></div>"""
MENU = "".join(
    f'<div class="item"><a href="/{name}">{name.title()}</a></div>'
    for name in "home news sport shop about contact".split()
)
PAGE = f"""<!DOCTYPE html><html><head><title>T</title><script>var x = "<div>";</script></head><body>
<div id="menu">{MENU}</div>
<div id="page"><div class="content"><div class="post">{ARTICLE}</div>
<div class="comments"><p>Great post! {FIRST}</p></div></div></div>
<footer><p>We use cookies.</p></footer></body></html>"""


def forbid_weighing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "content_text", lambda _: pytest.fail("the page is plain prose"))


def test_an_article(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything from the first line of prose to the last."""
    forbid_weighing(monkeypatch)
    assert main_text(PAGE) == "\n\n".join(
        [
            FIRST,
            "Winter",
            SECOND,
            "- A sack of rye\n- Two of oats\ndef sacks(n):\n    return n + 1",
            LAST,
            FIRST,
            SECOND,
            LAST,
        ]
    )


def test_colon_announces_list_or_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list or code at the end of a page stays where a colon announces it; other scraps go."""
    forbid_weighing(monkeypatch)
    lead = LAST.removesuffix(".") + ". What was left:"
    items, code = (
        "<ul><li>A sack of rye</li><li>Two of oats</li></ul>",
        "<pre>def sacks(n):\n    return n\n\n    # none</pre>",
    )
    for last, end, kept in (
        (lead, items, f"{lead}\n\n- A sack of rye\n- Two of oats"),
        (lead, code + "<p>Share this</p>", f"{lead}\n\ndef sacks(n):\n    return n\n\n    # none"),
        (LAST, items, LAST),
        (lead, "", lead),
    ):
        page = PAGE.replace(
            f'<p>{LAST}</p><div class="related">', f'<p>{last}</p>{end}<div class="related">'
        )
        assert main_text(page).rpartition(f"{SECOND}\n\n")[2] == kept


SHORT = "The miller never came back to the valley, and neither did his sons."
MARKETS = "These are the markets of the valley in spring:"
PRICES = f"{SHORT} Those who stayed wrote down what they had to pay for seed in May:"


@pytest.mark.parametrize(
    ("end", "kept"),
    [
        (f"<p>{SHORT}</p><p>Read on.</p><p>{SHORT}</p>", f"\n\n{SHORT}"),
        (f"<p>{MARKETS}<br>May 3, Lower Mill</p><p>Share</p>", f"\n\n{MARKETS}\nMay 3, Lower Mill"),
        ("<p>Read more:<br>May 3, Lower Mill</p>", ""),
        (f"<p>{MARKETS}</p>", ""),
        (
            f"<p>{PRICES}</p><p>1) Rye</p><p>http://x.org/2</p><p>2) Oats</p><p>Share</p>",
            f"\n\n{PRICES}\n\n1) Rye\n\nhttp://x.org/2\n\n2) Oats",
        ),
    ],
)
def test_text_below_the_last_prose(monkeypatch: pytest.MonkeyPatch, end: str, kept: str) -> None:
    """Short sentences at the end of a page, dates and numbered items that a line announces stay."""
    forbid_weighing(monkeypatch)
    page = PAGE.replace('<div class="related">', f'{end}<div class="related">')
    assert main_text(page).rpartition(LAST)[2] == kept


def test_pages_without_prose() -> None:
    """A page of a list, of a few words, or written by hand is kept."""
    names = [f"Barn number {number} of the lower valley" for number in range(40)]
    listed = PAGE.replace(
        f"<p>{LAST}</p>",
        f"<ul>{''.join(f'<li>{name}</li>' for name in names)}</ul><p>{LAST}</p>",
        1,
    )
    assert all(f"- {name}" in main_text(listed) for name in names)
    assert "Three sacks of rye are left." in main_text(
        "<html><body><p>Three sacks of rye are left.</p></body></html>"
    )
    table = "<table><tr><td>Rye</td><td>1</td></tr></table>"
    plain = (
        f"<html><body><p>{FIRST}</p><ul><li>A sack of rye</li><li>Two of"
        f" oats</li></ul>{table}<p>{LAST}</p></body></html>"
    )
    assert main_text(plain) == f"{FIRST}\n\n- A sack of rye\n- Two of oats\n\nRye | 1\n\n{LAST}"


def test_code_of_a_manual_keeps_its_lines() -> None:
    """Code inside definitions keeps its lines and indentation, without blank lines in a call."""
    code = "def sacks(n):\n    return add(\n        count(n),\n        1)\n    # counted"
    listed = "".join(
        f"<dt>sacks_{n}(n)</dt><dd><p>{SECOND}</p><p>As"
        f" in:</p><div><pre>{code}</pre></div><p>{LAST}</p></dd>"
        for n in range(9)
    )
    assert code in main_text(
        f"<html><body><div><h1>Sacks</h1><p>{FIRST}</p><dl>{listed}</dl></div></body></html>"
    )


def test_paragraphs_of_weighed_pages() -> None:
    """Blank lines stand between paragraphs, and none inside lists, in any script."""
    parts = [
        "<p>雨が降った。</p>",
        f"<p>{FIRST}</p>",
        "<p>Two sacks:</p><ul><li>Rye.</li><li>Oats.</li></ul>",
        f"<p>{'ก' * 130}</p>",
        "<p>End.</p>",
    ]
    page = f"<html><body>{''.join(parts)}</body></html>"
    text = f"雨が降った。\n\n{FIRST}\n\nTwo sacks:\n\n- Rye.\n- Oats.\n\n{'ก' * 130}\n\nEnd."
    assert main_text(page) == text == main_text(page)


@pytest.mark.parametrize(
    "attributes",
    [
        " ".join(f"a{number}=b" for number in range(60_000)),
        " ".join(f'{number}=">"' for number in range(60_000)),
        "/".join(f"{number}<x" for number in range(60_000)),
        'a="' + "b c " * 60_000,
    ],
)
def test_attributes_are_bounded(attributes: str, read: Read) -> None:
    """Excess attributes are cut: parsing time grows with their square (minutes for these)."""
    (result,) = read(
        "web", "x.html", f"<html><body><p>{FIRST}</p><div {attributes}>x</div></body></html>"
    )
    assert isinstance(result, Document) and result.text.startswith(FIRST)
    assert len(html._FLOOD.sub(r"\1", f"<div {attributes}>")) < 40_000


def test_tags_are_bounded(read: Read) -> None:
    """A page with more than MAX_TAGS tags is rejected, since memory grows with the tags."""
    (result,) = read("web", "x.html", "<p>x" * (html.MAX_TAGS + 1))
    assert isinstance(result, Reject) and "tags" in str(result.detail)


def test_long_attribute_values_are_kept() -> None:
    """A picture in an attribute, a script and a text without tags may be of any length."""
    picture, script = (
        f'<img src="data:image/png;base64,{"iVBOR/ab= " * 50_000}">',
        f"<script>{'if (a <b && c > d) { e }; ' * 20_000}</script>",
    )
    page = f"<html><body>{picture}{script}<p>{FIRST * 2_000}</p></body></html>"
    assert html._FLOOD.sub(r"\1", page) == page
    assert len(main_text(page)) == len(FIRST) * 2_000


def test_panic_of_resiliparse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is weighed where the fast extractor panics, which is no Exception in Python."""
    panic = type("PanicException", (BaseException,), {})

    def extract(*_: Any, **__: Any) -> str:
        raise panic("index out of bounds")

    monkeypatch.setattr(resiliparse.extract.html2text, "extract_plain_text", extract)
    assert FIRST in main_text(PAGE)


def test_text_outside_paragraphs() -> None:
    """Text directly in a container stays in its place, in bold or beside paragraphs too."""
    one, two, three = FIRST, SECOND, LAST
    page = (
        f"<html><body><article><p>1. {one}</p><div>2. {two}<p>3. {three}</p>4. <i>{one}</i></div>"
        f"<div><b>5. {two}</b></div>6. {three}<section>A short one.<br>And on.</section>"
        f"<p>7. {one}</p></article></body></html>"
    )
    text = main_text(page)
    places = [text.find(f"{number}. ") for number in range(1, 8)]
    assert places == sorted(places) and places[0] == 0
    assert "A short one." in text and "And on." in text


def test_what_stands_around_a_text() -> None:
    """Blocks with names of menus are left out, unless they hold the page; names of others stay."""
    items = "".join(f"<li>Barn number {number} of the lower valley</li>" for number in range(9))
    around = '<div class="post-share"><p>Tell all of your friends about it.</p></div>'
    names = "has-sidebar category-news entry share"
    shown = f'<div class="{names}"><p>{SECOND}</p>{around}<ul>{items}</ul></div>'
    for page in (
        f'{shown}<div id="comments"><p>{FIRST}</p></div><aside><p>{LAST}</p></aside>',
        f'<div class="sidebar"><p>{LAST}</p></div><form>{shown * 2}</form><nav>{items}</nav>',
    ):
        text = main_text(f"<html><body>{page}</body></html>")
        assert "number 8 of" in text and SECOND in text
        assert not any(words in text for words in ("friends", FIRST, LAST))


def test_blocks_of_links() -> None:
    """Lists of links and the heading above them are left out; links in a sentence stay."""
    links = "".join(f'<li><a href="/{n}">Barns of the valley, {n}</a> new</li>' for n in range(9))
    linked = FIRST.replace("The harvest", '<a href="/h">The harvest</a>')
    page = f"<h2>Now</h2><p>{linked}</p><p>{SECOND}</p><h3>Read more</h3><ul>{links}</ul>"
    text = main_text(f"<html><body><div>{page}<p>{LAST}</p></div></body></html>")
    assert text == "\n\n".join(["Now", FIRST, SECOND, LAST])


def test_numbers_of_lists() -> None:
    """Items of a list with numbers keep them, from where it starts; others have a hyphen."""
    inner = "<ul><li>Rye</li></ul>"
    page = f"<p>{FIRST}</p><ol start=9><li>Plow{inner}</li><li><p>Sow</p></li></ol><li>Rest"
    assert main_text(f"<html><body>{page}</body></html>").endswith(
        "\n\n9. Plow\n- Rye\n10. Sow\n- Rest"
    )


def test_headline_above_the_content() -> None:
    """The last headline above what is weighed stays; that of the site, in its header, does not."""
    rows = "".join(f"<p>Barn {number}</p>" for number in range(40))
    site = '<div id="menu"><h1>The Valley</h1></div><h2><a href="/">News</a></h2>'
    page = f"{site}<h1>All barns of the valley</h1><div>{rows}</div>"
    text = main_text(f"<html><body>{page}</body></html>")
    assert text.startswith("All barns of the valley\n\nBarn 0\n\nBarn 1")


def test_broken_markup_keeps_the_text() -> None:
    """What is never closed may hold the page: an element for browsers without scripts, a form."""
    for opened in ("<noscript><div>", "<form><table><tr><td>", "<div style='display:none'>"):
        assert FIRST in main_text(f"<html><body>{opened}<p>{FIRST}</p><p>{SECOND}</p>")


def test_two_line_breaks_end_a_paragraph() -> None:
    """Pages without paragraphs have two line breaks between them; one stays a line."""
    page = f"<html><body>{FIRST}<br>A line. <br>\n<br> {SECOND}<br><br><br>{LAST}</body></html>"
    assert main_text(page) == f"{FIRST}\nA line.\n\n{SECOND}\n\n{LAST}"


def test_repeated_paragraphs_stay() -> None:
    """A page may say the same twice: it is the page's, not the extractor's, to say it once."""
    page = "".join(f"<p>{FIRST}</p><p>{SECOND}</p>" for _ in range(3))
    assert main_text(f"<html><body>{page}</body></html>").count(FIRST) == 3


@pytest.mark.parametrize("menu", ["", MENU])
def test_marks_become_characters(menu: str) -> None:
    """Exponents, indexes and quotation marks are text, whichever extractor runs."""
    cases = {
        "10<sup>23</sup>": "10²³",
        "10<sup>&minus;3</sup>": "10⁻³",
        "<i>x</i><SUP class=a>k</SUP>": "x^k",
        "e<sup>x+1</sup>": "e^(x+1)",
        "2<sup>2<sup>3</sup></sup>": "2^2³",
        "H<sub>2</sub>O": "H₂O",
        "a<sub>i</sub>": "aᵢ",
        "v<sub>max</sub>": "v_max",
        "the 1<sup>st</sup>": "the 1st",
        "XIX<sup>e</sup>": "XIXe",
        "Acme<sup>TM</sup>": "AcmeTM",
        'said<sup><a href="#n">[b]</a></sup>': "said[b]",
        "<q>yes, <q>no</q></q>": "“yes, ‘no’”",
    }
    items = "".join(f"<p>Here {markup} was set. {FIRST}</p>" for markup in cases)
    page = f"<html><body>{menu}<div><div><div><article>{items}</article></div></div></div></body>"
    assert main_text(page).split("\n\n") == [
        f"Here {text} was set. {FIRST}" for text in cases.values()
    ]


def test_blank_lines_of_code() -> None:
    """Code keeps its blank lines, indentation and tabs, and gets no line that it has not."""
    code = "def a():\n    return 1.\n\n\ndef b():\n\tx = 2.\n\n    y  =  3"
    marked = code.replace("def", "<b>def</b>").replace("x", "<span>x</span>")
    page = f"<p>{FIRST}</p><pre>{marked}\n</pre><p>{SECOND}</p><pre>one</pre><p>{LAST}</p>"
    for menu in ("", f"{MENU}<div><div><div><div></div></div></div></div><p>{LAST * 4}</p>"):
        text = main_text(f"<html><body>{menu}<article>{page}</article></body></html>")
        assert f"{FIRST}\n\n{code}\n\n{SECOND}" in text


def test_layout_tables() -> None:
    """Tables that arrange a page become paragraphs; those of data stay rows."""
    data = "<table><tr><td>Rye</td><td>1</td></tr><tr><td>Oats</td><td>2</td></tr></table>"
    cells = f"<td>Home</td><td><p>{FIRST}</p><p>{SECOND}</p>{data}</td>"
    old = f"<table><tr>{cells}</tr><tr><td>{LAST * 6}</td><td>Then. {SECOND}</td></tr></table>"
    text = main_text(f"<html><body>{old}</body></html>")
    assert f"{FIRST}\n\n{SECOND}" in text and f"{LAST * 6}\n\nThen. {SECOND}" in text
    assert "Rye | 1\nOats | 2" in text and text.count("|") == 2
    modern = (
        f"{MENU}<div><div><div><div><table><tr><td>{FIRST}</td><td>{SECOND}</td></tr></table>"
        f"<p>{LAST}</p><p>{FIRST}</p><p>{LAST * 3}</p></div></div></div></div>"
    )
    assert f"{FIRST}\n\n{SECOND}" in main_text(f"<html><body>{modern}</body></html>")


def test_tables_are_rows_without_markdown() -> None:
    """Cells stand between bars, with no rule below the head, and no bar around a single cell."""
    table = (
        "<table><tr><th>Seed</th><th>Price</th></tr><tr><td>Rye</td><td>1 | 2</td></tr>"
        "<tr><td></td><td>of May</td></tr></table>"
    )
    page = f"<html><body><p>{FIRST}</p>{table}<p>{LAST}</p></body></html>"
    rows = "Seed | Price\nRye | 1 | 2\nof May"
    assert main_text(page) == f"{FIRST}\n\n{rows}\n\n{LAST}"
    cells = "<table><tr><td>Rye</td><td>1</td></tr><tr><td>Oats</td><td>2</td></tr></table>"
    assert "\nRye | 1\nOats | 2\n" in main_text(
        PAGE.replace("<pre>", f"{cells}<p>").replace("</pre>", "</p>")
    )


def test_lines_of_the_file_are_no_lines_of_the_text() -> None:
    """A browser shows line ends and indentation of the file as one space; code keeps them."""
    page = (
        f"<html><body><div>\n   {FIRST.replace('. ', '.')}<br>\n      It was\n      late.\n\n</div>"
        f"<pre>a\n   b</pre><p>{LAST.replace(' sold', chr(10) + '  sold')}</p></body></html>"
    )
    assert main_text(page) == f"{FIRST}\nIt was late.\n\na\n   b\n\n{LAST}"


@pytest.mark.parametrize(
    "notice",
    [
        "We and our partners use cookies to improve your experience here. Read more about it.",
        "Wir verwenden Cookies, um Ihnen die beste Erfahrung zu bieten, wie es üblich ist.",
        "Ce site utilise des cookies. En poursuivant votre navigation, vous acceptez leur emploi.",
    ],
)
def test_cookie_notices(notice: str) -> None:
    """What a site says of its cookies is left out at both ends; prose about cookies stays."""
    menu = '<div class="menu">x</div>' * 12
    long = f"{notice} {notice}"
    for extra in ("", menu):
        for before, after in ((f"<p>{long}</p>", ""), ("", f"<p>{long}</p><p>x</p>")):
            page = f"<html><body>{extra}{before}<p>{FIRST}</p><p>{SECOND}</p>" * 1
            text = main_text(f"{page}<p>{LAST} {FIRST}</p>{after}</body></html>")
            assert "ookie" not in text and text.startswith(FIRST) and text.endswith(FIRST)
    baked = f"{FIRST} They baked cookies of rye, and nobody would use them for anything else."
    assert baked in main_text(f"<html><body><p>{baked}</p><p>{LAST}</p></body></html>")


def test_edit_links_of_mediawiki() -> None:
    """`[edit]` beside a heading is no text of a page."""
    link = '<span class="mw-editsection-bracket">[</span><a href="/e">edit</a>'
    bracket = '<span class="mw-editsection-bracket">]</span>'
    heading = f'<h2>Winter<span class="mw-editsection">{link}{bracket}</span></h2>'
    text = main_text(PAGE.replace("<h2>Winter</h2>", heading))
    assert text == main_text(PAGE) and f"\n\nWinter\n\n{SECOND}" in text


def test_first_section_heading(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heading of the first section stays, as those of the others do."""
    forbid_weighing(monkeypatch)
    page = PAGE.replace(f"<p>{FIRST}</p>\n<h2>Winter", f"<h2>Autumn</h2><p>{FIRST}</p>\n<h2>Winter")
    assert main_text(page).startswith(f"Autumn\n\n{FIRST}\n\nWinter\n\n{SECOND}")


def test_what_is_for_browsers_without_frames() -> None:
    """Parsers hand it over as one text with its tags, which is none."""
    frames = f"<html><frameset><frame src=a><noframes><p>{FIRST}<p>{SECOND}</noframes></frameset>"
    assert main_text(frames) == ""
    assert main_text(f"<body><p>{FIRST}</p><noembed><p>{SECOND}</noembed></body>") == FIRST


def test_marks_are_read_in_linear_time() -> None:
    """Markup that is never closed costs what it is long."""
    for markup in ("<sup>1", "<sub><i>", "<q>", "<sup", "<h2>x", "<svg>", "<sup>1</sup>" * 2):
        page = f"<p>{FIRST}</p>" + markup * 50_000
        assert len(markup_module.write_marks(page)) >= 50_000
        assert FIRST in html._TAG.sub(" ", html._NOT_SHOWN.sub(" ", page))


def _f1(score: Callable[..., tuple[float, float]], rows: Sequence[tuple[str, Any]]) -> float:
    precision, recall = score(
        [main_text(page) for page, _ in rows], [expected for _, expected in rows]
    )
    return 2 * precision * recall / (precision + recall)


def test_real_pages(real_data: Path) -> None:
    """F1 on a third of two hand-marked sets; resiliparse alone reaches 0.86 and 0.93."""
    assert _f1(measured.of_snippets, measured.snippets(real_data)[::3]) > 0.89
    assert _f1(measured.of_articles, measured.articles(real_data)[::3]) > 0.94
