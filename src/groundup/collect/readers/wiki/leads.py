"""Templates that hold the first words of a biography.

{{Bio|Nome=Ada|Cognome=Rossi|Sesso=F|LuogoNascita=Roma|GiornoMeseNascita=3 marzo
|AnnoNascita=1901|Attività=pittrice|Nazionalità=italiana}}
→
Ada Rossi (Roma, 3 marzo 1901) è una pittrice italiana.
"""

from __future__ import annotations

import re

from groundup.collect.readers.wiki.arguments import Arguments, Show
from groundup.collect.readers.wiki.dates import join_date

# Wikis whose template of this name writes another language.
_OTHER_BIO = frozenset("scn nap vec lmo pms sc lij rgn eml fur co".split())
_UNO = re.compile(r"(?:s[^aeiouàèéìòù\W]|z|gn|ps|pn|x|y|i[aeou])", re.IGNORECASE)


def _article(noun: str, is_woman: bool) -> str:
    """Return the Italian indefinite article of a noun, with the space behind it."""
    if is_woman:
        return "un'" if noun[:1].lower() in "aeiouàèéìòù" else "una "
    return "uno " if _UNO.match(noun) else "un "


def _append(text: str, more: str) -> str:
    """Append words that bring their own comma, if any."""
    return f"{text}{more}" if more[:1] in (",", ";", ".", "") else f"{text} {more}"


def _life(arguments: Arguments) -> str:
    """Return place and day of birth and of death, in parentheses; "" when nothing is known."""
    sides = []
    for event in ("Nascita", "Morte"):
        place = arguments.first(f"Luogo{event}Alt", f"Luogo{event}")
        day, year = arguments.first(f"GiornoMese{event}"), arguments.first(f"Anno{event}")
        sides.append(", ".join(filter(None, (place, f"{day} {year}".strip()))))
    birth, death = sides
    if not birth and not death:
        before = arguments.first("PreData")
        return f" ({before})" if before else ""
    life = f"{birth or '...'} – {death}" if death else birth
    before = arguments.first("PreData")
    return f" ({before}; {life})" if before else f" ({life})"


def _bio(arguments: Arguments) -> str:
    """The first sentence of an Italian biography."""
    get, is_woman = arguments.first, arguments.first("Sesso").upper() == "F"
    names = " ".join(filter(None, (get("Titolo"), get("Nome"), get("Cognome"))))
    if not names or arguments.language in _OTHER_BIO:
        return ""
    text = _append(names, get("PostCognome")) + _life(arguments)
    end = "" if get("Punto").lower() == "no" else "."
    if get("FineIncipit"):
        text = _append(text, get("FineIncipit"))
        return text if text.endswith(".") else text + end
    trades = [*filter(None, (get("Attività"), get("Attività2"), get("Attività3")))]
    if not trades:
        return text + end
    more = get("AttivitàAltre")
    listed = ", ".join(trades)
    if len(trades) > 1 and not more:
        listed = f"{', '.join(trades[:-1])} e {trades[-1]}"
    verb = "è"
    if get("AnnoMorte"):
        verb = "è stata" if is_woman else "è stato"
    before = get("PreAttività")
    article = f"{before} " if before else _article(trades[0], is_woman)
    text = _append(f"{text} {verb} {article}{listed}", more)
    text = _append(text, get("Nazionalità"))
    if naturalized := get("NazionalitàNaturalizzato"):
        text += f" naturalizzat{'a' if is_woman else 'o'} {naturalized}"
    if citizen := get("Cittadinanza"):
        text += f" con cittadinanza {citizen}"
    text = _append(text, get("PostNazionalità"))
    return text if text.endswith(".") else text + end


def _born_and_died(arguments: Arguments) -> str:
    """Chinese: year and day of birth, year and day of death, in parentheses."""
    birth_year, birth, death_year, death = [*arguments.positional, "", "", "", ""][:4]
    born, died = birth_year + birth, death_year + death
    if died:
        return f"（{born}－{died}）"
    return f"（{born}－）" if born else ""


def _lahir_mati(arguments: Arguments) -> str:
    """Indonesian: place, day, month and year of birth, then those of death, in parentheses."""
    values = [*arguments.positional, *[""] * 8]
    sides = []
    for word, start in (("lahir", 0), ("meninggal", 4)):
        place, day, month, year = values[start : start + 4]
        date = join_date(day, month, year, "id") if year or month else ""
        if place or date:
            where = f" di {place}" if place else ""
            sides.append(", ".join(filter(None, (f"{word}{where}", date))))
    shown = " – ".join(sides).replace("lahir, ", "lahir ").replace("meninggal, ", "meninggal ")
    return f"({shown})" if shown else ""


def _prenome(arguments: Arguments) -> str:
    """Italian: a given name, its language, and M or F."""
    name, language, sex = [*arguments.positional, "", "", ""][:3]
    gender = {"M": " maschile", "F": " femminile"}.get(sex.upper(), "")
    known = bool(name and language)
    return f"{name} è un nome proprio di persona {language}{gender}" if known else ""


LEADS: dict[str, Show] = {
    "bio": _bio,
    "prenome": _prenome,
    "bd": _born_and_died,
    "lahirmati": _lahir_mati,
}
