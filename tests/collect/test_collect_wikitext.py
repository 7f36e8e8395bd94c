"""Wikitext: each construct, the known templates, and hostile markup in bounded time."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.helpers.examples import examples

from groundup.collect.readers.wiki.arguments import TEMPLATES
from groundup.collect.readers.wiki.templates import NO_WORDS
from groundup.collect.readers.wiki.wikitext import GAP, close_gaps, read_wikitext


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("'''Bold''' and ''italic''", "Bold and italic"),
        ("[[Target]], [[Target|label]]s, [[:Category:X|named]]", "Target, labels, named"),
        (
            "[[:Category:Cats]] [[2001: A Space Odyssey]] [[Foo (bar)|]] [[#Part]]",
            "Cats 2001: A Space Odyssey Foo Part",
        ),
        ("a[[File:x.jpg|thumb|A [[nested]] caption]]b [[Category:Things]]c[[de:Ding]]", "ab c"),
        ("[[Bild:a.png|x]]Wort [[Файл:b.jpg]]слово [[Unknown:c.JPG|links|text]]", "Wort слово"),
        (
            (
                "End.\n\n[[Rummad:Berlin| ]]\n[[বিষয়শ্রেণী:বার্লিন]] [[Klad:X]]\n* [[Portal:P]]"
                " and [[Klad:Y]]"
            ),
            "End.\n\n- Portal:P and Klad:Y",
        ),
        (
            "see [http://x.org the site], [//y a [pdf]] or [http://x.org]",
            "see the site, a [pdf] or",
        ),
        ("* http://x.org/a\n* b", "- b"),
        ("see the list ([http://x.org/list])!", "see the list!"),
        ("before{{cite|a={{b}}|c}} after<ref name=x>note</ref><ref name=y />.", "before after."),
        ("x<ref>never closed [[a]]\nnext<ref>note</ref>", "x\nnext"),
        ("{| class=x\n| cell {{t}}\n|}\nAfter", "After"),
        ("{|\n| a {{b|\n{|\n| inner\n|}\n}}\n|}\nAfter", "After"),
        (
            "{|\n| style='x' | " + "A column of text. " * 9 + "\n| 12\n|}",
            ("A column of text. " * 9).strip(),
        ),
        (
            'A page that lost its lines {| class="x" |- | a || b |} goes on',
            "A page that lost its lines goes on",
        ),
        ("<!-- gone -->x<br/>y &ndash; z&nbsp;!<!-- open", "x\ny – z !"),
        ("10<sup>5</sup> H<sub>2</sub>O 8<sup>th</sup>", "10⁵ H₂O 8th"),
        (
            "== Head ==\nBody\n=== Empty ===\n== Next ==\nMore\n== See also ==\n",
            "Head\n\nBody\n\nNext\n\nMore",
        ),
        ("* one\n* two\n## three\n: four", "- one\n- two\n- three\nfour"),
        (
            "<math>\\frac{{a}}{b}</math> and <nowiki>[[as is]]</nowiki>",
            "$\\frac{{a}}{b}$ and [[as is]]",
        ),
        (
            "So:\n<syntaxhighlight lang=c>\nif (a)\n    b [[i]];\n</syntaxhighlight>",
            "So:\n\nif (a)\n    b [[i]];",
        ),
        ("__NOTOC__ text {{never closed\n\nThe next paragraph.", "text\n\nThe next paragraph."),
        ("[[never closed, ]] stray, }} and {{{1|x}}} end", "never closed, stray, and end"),
        ("-{zh-hans:州; zh-hant:邦}-、-{TXL}-、a-{}-b", "州、TXL、ab"),
        ("<gallery>\na.jpg|caption\n</gallery>Text", "Text"),
    ],
)
def test_markup(markup: str, text: str) -> None:
    """Each construct gives its text."""
    assert read_wikitext(markup)[0] == text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        (
            (
                "ran {{convert|10|km|mi}}, {{cvt|5|to|10|sqmi}}, {{convert|6|ft|2|in|m}},"
                " {{convert|3|km2}}"
            ),
            "ran 10 km, 5 to 10 sq mi, 6 ft 2 in, 3 km²",
        ),
        (
            "in {{lang|fr|été}} ({{lang-grc|ἀρχή|lit=x}}) {{ndash}}"
            " {{nihongo|Aikido|合気道|Aikidō}}",
            "in été (ἀρχή) – Aikido (合気道, Aikidō)",
        ),
        ("{{As of|2014|5}} and {{as of|2019|lc=y}}", "As of May 2014 and as of 2019"),
        (
            "{{frac|1|2}} {{frac|3|1|4}} {{val|6.02|e=23|u=mol}} {{formatnum:90000}}",
            "1/2 3 1/4 6.02×10^23 mol 90000",
        ),
        (
            "{{ship|HMS|Victory}}, a {{sclass|Nimitz|carrier}}, {{circa|1830}}",
            "HMS Victory, a Nimitz-class carrier, c. 1830",
        ),
        ("{{IPAc-en|æ|l|ˈ|b}} {{IPA|[a]}} {{IPA-de|bɛɐ̯|-|x.ogg}}", "/ælˈb/ [a] [bɛɐ̯]"),
        ("{{nowrap|a [[b|c]]}} {{abbr|Dr|Doctor}} {{quote|text=Said.|author=X}}", "a c Dr Said."),
        (
            "* {{t+|de|Wort|n}}, {{m|la|dictio||speaking}}, {{inh|en|enm|word}}, {{cog|da|-}}.",
            "- Wort, dictio, word.",
        ),
        (
            "# {{lb|en|computing|_|slang}} {{plural of|en|cat}} {{q|dated}}",
            "- (computing slang) plural of cat (dated)",
        ),
        ("called {{Unbekannt|Spree}} here.{{rp|12}} {{navbox|a=b}}", "called Spree here."),
        (
            "Paris ({{audio|x.ogg}}; born {{x}}, 1 May) is, {{y}}, in ({{z}}) France {{w2|a|b}}.",
            "Paris (born, 1 May) is, in France.",
        ),
        ("f() and （{{x}}、あ）", "f() and （あ）"),
        ("''Eagle''{{'s}} {{\" '}}go{{'\"}}, می{{zwnj}}شود", "Eagle's \"'go'\", می\u200cشود"),
    ],
)
def test_templates(markup: str, text: str) -> None:
    """Templates that stand for words show them; others leave no gap in the sentence."""
    assert read_wikitext(markup)[0] == text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("It is at {{coord|12|30|15|N|69|58|W|type:city}}.", "It is at 12°30′15″N 69°58′W."),
        (
            "It is at {{Coord|12.5|-69.97|display=inline,title}} now.",
            "It is at 12.5°N 69.97°W now.",
        ),
        ("A town. {{coord|12|N|69|W}}\n{{coord|12|N|69|W}}", "A town."),
        ("It is a town {{coord|12|N|69|W|display=title}}.", "It is a town."),
    ],
)
def test_coordinates(markup: str, text: str) -> None:
    """Coordinates are words of a sentence only inside it."""
    assert read_wikitext(markup)[0] == text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("''Eagle'''s side, '''B'''", "Eagle's side, B"),
        ("Dans l'''Iliade'' et '''B'''", "Dans l'Iliade et B"),
        ("'''''A''' b'' and '''C'''", "A b and C"),
        ("'''Never closed", "Never closed"),
    ],
)
def test_apostrophes_before_italic_text(markup: str, text: str) -> None:
    """A triple quote that is an apostrophe and an italic quote leaves its apostrophe."""
    assert read_wikitext(markup)[0] == text


def test_names_of_templates() -> None:
    """Names are in lower case, and each is either shown or known to be no word."""
    assert all(name == name.lower().strip() and name for name in TEMPLATES)
    assert not {name for name in NO_WORDS if name in TEMPLATES}


@examples(200)
@given(
    st.sampled_from([*sorted(TEMPLATES), "lang-x", "ipa-x", "rq:x", "plural of"]),
    st.lists(st.sampled_from(["", "a", "1", "en", "-", "to", "0=x", "12=y", "e=2", "=", "/a/"])),
)
def test_templates_take_any_arguments(name: str, given: list[str]) -> None:
    """Every known template takes any number and form of arguments."""
    assert "{{" not in read_wikitext("{{" + "|".join([name, *given]) + "}}")[0]


MARKUP = (
    "{{ }} {{{ }}} [[ ]] {| |} |- | ! = == '' ''' <ref> </ref> <ref/> <!-- --> <math> </math> <br>"
    " \n \n\n * word lang| File: -{ }- [http://x y] <b>"
)


@examples(300)
@given(
    st.lists(st.sampled_from([*MARKUP.split(" "), "{", "\x00", "\x01"]), max_size=60),
    st.sampled_from(["", " "]),
)
@example(["-{", "-{", "|}", "-{"], "")
@example(["{", "<b>", "{"], "")
def test_no_markup_raises_or_leaves_brackets(parts: list[str], between: str) -> None:
    """Any mixture of brackets terminates, and leaves no bracket and no internal mark."""
    text = read_wikitext(between.join(parts))[0]
    if "<math>" not in parts:
        assert not re.search(r"\{\{|\[\[|\]\]|'''|[\x00\x01]", text)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["word", "Wort, mit", "(so)", "x"]),
            st.sampled_from([" ", "; ", ", ", " (", ") "]),
        ),
        max_size=8,
    )
)
def test_text_without_gaps_is_unchanged(parts: list[tuple[str, str]]) -> None:
    """Punctuation changes only where something was removed; letters never go."""
    text = "".join(word + mark for word, mark in parts)
    assert close_gaps(text) == text
    assert re.sub(r"\W", "", close_gaps(text.replace(" ", f" {GAP} "))) == re.sub(r"\W", "", text)


N = 100_000
HOSTILE = {
    "open": "{{" * N,
    "nested": "{{" * 10_000 + "x" + "}}" * 10_000,
    "nested and shown": "{{lang|fr|" * 10_000 + "x" + "}}" * 10_000,
    "links": "[[a|" * 50_000,
    "nested links": "[[a|" * 10_000 + "x" + "]]" * 10_000,
    "crossed": "{{[[" * N + "}}" * N + "]]" * N,
    "tables": "{|\n" * N,
    "table ends in a line": (" " * 50 + "|}") * 20_000,
    "references": "<ref>" * N,
    "comments": "<!--" * N + "-->",
    "formulas": "<math>" * N,
    "gaps": "(" + "{{x}}; " * N + ")",
    "addresses": "[http://" * N,
    "quotes": "'" * N * 5,
    "headings": "=a" * N * 5,
    "phrases": "a {{x y|q}} " * N,
    "conversions": "-{" * N,
    "spaces": " " * N * 20,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_markup_terminates(name: str) -> None:
    """Hostile markup takes linear time: a quadratic algorithm would not end here."""
    assert len(read_wikitext(HOSTILE[name])[0]) <= len(HOSTILE[name])
