"""Format figures and foreign text for the report: plain words or safe HTML.

Foreign text is anything that groundup did not write: names, paths and texts of documents. It is
escaped, and characters that cannot be seen are shown by their code point.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from markupsafe import Markup, escape

from groundup.report.figures import number

Value = float | int | str | None
MISSING = "–"
PREVIEW_CHARACTERS = 300
# C0 except newline and tab, DEL, C1, direction marks, invisible joiners, and what is no UTF-8.
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u2069\ufeff\ufff9-\ufffb\ufdd0-\ufdef\ud800-\udfff\ufffe\uffff]"
)
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#+!|~$&])")
_FIGURE = Markup(
    '<span class="f" data-figure="{name}" data-form="{form}" title="{name}, from'
    ' {origin}">{text}</span>'
)
_ORIGIN = Markup('<sup><a class="o" href="#o{number}" title="from {origin}">{number}</a></sup>')


def short(value: float) -> str:
    """`1.38 M`: three digits and a prefix."""
    prefixes = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0))
    prefix, scale = next((p for p in prefixes if abs(value) >= 0.9995 * p[1]), ("", 1.0))
    if not prefix and float(value).is_integer():
        return f"{value:,.0f}"
    scaled = value / scale
    if 0 < abs(scaled) < 0.9995:
        return f"{scaled:.3g}"
    digits = f"{scaled:,.{max(0, 3 - len(str(int(abs(scaled)))))}f}"
    return f"{digits} {prefix}".rstrip()


def size(value: float) -> str:
    """`27.0 MB`, in powers of ten."""
    return f"{short(value)}B" if abs(value) >= 999.5 else f"{value:,.0f} B"


def more(count: int, noun: str) -> str:
    """`1 more source`, `6 more sources`."""
    return f"{count:,} more {noun}" + ("" if count == 1 else "s")


def seconds(value: float) -> str:
    """`4 min 28 s`: the two largest units."""
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


FORMS: Mapping[str, Callable[[float], str]] = {
    "count": lambda value: f"{value:,.0f}",
    "short": short,
    "size": size,
    "share": lambda value: f"{100 * value:.1f} %",
    "signed": lambda value: f"{100 * value:+.1f} %".replace("-", "−"),
    "seconds": seconds,
    "speed": lambda value: f"{size(value)}/s",
    "hours": lambda value: seconds(3600 * value),
    "one": lambda value: f"{value:,.1f}",
    "two": lambda value: f"{value:,.2f}",
    "three": lambda value: f"{value:,.3f}",
    "short-e": lambda value: f"{value:.2g}",
    "times": lambda value: f"× {value:,.2f}",
}


def formatted(value: Value, form: str = "") -> str:
    """Return the value of a figure in words; a missing one is a dash.

    Besides FORMS there is `moment`: `22 November 2026, 15:33 UTC` from `2026-11-22T15:33:40Z`.
    """
    if value is None:
        return MISSING
    if form == "moment":
        moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
        return moment.strftime("%-d %B %Y, %H:%M UTC")
    if isinstance(value, (str, bool)):
        return str(value)
    if form:
        return FORMS[form](value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def in_words(value: Any) -> str:
    """Return a setting or a table of settings for people: `device cpu, compile no`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{spaced(str(k))} {in_words(v)}" for k, v in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(in_words, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, float) and abs(value) >= 1e6:
        return short(value)
    return formatted(value) if isinstance(value, (int, float)) else str(value)


def spelled(text: object) -> str:
    """Return foreign text with hidden characters replaced, for attributes; it is not escaped."""
    return _HIDDEN.sub(lambda match: _picture(match[0]), str(text))


def visible(text: object) -> Markup:
    """Return foreign text as safe HTML: escaped, hidden characters shown by their code point."""
    pieces, last, plain = [], 0, str(text)
    unseen = Markup('<span class="unseen" title="U+{:04X}">{}</span>')
    for match in _HIDDEN.finditer(plain):
        pieces.append(escape(plain[last : match.start()]))
        pieces.append(unseen.format(ord(match[0]), _picture(match[0])))
        last = match.end()
    return Markup("").join([*pieces, escape(plain[last:])])


def _picture(character: str) -> str:
    """Return what stands for a hidden character: the picture of a C0 character, or its code."""
    code = ord(character)
    if code == 0x7F:
        return "\N{SYMBOL FOR DELETE}"
    return chr(0x2400 + code) if code < 0x20 else f"U+{code:04X}"


def cut(text: str, max_characters: int = PREVIEW_CHARACTERS) -> str:
    """Return the beginning of a text, with an ellipsis if anything follows."""
    return text if len(text) <= max_characters else text[:max_characters].rstrip() + " …"


def spaced(name: str) -> str:
    """`bits_per_byte` → `bits per byte`."""
    return name.replace("_", " ").replace("-", " ")


def plain_markdown(text: object) -> str:
    """Return foreign text as one line of Markdown with all markup escaped."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return _MARKUP.sub(r"\\\1", line)


class FigureHtml:
    """The figures of a report as HTML, and the footnote numbers of the files behind them."""

    def __init__(self, figures: Mapping[str, Mapping[str, Any]]) -> None:
        self.figures = figures
        files = sorted({str(figure["from"]) for figure in figures.values()})
        self.origins = {file: n for n, file in enumerate(files, 1)}

    def fig(self, name: str, form: str = "", note: bool = False) -> Markup:
        """Return a figure with its file as a tooltip; `note` adds the footnote of the file."""
        if not self.has(name):
            return Markup('<span class="none">{}</span>').format(MISSING)
        entry = self.figures[name]
        text, origin = visible(formatted(entry["value"], form)), spelled(entry["from"])
        shown = _FIGURE.format(name=spelled(name), form=form, origin=origin, text=text)
        return shown + self.origin(entry["from"]) if note else shown

    def origin(self, path: str) -> Markup:
        """Return the footnote of a file, a link to its place in the appendix."""
        if path not in self.origins:
            return Markup("")
        return _ORIGIN.format(number=self.origins[path], origin=spelled(path))

    def has(self, name: str) -> bool:
        """Whether a figure was computed."""
        return name in self.figures and self.figures[name]["value"] is not None

    def value(self, name: str) -> float:
        """Return a figure as a number, 0 if it is missing."""
        return number(self.figures.get(name, {}).get("value")) or 0.0

    def plain(self, name: str, spec: str) -> str:
        """Return a figure as plain text in a format of Python, a dash if it is missing."""
        return format(self.value(name), spec) if self.has(name) else MISSING

    def tasks(self) -> list[str]:
        """Return the benchmarks that were asked, and `passages`, in the order of report.json."""
        names = [n for n in self.names_after("evaluate.") if n.endswith(".accuracy")]
        tasks = [name.removesuffix(".accuracy") for name in names if ".raw." not in name]
        return [task for task in tasks if self.value(f"evaluate.{task}.n")]

    def names_after(self, prefix: str) -> list[str]:
        """Return what follows `prefix` in the names of figures, in the order of report.json."""
        return [name.removeprefix(prefix) for name in self.figures if name.startswith(prefix)]
