r"""The macros inside the lines of mdoc, the manual pages of the BSDs.

.Op Fl a Ar file ...     →     [-a file ...]
.Xr ls 1 ,                     ls(1),
"""

from __future__ import annotations

from groundup.collect.readers.markup.roff import GLUE

# What stands around the words up to the end of the line, and around those up to the closing macro.
_AROUND = {
    "Op": "[]", "Aq": "<>", "Bq": "[]", "Brq": "{}", "Dq": "“”", "Pq": "()", "Qq": '""', "Sq": "‘’",
    "Ql": "‘’",
}  # fmt: skip
_OPENING = {
    "Oo": "[", "Ao": "<", "Bo": "[", "Bro": "{", "Do": "“", "Po": "(", "Qo": '"', "So": "‘",
}  # fmt: skip
_CLOSING = {
    "Oc": "]", "Ac": ">", "Bc": "]", "Brc": "}", "Dc": "”", "Pc": ")", "Qc": '"', "Sc": "’",
}  # fmt: skip
_STOPS = frozenset(".,;:?!)]")
# Macros of one word.
_WORDS = {
    "Bx": "BSD", "Bsx": "BSD/OS", "Fx": "FreeBSD", "Nx": "NetBSD", "Ox": "OpenBSD", "Ux": "UNIX",
    "Dx": "DragonFly", "At": "AT&T UNIX", "Ud": "currently under development",
    "Bt": "is currently in beta test",
}  # fmt: skip
# What a macro prints when nothing follows it.
_DEFAULTS = {"Ar": "file ...", "Pa": "~", "Fl": "-", "Mt": "~", "Ad": "", "Li": ""}
_STYLES = frozenset(
    "Ad An Ar Cd Cm Dv Em Er Ev Fa Fd Fr Ft Ic Lb Li Ms No Pa Sx Sy Tn Va Vt Mt Cm Xo Xc"
    " %A %B %C %D %I %J %N %O %P %Q %R %T %U %V".split()
)
_DROPPED = frozenset("Bk Ek Tg Hf Sm Rs Re Os Dt Db UC".split())
# Macros that `phrase` reads at the beginning of a line and inside of it.
INLINE = frozenset((*_AROUND, *_OPENING, *_CLOSING, *_WORDS, *_STYLES)) | frozenset(
    "Fl Xr Nm Nd Ns Ap Pf Fn Fo Fc In Lk St Ex Rv Eo Ec Ta Es En Me".split()
)


class Phrases:
    """Makes text of the lines of a page, of which it knows the name."""

    def __init__(self) -> None:
        self.name = ""
        self.is_call = False  # between `.Fo` and `.Fc`

    def phrase(self, tokens: list[str]) -> str:
        """Return the text of a macro and of those among its arguments."""
        out: list[str] = []
        closers: list[str] = []
        index = 0
        while index < len(tokens):
            token = tokens[index]
            index += 1
            if token not in INLINE:
                out += _word(token)
                continue
            end = index
            while end < len(tokens) and tokens[end] not in INLINE:
                end += 1
            words = tokens[index:end]
            if token in _AROUND:
                out += [_AROUND[token][0], GLUE]
                closers.append(_AROUND[token][1])
            elif token in _OPENING:
                out += [_OPENING[token], GLUE]
            elif token in _CLOSING:
                out += [GLUE, _CLOSING[token]]
            else:
                out += self.one(token, words, end < len(tokens))
                index = end
        stops: list[str] = []
        while closers and out and out[-1] in _STOPS and out[-2:-1] == [GLUE]:
            stops = [*out[-2:], *stops]
            del out[-2:]
        return " ".join([*out, *(f"{GLUE} {sign}" for sign in reversed(closers)), *stops])

    def one(self, macro: str, words: list[str], goes_on: bool) -> list[str]:
        """Return the words of one macro, up to the next."""
        stops: list[str] = []
        while words and words[-1] in _STOPS:
            stops = [GLUE, words[-1], *stops]
            words = words[:-1]
        spaced = [piece for word in words for piece in _word(word)]
        if macro == "Nm":
            self.name = self.name or " ".join(words)
            return [*(spaced or [self.name]), *stops]
        if macro == "Fl":
            flags = [word if word in ("|", "(", "[") else f"-{word}" for word in words]
            return [*(flags or ["-", *([GLUE] if goes_on else [])]), *stops]
        if macro == "Xr" and words:
            section = f"({words[1]})" if len(words) > 1 else ""
            return [f"{words[0]}{section}", *(p for w in words[2:] for p in _word(w)), *stops]
        if macro in ("Fn", "Fo") and words:
            self.is_call = macro == "Fo"
            call = f"{words[0]}({', '.join(words[1:])}"
            return [call, GLUE] if self.is_call else [f"{call})", *stops]
        return [*self.special(macro, words, spaced), *stops]

    def special(  # noqa: PLR0911 - a table of cases
        self, macro: str, words: list[str], spaced: list[str]
    ) -> list[str]:
        """Return the words of macros that are no flag, name or function."""
        if macro == "Fa" and self.is_call:
            return [*spaced, GLUE, ","]
        if macro == "Fc":
            self.is_call = False
            return [GLUE, ")"]
        if macro == "Nd":
            return ["–", *spaced]
        if macro in ("Ns", "Ap", "Pf"):
            start = {"Ns": [GLUE], "Ap": [GLUE, "’", GLUE]}.get(macro, [])
            return [*start, *spaced, *([GLUE] if macro == "Pf" else [])]
        if macro in ("In", "Lb"):
            return [
                f"#include <{''.join(words)}>" if macro == "In" else f"library “{''.join(words)}”"
            ]
        if macro == "An" and words[:1] in (["-split"], ["-nosplit"]):
            return []
        if macro == "Lk":
            return words[1:] or words
        if macro in ("Ex", "Rv"):
            return _standard(macro, [word for word in words if word != "-std"] or [self.name])
        if macro in _WORDS:
            return [_WORDS[macro], *spaced]
        return spaced or [_DEFAULTS.get(macro, "")]


def _word(word: str) -> list[str]:
    """Return a word, without a space before it if it is a stop, or after it if it opens."""
    if word in _STOPS:
        return [GLUE, word]
    return [word, GLUE] if word in ("(", "[") else [word]


def _standard(macro: str, names: list[str]) -> list[str]:
    """Return the sentence about the exit status or the return value."""
    if macro == "Ex":
        return [f"The {', '.join(names)} utility exits 0 on success, and >0 if an error occurs."]
    return [
        f"The {', '.join(names)}() function returns the value 0 if successful; otherwise the value"
        " -1 is returned and the global variable errno is set to indicate the error."
    ]
