"""Templates of dates, centuries, heights and first sentences, and sentences with holes."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples

from groundup.collect.readers.wiki.dates import join_date
from groundup.collect.readers.wiki.holes import HOLE
from groundup.collect.readers.wiki.wikitext import read_wikitext


@pytest.mark.parametrize(
    ("language", "markup", "text"),
    [
        ("fr", "née le {{date de naissance-|17|octobre|1973}} à", "née le 17 octobre 1973 à"),
        ("fr", "mort le {{date de décès|10|2|2007|23|6|1952}}.", "mort le 10 février 2007."),
        ("fr", "Le {{Date|3|mars|2001}} elle", "Le 3 mars 2001 elle"),
        ("fr", "{{date|1|1|2001}}, {{date||mars|2001}}", "1er janvier 2001, mars 2001"),
        ("fr", "le {{date|3 mars 2001|en sport}}, {{date|3|mars}}", "le 3 mars 2001, 3 mars"),
        ("fr", "du {{s-|XIX|e}} au {{s|XX|e}}", "du XIXe au XXe siècle"),
        (
            "fr",
            "aux {{s2|XII|e|XIII|e}}, au {{-s|V|e}}",
            "aux XIIe et XIIIe siècles, au Ve siècle av. J.-C.",
        ),
        (
            "fr",
            "du {{XXe siècle}}, {{Ier siècle av. J.-C.}}",
            "du XXe siècle, Ier siècle av. J.-C.",
        ),
        ("fr", "le {{1er}} et le {{XIXe}}", "le 1er et le XIXe"),
        ("fr", "{{unité|250|km}}, {{nombre|255|habitants}}", "250 km, 255 habitants"),
        ("fr", "à {{heure|14|30}}, {{citation|oui}}", "à 14 h 30, « oui »"),
        (
            "de",
            "am {{Datum|3|3|2001}} auf {{Höhe|512|DE-NN|link=true}} im",
            "am 3. März 2001 auf 512 m ü. NN im",
        ),
        ("de", "auf {{Höhe|512|DE-NHN}}, {{Höhe|1512|CH}}", "auf 512 m ü. NHN, 1512 m ü. M."),
        ("it", "il {{data|1|3|2001}}, {{M|10|u=km}}", "il 1º marzo 2001, 10 km"),
        ("es", "el {{fecha|3|3|2001}}, el {{siglo|XIX||s}}", "el 3 de marzo de 2001, el siglo XIX"),
        ("es", "en el {{siglo|I|a|s}} y", "en el siglo I a. C. y"),
        ("pt", "em {{dtlink|3|3|2001}}, no {{século XIX}}", "em 3 de março de 2001, no século XIX"),
        ("pt", "em {{dni|17|10|1973|lang=br}} e", "em 17 de outubro de 1973 e"),
        ("nl", "op {{datum|3|3|2001}} was", "op 3 maart 2001 was"),
        ("pl", "dnia {{data|2001-03-03}} był", "dnia 3 marca 2001 był"),
        ("ru", "родился {{дата|3|3|2001}} в {{s|XIX веке}}", "родился 3 марта 2001 в XIX веке"),
        ("cs", "{{datum narození|1989|9|9}}", "9. září 1989"),
        ("sk", "zhruba {{km|70|m}} západne, {{mnm|34}}", "zhruba 70 km západne, 34 m n. m."),
        ("ca", "el {{data|3|4|2001}}", "el 3 d'abril de 2001"),
        ("hu", "{{dátum|2001|3|3}}", "2001. március 3."),
        ("tr", "{{doğum tarihi|1989|9|9}}", "9 Eylül 1989"),
        ("ja", "{{生年月日と年齢|1989|9|9}}", "1989年9月9日"),
        ("ko", "{{출생일과 나이|1989|9|9}}", "1989년 9월 9일"),
        ("vi", "{{ngày sinh|1989|9|9}}", "9 tháng 9 năm 1989"),
        ("xx", "{{birth date|1989|9|9}}, {{birth date|1989|9}}", "1989-09-09, 1989-09"),
        ("en", "on {{start date|1989|9|9|df=y}} by", "on 9 September 1989 by"),
        ("fr", "on {{start date|1989|9|9|df=y}} by", "on 9 September 1989 by"),
        (
            "en",
            "{{start date|1989|9|9}}, {{start date|1989|9}}",
            "September 9, 1989, September 1989",
        ),
        ("en", "{{birth date and age|df=yes|1973|5|4}}", "4 May 1973"),
        ("en", "{{start date|1989}}, {{birth-date|7 December 1941}}", "1989, 7 December 1941"),
        ("en", "{{death date and age|2007|2|10|1952|6|23}}", "February 10, 2007"),
        ("en", "is {{height|m=1.8}} wide, {{height|ft=6|in=2}}", "is 1.8 m wide, 6 ft 2 in"),
        (
            "en",
            "{{OldStyleDate|12 February|1809|31 January}}",
            "12 February [O.S. 31 January] 1809",
        ),
    ],
)
def test_dates_and_measures(language: str, markup: str, text: str) -> None:
    """Dates, centuries and heights are written as the wiki of this language writes them."""
    assert read_wikitext(markup, (), language)[0] == text


@examples(200)
@given(st.dates(date(1000, 1, 1), date(2100, 1, 1)), st.sampled_from(["", "|df=y", "|mf=y"]))
def test_english_dates_match_strftime(day: date, order: str) -> None:
    """Year, month and day, an ISO date and day, month and year give the date of the calendar."""
    month = day.strftime("%B")
    expected = f"{month} {day.day}, {day.year}"
    day_first = f"{day.day} {month} {day.year}"
    if order == "|df=y":
        expected = day_first
    for given_date in (f"{day.year}|{day.month}|{day.day}", day.isoformat()):
        assert read_wikitext(f"{{{{start date|{given_date}{order}}}}}")[0] == expected
    assert read_wikitext(f"{{{{date|{day.day}|{day.month}|{day.year}}}}}")[0] == day_first


@pytest.mark.parametrize("language", ["de", "es", "fr", "it", "ja", "pl", "ru", "hu", "xx"])
def test_dates_of_a_year_differ(language: str) -> None:
    """No two days of a year are written alike, and every one holds its year."""
    days = [date(2000, 1, 1) + timedelta(number) for number in range(366)]
    shown = {join_date(str(d.day), str(d.month), "2000", language) for d in days}
    assert len(shown) == 366 and all("2000" in text for text in shown)


@pytest.mark.parametrize(
    ("language", "markup", "text"),
    [
        (
            "it",
            "{{Bio\n|Nome = Ada\n|Cognome = [[Rossi]]\n|Sesso = F\n|LuogoNascita = Roma"
            "\n|GiornoMeseNascita = 3 marzo\n|AnnoNascita = 1901\n|LuogoMorte = Milano"
            "\n|GiornoMeseMorte = 4 maggio\n|AnnoMorte = 1990\n|Attività = pittrice"
            "\n|Attività2 = scrittrice\n|Nazionalità = italiana"
            "\n|PostNazionalità = , nota per i [[ritratto|ritratti]]\n}} Visse a Roma.",
            "Ada Rossi (Roma, 3 marzo 1901 – Milano, 4 maggio 1990) è stata una pittrice e"
            " scrittrice italiana, nota per i ritratti. Visse a Roma.",
        ),
        (
            "it",
            "{{Bio|Nome=Ugo|Cognome=Neri|Sesso=M|AnnoNascita=1950|Attività=scrittore"
            "|AttivitàAltre=e regista|Nazionalità=italiano}}",
            "Ugo Neri (1950) è uno scrittore e regista italiano.",
        ),
        (
            "it",
            "{{Bio|Nome=Ugo|Cognome=Neri|AnnoNascita=1950|FineIncipit=è il sindaco di Roma}}",
            "Ugo Neri (1950) è il sindaco di Roma.",
        ),
        (
            "it",
            "{{Prenome|Duilio|italiano|M}}.",
            "Duilio è un nome proprio di persona italiano maschile.",
        ),
        (
            "zh",
            "甲{{bd|1940年|4月1日|2000年|3月5日}}，作家。",
            "甲（1940年4月1日－2000年3月5日），作家。",
        ),
    ],
)
def test_first_sentences(language: str, markup: str, text: str) -> None:
    """A first sentence that stands in a template is written out."""
    assert read_wikitext(markup, (), language)[0] == text


@pytest.mark.parametrize(
    ("markup", "text", "left_out"),
    [
        ("It has {{Population of|X}} people. It is old.", "It is old.", 1),
        ("It is old. On {{foo|1|2|1990}}, it fell. It stands.", "It is old. It stands.", 1),
        ("Er hat {{Metadaten Einwohnerzahl DE-BE|Berlin}} Einwohner.", "", 1),
        ("Er kam mit Dr. Karl am 3. Mai {{foo|1|2}} vorbei. Er ging.", "Er ging.", 1),
        ("Old. {{foo|a|b}} is a town. New.", "Old. New.", 1),
        ("{{foo|a|b}} is a town.", "", 1),
        ("他有{{X|1}}人。好。", "好。", 1),
        # A sum, in a template that shows it or one that is not known.
        ("人口は{{formatnum:{{#expr:{{X|B}}/10 round 1}}}}万人で。好。", "好。", 1),
        ("Mit rund {{F|{{#expr:{{X|B}}/10}}}}&nbsp;Millionen groß. Ja.", "Ja.", 1),
        ("It is old. It has {{#expr: 3*7}}.", "It is old.", 1),
        # Notes, notices, flags and what stands between commas are no words of a sentence.
        (
            "A word {{sfn|Bloch|2007|p=25}} and {{clarify|date=May 2012}} more.",
            "A word and more.",
            0,
        ),
        ("It is, {{x}}, in Rome.{{foo|1}} It won. {{foo|1|2}}", "It is, in Rome. It won.", 0),
        ("called {{Unbekannt|Spree}} here", "called Spree here", 0),
        ("{{stub}}It is old.\n\n{{foo|1}}\n* {{foo|1}} a cart", "It is old.\n\n- a cart", 0),
    ],
)
def test_sentences_with_holes_are_left_out(markup: str, text: str, left_out: int) -> None:
    """A sentence that lost words to an unknown template goes as a whole, and is counted."""
    assert read_wikitext(markup) == (text, left_out)


@given(st.lists(st.sampled_from(["{{x|1}}", "word", " ", ". ", "The", "\n", HOLE, "* ", ", "])))
def test_no_mark_is_left(parts: list[str]) -> None:
    """No internal mark is left, whatever stands around an unknown template."""
    text, left_out = read_wikitext("".join(parts))
    assert not re.search(r"[\x00-\x02]", text) and left_out >= 0


def test_real_pages_leave_out_few_sentences(real_data: Path) -> None:
    """Of the pages about Berlin, only sentences with figures of other pages are left out."""
    from benchmarks.wikitext import articles

    pages = {
        path.parent.name: [text for _, text in articles(path)]
        for path in sorted(real_data.glob("wikipedia/minidumps/*/*.bz2"))
    }
    counts = {
        language: sum(read_wikitext(text, (), language)[1] for text in texts)
        for language, texts in pages.items()
    }
    assert {language for language, count in counts.items() if count} <= {
        "cs",
        "cy",
        "de",
        "ja",
        "nl",
        "uz",
    }
    assert sum(counts.values()) <= 10
