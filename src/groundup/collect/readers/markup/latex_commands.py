r"""Tables of LaTeX: what commands and environments stand for, and how many arguments they take."""

from __future__ import annotations

import re

# Commands that stand for words or signs.
WORDS = {
    "LaTeX": "LaTeX", "TeX": "TeX", "BibTeX": "BibTeX", "LaTeXe": "LaTeX2e", "XeLaTeX": "XeLaTeX",
    "ss": "ß", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "o": "ø", "O": "Ø", "l": "ł", "L": "Ł",
    "aa": "å", "AA": "Å", "i": "ı", "j": "ȷ", "dh": "ð", "th": "þ", "ng": "ŋ",
    "ldots": "…", "dots": "…", "textellipsis": "…", "S": "§", "P": "¶", "copyright": "©",
    "pounds": "£", "texteuro": "€", "euro": "€", "dag": "†", "ddag": "‡", "textdegree": "°",
    "textendash": "–", "textemdash": "—", "textquoteleft": "‘", "textquoteright": "’",
    "textquotedblleft": "“", "textquotedblright": "”", "textbackslash": "\\", "textbar": "|",
    "textless": "<", "textgreater": ">", "textasciitilde": "~", "textasciicircum": "^",
    "textunderscore": "_", "textbullet": "•", "textregistered": "®", "texttrademark": "™",
    "quad": " ", "qquad": " ", "space": " ", "par": "\n\n", "newline": "\ufdd4",
    "linebreak": " ", "slash": "/", "ie": "i.e.", "eg": "e.g.", "etc": "etc.",
    "sphinxhyphen": "-", "and": ", ", "bigskip": "\n\n", "medskip": "\n\n", "smallskip": "\n\n",
}  # fmt: skip
SIGNS = {" ": " ", "\n": " ", ",": " ", ";": " ", ":": " ", "!": "", "-": "", "/": "", "@": ""}
# Combining characters.
ACCENTS = {
    "`": "\u0300", "'": "\u0301", "^": "\u0302", "~": "\u0303", "=": "\u0304", "u": "\u0306",
    ".": "\u0307", '"': "\u0308", "r": "\u030a", "H": "\u030b", "v": "\u030c", "c": "\u0327",
    "k": "\u0328", "d": "\u0323", "b": "\u0331",
}  # fmt: skip
TYPOGRAPHY = (
    ("---", "—"), ("--", "–"), ("``", "“"), ("''", "”"), ("`", "‘"), ("'", "’"), ("?‘", "¿"),
    ("!‘", "¡"),
)  # fmt: skip
LENGTHS = frozenset("hskip vskip kern parindent parskip baselineskip advance hfuzz vfuzz".split())
BOXES = frozenset("hbox vbox vtop".split())
# Commands that go with this many arguments.
DROPPED = {
    **dict.fromkeys(
        "label glossary bibliography bibliographystyle addbibresource includegraphics input include"
        " includeonly usepackage RequirePackage documentclass vspace hspace pagestyle color"
        " thispagestyle hypersetup geometry pagecolor graphicspath setmainfont author date affil"
        " affiliation institute address email orcid keywords subjclass pagenumbering hyphenation"
        " stepcounter refstepcounter addtocounter cline cmidrule title newif theoremstyle"
        " bookmarksetup usetikzlibrary pgfplotsset tikzset lstset captionsetup phantom hphantom"
        " vphantom bibitem let sisetup newcounter newlength allowdisplaybreaks"
        " enlargethispage newgeometry linespread fontencoding fontfamily fontseries fontshape"
        " selectlanguage sphinxcline sphinxfixclines sphinxtablestrut sphinxvlinecrossing"
        " sphinxstartmulticolumn".split(),
        1,
    ),
    **dict.fromkeys(
        "pdfbookmark setlength addtolength setcounter newtheorem markboth fontsize rule definecolor"
        " newenvironment numberwithin counterwithin DeclareMathOperator setdefaultlanguage"
        " titleformat SetKwInOut externaldocument DeclareMathSymbol settowidth newacronym"
        " moduleauthor sectionauthor sphinxcolwidth".split(),
        2,
    ),
    **dict.fromkeys(
        "addcontentsline renewenvironment newglossaryentry ifthenelse DUfootnotemark".split(), 3
    ),
    "maketitle": 0,
}
# Commands of which the last argument is text, after this many that go.
FIRST_DROPPED = {
    **dict.fromkeys(
        "href textcolor colorbox parbox raisebox scalebox foreignlanguage hyperlink hypertarget"
        " adjustbox setpresentation DUrole PYG".split(),
        1,
    ),
    **dict.fromkeys("multicolumn multirow resizebox fcolorbox sphinxmultirow".split(), 2),
    "DUfootnotetext": 3,
}
HEADINGS = frozenset(
    "part chapter section subsection subsubsection paragraph subparagraph addchap addsec caption"
    " subtitle frametitle framesubtitle dedication minisec".split()
)
# What ends the parts of a table that are printed at the top and the bottom of each page.
TABLE_PARTS = frozenset("endfirsthead endhead endfoot endlastfoot".split())
LISTS = frozenset("itemize enumerate description compactitem compactenum list".split())
# Tables, and how many arguments say how their columns look.
TABLES = {"tabular": 1, "tabularx": 2, "longtable": 1, "tabulary": 2, "array": 1, "supertabular": 1}
ENVIRONMENT_ARGUMENTS = {
    "minipage": 1, "multicols": 1, "adjustwidth": 2, "spacing": 1, "wraptable": 2, "list": 2,
    "DUclass": 1, "DUlineblock": 1, "varwidth": 1, "otherlanguage": 1, "selectlanguage": 1,
}  # fmt: skip
TITLES = {"abstract": "Abstract", "proof": "Proof"}
THEOREMS = {
    name: name.capitalize()
    for name in "theorem lemma corollary proposition definition remark example conjecture claim"
    " exercise".split()
}
# Environments of code in which commands and braces stay what they are.
CODE_WITH_COMMANDS = ("alltt", "semiverbatim", "lyxcode")
# Signs in code that Pygments colored: \PYGZus{} is an underscore.
PYGMENTS_SIGNS = dict(
    zip(
        "bs us ob cb ca am lt gt sh pc dl hy sq dq ti at lb rb".split(),
        "\\_{}^&<>#%$-'\"~@[]",
        strict=True,
    )
)
CODE = (
    *("verbatim", "verbatimtab", "Verbatim", "sphinxVerbatim", "sphinxVerbatimintable"),
    *("lstlisting", "minted", *CODE_WITH_COMMANDS),
)
# What becomes of whole environments: code and formulas stay as they are, pictures leave captions.
ENVIRONMENTS = {
    **dict.fromkeys(CODE, "code"),
    **dict.fromkeys(
        "equation align gather multline eqnarray displaymath math flalign alignat dmath"
        " IEEEeqnarray subequations".split(),
        "math",
    ),
    **dict.fromkeys("figure wrapfigure SCfigure sidewaysfigure".split(), "captions"),
    **dict.fromkeys(
        "tikzpicture pgfpicture picture forest tikzcd thebibliography comment filecontents CCSXML"
        " axis asy circuitikz xy rawhtml htmlonly".split(),
        "drop",
    ),
}


_REFERENCE = re.compile(r"(?:no|text|paren|foot|auto|full|super|smart)?cite|.*ref\Z", re.IGNORECASE)


def dropped_arguments(name: str) -> int | None:
    """Return how many arguments go with a command that goes, None for one that stays."""
    if name.startswith("index") or name.endswith(("refrange", "WallPaper")):
        return 2
    if _REFERENCE.match(name) and name not in ("href", "hyperref"):
        return 1
    return DROPPED.get(name)


def is_known(name: str) -> bool:
    """Whether a command has a meaning here that a document's own definition does not change."""
    tables = (WORDS, FIRST_DROPPED, HEADINGS, ACCENTS)
    return dropped_arguments(name) is not None or any(name in table for table in tables)
