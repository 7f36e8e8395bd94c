"""What a wiki's templates show inside a sentence. Reads a name and arguments; returns words, or
None for a template of layout.

Wikis hold hundreds of thousands of templates, and a dump of articles does not bring them. So these
are the ones that stand for words in running text, by the manuals of the English Wikipedia and
Wiktionary and by counts on real dumps in 76 languages; what is not known is layout (boxes,
citations, notices) and goes, but for a lone phrase in the middle of a sentence (`wikitext.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

_NAMED = re.compile(r"\s*([\w -]{1,24}?)\s*=(?!=)(.*)", re.DOTALL)
_CODE = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,4}){0,2}|[A-Z]{2,3}\.$")
_MONTHS = (
    "",
    *"January February March April May June July August September October November December".split(),
)
_RANGES = {
    "to": " to ",
    "and": " and ",
    "or": " or ",
    "-": "–",
    "–": "–",
    "x": " × ",
    "by": " by ",
    "+/-": " ± ",
    "to(-)": "–",
}
_UNITS = {
    "C": "°C",
    "F": "°F",
    "K": "K",
    "sqmi": "sq mi",
    "sqft": "sq ft",
    "sqkm": "km²",
    "kph": "km/h",
    "acre": "acres",
    "$": "$",
}


@dataclass(slots=True)
class Arguments:
    """Arguments of a template as they are shown: `plain` by position, `named` by name."""

    plain: list[str]
    named: dict[str, str]

    @classmethod
    def of(cls, inside: str) -> Arguments:
        """Read what follows the name and its bar; `1=` counts as the first position."""
        plain: list[str] = []
        named: dict[str, str] = {}
        for part in inside.split("|"):
            match = _NAMED.match(part) if "=" in part else None
            if match is None:
                plain.append(part.strip())
            elif match[1].isdecimal():
                place = min(max(int(match[1][:3]), 1), 20)
                plain += [""] * (place - len(plain))
                plain[place - 1] = match[2].strip()
            else:
                named[match[1]] = match[2].strip()
        return cls(plain, named)

    def any(self, *wanted: int | str) -> str:
        """Return the first of these arguments that says something; numbers count from 0, and from
        the end below it.
        """
        for key in wanted:
            if isinstance(key, str):
                value = self.named.get(key, "")
            else:
                value = self.plain[key] if -len(self.plain) <= key < len(self.plain) else ""
            if value and value != "-":
                return value
        return ""

    def words(self) -> list[str]:
        """Return the plain arguments without the code of a language in front, which Wiktionary's
        templates begin with.
        """
        return (
            self.plain[1:] if len(self.plain) > 1 and _CODE.fullmatch(self.plain[0]) else self.plain
        )


Shown = Callable[[Arguments], str]


def _pick(*wanted: int | str) -> Shown:
    return lambda given: given.any(*wanted)


def _spelt(text: str) -> Shown:
    return lambda given: text


def _joined(separator: str) -> Shown:
    return lambda given: separator.join(part for part in given.plain if part)


def _before(prefix: str) -> Shown:
    return lambda given: prefix + given.any(0)


def _between(opening: str, closing: str) -> Shown:
    return lambda given: f"{opening}{given.any(0)}{closing}"


def _word(given: Arguments) -> str:
    """A word of a language: Wiktionary gives its code, the word, and how it is written if that
    differs.
    """
    words = given.words()
    return (
        given.named.get("alt")
        or (words[1] if len(words) > 1 and words is not given.plain else "")
        or (words[0] if words else "")
    )


def _first_word(given: Arguments) -> str:
    """A translation or an example: what follows its word is gender, or the translation of the
    example.
    """
    return given.named.get("alt") or next(iter(given.words()), "")


def _derived(given: Arguments) -> str:
    """A word from another language; both their codes come first."""
    inner = Arguments(given.words(), given.named)
    return "" if inner.plain[-1:] == ["-"] else _word(inner)


def _parts(given: Arguments) -> str:
    return " + ".join(part for part in given.words() if part)


def _remark(given: Arguments) -> str:
    """Labels of a sense, in parentheses; an underscore joins two of them."""
    labels = [label for label in given.words() if label]
    return f"({', '.join(labels).replace(', _, ', ' ')})" if labels else ""


def _measure(given: Arguments) -> str:
    """A measure as it was given: numbers, what stands between them, and their unit; the conversion
    is left out.
    """
    text, rest = "", list(given.plain)
    while len(rest) > 2 and rest[1] in _RANGES:
        text += rest[0] + _RANGES[rest[1]]
        rest = rest[2:]
    if len(rest) > 3 and rest[1] in ("ft", "lb", "st") and rest[3] in ("in", "oz", "lb"):
        return f"{text}{rest[0]} {rest[1]} {rest[2]} {rest[3]}"
    unit = rest[1] if len(rest) > 1 else ""
    unit = _UNITS.get(unit) or re.sub(
        r"(?<=[a-z])([23])$", lambda power: "²³"[int(power[1]) - 2], unit
    )
    return f"{text}{rest[0] if rest else ''} {unit}".strip()


def _value(given: Arguments) -> str:
    power, unit = given.named.get("e"), given.any("u", "ul")
    return given.any(0) + (f"×10^{power}" if power else "") + (f" {unit}" if unit else "")


def _fraction(given: Arguments) -> str:
    *whole, top, bottom = (
        ["1", *given.plain][-3:]
        if len(given.plain) == 1
        else given.plain[:3]
        if len(given.plain) > 1
        else ["", ""]
    )
    return " ".join([*whole, f"{top}/{bottom}"]) if bottom else ""


def _as_of(given: Arguments) -> str:
    year, *rest = given.plain or [""]
    if rest and rest[0].isdecimal() and int(rest[0]) < len(_MONTHS):
        rest[0] = _MONTHS[int(rest[0])]
    words = given.named.get("alt") or " ".join(["As of", *reversed(rest[:2]), year])
    return words[:1].lower() + words[1:] if "lc" in given.named else words


def _sound(given: Arguments) -> str:
    """A pronunciation: what stands between slashes or brackets, else the last argument that is no
    file, put between slashes.
    """
    marked = [part for part in given.plain if part[:1] in ("/", "[")]
    plain = [
        part
        for part in given.words()
        if part and part != "-" and not part.lower().endswith((".ogg", ".wav", ".oga"))
    ]
    return ", ".join(marked) or (f"[{plain[0]}]" if plain else "")


def _sounds(given: Arguments) -> str:
    """A pronunciation given sound by sound."""
    skipped = ("icon", "pron", "lang", "local", "us", "uk", "also", "", "audio", "ipa")
    return f"/{''.join(sound for sound in given.plain if sound.lower() not in skipped and not sound.lower().endswith('.ogg'))}/"


def _nihongo(given: Arguments) -> str:
    first, *rest = [part for part in given.plain[:3] if part] or [""]
    return f"{first} ({', '.join(rest)})" if rest else first


def _items(given: Arguments) -> str:
    return "".join(f"\n* {part}" for part in given.plain if part)


def _chinese(given: Arguments) -> str:
    """A name in Chinese: characters first, then how they are read."""
    return ", ".join(value for key in ("t", "s", "c", "p", "j") if (value := given.named.get(key)))


_FIRST, _passage = _pick(0, "text", "quote"), _pick("passage", "text", "quote", 6)
# What is shown, and the names (in small letters) of the templates that are shown so, a bar between
# them.
_TABLE: tuple[tuple[Shown, str], ...] = (
    (
        _FIRST,
        "small|smaller|big|larger|large|midsize|nowrap|nobr|nobold|nobreak|noitalic|normal|em|strong|bold|italic|underline|sc",
    ),
    (
        _FIRST,
        (
            "smallcaps|small caps|smallcaps"
            " all|versaleta|mvar|math|var|code|tt|kbd|samp|mono|sup|sub|su|chem2|music|unicode|script"
        ),
    ),
    (
        _FIRST,
        (
            "sic|not a typo|as written|abbr|tooltip|visible"
            " anchor|vanchor|linktext|vern|taxlink|taxfmt|only in print|ws|tq|née|nee"
        ),
    ),
    (
        _FIRST,
        (
            "quote|blockquote|cquote|quotation|bquote|pquote|pull quote|poemquote|poem"
            ' quote|verse|talkquote|"|zitat|cita|цитата|citaat'
        ),
    ),
    (
        _FIRST,
        (
            "centered|center|block"
            " indent|plainlist|flatlist|uc|lc|ucfirst|lcfirst|red|green|blue|color box|sronly"
        ),
    ),
    (
        _FIRST,
        (
            "non-gloss"
            " definition|n-g|ngd|non-gloss|def-uncertain|glossary|defdate|ipachar|unsupported|not"
            " english|proper name"
        ),
    ),
    (
        _FIRST,
        (
            "flag|flagcountry|flagu|noflag|no flag|year|date|start"
            " date|fmtn|number|formatnum|nts|num|nombre|ta|railgauge"
        ),
    ),
    (
        _FIRST,
        (
            "ill|illm|interlanguage link|仮リンク|le|lien|link|nihongo2|nihongo"
            " core|langue|comment|подсказка|senza fonte|chiarire"
        ),
    ),
    (
        _pick(-1),
        (
            "lang|langx|rtl-lang|transl|transliteration|translit|script/arabic|script/hebrew|align|font|color|colour|font"
            " color"
        ),
    ),
    (_pick(-1), "bg|resize|columns-list"),
    (
        _pick("lt", 1, 0),
        (
            "нп|нп1|нп2|нп3|нп4|нп5|не переведено|не переведено 3|не переведено"
            " 5|w|pedialite|projectlink|section link"
        ),
    ),
    (_pick(2, 1), "tsl"),
    (_spelt("–"), "ndash|en dash|–|endash"),
    (_spelt(" – "), "snd|spnd|spaced ndash|spaced en dash|sndash|dash"),
    (_spelt("—"), "mdash|em dash|—|emdash"),
    (_spelt(" — "), "spaced mdash|spaced em dash|smd"),
    (_spelt(" "), "nbsp|space|thin space|thinsp|hair space|hairsp|spaces|pad|gap|hsp"),
    (_spelt("\n"), "break|br|-br|سخ|crlf"),
    (_spelt("'"), "'|apostrophe|’"),
    (_spelt("'s"), "'s|`s"),
    (_spelt('"'), '-"|" \'|\'"|"-'),
    (_spelt("π"), "pi"),
    (_spelt("|"), "!|pipe"),
    (_spelt("="), "="),
    (_spelt(" · "), "·|dot|middot|•|bull|bullet|*"),
    (_spelt("…"), "...|nb...|…|ellipsis|hellip"),
    (_spelt("×"), "times|×"),
    (_spelt("−"), "minus|−"),
    (_spelt(","), ","),
    (_spelt("e"), "e|er"),
    (_spelt("BC"), "bc"),
    (_spelt("AD"), "ad"),
    (_spelt("BCE"), "b.c.e.|bce"),
    (_spelt("CE"), "c.e.|ce"),
    (_before("c. "), "circa|c.|ca"),
    (_before("fl. "), "floruit|fl."),
    (_before("r. "), "reign|r."),
    (_before("d. "), "died|d."),
    (_before("século "), "séc|século"),
    (_before("HMS "), "hms"),
    (_before("USS "), "uss"),
    (_before("$"), "us$|usd|us dollar|$"),
    (_before("£"), "gbp|£|pound sterling"),
    (_before("€"), "eur|€|euro"),
    (_before("₹"), "inr|₹|indian rupee"),
    (_before("A$"), "aud|a$"),
    (
        _joined(" "),
        "ship|bibleverse|bibleref|bibleref2|bibleverse-lb|bible verse|unité|unidad|unit|rws",
    ),
    (_joined(""), "gaps|chem"),
    (_joined("-class "), "sclass|sclass2|sclass-"),
    (_joined("-"), "respell|respelling"),
    (
        _joined(", "),
        (
            "syn|synonyms|ant|antonyms|hyper|hypernyms|hypo|hyponyms|cot|coordinate"
            " terms|col|col2|col3|col4|col5"
        ),
    ),
    (_joined(", "), "der2|der3|der4|rel2|rel3|rel4"),
    (_between("⟨", "⟩"), "angbr|vr|orth"),
    (_measure, "convert|cvt|conv|converter|convertir|pretvori"),
    (_value, "val|valx"),
    (_fraction, "frac|fraction|sfrac"),
    (_as_of, "as of|asof|since"),
    (_sound, "ipa|ipa-all|api|ipa link|ipalink|ipaslink|lausunta|fon|afi"),
    (_sounds, "ipac"),
    (_nihongo, "nihongo|nihongo3|読み仮名|ruby"),
    (_chinese, "zh|zh-full|lang-zh"),
    (_items, "unbulleted list|ubl|ublist|bulleted list|blist|ordered list|hlist"),
    (
        _word,
        "l|m|l-self|m-self|ll|mention|m+|alter|back-form|back-formation|desc|descendant|clipping",
    ),
    (
        _first_word,
        "t|t+|tt|tt+|t-simple|t-check|t+check|t-egy|ux|uxi|usex|afex|enpr|homophones|ja-r|ja-l|zh-l|zh-m|ltc-l|och-l|ko-l|vi-l",
    ),
    (
        _derived,
        (
            "inh|inherited|der|derived|bor|borrowed|lbor|learned"
            " borrowing|slbor|ubor|cog|cognate|noncog|nc|ncog|doublet"
        ),
    ),
    (_derived, "calque|cal|clq|semantic loan"),
    (
        _parts,
        (
            "suffix|suf|prefix|pre|affix|af|compound|com|confix|con|blend|circumfix|surf|surface"
            " analysis|univ|univerbation"
        ),
    ),
    (
        _remark,
        "lb|lbl|label|tlb|term-label|context|qualifier|qual|q|i|qf|gloss|gl|sense|s|a|accent|tcx|term-context|ib|antsense",
    ),
    (
        _passage,
        "quote-book|quote-journal|quote-text|quote-web|quote-av|quote-news|quote-newsgroup|quote-song|quote-video",
    ),
)
KNOWN: dict[str, Shown] = {name: shown for shown, names in _TABLE for name in names.split("|")}
# Families: the language stands in the name.
_FAMILIES: tuple[tuple[re.Pattern[str], Shown], ...] = (
    (re.compile(r"lang-|vol-|link-|k-|j-|l/|јез-|ling-|lg-|lang "), _pick(0)),
    (re.compile(r"ipac-"), _sounds),
    (re.compile(r"ipa-|lfe-"), _sound),
    (re.compile(r"rq:"), _pick("passage", "text")),
    (re.compile(r"formatnum:"), _pick(0)),
)
_FORM_OF = re.compile(r".{4,40} (?:of|for)$")
# Identifiers, marks and notices that take one argument and stand behind a space, as words do.
NO_WORDS = frozenset(
    "isbn|issn|oclc|doi|pmid|pmc|jstor|asin|arxiv|bibcode|lccn|zbl|mr|dnb|gnd|viaf|flagicon|flag"
    " icon|audio|listen|coord|anchor|anker|rp|r|refn|efn|sfn|sfnp|ref|note|clear|clr|-|harv|harvnb|harvtxt|citation|cn|fact|who|when|why|which|by"
    " whom|clarify|dubious|senseid|topics|c|cat|attention|rfv|etyl|g|gender|t-needed|not"
    " used|ttbc|checktrans|rhymes|hyphenation|topic|rfdate|rfdatek|rfscript|rfquote|jump|pn|page|needed|commons|official"
    " website|url|imdb|main|main article|see"
    " also|seesynonyms|further|details|wikivoyage|reflist|updated|facebook|twitter|color panel".split(
        "|"
    )
)


@lru_cache(4096)
def shown_by(name: str) -> Shown | None:
    """Return what the template of this name (in small letters) shows, as a function of its
    arguments; None when it is not known.
    """
    shown = KNOWN.get(name)
    if shown is None:
        shown = next((shown for family, shown in _FAMILIES if family.match(name)), None)
    if shown is None and _FORM_OF.match(name):
        return lambda given: f"{name} {_word(given)}".strip()
    return shown
