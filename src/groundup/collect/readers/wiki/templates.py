"""What a wiki's templates show inside a sentence, as functions of their arguments.

    {{convert|10|km|mi}}   →  10 km         {{circa|1830}}       →  c. 1830
    {{lang|fr|été}}        →  été           {{as of|2019|lc=y}}  →  as of 2019

A dump of articles does not bring its templates. These are the ones that stand for words in running
text, by the manuals of the English Wikipedia and Wiktionary and by counts on real dumps in 76
languages. Any other template is layout and is removed, but for a lone phrase in the middle of a
sentence (`wikitext.py`).
"""

from __future__ import annotations

import re
from functools import lru_cache

from groundup.collect.readers.wiki.arguments import (
    FAMILIES,
    TEMPLATES,
    WIKI,
    Arguments,
    Show,
    shows,
)
from groundup.collect.readers.wiki.dates import join_date, named_century, show_number

_RANGES = {word: f" {word} " for word in ("to", "and", "or", "by")}
_RANGES |= {"-": "–", "–": "–", "to(-)": "–", "x": " × ", "+/-": " ± "}
_UNITS = {"C": "°C", "F": "°F", "kph": "km/h", "sqkm": "km²"}
_UNITS |= {"acre": "acres", "sqmi": "sq mi", "sqft": "sq ft"}


def _pick(*keys: int | str) -> Show:
    return lambda arguments: arguments.first(*keys)


def _form(form: str, if_any: bool = False) -> Show:
    """A text with the first argument at its {}; with `if_any`, nothing without an argument."""
    return lambda arguments: (
        "" if if_any and not arguments.first(0) else form.format(arguments.first(0))
    )


for _text, _names in WIKI["forms"].items():
    shows(_names)(_form(_text))
for _text, _names in WIKI["measures"].items():
    shows(_names)(_form(_text, if_any=True))
for _text, _names in WIKI["joined"].items():
    shows(_names)(lambda arguments, joint=_text: joint.join(filter(None, arguments.positional)))
for _entry in WIKI["arguments"]:
    shows(_entry["names"])(_pick(*_entry["keys"]))
shows("§")(lambda arguments: f"§ {' '.join(arguments.positional)}")
FAMILIES |= dict.fromkeys(
    ("lang-", "lang ", "vol-", "link-", "k-", "j-", "l/", "јез-", "ling-", "lg-", "formatnum:"),
    _pick(0),
)
FAMILIES["rq:"] = _pick("passage", "text")
# Names that show something else in one wiki than in most.
_LOCAL: dict[tuple[str, str], Show] = {
    **{("fr", name): _form("« {} »", if_any=True) for name in ("citation", "guil")},
    ("fr", "incise"): _form("– {} –", if_any=True),
    ("it", "q"): _pick(0),
    ("ko", "llang"): _pick(1),
}


@shows("l|l-self|m-self|ll|mention|m+|alter|back-form|back-formation|desc|descendant|clipping")
def _word(arguments: Arguments) -> str:
    """A word of Wiktionary: its language code, the word, and how it is written if that differs."""
    words = arguments.words()
    is_shown_differently = len(words) > 1 and words is not arguments.positional
    shown = words[1] if is_shown_differently else ""
    return arguments.named.get("alt") or shown or (words[0] if words else "")


@shows("m")
def _word_or_number(arguments: Arguments) -> str:
    """A word of Wiktionary, or an Italian measure: 10|u=km."""
    is_number = arguments.first(0)[:1].isdecimal()
    return show_number(arguments) if is_number else _word(arguments)


# A translation or an example: gender or translation follow its word.
shows(WIKI["names"]["translation"])(
    lambda arguments: arguments.named.get("alt") or next(iter(arguments.words()), "")
)


@shows(WIKI["names"]["derived"])
def _derived(arguments: Arguments) -> str:
    """A word from another language: both language codes come first."""
    inner = Arguments(arguments.words(), arguments.named)
    return "" if inner.positional[-1:] == ["-"] else _word(inner)


shows(WIKI["names"]["affix"])(lambda arguments: " + ".join(filter(None, arguments.words())))
shows(WIKI["names"]["label"])(Arguments.labels)


@shows("convert|cvt|conv|converter|convertir|pretvori")
def _measure(arguments: Arguments) -> str:
    """A measure as it was given: numbers, the words between them, and the unit; no conversion."""
    text, rest = "", list(arguments.positional)
    while len(rest) > 2 and rest[1] in _RANGES:
        text += rest[0] + _RANGES[rest[1]]
        rest = rest[2:]
    if len(rest) > 3 and rest[1] in ("ft", "lb", "st") and rest[3] in ("in", "oz", "lb"):
        return f"{text}{rest[0]} {rest[1]} {rest[2]} {rest[3]}"
    value, unit, *_ = [*rest, "", ""]
    unit = _UNITS.get(unit) or re.sub(r"(?<=[a-z])2$", "²", re.sub(r"(?<=[a-z])3$", "³", unit))
    return f"{text}{value} {unit}".strip()


COORDINATES = frozenset(("coord", "coor", "coor d", "coor dm", "coor dms"))
_DEGREES = re.compile(r"[-−]?\d{1,3}(?:\.\d{1,20})?")


@shows("|".join(COORDINATES))
def _coordinates(arguments: Arguments) -> str:
    """A place on the globe: 12|30|N|69|58|W or 12.5|-69.97; nothing if only the title shows it."""
    numbers: list[str] = []
    sides: list[str] = []
    for value in arguments.positional:
        if value in ("N", "S", "E", "W", "O") and numbers:
            marked = zip(numbers, "°′″", strict=False)
            sides.append("".join(map("".join, marked)) + value)
            numbers = []
        elif _DEGREES.fullmatch(value):
            numbers.append(value)
        else:
            break
    if not sides and len(numbers) == 2:
        signed = zip(numbers, ("NS", "EW"), strict=True)
        sides = [f"{value.lstrip('-−')}°{letters[value[0] in '-−']}" for value, letters in signed]
    is_shown = arguments.named.get("display", "").lower() not in ("title", "t")
    return " ".join(sides) if is_shown and len(sides) == 2 else ""


@shows("val|valx")
def _value(arguments: Arguments) -> str:
    power, unit = arguments.named.get("e"), arguments.first("u", "ul")
    return arguments.first(0) + (f"×10^{power}" if power else "") + (f" {unit}" if unit else "")


@shows("frac|fraction|sfrac")
def _fraction(arguments: Arguments) -> str:
    """`2` is 1/2, `3|4` is 3/4, `1|3|4` is 1 3/4."""
    parts = arguments.positional[:3]
    if len(parts) < 2:
        parts = ["1", *parts] if parts else ["", ""]
    *whole, top, bottom = parts
    return " ".join([*whole, f"{top}/{bottom}"]) if bottom else ""


@shows("as of|asof|since")
def _as_of(arguments: Arguments) -> str:
    """Year, month and day, in this order."""
    year, *rest = arguments.positional or [""]
    month, day, *_ = [*rest, "", ""]
    date = join_date(day, month, year, "en")
    words = arguments.named.get("alt") or f"As of {date}"
    return words[:1].lower() + words[1:] if "lc" in arguments.named else words


@shows("ipa|ipa-all|api|ipa link|ipalink|ipaslink|lausunta|fon|afi", "ipa-", "lfe-")
def _sound(arguments: Arguments) -> str:
    """A pronunciation: what stands between slashes or brackets, else the first that is no file."""
    marked = [part for part in arguments.positional if part[:1] in ("/", "[")]
    plain = [part for part in arguments.words() if part not in ("", "-")]
    plain = [part for part in plain if not part.lower().endswith((".ogg", ".wav", ".oga"))]
    return ", ".join(marked) or (f"[{plain[0]}]" if plain else "")


@shows("ipac", "ipac-")
def _sounds(arguments: Arguments) -> str:
    """A pronunciation given sound by sound."""
    skipped = ("icon", "pron", "lang", "local", "us", "uk", "also", "", "audio", "ipa")
    sounds = (sound for sound in arguments.positional if sound.lower() not in skipped)
    return f"/{''.join(sound for sound in sounds if not sound.lower().endswith('.ogg'))}/"


@shows("nihongo|nihongo3|nihongo4|読み仮名|ruby")
def _nihongo(arguments: Arguments) -> str:
    first, *rest = list(filter(None, arguments.positional[:3])) or [""]
    return f"{first} ({', '.join(rest)})" if rest else first


@shows("unbulleted list|ubl|ublist|bulleted list|blist|ordered list|hlist")
def _items(arguments: Arguments) -> str:
    return "".join(f"\n* {part}" for part in arguments.positional if part)


# A name in Chinese: the characters, then how they are read.
shows("zh|zh-full|lang-zh")(
    lambda arguments: ", ".join(filter(None, map(arguments.named.get, ("t", "s", "c", "p", "j"))))
)

# The first words of biographies:
#     {{Bio|Nome=Ada|Cognome=Rossi|Sesso=F|LuogoNascita=Roma|GiornoMeseNascita=3 marzo
#     |AnnoNascita=1901|Attività=pittrice|Nazionalità=italiana}}
#     →
#     Ada Rossi (Roma, 3 marzo 1901) è una pittrice italiana.
# Wikis whose template {{Bio}} writes another language.
_OTHER_BIO = frozenset("scn nap vec lmo pms sc lij rgn eml fur co".split())
_UNO = re.compile(r"(?:s[^aeiouàèéìòù\W]|z|gn|ps|pn|x|y|i[aeou])", re.IGNORECASE)


def _append(text: str, more: str) -> str:
    """Append words that bring their own comma, if any."""
    return f"{text}{more}" if more[:1] in (",", ";", ".", "") else f"{text} {more}"


@shows("bio")
def _bio(arguments: Arguments) -> str:
    """The first sentence of an Italian biography."""
    get, is_woman = arguments.first, arguments.first("Sesso").upper() == "F"
    names = " ".join(filter(None, (get("Titolo"), get("Nome"), get("Cognome"))))
    if not names or arguments.language in _OTHER_BIO:
        return ""
    sides = []
    for event in ("Nascita", "Morte"):
        day = f"{get(f'GiornoMese{event}')} {get(f'Anno{event}')}".strip()
        place = get(f"Luogo{event}Alt", f"Luogo{event}")
        sides.append(", ".join(filter(None, (place, day))))
    birth, death = sides
    life = f"{birth or '...'} – {death}" if death else birth
    life = "; ".join(filter(None, (get("PreData"), life)))
    text = _append(names, get("PostCognome")) + (f" ({life})" if life else "")
    end = "" if get("Punto").lower() == "no" else "."
    if get("FineIncipit"):
        text = _append(text, get("FineIncipit"))
        return text if text.endswith(".") else text + end
    trades = [*filter(None, map(get, ("Attività", "Attività2", "Attività3")))]
    if not trades:
        return text + end
    listed, more = ", ".join(trades), get("AttivitàAltre")
    if len(trades) > 1 and not more:
        listed = f"{', '.join(trades[:-1])} e {trades[-1]}"
    verb, ending = ("è stata", "a") if is_woman else ("è stato", "o")
    verb = verb if get("AnnoMorte") else "è"
    # The indefinite article, unless other words stand there.
    article = "uno " if _UNO.match(trades[0]) else "un "
    if is_woman:
        article = "un'" if trades[0][:1].lower() in "aeiouàèéìòù" else "una "
    article = f"{get('PreAttività')} " if get("PreAttività") else article
    text = _append(_append(f"{text} {verb} {article}{listed}", more), get("Nazionalità"))
    if naturalized := get("NazionalitàNaturalizzato"):
        text += f" naturalizzat{ending} {naturalized}"
    if citizen := get("Cittadinanza"):
        text += f" con cittadinanza {citizen}"
    text = _append(text, get("PostNazionalità"))
    return text if text.endswith(".") else text + end


@shows("bd")
def _born_and_died(arguments: Arguments) -> str:
    """Chinese: year and day of birth, year and day of death, in parentheses."""
    birth_year, birth, death_year, death = [*arguments.positional, "", "", "", ""][:4]
    born, died = birth_year + birth, death_year + death
    return f"（{born}－{died}）" if born or died else ""


@shows("lahirmati")
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


@shows("prenome")
def _prenome(arguments: Arguments) -> str:
    """Italian: a given name, its language, and M or F."""
    name, language, sex = [*arguments.positional, "", "", ""][:3]
    gender = {"M": " maschile", "F": " femminile"}.get(sex.upper(), "")
    known = bool(name and language)
    return f"{name} è un nome proprio di persona {language}{gender}" if known else ""


_FORM_OF = re.compile(r".{4,40} (?:of|for)$")
NO_WORDS = frozenset(WIKI["no_words"]["names"].split("|"))
_NOTE_NAME = re.compile(rf"(?:{WIKI['no_words']['notes']})(?:[ /-].*)?")
_COMPUTED_NAME = re.compile(
    r"#.*|current.*|local.*|numberof.*|(?:.*[ -])?"
    rf"(?:{WIKI['no_words']['computed']})(?:[ -].*)?"
)


def is_computed(name: str) -> bool:
    """Return whether a template of this name shows what does not stand in the page."""
    return _COMPUTED_NAME.fullmatch(name) is not None


def is_note(name: str) -> bool:
    """Return whether a template of this name (in lower case) stands for no words of a sentence."""
    return name in NO_WORDS or _NOTE_NAME.fullmatch(name) is not None


@lru_cache(4096)
def find_template(name: str, language: str = "") -> Show | None:
    """Return what a template shows in a wiki; None when it is not known. The name is lower case."""
    show = _LOCAL.get((language, name)) or TEMPLATES.get(name)
    if show is not None:
        return show
    for start, show in FAMILIES.items():
        if name.startswith(start):
            return show
    if century := named_century(name):
        return lambda arguments: century
    if _FORM_OF.match(name) and not is_computed(name):
        # Wiktionary's "plural of", "abbreviation of" and so on.
        return lambda arguments: f"{name} {_word(arguments)}".strip()
    return None
