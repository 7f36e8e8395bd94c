"""How figures and foreign text are shown. Reads values and text; returns plain words or safe
markup.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime

from markupsafe import Markup, escape

Value = float | int | str | None
MISSING = "–"
PREVIEW = 300
# C0 but newline and tab, DEL, C1, marks that turn the direction of text, invisible joiners, and
# what no UTF-8 holds.
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ufdd0-\ufdef\ud800-\udfff\ufffe\uffff]"
)


def count(value: float) -> str:
    """`1,377,920`."""
    return f"{value:,.0f}"


def short(value: float) -> str:
    """`1.38 M`: three digits and a prefix."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * size:
            return f"{_three(value / size)} {prefix}"
    return f"{value:,.0f}" if float(value).is_integer() else _three(value)


def _three(value: float) -> str:
    if 0 < abs(value) < 0.9995:
        return f"{value:.3g}"
    digits = max(0, 3 - len(str(int(abs(value)))))
    return f"{value:,.{digits}f}"


def size(value: float) -> str:
    """`27.0 MB`, in powers of ten."""
    return f"{short(value)}B" if abs(value) >= 999.5 else f"{value:,.0f} B"


def share(value: float) -> str:
    """`12.3 %`."""
    return f"{100 * value:.1f} %"


def signed(value: float) -> str:
    """`+3.1 %`."""
    return f"{100 * value:+.1f} %".replace("-", "−")


def seconds(value: float) -> str:
    """`4 min 28 s`: the two largest units that say something."""
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def moment(value: str) -> str:
    """`22 November 2026, 15:33 UTC` from `2026-11-22T15:33:40Z`."""
    return datetime.fromisoformat(value.replace("Z", "+00:00")).strftime("%-d %B %Y, %H:%M UTC")


FORMS: Mapping[str, Callable[[float], str]] = {
    "count": count,
    "short": short,
    "size": size,
    "share": share,
    "signed": signed,
    "seconds": seconds,
    "hours": lambda value: seconds(3600 * value),
    "one": lambda value: f"{value:,.1f}",
    "two": lambda value: f"{value:,.2f}",
    "three": lambda value: f"{value:,.3f}",
    "short-e": lambda value: f"{value:.2g}",
    "times": lambda value: f"× {value:,.2f}",
}


def formatted(value: Value, form: str = "") -> str:
    """Return a figure's value in words; without a form, digits as they are worth reading.

    A value that is not there is a dash.
    """
    if value is None:
        return MISSING
    if form == "moment":
        return moment(str(value))
    if isinstance(value, (str, bool)):
        return str(value)
    if form:
        return FORMS[form](value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def picture(character: str) -> str:
    """Return what is shown in place of a character that cannot be seen: its picture, or its code
    point.
    """
    code = ord(character)
    # Unicode has a picture of each C0 character.
    return chr(0x2400 + code) if code < 0x20 else chr(0x2421) if code == 0x7F else f"U+{code:04X}"


def spelled(text: object) -> str:
    """Return foreign text without anything that cannot be seen, for attributes and titles; it is
    not escaped.
    """
    return _HIDDEN.sub(lambda match: picture(match[0]), str(text))


def visible(text: object) -> Markup:
    """Return foreign text as safe markup: escaped, and what cannot be seen shown by its code point."""
    pieces, last, plain = [], 0, str(text)
    unseen = Markup('<span class="unseen" title="U+{:04X}">{}</span>')
    for match in _HIDDEN.finditer(plain):
        pieces += [
            escape(plain[last : match.start()]),
            unseen.format(ord(match[0]), picture(match[0])),
        ]
        last = match.end()
    return Markup("").join([*pieces, escape(plain[last:])])


def cut(text: str, most: int = PREVIEW) -> str:
    """Return the beginning of a text, with an ellipsis where something follows."""
    return text if len(text) <= most else text[:most].rstrip() + " …"


def spaced(name: str) -> str:
    """`bits_per_byte` → `bits per byte`."""
    return name.replace("_", " ").replace("-", " ")
