"""Templates of dates, centuries and heights, in the words of the wiki's language.

    {{Date|3|mars|2001}}           →  3 mars 2001
    {{start date|1989|9|9|df=y}}   →  9 September 1989
    {{s-|XIX|e}}                   →  XIXe
    {{Höhe|512|DE-NN}}             →  512 m ü. NN

A template that gives an age, a sum of today or the population of a data page is not among them:
what it shows does not stand in the dump.
"""

from __future__ import annotations

import re
from functools import lru_cache

from groundup.collect import by_word
from groundup.collect.readers.wiki.arguments import WIKI, Arguments, Show, shows

_MONTHS: dict[str, str] = WIKI["months"]
# How the parts of a date stand together, by language.
_DAY_MONTH_YEAR, _MONTH_YEAR, _DAY_MONTH = (
    by_word(WIKI[order]) for order in ("day_month_year", "month_year", "day_month")
)
_ISO_DATE = re.compile(r"(\d{3,4})-(\d{1,2})(?:-(\d{1,2}))?(?!\d)")
_YEAR = re.compile(r"-?\d{3,4}\b.*", re.DOTALL)
_ROMAN = re.compile(r"[IVXLCDM]+", re.IGNORECASE)


def join_date(day: str, month: str, year: str, language: str, is_day_first: bool = True) -> str:
    """Return a date in the words of a language; parts may be empty, a month may have its name."""
    language = language or "en"
    number = int(month) if month.isdecimal() and len(month) < 3 else 0
    if 1 <= number <= 12 and language in _MONTHS:
        names = _MONTHS if day else _MONTHS | WIKI["nominative"]
        month = names[language].split()[number - 1]
    elif 1 <= number <= 12 and language not in _DAY_MONTH_YEAR:
        # ISO 8601 is in no language.
        return "-".join(part.zfill(2) for part in (year, month, day) if part)
    day = day.lstrip("0") if day.isdecimal() else day
    month = month.lstrip("0")
    if day == "1":
        day = WIKI["first_day"].get(language, day)
    if language in ("en", "simple") and day and month and not is_day_first:
        return f"{month} {day}, {year}" if year else f"{month} {day}"
    if language == "ca" and day and month:
        of = "d'" if month[0] in "ao" else "de "
        return f"{day} {of}{month}" + (f" de {year}" if year else "")
    orders: dict[str, str] = {}
    if month and (day or year):
        orders = _DAY_MONTH if day else _MONTH_YEAR
    if day and month and year:
        orders = _DAY_MONTH_YEAR
    parts = [part for part in (day, month, year) if part]
    return orders[language].format(*parts) if language in orders else " ".join(parts)


@shows(WIKI["names"]["date"])
def show_date(arguments: Arguments, start: int = 0) -> str:
    """A date as day, month and year, as year, month and day, as an ISO date, or in words.

    Only English has two orders, so a date that says `df` or `mf` is in English.
    """
    named, language = arguments.named, arguments.language
    is_english = named.keys() & {"df", "mf"} or language in ("", "en", "simple")
    language = "en" if is_english else language
    is_day_first = named.get("df", "").lower() not in ("", "n", "no")
    values = [value.replace("&nbsp;", " ").strip() for value in arguments.positional]
    first, second, third = [*values[start : start + 3], "", "", ""][:3]
    if year := arguments.first("year", "année", "anno", "año", "ano", "rok", "Jahr"):
        day, month = arguments.first("day", "jour", "giorno"), arguments.first("month", "mois")
        return join_date(day, month, year, language, is_day_first)
    if iso := _ISO_DATE.match(first):
        return join_date(iso[3] or "", iso[2], iso[1], language, is_day_first)
    if _YEAR.fullmatch(first):
        month, day = second, third
        if not month[:2].strip("0123456789") and month:
            return join_date(day if day.isdecimal() else "", month, first, language, is_day_first)
        is_name = month.isalpha() and day.isdecimal()
        return join_date(day, month, first, language, is_day_first) if is_name else first
    if not first or first in ("1er", "1º") or (first.isdecimal() and len(first) < 3):
        return join_date(first, second, third if third[:1] != " " else "", language)
    # "3 mars 2001|en sport", "mars|2001"
    return f"{first} {second}" if first.isalpha() and _YEAR.fullmatch(second) else first


@shows("start and end dates|start and end date|period|dash year")
def _show_period(arguments: Arguments) -> str:
    """Two dates of a year, a month and a day each."""
    return " – ".join(filter(None, (show_date(arguments), show_date(arguments, 3))))


@shows("oldstyledate|old style date|oldstyledatenospace|oldstyledatedy")
def _show_old_style(arguments: Arguments) -> str:
    """Day, year and the day in the Julian calendar."""
    day, year, julian = [*arguments.positional, "", "", ""][:3]
    return f"{day} [O.S. {julian}] {year}".strip() if julian else f"{day} {year}".strip()


def _century(ending: str, joined: str = " ") -> Show:
    """A French century: numerals, each with its ordinal, and words between them."""

    def show(arguments: Arguments) -> str:
        words: list[str] = []
        end = ending
        for value in arguments.positional:
            if value.lower() in ("e", "er", "re", "ème", "è") and words:
                words[-1] += value
            elif value == "s" and words:
                end = ending.replace("siècle", "siècles")
            elif value:
                words.append(value.upper() if _ROMAN.fullmatch(value) else value)
        return joined.join(words) + end if words else ""

    return show


for _names, _century_form in WIKI["centuries"].items():
    shows(_names)(_century(*_century_form))


@shows("s")
def _show_s(arguments: Arguments) -> str:
    """French: a century; Russian: words that are not wrapped; Wiktionary: a remark on a sense."""
    if arguments.language == "it":
        # A notice that the page is short.
        return ""
    if arguments.language in ("ru", "uk", "be", "bg", "sr", "mk", "kk", "tt", "ba", "sah"):
        return arguments.first(0)
    is_french = arguments.language == "fr" or arguments.first(1) in ("e", "er", "re")
    if is_french and _ROMAN.fullmatch(arguments.first(0)):
        return _century(" siècle")(arguments)
    return arguments.labels()


@shows("siglo|siglos")
def _show_siglo(arguments: Arguments) -> str:
    """A Spanish century: numeral, `a` or `d` for the era, `s` or `S` for the word."""
    number, era, word = [*arguments.positional, "", "", ""][:3]
    eras = {"a": " a. C.", "d": " d. C."}
    shown = number.upper() + eras.get(era.lower()[:1], "")
    return f"{word}iglo {shown}" if number and word in ("s", "S") else shown


@shows("höhe|hoehe")
def _show_hoehe(arguments: Arguments) -> str:
    """A German height above the level of a country."""
    number, level = arguments.first(0), arguments.first(1)
    return f"{number} m{WIKI['levels'].get(level, '')}" if number else ""


@shows("height|weight|altezza|estatura")
def _show_height(arguments: Arguments) -> str:
    """A height or weight with its units as names."""
    units = ("ft", "in", "m", "cm", "st", "lb", "kg")
    named = arguments.named
    shown = [f"{named[unit]} {unit}" for unit in units if named.get(unit)]
    return " ".join(shown) or " ".join(filter(None, arguments.positional[:2]))


@shows("unité|unite|unidad|unit|nombre|nb|num|fmtn|número|liczba|число|szám")
def show_number(arguments: Arguments) -> str:
    """A number and its unit, with powers of ten: 250|km, 9,8|m|s|-2, 3|e=5|m."""
    number, *units = [*arguments.positional, ""]
    power = arguments.named.get("e")
    units = [unit if unit[:1] not in "-−0123456789" else f"^{unit}" for unit in filter(None, units)]
    unit = arguments.first("u", "ul", "unité", "unidad") or " ".join(units).replace(" ^", "^")
    return f"{number}{f'×10^{power}' if power else ''} {unit}".strip() if number else ""


@shows("heure|heures|durée|heure-")
def _show_hours(arguments: Arguments) -> str:
    """French hours: 14 h 30 min 5 s; the minute stands without its unit as the last one."""
    hours, minutes, seconds = [*arguments.positional, "", "", ""][:3]
    shown = [f"{hours} h"] if hours else []
    if minutes:
        shown.append(f"{minutes} min" if seconds or not hours else minutes)
    return " ".join([*shown, f"{seconds} s"] if seconds else shown)


def _ordinal(after: str) -> Show:
    """An English ordinal, and the word after it."""

    def show(arguments: Arguments) -> str:
        number = arguments.first(0)
        ending = {"1": "st", "2": "nd", "3": "rd"}.get(number[-1:], "th")
        if number.isdecimal():
            number += "th" if number[-2:-1] == "1" else ending
        return number + after if number else ""

    return show


shows("ordinal")(_ordinal(""))
shows("century")(_ordinal(" century"))


# A template named as what it shows: {{XXe siècle}}, {{Ier siècle av. J.-C.}}, {{século XIX}}.
_NAMED_CENTURY = re.compile(
    r"(?:(?:siècle|siglo|século|secolo|segle|sec\.|wiek|век|століття) )?"
    r"(?:[ivx]+|\d{1,2})(?:er|e|re|ème|º|ª|vet)?"
    r"(?:[  ](?:siècle|siècles|век|wiek|century|secolo|siglo|століття)(?:[  ].*)?)?"
)
_NUMERAL = re.compile(r"\b([ivx]+)(?=(?:er|e|re|ème|vet)?\b)")
_NOT_NUMERALS = frozenset("i v x ie vie mi mix".split())


@lru_cache(1024)
def named_century(name: str) -> str:
    """Return what a template shows that is named, in lower case, as a century or an ordinal."""
    is_number = name in _NOT_NUMERALS or name.isdecimal() or _ROMAN.fullmatch(name)
    if is_number or not _NAMED_CENTURY.fullmatch(name):
        return ""
    return _NUMERAL.sub(lambda numeral: numeral[1].upper(), name).replace("j.-c.", "J.-C.")
