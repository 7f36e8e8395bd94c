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

from groundup.collect.readers.wiki.arguments import Arguments, Show

# Names of the months as they stand behind a day.
_MONTHS = {
    "en": "January February March April May June July August September October November December",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre"
    " dicembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre"
    " diciembre",
    "pt": "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro"
    " dezembro",
    "gl": "xaneiro febreiro marzo abril maio xuño xullo agosto setembro outubro novembro decembro",
    "ca": "gener febrer març abril maig juny juliol agost setembre octubre novembre desembre",
    "ro": "ianuarie februarie martie aprilie mai iunie iulie august septembrie octombrie"
    " noiembrie decembrie",
    "nl": "januari februari maart april mei juni juli augustus september oktober november december",
    "sv": "januari februari mars april maj juni juli augusti september oktober november december",
    "da": "januar februar marts april maj juni juli august september oktober november december",
    "no": "januar februar mars april mai juni juli august september oktober november desember",
    "fi": "tammikuuta helmikuuta maaliskuuta huhtikuuta toukokuuta kesäkuuta heinäkuuta elokuuta"
    " syyskuuta lokakuuta marraskuuta joulukuuta",
    "pl": "stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października"
    " listopada grudnia",
    "cs": "ledna února března dubna května června července srpna září října listopadu prosince",
    "sk": "januára februára marca apríla mája júna júla augusta septembra októbra novembra"
    " decembra",
    "sl": "januar februar marec april maj junij julij avgust september oktober november december",
    "hr": "siječnja veljače ožujka travnja svibnja lipnja srpnja kolovoza rujna listopada"
    " studenoga prosinca",
    "sr": "јануар фебруар март април мај јун јул август септембар октобар новембар децембар",
    "ru": "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
    "uk": "січня лютого березня квітня травня червня липня серпня вересня жовтня листопада грудня",
    "be": "студзеня лютага сакавіка красавіка мая чэрвеня ліпеня жніўня верасня кастрычніка"
    " лістапада снежня",
    "bg": "януари февруари март април май юни юли август септември октомври ноември декември",
    "el": "Ιανουαρίου Φεβρουαρίου Μαρτίου Απριλίου Μαΐου Ιουνίου Ιουλίου Αυγούστου Σεπτεμβρίου"
    " Οκτωβρίου Νοεμβρίου Δεκεμβρίου",
    "hu": "január február március április május június július augusztus szeptember október november"
    " december",
    "tr": "Ocak Şubat Mart Nisan Mayıs Haziran Temmuz Ağustos Eylül Ekim Kasım Aralık",
    "id": "Januari Februari Maret April Mei Juni Juli Agustus September Oktober November Desember",
    "ms": "Januari Februari Mac April Mei Jun Julai Ogos September Oktober November Disember",
    "he": "בינואר בפברואר במרץ באפריל במאי ביוני ביולי באוגוסט בספטמבר באוקטובר בנובמבר בדצמבר",
    "ar": "يناير فبراير مارس أبريل مايو يونيو يوليو أغسطس سبتمبر أكتوبر نوفمبر ديسمبر",
    "fa": "ژانویه فوریه مارس آوریل مه ژوئن ژوئیه اوت سپتامبر اکتبر نوامبر دسامبر",
}
_MONTHS |= {"simple": _MONTHS["en"], "nn": _MONTHS["no"], "nb": _MONTHS["no"]}
# How day, month and year stand together where it is not "9 September 1989".
_ORDERS = dict.fromkeys(("de", "da", "no", "nn", "nb", "fi", "cs", "sk", "sl", "hr"), "{}. {} {}")
_ORDERS |= dict.fromkeys(("es", "pt", "gl"), "{} de {} de {}") | {"sr": "{}. {} {}."}
_ORDERS |= dict.fromkeys(("ja", "zh", "yue", "wuu"), "{2}年{1}月{0}日")
_ORDERS |= {"ko": "{2}년 {1}월 {0}일", "vi": "{} tháng {} năm {}", "hu": "{2}. {1} {0}."}
_WITHOUT_DAY = {"ko": "{1}년 {0}월", "vi": "tháng {} năm {}", "hu": "{1}. {0}"}
_WITHOUT_DAY |= dict.fromkeys(("es", "pt", "gl", "ca"), "{} de {}")
_WITHOUT_DAY |= dict.fromkeys(("ja", "zh", "yue", "wuu"), "{1}年{0}月")
_WITHOUT_YEAR = {"ko": "{1}월 {0}일", "vi": "{} tháng {}", "hu": "{1} {0}."}
_WITHOUT_YEAR |= dict.fromkeys(("es", "pt", "gl"), "{} de {}")
_WITHOUT_YEAR |= dict.fromkeys(("ja", "zh", "yue", "wuu"), "{1}月{0}日")
_WITHOUT_YEAR |= dict.fromkeys(("de", "da", "no", "nn", "nb", "fi", "cs", "sk", "sl"), "{}. {}")
_WITHOUT_YEAR |= dict.fromkeys(("hr", "sr"), "{}. {}")
# A month without a day stands in the nominative.
_NOMINATIVE = {
    "ru": "январь февраль март апрель май июнь июль август сентябрь октябрь ноябрь декабрь",
    "uk": "січень лютий березень квітень травень червень липень серпень вересень жовтень листопад"
    " грудень",
    "pl": "styczeń luty marzec kwiecień maj czerwiec lipiec sierpień wrzesień październik listopad"
    " grudzień",
    "cs": "leden únor březen duben květen červen červenec srpen září říjen listopad prosinec",
    "sk": "január február marec apríl máj jún júl august september október november december",
    "fi": "tammikuu helmikuu maaliskuu huhtikuu toukokuu kesäkuu heinäkuu elokuu syyskuu lokakuu"
    " marraskuu joulukuu",
}
_FIRST_DAY = {"fr": "1er", "it": "1º"}
_ISO_DATE = re.compile(r"(\d{3,4})-(\d{1,2})(?:-(\d{1,2}))?(?!\d)")
_YEAR = re.compile(r"-?\d{3,4}\b.*", re.DOTALL)
_ROMAN = re.compile(r"[IVXLCDM]+", re.IGNORECASE)


def join_date(day: str, month: str, year: str, language: str, is_day_first: bool = True) -> str:
    """Return a date in the words of a language; parts may be empty, a month may have its name."""
    language = language or "en"
    number = int(month) if month.isdecimal() and len(month) < 3 else 0
    if not 1 <= number <= 12:
        number = 0
    has_month_name = language in _MONTHS
    if number and has_month_name:
        names = _MONTHS if day else _MONTHS | _NOMINATIVE
        month = names[language].split()[number - 1]
    elif number and language not in _ORDERS:
        # ISO 8601 is in no language.
        return "-".join(part.zfill(2) for part in (year, month, day) if part)
    day = day.lstrip("0") if day.isdecimal() else day
    month = month.lstrip("0")
    if day == "1":
        day = _FIRST_DAY.get(language, day)
    if language in ("en", "simple") and day and month and not is_day_first:
        return f"{month} {day}, {year}" if year else f"{month} {day}"
    if language == "ca" and day and month:
        of = "d'" if month[0] in "ao" else "de "
        return f"{day} {of}{month}" + (f" de {year}" if year else "")
    if day and month:
        order, parts = _WITHOUT_YEAR, [day, month]
        if year:
            order, parts = _ORDERS, [day, month, year]
        return order[language].format(*parts) if language in order else " ".join(parts)
    if month and year and language in _WITHOUT_DAY:
        return _WITHOUT_DAY[language].format(month, year)
    return " ".join(filter(None, (day, month, year)))


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


def _show_period(arguments: Arguments) -> str:
    """Two dates of a year, a month and a day each."""
    days = (show_date(arguments), show_date(arguments, 3))
    return " – ".join(filter(None, days))


def _show_old_style(arguments: Arguments) -> str:
    """Day, year and the day in the Julian calendar."""
    day, year, julian = [*arguments.positional, "", "", ""][:3]
    return f"{day} [O.S. {julian}] {year}".strip() if julian else f"{day} {year}".strip()


def _century(ending: str, joined: str = " ", plural: str = "") -> Show:
    """A French century: numerals, each with its ordinal, and words between them."""

    def show(arguments: Arguments) -> str:
        words: list[str] = []
        end = ending
        for value in arguments.positional:
            if value.lower() in ("e", "er", "re", "ème", "è") and words:
                words[-1] += value
            elif value == "s" and words:
                end = plural or ending.replace("siècle", "siècles")
            elif value:
                words.append(value.upper() if _ROMAN.fullmatch(value) else value)
        return joined.join(words) + end if words else ""

    return show


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
    remarks = ", ".join(filter(None, arguments.words())).replace(", _, ", " ")
    return f"({remarks})" if remarks else ""


def _show_siglo(arguments: Arguments) -> str:
    """A Spanish century: numeral, `a` or `d` for the era, `s` or `S` for the word."""
    number, era, word = [*arguments.positional, "", "", ""][:3]
    eras = {"a": " a. C.", "d": " d. C."}
    shown = number.upper() + eras.get(era.lower()[:1], "")
    return f"{word}iglo {shown}" if number and word in ("s", "S") else shown


_LEVELS = {"DE-NN": " ü. NN", "DE-NHN": " ü. NHN", "DE-HN": " ü. HN", "AT": " ü. A."}
_LEVELS |= {"CH": " ü. M.", "LI": " ü. M.", "IT": " s.l.m.", "GB": " ASL", "US": ""}


def _show_hoehe(arguments: Arguments) -> str:
    """A German height above the level of a country."""
    number, level = arguments.first(0), arguments.first(1)
    return f"{number} m{_LEVELS.get(level, '')}" if number else ""


def _show_height(arguments: Arguments) -> str:
    """A height or weight with its units as names."""
    units = ("ft", "in", "m", "cm", "st", "lb", "kg")
    named = arguments.named
    shown = [f"{named[unit]} {unit}" for unit in units if named.get(unit)]
    return " ".join(shown) or " ".join(filter(None, arguments.positional[:2]))


def _unit(unit: str) -> Show:
    return lambda arguments: f"{arguments.first(0)}{unit}" if arguments.first(0) else ""


def show_number(arguments: Arguments) -> str:
    """A number and its unit, with powers of ten: 250|km, 9,8|m|s|-2, 3|e=5|m."""
    number, *units = [*arguments.positional, ""]
    power = arguments.named.get("e")
    units = [unit if unit[:1] not in "-−0123456789" else f"^{unit}" for unit in filter(None, units)]
    unit = arguments.first("u", "ul", "unité", "unidad") or " ".join(units).replace(" ^", "^")
    return f"{number}{f'×10^{power}' if power else ''} {unit}".strip() if number else ""


def _show_hours(arguments: Arguments) -> str:
    """French hours: 14 h 30 min 5 s; the minute stands without its unit as the last one."""
    hours, minutes, seconds = [*arguments.positional, "", "", ""][:3]
    shown = [f"{hours} h"] if hours else []
    if minutes:
        shown.append(f"{minutes} min" if seconds or not hours else minutes)
    return " ".join([*shown, f"{seconds} s"] if seconds else shown)


def _show_ordinal(arguments: Arguments) -> str:
    number = arguments.first(0)
    ending = {"1": "st", "2": "nd", "3": "rd"}.get(number[-1:], "th")
    return number + ("th" if number[-2:-1] == "1" else ending) if number.isdecimal() else number


def _show_english_century(arguments: Arguments) -> str:
    number = _show_ordinal(arguments)
    return f"{number} century" if number else ""


_TABLE: tuple[tuple[Show, str], ...] = (
    (
        show_date,
        "date|date-|dts|dob|bda|dda|birth date|birth date and age|birth-date|birth-date and age"
        "|birth date and age2|death date|death date and age|death-date|death-date and age"
        "|start date|start-date|start date and age|end date|end-date|release date"
        "|release date and age|film date|date time|datetime|birth year and age"
        "|death year and age|birth based on age",
    ),
    (
        show_date,
        "date de naissance|date de naissance-|date de décès|date de décès-|date rapide"
        "|date républicaine|naissance|décès|date sport|date-sport|année|data|datum|datumzelle|fecha"
        "|fecha de nacimiento|fecha de defunción|fecha de fallecimiento|fecha de inicio"
        "|fecha de inicio y edad|fecha de publicación|dtlink|dtext|dni|nascimento|morte|falecimento"
        "|data de nascimento|data de nascimento e idade|data de morte e idade|morte e idade"
        "|dnibr|dni-br|data nascita|data di nascita|data naixement|data de naixement|data defunció"
        "|data urodzenia|data śmierci|geburtsdatum|sterbedatum|geboortedatum|sterfdatum|dátum"
        "|datum narození|datum úmrtí|datum narození a věk|datum úmrtí a věk|födelsedatum"
        "|dödsdatum|startdatum|slutdatum|födelsedatum och ålder|dødsdato|fødselsdato|dato"
        "|doğum tarihi|doğum tarihi ve yaşı|ölüm tarihi|ölüm tarihi ve yaşı"
        "|başlangıç tarihi|bitiş tarihi|tarih"
        "|tanggal lahir|tanggal lahir dan umur|tanggal kematian|date naissance",
    ),
    (
        show_date,
        "дата|дата рождения|дата смерти|дата народження|дата смерті|дата основания|дата начала"
        "|生年月日と年齢|生年月日|没年月日|死亡年月日と没年齢|出生日期|出生日期和年龄|出生日期及年齡"
        "|逝世日期|逝世日期和年龄|日期|出生日期與年齡|出生日|出生與年齡"
        "|출생일|출생일과 나이|사망일|사망일과 나이|날짜|시작 날짜"
        "|ngày sinh|ngày sinh và tuổi|ngày mất|ngày mất và tuổi"
        "|تاريخ الميلاد|تاريخ الوفاة|تاريخ ميلاد|تاريخ وفاة|تاریخ تولد|تاریخ تولد و سن|تاریخ مرگ",
    ),
    (_show_period, "start and end dates|start and end date|period|dash year"),
    (_show_old_style, "oldstyledate|old style date|oldstyledatenospace|oldstyledatedy"),
    (_show_s, "s"),
    (_century(" siècle"), "siècle|sp"),
    (_century(""), "s-|sp-"),
    (_century(" siècle av. J.-C."), "-s|-sp"),
    (_century(" av. J.-C."), "-s-|-sp-"),
    (_century(" siècles", " et "), "s2|s mini2"),
    (_century("", " et "), "s2-"),
    (_century(" siècles av. J.-C.", " et "), "-s2"),
    (_century(" av. J.-C.", " et "), "-s2-"),
    (_show_siglo, "siglo|siglos"),
    (_show_english_century, "century"),
    (_show_ordinal, "ordinal"),
    (_show_hoehe, "höhe|hoehe"),
    (_show_height, "height|weight|altezza|estatura"),
    (_unit(" m"), "altitude|altitud|altitudine|hoogte|wysokość|высота|метр|nmh|meter"),
    (_unit(" m n. m."), "mnm|m n. m.|m n.m.|nmv"),
    (_unit(" m n.p.m."), "mnpm|m n.p.m.|n.p.m."),
    (_unit(" km"), "km|км"),
    (_unit(" km²"), "km2|km²|км²|кв. км"),
    (_unit(" million years ago"), "mya"),
    (
        show_number,
        "unité|unite|unidad|unit|nombre|nb|num|fmtn|número|liczba|число|szám",
    ),
    (_show_hours, "heure|heures|durée|heure-"),
    (lambda arguments: "av. J.-C.", "av jc|avjc|av. j.-c.|av j.-c."),
    (lambda arguments: "apr. J.-C.", "apr jc|ap jc|apr. j.-c.|apjc"),
    (lambda arguments: "a. C.", "ac|a.c.|a. c."),
    (lambda arguments: "d. C.", "dc|d.c.|d. c."),
    (lambda arguments: "v. Chr.", "v. chr.|v.chr."),
    (lambda arguments: "n. Chr.", "n. chr.|n.chr."),
    (lambda arguments: "до н. э.", "до н. э.|до н.э."),
)
DATES: dict[str, Show] = {name: show for show, names in _TABLE for name in names.split("|")}
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
    if name in _NOT_NUMERALS or not _NAMED_CENTURY.fullmatch(name) or name.isdecimal():
        return ""
    if _ROMAN.fullmatch(name):
        return ""
    return _NUMERAL.sub(lambda numeral: numeral[1].upper(), name).replace("j.-c.", "J.-C.")
