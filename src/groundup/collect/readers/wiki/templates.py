"""What a wiki's templates show inside a sentence, as functions of their arguments.

    {{convert|10|km|mi}}   →  10 km         {{circa|1830}}       →  c. 1830
    {{lang|fr|été}}        →  été           {{as of|2019|lc=y}}  →  as of 2019

Wikis hold hundreds of thousands of templates, and a dump of articles does not bring them. These are
the ones that stand for words in running text, by the manuals of the English Wikipedia and
Wiktionary and by counts on real dumps in 76 languages. A template that is not known is layout
(boxes, citations, notices) and is removed, but for a lone phrase in the middle of a sentence
(`wikitext.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from groundup.collect.readers.wiki.arguments import Arguments, Show
from groundup.collect.readers.wiki.dates import DATES, join_date, named_century, show_number
from groundup.collect.readers.wiki.leads import LEADS

_RANGES = {word: f" {word} " for word in ("to", "and", "or", "by")}
_RANGES |= {"-": "–", "–": "–", "to(-)": "–", "x": " × ", "+/-": " ± "}
_UNITS = {"C": "°C", "F": "°F", "kph": "km/h", "sqkm": "km²"}
_UNITS |= {"acre": "acres", "sqmi": "sq mi", "sqft": "sq ft"}


def _pick(*keys: int | str) -> Show:
    return lambda arguments: arguments.first(*keys)


def _constant(text: str) -> Show:
    return lambda arguments: text


def _join(separator: str) -> Show:
    return lambda arguments: separator.join(filter(None, arguments.positional))


def _prefix(prefix: str) -> Show:
    return lambda arguments: prefix + arguments.first(0)


_first, _passage = _pick(0, "text", "quote"), _pick("passage", "text", "quote", 6)
# Templates that show their arguments as they are, or always the same: what, and their names.
_TABLE: tuple[tuple[Show, str], ...] = (
    (_first, "small|smaller|big|larger|large|midsize|nowrap|nobr|nobold|nobreak|noitalic|normal"),
    (_first, "em|strong|bold|italic|underline|sc"),
    (_first, "smallcaps|small caps|smallcaps all|versaleta|mvar|math|var|code|tt|kbd|samp|mono"),
    (_first, "sup|sub|su|chem2|music|unicode|script"),
    (_first, "sic|not a typo|as written|abbr|tooltip|visible anchor|vanchor|linktext|vern|taxlink"),
    (_first, "taxfmt|only in print|ws|tq|née|nee"),
    (_first, "quote|blockquote|cquote|quotation|bquote|pquote|pull quote|poemquote|poem quote"),
    (_first, 'verse|talkquote|"|zitat|cita|цитата|citaat'),
    (_first, "centered|center|block indent|plainlist|flatlist|uc|lc|ucfirst|lcfirst|red|green"),
    (_first, "non-gloss definition|n-g|ngd|non-gloss|def-uncertain|glossary|defdate|ipachar"),
    (_first, "blue|color box|sronly|unsupported|not english|proper name"),
    (_first, "flag|flagcountry|flagu|noflag|no flag|year|number|formatnum"),
    (_first, "nts|ta|railgauge|tutto attaccato|esd|versalita|versalitas|rom-maj|rom|nobr romains"),
    (_first, "ill|illm|interlanguage link|仮リンク|le|lien|link|nihongo2|nihongo core|langue"),
    (_first, "comment|подсказка|senza fonte|chiarire"),
    (_pick(-1), "lang|langx|rtl-lang|transl|transliteration|translit|script/arabic|script/hebrew"),
    (_pick(-1), "align|font|color|colour|font color|bg|resize|columns-list"),
    (_pick("lt", 1, 0), "нп|нп1|нп2|нп3|нп4|нп5|не переведено|не переведено 3|не переведено 5|w"),
    (_pick("lt", 1, 0), "pedialite|projectlink|section link"),
    (_pick(2, 1), "tsl"),
    (_constant("–"), "ndash|en dash|–|endash"),
    (_constant(" – "), "snd|spnd|spaced ndash|spaced en dash|sndash|dash"),
    (_constant("—"), "mdash|em dash|—|emdash"),
    (_constant(" — "), "spaced mdash|spaced em dash|smd"),
    (_constant(" "), "nbsp|space|thin space|thinsp|hair space|hairsp|spaces|pad|gap|hsp"),
    (_constant("\n"), "break|br|-br|سخ|crlf"),
    (_constant("'"), "'|apostrophe|’"),
    (_constant("'s"), "'s|`s"),
    (_constant('"'), '-"|" \'|\'"|"-'),
    (_constant("π"), "pi"),
    (_constant("|"), "!|pipe"),
    (_constant("="), "="),
    (_constant(" · "), "·|dot|middot|•|bull|bullet|*"),
    (_constant("…"), "...|nb...|…|ellipsis|hellip"),
    (_constant("×"), "times|×"),
    (_constant("−"), "minus|−"),
    (_constant(","), ","),
    (_constant("e"), "e|er"),
    (_constant("BC"), "bc"),
    (_constant("AD"), "ad"),
    (_constant("BCE"), "b.c.e.|bce"),
    (_constant("CE"), "c.e.|ce"),
    (_prefix("c. "), "circa|c.|ca"),
    (_prefix("fl. "), "floruit|fl."),
    (_prefix("r. "), "reign|r."),
    (_prefix("d. "), "died|d."),
    (_prefix("século "), "séc|século"),
    (_constant("⇌"), "eqm"),
    (_prefix("p. "), "p."),
    (_prefix("n° "), "n°|numéro"),
    (lambda arguments: f"§ {' '.join(arguments.positional)}", "§"),
    (_prefix("M. "), "m."),
    (_prefix("Mme "), "mme"),
    (_prefix("HMS "), "hms"),
    (_prefix("USS "), "uss"),
    (_prefix("$"), "us$|usd|us dollar|$"),
    (_prefix("£"), "gbp|£|pound sterling"),
    (_prefix("€"), "eur|€|euro"),
    (_prefix("₹"), "inr|₹|indian rupee"),
    (_prefix("A$"), "aud|a$"),
    (_join(" "), "ship|bibleverse|bibleref|bibleref2|bibleverse-lb|bible verse"),
    (_join(" "), "rws|currency"),
    (_join(""), "gaps|chem"),
    (_join("-class "), "sclass|sclass2|sclass-"),
    (_join("-"), "respell|respelling"),
    (_join(", "), "syn|synonyms|ant|antonyms|hyper|hypernyms|hypo|hyponyms|cot|coordinate terms"),
    (_join(", "), "col|col2|col3|col4|col5|der2|der3|der4|rel2|rel3|rel4"),
    (lambda arguments: f"⟨{arguments.first(0)}⟩", "angbr|vr|orth"),
    (_passage, "quote-book|quote-journal|quote-text|quote-web|quote-av|quote-news|quote-newsgroup"),
    (_passage, "quote-song|quote-video"),
)
# What templates show: by name in lower case, and by how the name starts.
TEMPLATES: dict[str, Show] = {name: show for show, names in _TABLE for name in names.split("|")}
TEMPLATES |= DATES | LEADS
# Names that show something else in one wiki than in most.
_LOCAL: dict[tuple[str, str], Show] = {
    ("fr", "citation"): lambda arguments: f"« {arguments.first(0)} »" if arguments.first(0) else "",
    ("fr", "guil"): lambda arguments: f"« {arguments.first(0)} »" if arguments.first(0) else "",
    ("fr", "incise"): lambda arguments: f"– {arguments.first(0)} –" if arguments.first(0) else "",
    ("it", "q"): _pick(0),
    ("ko", "llang"): _pick(1),
}
_FAMILIES: dict[str, Show] = dict.fromkeys(
    ("lang-", "lang ", "vol-", "link-", "k-", "j-", "l/", "јез-", "ling-", "lg-", "formatnum:"),
    _pick(0),
)
_FAMILIES["rq:"] = _pick("passage", "text")


def _shows(names: str, *starts: str) -> Callable[[Show], Show]:
    """Register a function as what templates show that have one of these names, or start so."""

    def register(show: Show) -> Show:
        TEMPLATES.update(dict.fromkeys(names.split("|"), show))
        _FAMILIES.update(dict.fromkeys(starts, show))
        return show

    return register


@_shows("l|l-self|m-self|ll|mention|m+|alter|back-form|back-formation|desc|descendant|clipping")
def _word(arguments: Arguments) -> str:
    """A word of Wiktionary: its language code, the word, and how it is written if that differs."""
    words = arguments.words()
    is_shown_differently = len(words) > 1 and words is not arguments.positional
    shown = words[1] if is_shown_differently else ""
    return arguments.named.get("alt") or shown or (words[0] if words else "")


@_shows("m")
def _word_or_number(arguments: Arguments) -> str:
    """A word of Wiktionary, or an Italian measure: 10|u=km."""
    is_number = arguments.first(0)[:1].isdecimal()
    return show_number(arguments) if is_number else _word(arguments)


@_shows(
    "t|t+|tt|tt+|t-simple|t-check|t+check|t-egy|ux|uxi|usex|afex|enpr|homophones|"
    "ja-r|ja-l|zh-l|zh-m|ltc-l|och-l|ko-l|vi-l"
)
def _first_word(arguments: Arguments) -> str:
    """A translation or an example: gender or translation follow its word."""
    return arguments.named.get("alt") or next(iter(arguments.words()), "")


@_shows(
    "inh|inherited|der|derived|bor|borrowed|lbor|learned borrowing|slbor|ubor|cog|cognate|noncog|"
    "nc|ncog|doublet|calque|cal|clq|semantic loan"
)
def _derived(arguments: Arguments) -> str:
    """A word from another language: both language codes come first."""
    inner = Arguments(arguments.words(), arguments.named)
    return "" if inner.positional[-1:] == ["-"] else _word(inner)


@_shows(
    "suffix|suf|prefix|pre|affix|af|compound|com|confix|con|blend|circumfix|surf|"
    "surface analysis|univ|univerbation"
)
def _parts(arguments: Arguments) -> str:
    return " + ".join(filter(None, arguments.words()))


@_shows(
    "lb|lbl|label|tlb|term-label|context|qualifier|qual|q|i|qf|gloss|gl|sense|a|"
    "accent|tcx|term-context|ib|antsense"
)
def _remark(arguments: Arguments) -> str:
    """Labels of a sense, in parentheses; an underscore joins two of them."""
    labels = ", ".join(filter(None, arguments.words())).replace(", _, ", " ")
    return f"({labels})" if labels else ""


@_shows("convert|cvt|conv|converter|convertir|pretvori")
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


@_shows("val|valx")
def _value(arguments: Arguments) -> str:
    power, unit = arguments.named.get("e"), arguments.first("u", "ul")
    return arguments.first(0) + (f"×10^{power}" if power else "") + (f" {unit}" if unit else "")


@_shows("frac|fraction|sfrac")
def _fraction(arguments: Arguments) -> str:
    """`2` is 1/2, `3|4` is 3/4, `1|3|4` is 1 3/4."""
    parts = arguments.positional[:3]
    if len(parts) < 2:
        parts = ["1", *parts] if parts else ["", ""]
    *whole, top, bottom = parts
    return " ".join([*whole, f"{top}/{bottom}"]) if bottom else ""


@_shows("as of|asof|since")
def _as_of(arguments: Arguments) -> str:
    """Year, month and day, in this order."""
    year, *rest = arguments.positional or [""]
    month, day, *_ = [*rest, "", ""]
    date = join_date(day, month, year, "en")
    words = arguments.named.get("alt") or f"As of {date}"
    return words[:1].lower() + words[1:] if "lc" in arguments.named else words


@_shows("ipa|ipa-all|api|ipa link|ipalink|ipaslink|lausunta|fon|afi", "ipa-", "lfe-")
def _sound(arguments: Arguments) -> str:
    """A pronunciation: what stands between slashes or brackets, else the first that is no file."""
    marked = [part for part in arguments.positional if part[:1] in ("/", "[")]
    plain = [
        part
        for part in arguments.words()
        if part and part != "-" and not part.lower().endswith((".ogg", ".wav", ".oga"))
    ]
    return ", ".join(marked) or (f"[{plain[0]}]" if plain else "")


@_shows("ipac", "ipac-")
def _sounds(arguments: Arguments) -> str:
    """A pronunciation given sound by sound."""
    skipped = ("icon", "pron", "lang", "local", "us", "uk", "also", "", "audio", "ipa")
    sounds = (sound for sound in arguments.positional if sound.lower() not in skipped)
    return f"/{''.join(sound for sound in sounds if not sound.lower().endswith('.ogg'))}/"


@_shows("nihongo|nihongo3|nihongo4|読み仮名|ruby")
def _nihongo(arguments: Arguments) -> str:
    first, *rest = list(filter(None, arguments.positional[:3])) or [""]
    return f"{first} ({', '.join(rest)})" if rest else first


@_shows("unbulleted list|ubl|ublist|bulleted list|blist|ordered list|hlist")
def _items(arguments: Arguments) -> str:
    return "".join(f"\n* {part}" for part in arguments.positional if part)


@_shows("zh|zh-full|lang-zh")
def _chinese(arguments: Arguments) -> str:
    """A name in Chinese: the characters, then how they are read."""
    values = (arguments.named.get(key) for key in ("t", "s", "c", "p", "j"))
    return ", ".join(value for value in values if value)


_FORM_OF = re.compile(r".{4,40} (?:of|for)$")
# Identifiers, marks and notices: they take one argument and follow a space, as words do.
NO_WORDS = frozenset(
    "isbn|issn|oclc|doi|pmid|pmc|jstor|asin|arxiv|bibcode|lccn|zbl|mr|dnb|gnd|viaf|flagicon|"
    "flag icon|audio|listen|coord|anchor|anker|rp|r|refn|efn|sfn|sfnp|ref|note|clear|clr|-|harv|"
    "harvnb|harvtxt|citation|cn|fact|who|when|why|which|by whom|clarify|dubious|senseid|topics|c|"
    "cat|attention|rfv|etyl|g|gender|t-needed|not used|ttbc|checktrans|rhymes|hyphenation|topic|"
    "rfdate|rfdatek|rfscript|rfquote|jump|pn|page|needed|commons|official website|url|imdb|main|"
    "main article|see also|seesynonyms|further|details|wikivoyage|reflist|updated|facebook|twitter|"
    "color panel".split("|")
)


# Citations, notes and notices by how their names start, in the larger wikis.
_NOTE_NAME = re.compile(
    r"(?:citation|cita|cit|citer|ouvrage|article|lien web|literatur|internetquelle|webarch|"
    r"cytuj|книга|статья|cite|citace|citeer|kaynak|notelist|note|nota|sfn|sfnm|harv|refn?|réf|"
    r"source|källa|lähde|fact|citation needed|à sourcer|quand|qui|où|pourquoi|combien|clarify|"
    r"нет аи|когда|кто|что|уточнить|fakt|kto|kiedy|brak|doprecyzować|belege|quelle|coord|"
    r"coordinate|koord|flag|drapeau|bandera|bandeira|bandiera|флаг|флагификация|écouter|audio|"
    r".+ lippu|.+ flagg|increase|"
    r"decrease|steady|refnest|efn|notetag|要出典|要検証|来源請求|icon|"
    r"portal|commons|webcite|dead link|lien brisé|deadurl|cref|as ref|r|rp)(?:[ /-].*)?"
)


# Templates that compute, or read another page: their argument is not what they show.
_COMPUTED_NAME = re.compile(
    r"#.*|current.*|local.*|numberof.*|(?:.*[ -])?(?:"
    r"age|alter|âge|edad|età|leeftijd|idade|wiek lat|"
    r"возраст|einwohnerzahl|einwohner|metadaten|statistiek|population|populación|popolazione|"
    r"ludność|populace|počet|inflation|inflación|wikidata|données|datos|ewz|bevölkerung|население|"
    r"人口)(?:[ -].*)?"
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
    for start, show in _FAMILIES.items():
        if name.startswith(start):
            return show
    if century := named_century(name):
        return _constant(century)
    if _FORM_OF.match(name) and not is_computed(name):
        # Wiktionary's "plural of", "abbreviation of" and so on.
        return lambda arguments: f"{name} {_word(arguments)}".strip()
    return None
