r"""The language below the macros of manual pages: requests, conditions, strings and escapes.

    .ds v 1.2                    →     ("TP", "")
    .if t .tm never printed            ("", "-a, --all in 1.2")
    .TP \" a comment
    \fB\-a\fR, \-\-all in \*v

Conditions are those of a terminal. No other file is read.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

# Stands where two words come together without a space, and where a line goes on in the next.
GLUE, JOINED = "\ufdd8", "\ufdd9"

_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)\\[\"#].*")
_REQUEST = re.compile(r"[.'][ \t]*(\\?[^\s\\]*(?:\\[{}])?)[ \t]*(.*)", re.DOTALL)
_STRING = re.compile(r"\\\*(?:\[([^\]\s]*)[^\]]*\]|\((..)|(.))")
_NUMBER = re.compile(r"\\n[+-]?(?:\[([^\]]*)\]|\((..)|(.))")
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\.|[^\s\\])+|\\\Z)', re.DOTALL)
_PARAMETER = re.compile(r"\\\$(?:\[(\d+)\]|\((\d\d)|(\d|[*@]))")
_CONDITION = re.compile(
    r"(!?)\s*(?:([notev])(?=[\s\\.'])|([rdcmFS])\s*(\S+)|(['\"])(.*?)\5(.*?)\5|(\S+))\s*"
)
_INEQUALITY = re.compile(r"(-?\d+)([<>=]=?)(-?\d+)")
# The names in parentheses and brackets, the escapes with an argument, and the rest.
_ESCAPE = re.compile(
    r"\\(?:\(([^\s].)|\[([^\]\n]{0,100}+)\]"
    r"|[fFmMgkVY](?:\[[^\]\n]{0,50}+\]|\(..|.)|s(?:[+-]?\d|[+-]?[(\[]..\]?|'[^'\n]{0,20}+'|[+-].)"
    # A motion may be as wide as a word: \h'-\w'word'u'.
    r"|([hvwlLDbxXZHSRAoNBCz])(?:'((?:[^'\\\n]|\\w'[^'\n]{0,100}+'|\\.){0,500}+)'|(.))?"
    r"|(.?))",
    re.DOTALL,
)  # fmt: skip

# Names of characters, each with its character.
_NAMES = r"""
em —  en –  hy -  - -  mi −  bu •  ci ○  sq □  lq “  rq ”  oq ‘  cq ’  aq '  dq "  Bq „
bq ‚  Fo «  Fc »  fo ‹  fc ›  la ⟨  ra ⟩  lB [  rB ]  lC {  rC }  co ©  rg ®  tm ™
de °  ct ¢  Eu €  eu €  Po £  Ye ¥  Do $  sc §  ps ¶  dg †  dd ‡  ss ß  ae æ  AE Æ
oe œ  OE Œ  /o ø  /O Ø  /l ł  /L Ł  -D Ð  Sd ð  Tp þ  TP Þ  oa å  oA Å  .i ı  ga `
aa ´  ha ^  ti ~  at @  sh #  rs \  sl /  ba |  bv |  br │  or |  ul _  ru _  rn ‾
pl +  eq =  mu ×  di ÷  +- ±  <= ≤  >= ≥  != ≠  == ≡  ~= ≅  ap ∼  ~~ ≈  -> →  <- ←
<> ↔  ua ↑  da ↓  rA ⇒  lA ⇐  if ∞  in ∞  pd ∂  sr √  sum ∑  is ∫  mo ∈  no ¬  ** ∗
fm ′  sd ″  12 ½  14 ¼  34 ¾  S1 ¹  S2 ²  S3 ³  r! ¡  r? ¿  OK ✓  te ∃  fa ∀  AN ∧
OR ∨  lh ☜  rh ☞  tf ∴  Of ª  Om º  pc ·  md ⋅  Cs ¤  Fn ƒ  ff ff  fi fi  fl fl  Fi ffi
Fl ffl  cs ſ  an ⎯  bb ¦  a- ¯  u2 ²
""".split()
_GLYPHS = dict(zip(_NAMES[::2], _NAMES[1::2], strict=True))
_ACCENTS = {
    "'": "\u0301", "`": "\u0300", "^": "\u0302", ":": "\u0308", "~": "\u0303", ",": "\u0327",
    "v": "\u030c", "h": "\u030b", "o": "\u030a", "-": "\u0304", ".": "\u0307",
}  # fmt: skip
_GREEK = dict(
    zip(
        "ABGDEZYHIKLMNCOPRSTUFXQWabgdezyhiklmncoprstufxqw",
        "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩαβγδεζηθικλμνξοπρστυφχψω",
        strict=True,
    )
)
# The character after a backslash → what it prints.
_SIMPLE = {
    "e": "\\", "\\": "\\", "-": "-", " ": " ", "~": " ", "0": " ", "'": "'", "`": "`", ".": ".",
    "_": "_", "t": "\t", "c": JOINED, "?": "",
}  # fmt: skip
_STRINGS = {
    "lq": "“", "rq": "”", "R": "®", "Tm": "™", "S": "", "Aq": "'", "C`": "", "C'": "", "--": "—",
    "PI": "π", 'L"': '"', 'R"': '"', "C+": "C++", "``": "“", "''": "”", "Ai": "ANSI", "Px": "POSIX",
    "Ba": "|", "Gt": ">", "Lt": "<", "Le": "≤", "Ge": "≥", "Am": "&", "q": '"', "Pi": "π",
    ".T": "utf8", "Ne": "≠", "If": "∞", "Na": "NaN",
}  # fmt: skip
# What ends at a line of its own, and is left out.
_ENDS = {"ig": "..", "am": "..", "am1": "..", "PS": ".PE", "ami": ".."}
# Characters of a string, and those that strings and macros may add to a page.
_MAX_STRING, _MIN_ROOM = 2000, 200_000


class Roff:
    """The lines of a page after its conditions, macros and strings: requests and text.

    `known` are the macros that the reader prints itself, whatever the page defines.
    """

    def __init__(self, text: str, known: frozenset[str]) -> None:
        self.known = known
        self.lines = [line.rstrip("\r") for line in reversed(text.split("\n"))]
        self.room = 4 * len(text) + _MIN_ROOM
        self.strings, self.registers = dict(_STRINGS), {".g": "1", ".x": "1", ".y": "23"}
        self.macros: dict[str, list[str]] = {}
        self.otherwise: list[bool] = []  # of the open conditions: whether their `.el` is read

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield the macros with their arguments, and lines of text behind ""."""
        while self.lines:
            # A string that begins a line makes no request of it.
            is_request = self.lines[-1][:1] in (".", "'")
            line = self.pull()
            if not is_request:
                yield "", line
                continue
            request = _REQUEST.match(line)
            name, rest = request.groups() if request else ("", "")
            if not self.obey(name, rest):
                if name in self.macros:
                    self.call(self.macros[name], arguments(rest))
                elif name:
                    yield name, rest

    def pull(self) -> str:
        """Return the next line, with those that it goes on in, with its strings and numbers."""
        line = _COMMENT.sub(r"\1", self.lines.pop()) if self.lines else ""
        while line.endswith("\\") and (len(line) - len(line.rstrip("\\"))) % 2 and self.lines:
            line = line[:-1] + _COMMENT.sub(r"\1", self.lines.pop())
        for _ in range(4):
            if "\\*" not in line:
                break
            line = _STRING.sub(self.value, line)
        if "\\n" in line:
            line = _NUMBER.sub(lambda name: self.registers.get(_any(name), "0"), line)
        return line

    def value(self, name: re.Match[str]) -> str:
        """Return the value of a string, "" when the page has grown too much."""
        value = self.strings.get(_any(name), "")
        self.room -= len(value)
        return value if self.room > 0 else ""

    def obey(self, name: str, rest: str) -> bool:
        """Carry out a request that is about the lines themselves; return whether it was one."""
        if name in ("if", "ie", "el", "while"):
            holds, then = self.condition(rest) if name != "el" else (self.pop_else(), rest)
            if name == "ie":
                self.otherwise.append(not holds)
            self.branch(holds and name != "while", then)
        elif name in ("ds", "as", "ds1", "as1"):
            key, _, value = rest.partition(" ")
            before = self.strings.get(key, "") if name[0] == "a" else ""
            if key not in _STRINGS:
                self.strings[key] = (before + value.lstrip(" ").removeprefix('"'))[:_MAX_STRING]
        elif name == "nr":
            key, value = (*rest.split(), "", "")[:2]
            self.registers[key] = re.sub(r"\D.*", "", value) or "0"
        elif name in ("de", "de1", "dei", "de2"):
            key, end = (*rest.split(), "", "")[:2]
            body = self.until(f".{end or '.'}")
            if key not in self.known:
                self.macros[key] = [line.replace("\\\\", "\\") for line in body]
        elif name in ("als", "rn"):
            new, old = (
                (*rest.split(), "", "")[:2] if name == "als" else (*rest.split(), "", "")[1::-1]
            )
            if old in self.macros and new not in self.known:
                self.macros[new] = self.macros[old]
        elif name == "nop":
            self.lines.append(rest)
        elif name in _ENDS and name not in self.macros:
            self.until(_ENDS[name])
        else:
            return False
        return True

    def pop_else(self) -> bool:
        """Return whether the `.el` of the innermost open condition is read."""
        return self.otherwise.pop() if self.otherwise else False

    def until(self, end: str) -> list[str]:
        """Return the lines before a line; it may have a space behind the dot."""
        body = []
        while self.lines:
            line = self.lines.pop()
            squeezed = line.replace(" ", "").replace("\t", "")
            if squeezed == end or squeezed.startswith(f'{end}\\"'):
                break
            body.append(line)
        return body

    def condition(self, rest: str) -> tuple[bool, str]:
        """Return whether a condition holds on a terminal, and what comes after it."""
        match = _CONDITION.match(rest)
        if match is None:
            return False, rest
        negated, letter, test, name, _, left, right, number = match.groups()
        if letter:
            holds = letter in "no"
        elif test:
            defined = self.registers if test == "r" else {**self.macros, **self.strings}
            holds = name in defined or (test == "d" and name in self.known)
        elif number is None:
            holds = left == right
        else:
            number = number.strip("()")
            sides = _INEQUALITY.fullmatch(number.replace("(", "").replace(")", ""))
            if sides:
                a, b = int(sides[1][:9]), int(sides[3][:9])
                holds = {"<": a < b, ">": a > b, "<=": a <= b, ">=": a >= b}.get(sides[2], a == b)
            else:
                holds = number.isdigit() and int(number[:9]) > 0
        return holds != bool(negated), rest[match.end() :]

    def branch(self, holds: bool, then: str) -> None:
        """Go on with the lines of a branch, or after them."""
        if holds:
            # Conditions in the branch of a condition go over the same line again.
            self.room -= len(then)
            if self.room < 0:
                return
            self.lines.append(then.replace("\\{", "", 1).lstrip(" \t"))
            return
        depth = then.count("\\{") - then.count("\\}")
        while depth > 0 and self.lines:
            line = self.lines.pop()
            depth += line.count("\\{") - line.count("\\}")

    def call(self, body: list[str], values: list[str]) -> None:
        """Go on with the lines of a macro of the page."""
        self.room -= sum(map(len, body)) + len(body) * (1 + sum(map(len, values)))
        if self.room < 0:
            return

        def value(parameter: re.Match[str]) -> str:
            place = _any(parameter)
            if not place.isdigit():
                return " ".join(values)
            return values[int(place) - 1] if 0 < int(place) <= len(values) else ""

        self.lines += [_PARAMETER.sub(value, line) for line in reversed(body)]


def _any(match: re.Match[str]) -> str:
    """Return the group that matched."""
    return next((group for group in match.groups() if group is not None), "")


def arguments(rest: str) -> list[str]:
    """Return the arguments of a macro, without their quotes."""
    return [
        word[2] or word[1].replace('""', '"') if word[1] is not None else word[2]
        for word in _ARGUMENT.finditer(rest)
    ]


def plain(text: str) -> str:
    """Return a text with characters for its escapes, without fonts, sizes and motions."""
    return _ESCAPE.sub(_escape_text, text) if "\\" in text else text


def _escape_text(escape: re.Match[str]) -> str:
    """Return what an escape prints."""
    short, long, motion, inside, overprinted, simple = escape.groups()
    name = short or long
    if name is not None:
        return _glyph(name)
    inside = inside or ""
    if motion == "h" and inside:
        return "" if inside.startswith(("-", "|")) else " "
    if motion == "C" or (motion == "N" and inside.isdigit()):
        return _glyph(inside if motion == "C" else f"char{inside}")
    if motion in ("o", "Z", "z"):
        return {"o": inside[:1], "Z": inside}.get(motion, overprinted or "")
    return _SIMPLE.get(simple, "") if simple else ""


def _glyph(name: str) -> str:
    """Return the character of a name: `em`, `'e`, `*a`, `u00E9`, `char233`, `a aa`."""
    if name in _GLYPHS:
        return _GLYPHS[name]
    if len(name) == 2 and name[0] == "*":
        return _GREEK.get(name[1], "")
    if len(name) == 2 and name[0] in _ACCENTS and name[1].isalpha():
        return unicodedata.normalize("NFC", name[1] + _ACCENTS[name[0]])
    if code := re.fullmatch(r"u([0-9A-F]{4,6})((?:_[0-9A-F]{4,6})*)|char(\d{1,3})", name):
        points = [int(code[3])] if code[3] else [int(p, 16) for p in name[1:].split("_")]
        return "".join(chr(p) for p in points if p < 0x110000 and not 0xD800 <= p < 0xE000)
    return name if len(name) == 1 else ""
