"""Markup of documents becomes prose: words, code and formulas stay, marks and addresses go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.formats import detect_format
from groundup.collect.readers.markup.asciidoc import asciidoc_text
from groundup.collect.readers.markup.latex import latex_text
from groundup.collect.readers.markup.man import man_text
from groundup.collect.readers.markup.markdown import markdown_text
from groundup.collect.readers.markup.org import org_text
from groundup.collect.readers.markup.restructured import rst_text

Read = Callable[..., list[Document | Reject]]

MARKDOWN = [
    # Blocks.
    ("# One #\nText.\n\nTwo\n---\nMore.", "One\n\nText.\n\nTwo\n\nMore."),
    ("one\ntwo  \nthree\\\nfour", "one two\nthree\nfour"),
    ("你好\n世界", "你好世界"),
    ("* a\n* b\n  - c\n    d\n\n1. x\n2. y", "- a\n- b\n  - c d\n\n1. x\n2. y"),
    ("- [ ] todo\n- [x] done", "- todo\n- done"),
    ("```py\nx = '*a*'\n\n  # y\n```\nz", "x = '*a*'\n\n  # y\n\nz"),
    ("a\n\n    code_ _x\n\n    more\n\nb", "a\n\ncode_ _x\n\nmore\n\nb"),
    ("- a\n  ```\n  x\n    y\n  ```", "- a\n\nx\n  y"),
    ("|a|b \\| c|\n|---|:-:|\n|`x`||\n|1|2|\nend", "a | b | c\nx\n1 | 2\n\nend"),
    ("> quoted\n> text\nlazily\n\nafter", "quoted text lazily\n\nafter"),
    ("> [!tip]- Title\n> Body", "Title\n\nBody"),
    ("> [!NOTE]\n> Body", "Note\n\nBody"),
    ('!!! note "Careful"\n    One.\n\n    Two.\n\nEnd.', "Careful\n\nOne.\n\nTwo.\n\nEnd."),
    (":::{note} Title\nBody.\n:::", "Title\n\nBody."),
    ("```{note} Title\n:class: x\nBody *em*.\n```", "Title\n\nBody em."),
    ("a\n\n```{toctree}\nx\ny\n```", "a"),
    ("$$\nx_1 *y* z_1\n$$", "$$\nx_1 *y* z_1\n$$"),
    ("a\n***\nb", "a\n\nb"),
    # What is in a line.
    ("**b _i_ c** *d*e a_b_c 2 * 3 * 4", "b i c de a_b_c 2 * 3 * 4"),
    ("`a *b*` ``c`d`` \\*e\\*", "a *b* c`d *e*"),
    ("[w *x*](http://a.b/c_(d) 't') [r][q] [q] [no]\n\n[q]: http://a", "w x r q [no]"),
    ("[![b](x.svg)](http://a) ![c][q] d ![[e.png]]\n\n[q]: http://a", "d"),
    ("[[Page]], [[Page|words]], [[Page#Head]] [[1, 2]]", "Page, words, Page Head [[1, 2]]"),
    ("A[^1] b^[why].\n\n[^1]: Note\n    on.", "A b (why).\n\nNote on."),
    ("By [@a](http://b), [@c][q].\n\n<!-- d -->\n[q]: http://e", "By @a, @c."),
    ("a <b>c</b> &amp; <!-- d --> <http://x.y> Vec<T>", "a c & http://x.y Vec<T>"),
    ("<p align=center>a<br/>b</p>\n<script>\nx\n</script>\nc", "a\nb\n\nc"),
    ("<!--\na\n\nb\n-->\nc", "c"),
    ("<table><tr><td>a</td><td>b</td></tr></table>", "a | b"),
    ("It costs $5 and $6; $a_1*b*c_1$.", "It costs $5 and $6; $a_1*b*c_1$."),
    ("Seen [@a2020, p. 3; @b]. {doc}`Words <x/y>` ==h== ~~s~~ ^id-1", "Seen. Words h s"),
    ("#a/b #c\n\n#1\n\nA #tag.", "#1\n\nA #tag."),
    ("Pay [due:: 2024-01-01] it (std::x).", "Pay it (std::x)."),
    ("# Head {#id .c}\n{: .x}\n{% include y %}\ntext", "Head\n\ntext"),
    (
        "## :bulb: One\n\nA :thumbsup: :octocat: at 10:30:15, std::x.",
        "💡 One\n\nA 👍 at 10:30:15, std::x.",
    ),
    ("_첨부_을 **강조**를 ב_כללי_ snake_case_é", "첨부을 강조를 בכללי snake_case_é"),
    # Notebooks and pages of MyST.
    ('a\n+++\nb\n\n+++ {"tags": ["x"]}\n\n+ c', "a\n\nb\n\n- c"),
    ("```{code-cell}\n---\ntags: [x]\n---\ny = 1\n```", "y = 1"),
    ("```{code-cell} ipython3\n:tags: [x]\n\n:y:\n```", ":y:"),
    ("```{eval-rst}\n.. autoapiclass:: a.B\n   :members:\n\n.. note:: *c*\n```", "Note\n\nc"),
    (":::{versionadded} 2.1\n:::\n\na\n\n:::{toctree}\nb\n:::", "New in version 2.1\n\na"),
    ("::::{tip}\n:class: x\n:::{note} b\nc\n:::\n::::\nd", "b\n\nc\n\nd"),
    ("```{.python .x}\n*a* = 1\n```", "*a* = 1"),
    ("a\n\n```{eval-rst}\n.. autoclass:: b\n```\n\nc\n\n```{raw-cell}\n```", "a\n\nc"),
]


@pytest.mark.parametrize("source, prose", MARKDOWN)
def test_markdown_becomes_prose(source: str, prose: str) -> None:
    assert markdown_text(source) == prose


def test_front_matter_gives_its_title_once() -> None:
    front = '---\ntitle: "A *b*"\ntags: [x]\n---\n'
    assert markdown_text(f"{front}Text.") == "A b\n\nText."
    assert markdown_text(f"{front}# A b\nText.") == "A b\n\nText."
    assert markdown_text("+++\ntitle = 'A'\n+++\nText.") == "A\n\nText."
    # Two rules are no front matter.
    assert markdown_text("---\nText.\n\n---\nMore.").startswith("Text.")


def test_notion_exports() -> None:
    """Properties below the title and ids are left out, where the name of the file has an id."""
    number = "0123456789abcdef" * 2
    address = f"https://www.notion.so/Next-{number}"
    page = (
        f"# Plan\n\nStatus: Done\nTags: a, b\n\nSee [Next](Plan/Next%20{number}.md) and `Next"
        f" {number}.md`, [{address}]({address}).\n\nWhen: now."
    )
    prose = "Plan\n\nSee Next and Next.md,.\n\nWhen: now."
    assert markdown_text(page, f"Plan {number}.md") == prose
    assert "Status: Done" in markdown_text(page, "Plan.md")
    sentence = "# Plan\n\nIn short: we go.\n"
    assert markdown_text(sentence, f"Plan {number}.md") == "Plan\n\nIn short: we go."


def test_components_of_mdx() -> None:
    source = 'import A from "b"\n\n<Tabs>\n\nText.\n\n</Tabs>\n\nimport is a word'
    assert markdown_text(source, "a.mdx") == "Text.\n\nimport is a word"
    listing = '<Listing number="1" caption="A `Point<T>`, that\'s all">\n\nText.\n\n</Listing>'
    assert markdown_text(listing) == "Text."


def test_the_kind_decides_who_reads_markup(read: Read) -> None:
    """Source trees, conversations and evaluation sets read it as they did."""
    (prose,) = read("text", "a.md", "# A *b*")
    assert isinstance(prose, Document) and prose.text == "A b" and prose.group == "a.md"
    (file,) = read("code", "a.md", "# A *b*")
    assert isinstance(file, Document) and file.text == "# A *b*"
    (question,) = read("evaluation", "a.md", "# A *b*")
    assert isinstance(question, Document) and question.text == "# A *b*"
    (nothing,) = read("text", "a.md", "![a](b.png)")
    assert isinstance(nothing, Reject) and nothing.reason == "empty"


# Each took time by the square of its length in one pattern or another.
HOSTILE = {
    "stars": "*a " * 30000,
    "brackets": "[a](" * 30000 + "[" * 30000,
    "quotes": ">" * 50000,
    "items": "* - " * 20000,
    "deep items": "\n".join(" " * n + "- x" for n in range(2000)),
    "underscores": " _a b" * 30000,
    "backticks": "`a ```b `` " * 20000,
    "comments": "<!-- " * 30000 + "-->",
    "dollars": "a $$b" * 40000 + "$a " * 30000,
    "braces": "{#a" * 50000,
    "directives": "```{a}\n" * 10000 + ":::{b}\n" * 10000,
    "cells": "a|b\n" + "|-" * 50000 + "x",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_hostile_markdown_keeps_its_letters(source: str) -> None:
    """It is read within the deadline, and no word of it is lost."""
    letters = markdown_text(source)
    for letter in "abx":
        assert letter not in source.replace("toctree", "") or letter in letters


def test_real_markdown(real_data: Path) -> None:
    """No mark is left in the pages of a manual."""
    for path in sorted((real_data / "wild/markdown/rust-book").rglob("*.md"))[:20]:
        prose = markdown_text(path.read_text(encoding="utf-8"))
        assert prose and "](" not in prose and "\ufdd0" not in prose


RST = [
    (
        "=====\nTitle\n=====\n\n:Author: A\n\nText\non.\n\nTwo\n---\n\n----\n",
        "Title\n\nText on.\n\nTwo",
    ),
    ("*a* **b** ``*c*`` `d <http://e>`_ `f`_ g_ a_b :class:`~x.Y`", "a b *c* d f g a_b Y"),
    (":ref:`w <x>` :pep:`8` :math:`a*b*c` x [1]_ [#n]_.", "w PEP 8 $a*b*c$ x."),
    ("See |x|.\n\n.. |x| replace:: the\n   words\n.. |y| image:: a.png", "See the words."),
    (".. _target: http://a\n.. comment\n   more\n\nText.", "Text."),
    ("Code::\n\n    x = *y*\n\n      z\n\nEnd.", "Code:\n\nx = *y*\n\n  z\n\nEnd."),
    (">>> f(*x*)\n1\n\nEnd.", ">>> f(*x*)\n1\n\nEnd."),
    (".. code-block:: py\n   :linenos:\n\n   x\n", "x"),
    (".. note:: One\n   two.\n\n   Three.\n\nEnd.", "Note\n\nOne two.\n\nThree.\n\nEnd."),
    (".. versionadded:: 2.1\n   Words.", "New in version 2.1: Words."),
    (".. figure:: a.png\n   :width: 3\n\n   Caption.", "Caption."),
    (".. toctree::\n\n   a\n   b\n\n.. raw:: html\n\n   <b>\n\nText.", "Text."),
    (".. math::\n\n   a_1 *b*", "$$\na_1 *b*\n$$"),
    ("* a\n  b\n\n  * c\n\n#. d\n#. e", "- a b\n\n  - c\n\n- d\n- e"),
    ("term : kind\n    Meaning\n    of it.", "term: kind\nMeaning of it."),
    ("Text.\n\n:param x: the\n    value\n:returns: y", "Text.\n\nx: the value\nreturns: y"),
    ("+---+---+\n| a | b |\n|   | c |\n+===+===+\n| d | e |\n+---+---+", "a | b c\nd | e"),
    ("=== ===\nA   B\n=== ===\na   b\n    c\nd   e\n=== ===", "A | B\na | b c\nd | e"),
    (".. list-table:: T\n\n   * - a\n     - b\n   * - c\n     - d", "T\n\na | b\nc | d"),
    (".. csv-table:: T\n\n   a," + '"b, c"' + "\n", "T\n\na | b, c"),
    ("| one\n| two", "one\ntwo"),
    ("PEP: 1\nTitle: On\n Things\nAuthor: A\n\nText.", "On Things\n\nText."),
    (
        ".. class:: Environment\n\n   .. attribute:: app\n\n      An *application*.",
        "Environment\n\napp\n\nAn application.",
    ),
    (
        ".. autoclass:: a.b.C\n   :members:\n\n   Prose.\n\n.. class:: wide\n\nText.",
        "Prose.\n\nText.",
    ),
    ("Text.\n\n.. [1] A *note*.", "Text.\n\nA note."),
    # Values that the settings of the documentation have.
    ("a\\_b\n====", "a_b"),
    (
        ".. default-role:: math\n.. role:: m(math)\n\n`a^b` :m:`c` `d`_ :pep:`8`",
        "$a^b$ $c$ d PEP 8",
    ),
    ("|docx| ``|x|`` a|b|c (|api-Doc|_) |version|.", "docx |x| a|b|c (api-Doc)."),
    (".. c:namespace:: a\n\n.. program:: b\n\n.. canonical-doc:: :ref:`c`\n\nText.", "Text."),
]


@pytest.mark.parametrize("source, prose", RST)
def test_rst_becomes_prose(source: str, prose: str) -> None:
    assert rst_text(source) == prose


def test_directives_read_no_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret words")
    for name in ("include", "literalinclude", "raw", "csv-table"):
        option = "   :file: " if name in ("raw", "csv-table") else ""
        assert "secret words" not in rst_text(f"a\n\n.. {name}:: {secret}\n{option}{secret}\n")


def test_real_rst(real_data: Path) -> None:
    for path in sorted((real_data / "wild/rst/peps").glob("*.rst"))[:10]:
        prose = rst_text(path.read_text(encoding="utf-8"))
        assert len(prose) > 1000 and ">`_" not in prose and ".. [" not in prose


LATEX = [
    (r"\section[s]{One \emph{two}\label{x}} Text % no" + "\non.", "One two\n\nText on."),
    (
        r"Caf\'e na\"{\i}ve \c{c}a \ss{} 50\% a--b --- ``q'' l~m",
        "Café naïve ça ß 50% a–b — “q” l m",
    ),
    (r"Seen \cite[p.~2]{a}, in~\ref{b} (\eqref{c}) \crefrange{d}{e}.", "Seen, in."),
    (r"\newgeometry{top=0pt}\makebox[2em][s]{\fontshape{n}\selectfont A}", "A"),
    (r"A $a_1*b$, \(c\) costs \$5.", "A $a_1*b$, $c$ costs $5."),
    (
        r"\begin{align}\label{a} x &= y \nonumber \end{align}",
        "\\begin{align}\n x &= y\n\\end{align}",
    ),
    ("A\\footnote{So \\emph{b}.} c.\n\nD.", "A c.\n\nSo b.\n\nD."),
    (r"\begin{itemize}\item a \item[b] c\end{itemize} D", "- a\n- b c\n\nD"),
    (r"\begin{tabular}{ll}\hline a & b \\[2pt] c & d\end{tabular}", "a | b\nc | d"),
    (r"\begin{figure}\includegraphics{x}\caption{The \emph{c}.}\end{figure}", "The c."),
    ("\\begin{verbatim}\nx % $y\n  z\n\\end{verbatim}", "x % $y\n  z"),
    (
        r"\verb|a_b%| \href{http://x}{w} \hyperref[x]{h} \textcolor{red}{t} \unknown{k}",
        "a_b% w h t k",
    ),
    (r"\newcommand{\org}{The Org}\def\w#1{word #1}\org\ and \w{x}.", "The Org and word x."),
    (r"\begin{alltt}a\textbackslash{}b \{\emph{c}\}\end{alltt}", r"a\b {c}"),
    (
        "\\begin{Verbatim}[commandchars=\\\\\\{\\}]\n"
        "\\PYG{n}{my\\PYGZus{}name} \\PYG{o}{=} \\PYG{p}{\\PYGZob{}}\\PYG{p}{\\PYGZcb{}}\n"
        "\\end{Verbatim}",
        "my_name = {}",
    ),
    (r"\sphinxmultirow{3}{1}{\begin{varwidth}[t]{\sphinxcolwidth{1}{5}}A\end{varwidth}}", "A"),
    ("$body_pre$title$abstract\n\n$body", ""),
    ("The $n$th", "The $n$th"),
    ("Say -{}-help -- now.", "Say --help – now."),
    (r"\newtheorem{thm}{Theorem}\begin{thm}[Me] Holds.\end{thm}", "Theorem (Me). Holds."),
    (
        r"A (see Section~\ref{a}), as in \cite{b}, \cite{c}, \ref{d} and (Chapter~\ref{e}, too).",
        "A, as in, and (Chapter, too).",
    ),
    (
        r"\begin{longtable}{l}H\\\endfirsthead H (continued)\\\endhead next page\\\endfoot"
        r"\endlastfoot a\\b\end{longtable}",
        "H\na\nb",
    ),
    (r"\begin{list}{\roman{i})}{\usecounter{i}}\item a\end{list}", "- a"),
    ("\\begin{lyxcode}\nx~=~f\\_a(1)\n\n\\end{lyxcode}", "x = f_a(1)"),
    (r"\pdfbookmark[1]{A}{a}B\begin{itemize}\item\item c\end{itemize}", "B\n\n- c"),
    (r"\vbox to 3cm{\hbox to \hsize{A}}\LRCornerWallPaper{1.0}{b}", "A"),
    (r"A \begin{rawhtml}<p>\end{rawhtml} \begin{DUclass}{x}b\DUrole{y}{c}\end{DUclass}", "A\n\nbc"),
]


@pytest.mark.parametrize("source, prose", LATEX)
def test_latex_becomes_prose(source: str, prose: str) -> None:
    wrapped = f"\\begin{{document}}{source}\\end{{document}}"
    assert latex_text(wrapped) == prose


def test_parts_of_latex_documents() -> None:
    """The preamble gives its title; a chapter is read whole; settings are no text."""
    paper = r"\documentclass{a}\title{A \emph{T}}\begin{document}\maketitle B.\end{document} no"
    assert latex_text(paper) == "A T\n\nB."
    assert latex_text(r"\chapter{One} It was a dark and stormy night.").startswith("One\n\nIt was")
    assert latex_text(r"\setlength{\x}{3pt}\foo{a}{1.5}") == ""


def test_macros_that_multiply_are_not_expanded() -> None:
    bomb = "".join(f"\\newcommand{{\\{a}}}{{{f'{chr(92)}{b} ' * 100}}}" for a, b in ("xy", "yz"))
    assert len(latex_text(bomb + "\\begin{document}" + "\\x " * 2000 + "a\\end{document}")) < 9**6


@pytest.mark.parametrize(
    "piece",
    [
        "{",
        "\\footnote{",
        "\\begin{figure}",
        "$a ",
        "\\(",
        "\\[",
        "\\section{a",
        "\\title[",
        "\\iffalse",
    ],
)
def test_hostile_latex(piece: str) -> None:
    """What is opened and never closed takes linear time, and what follows it is read."""
    assert "It was a dark and stormy night" in latex_text(
        piece * 20000 + "\n\nIt was a dark and stormy night."
    )


def test_references_and_styles_are_listed(read: Read) -> None:
    (reject,) = read("text", "a.bib", "@book{a, title={B}}")
    assert isinstance(reject, Reject) and reject.reason == "unsupported-format"


def test_real_latex(real_data: Path) -> None:
    prose = latex_text((real_data / "wild/latex/hott/introduction.tex").read_text(encoding="utf-8"))
    assert prose.startswith("Introduction\n\nHomotopy type theory is") and "\\index" not in prose


ORG = [
    # Blocks.
    ("#+TITLE: A /b/\n#+STARTUP: x\n* One\nText\ngoes on.", "A b\n\nOne\n\nText goes on."),
    ("* TODO [#A] One [1/2] :a:b:\nSCHEDULED: <2012-03-26 Mon>\nText.", "One\n\nText."),
    ("* A\n:PROPERTIES:\n:ID: x\n:END:\nText.\n# Comment\n-----\nEnd.", "A\n\nText.\n\nEnd."),
    ("* A\na\n* COMMENT B\nb\n** C\nc\n* D :noexport:\nd\n* E\ne", "A\n\na\n\nE\n\ne"),
    ("a\n#+BEGIN_SRC c\n  x = *p;\n\n    ,* y\n#+END_SRC\nb", "a\n\nx = *p;\n\n  * y\n\nb"),
    ("#+begin_quote\nOne\ntwo.\n#+end_quote\n#+begin_export html\n<x>\n#+end_export", "One two."),
    ("#+begin_verse\nOne\n two\n#+end_verse\n#+begin_comment\nx\n#+end_comment", "One\ntwo"),
    ("#+RESULTS:\n: a *b*\n#+CAPTION: Words.\n[[file:x.png]]", "a *b*\nWords."),
    ("  - [ ] a\n    b\n  - [X] c\n    1) d\n  - t :: e", "- a b\n- c\n  1) d\n- t: e"),
    ("| a | b |\n|---+---|\n| =1= | |\n#+TBLFM: $1=2", "a | b\n1"),
    ("A:\n:note:\nthat no drawer ends.", "A:\nthat no drawer ends."),
    (":a:\nOne\n* B\n:b:\nx\n:END:\nTwo\n:END:\nThree", "One\n\nB\n\nTwo\nThree"),
    # What is in a line.
    ("*b* /i/ _u_ +s+ =*v*= ~c~ a/b/c 2*3*4 x_1", "b i u s *v* c a/b/c 2*3*4 x_1"),
    ("[[http://a][w *x*]] [[file:a.txt]] [[*Head]] [[./x.png]]", "w x a.txt Head"),
    ("A[fn:1] b[fn:: why] c [cite:@d].\n\n[fn:1] Note.", "A b (why) c.\n\nNote."),
    ("On <2012-03-26 Mon 10:00> <<target>>{{{m(x)}}}@@html:<b>@@a\\ldots", "On 2012-03-26 a…"),
    ("From <2012-03-26 Mon>--<2012-03-27 Tue>.", "From 2012-03-26–2012-03-27."),
    (r"Let \(a_1 /b/ c\) be, \[d\].", "Let $a_1 /b/ c$ be, $$d$$."),
    (
        r"H_{2}O costs 10^{6} \cite[p. 2]{d}, a\_b (see <http://a.b/_c_>).",
        "H₂O costs 10⁶, a_b (see http://a.b/_c_).",
    ),
    (
        "http://a.org /b/ https://c.org, http://d.org/e/f/.",
        "http://a.org b https://c.org, http://d.org/e/f/.",
    ),
    ("- =a= ::\n  It is.\n\n#+END\nText.", "- a: It is.\n\nText."),
]


@pytest.mark.parametrize("source, prose", ORG)
def test_org_becomes_prose(source: str, prose: str) -> None:
    assert org_text(source) == prose


def test_hostile_org_takes_linear_time() -> None:
    """Each would take minutes if it took quadratic time."""
    for piece in (
        "* ",
        "[[",
        "[fn:",
        "[cite ",
        "_{a",
        "http://",
        "*a",
        "=a ",
        "- ",
        "\\(",
        ":a:\n",
        "#+begin_src\n",
        "<1",
    ):
        org_text(piece * (200_000 // len(piece)))


ASCIIDOC = [
    # The header, sections and attributes.
    ("# A\nAnn B <a@x.org>\n:w: x\n\ntag::é[]\nBy {author}.\nend::é[]", "A\n\nBy Ann B."),
    ("= A *b*\nAnn <a@x.org>\nv1, 2020\n:w: word\n\nThe {w}, {no}.", "A b\n\nThe word, {no}."),
    ("Title\n=====\n\nText\non.\n\nTwo\n---\n== Three", "Title\n\nText on.\n\nTwo\n\nThree"),
    ("ifdef::x[]\nno\nendif::[]\nifndef::x[yes]\n\n:x:\n\nifdef::x[]\nx\nendif::[]", "yes\n\nx"),
    (':n: 2\n\nifeval::["{n}" == "2"]\na\nendif::[]\nifeval::[{n} != 2]\nb\nendif::[]', "a"),
    ("a\n\n// no\n////\nno\n////\ninclude::x[]\nimage::x.png[y]\ntoc::[]\n'''\n<<<\nb", "a\n\nb"),
    (
        "[[id]]\n== One\n\n.Words\nimage::x[]\n\nSee <<id>>, <<id,w>>, <<_a_b>>.",
        "One\n\nWords\n\nSee One, w, a b.",
    ),
    # Blocks.
    ("* a\nb\n** c\n* [x] d\n\n. e\n. f", "- a b\n  - c\n- d\n  1. e\n  2. f"),
    ("* a\n+\nb\n+\n----\n *c*\n----\n* d\n\ne", "- a\n\nb\n\n*c*\n\n- d\n\ne"),
    ("a:: b\nc::\n  d\ne::\n\n  f", "a\nb\n\nc\nd\n\ne\nf"),
    ("----\nx # <1>\n----\n<1> One\n<.> Two", "x # <1>\n\n1. One\n2. Two"),
    ("TIP: a\nb\n\n[WARNING]\n.T\n====\nc\n====", "Tip\n\na b\n\nT\n\nc"),
    ('[quote, Ann, "A b"]\n____\nq\nr\n____\n\n[verse]\none\ntwo', "q r\n\n— Ann, A b\n\none\ntwo"),
    ("....\n *a*\n....\n\n literal _x_\n\n```c\ny\n```", "*a*\n\nliteral _x_\n\ny"),
    ("++++\n<b>\n++++\n[stem]\n++++\nx^2^\n++++", "$$\nx^2^\n$$"),
    ("|===\n|a |b\n\n|1\n|`2`\n2+|c\n.2+|d |e\n//|no\n|f\n|===", "a | b\n1 | 2\nc\nd | e\nf"),
    (
        '[cols="2*",format=csv]\n|===\na,"b,c"\n|===\n\n[cols="1,a"]\n|===\n|x\n|\n* y\n|===',
        "a | b,c\n\nx | * y",
    ),
    # What is in a line.
    ("*a* _b_ `*c*` #d# **e**f x_y_z 2 * 3 [.r]#g#", "a b *c* d ef x_y_z 2 * 3 g"),
    ("+*a*+ pass:[_b_] \\*c* +++d+++ stem:[x*y*z]", "*a* _b_ *c* d $x*y*z$"),
    (
        "https://x.y[w^] https://x.y link:a.b[w,role=x] xref:c.adoc#_d_e[] mailto:f[g]",
        "w https://x.y w d e g",
    ),
    ("a footnote:[See https://x[b].] c", "a (See b.) c"),
    (
        "kbd:[F1] menu:A[B > C] image:x[y]icon:z[] ((t))(((u, v))) [[w]]linkgit:x[1]",
        "F1 A > B > C tx(1)",
    ),
    (
        "\"`a`\" '`b`' H~2~O 10^23^ (C) d--e a -- b &amp; c +\nd",
        "“a” ‘b’ H₂O 10²³ © d—e a — b & c\nd",
    ),
]


@pytest.mark.parametrize("source, prose", ASCIIDOC)
def test_asciidoc_becomes_prose(source: str, prose: str) -> None:
    assert asciidoc_text(source) == prose


def test_attributes_that_multiply_are_not_expanded() -> None:
    bomb = "\n".join(f":{a}: {f'{{{b}}}' * 100}" for a, b in ("ab", "bc", "cd", "de"))
    assert len(asciidoc_text(f":e: xxxx\n{bomb}\n\n" + "{a} " * 2000)) < 10**6


MAN = [
    (".TH X 1\n.SH A\n\\h'-\\w'\\(bu 'u'\\(bu\\ a", "A\n\n- a"),
    (
        '.TH X 1\n.SH NAME\nx \\- do \\fBit\\fP\n.SH "A B"\nText \\e \\(em \\[u00E9]\\*(lq',
        'NAME\n\nx - do it\n\nA B\n\nText \\ — é“',
    ),
    (
        '.TP\n.BR \\-a ", " --b\nOne\ntwo.\n.TP\n.B c\nThree .\n.PP\nEnd',
        '-a, --b\nOne two.\n\nc\nThree .\n\nEnd',
    ),
    (".IP \\(bu 2\na\n.IP 1. 3\nb\n.IP word\nc\n.IP\nd", "- a\n\n1. b\n\nword\nc\n\nd"),
    (".nf\n  x\\ \\fIy\\fR\n.B z\n.fi\nEnd\n.br\nline", "  x y\nz\n\nEnd\nline"),
    (".ds v 1.2\n.de M\n.B \\\\$1 \\\\$2\n..\n.M a \"b c\"\nin \\*v.\n.M d", "a b c in 1.2. d"),
    (".ie n \\{\\\na\n.\\}\n.el \\{\\\nb\n.\\}\n.if t c\n.if !t d\n.if '\\*(.T'ps' e", "a d"),
    ("one\\\ntwo \\\" no\n.\\\" no\n'\\\" no\n.ig\nno\n..\nthree \\c\nfour", "onetwo three four"),
    (".TS\nbox tab(;);\nl l\nl l.\na;b\n_\nc;T{\nd\n.B e\nT}\n.TE", "a | b\nc | d e"),
    ("See\n.UR http://x\nthe page\n.UE .\n.UR http://y\n.UE", "See the page. http://y"),
    (".SY x\n.OP -a b\n.OP -c\n.YS\n.MR ls 1 ,\nz", "x [-a b] [-c]\n\nls(1), z"),
    # What docbook writes for a bullet on a terminal.
    (
        ".RS 4\n.ie n \\{\\\n\\h'-04'\\(bu\\h'+03'\\c\n.\\}\n.el \\{\\\n.IP \\(bu 2\n.\\}\n"
        'a\n.RE',
        '- a',
    ),
    # The macros of the BSDs.
    (
        '.Dd x\n.Dt X 1\n.Os\n.Sh NAME\n.Nm x\n.Nd do\n.Sh SYNOPSIS\n.Nm\n.Op Fl a Ar b , c\n'
        '.Oo Fl d Oc',
        'NAME\n\nx – do\n\nSYNOPSIS\n\nx [-a b, c] [-d]',
    ),
    (
        '.Bl -tag -width x\n.It Fl a Ns = Ns Ar b\nOne, see\n.Xr y 2 .\n.It Cm c\nTwo\n.El\n'
        '.Pp\nEnd',
        '-a=b\nOne, see y(2).\n\nc\nTwo\n\nEnd',
    ),
    (
        '.Dq Pq a .\n.Bl -enum -compact\n.It\nx\n.It\ny\n.El\n.Bd -literal\n *  z\n.Ed',
        '“(a)”.\n\n1. x\n2. y\n\n*  z',
    ),
]  # fmt: skip


@pytest.mark.parametrize("source, prose", MAN)
def test_manual_pages_become_text(source: str, prose: str) -> None:
    assert man_text(source) == prose


def test_macros_and_strings_that_multiply_are_not_expanded() -> None:
    strings = "".join(f".ds {a} {f'{chr(92)}*{b}' * 300}\n" for a, b in ("ab", "bc"))
    assert len(man_text(f".ds c xxxx\n{strings}" + "\\*a\n" * 2000)) < 10**6
    assert man_text(".de X\n.X\n.X\na\n..\n.X\nEnd").endswith("End")


# Each would take minutes if it took quadratic time.
HOSTILE_ASCIIDOC = (
    *("* ", "[[", "[[a]]\n", "<<a", "`a ", "|", "{", "a:: ", "((", "+a ", "http://[", ":a\n"),
    *("^a", "pass:[", "[.a]", "'`", "menu:a[", "a:b[", '[a="', "ifdef::a[]\n", "----\n"),
)
HOSTILE_MAN = (
    *(".if n \\{", ".ie n ", "\\*", ".de x\n", "\\f[", ".TP\n", ".TS\n", "\\h'", ".Op ", '""'),
    *(".Oo\n", ".Bl\n.It\n", "a\\c\n", "\\(", "\\\n", ".Fo x\n"),
)


@pytest.mark.parametrize("piece", HOSTILE_ASCIIDOC)
def test_hostile_asciidoc(piece: str) -> None:
    asciidoc_text(piece * (100_000 // len(piece)))


@pytest.mark.parametrize("piece", HOSTILE_MAN)
def test_hostile_manual_pages(piece: str) -> None:
    man_text(piece * (100_000 // len(piece)))
    man_text(".Op " + piece.strip(".").replace("\n", " ") * (100_000 // len(piece)))


def test_asciidoc_and_manual_pages_are_told_by_their_lines() -> None:
    """Suffixes such as `.asc` and `.1` are those of other files, too."""
    page = b"'\\\" t\n.TH LS 1\n.SH NAME\nls"
    assert {detect_format(name, page) for name in ("ls.1", "ls.1.gz", "ls", "ls.man")} == {"man"}
    assert detect_format("ls.8", b".Dd $Mdocdate$\n.Dt LS 8\n.Sh NAME") == "man"
    assert detect_format("log.1", b"= Log =\n.TH 1\n") == "text"
    assert detect_format("a.1", b".hidden\n.SH x\n") == "text"
    assert detect_format("a.adoc", b"Text.") == "asciidoc"
    assert detect_format("a.asc", b"[[a]]\n== One\n\nText.") == "asciidoc"
    assert detect_format("a.asc", b"-----BEGIN PGP SIGNATURE-----\n\niQ==\n=aB3d\n") == "text"
    git = b"git(1)\n======\n\n[verse]\ngit\n\nifdef::x[]\n"
    assert detect_format("a.txt", git) == "asciidoc"
    assert detect_format("a.txt", b"A(1)\n====\n:doctype: manpage\n") == "asciidoc"
    assert detect_format("a.txt", b"Title\n=====\n\n[source,c]\n----\n") == "asciidoc"
    assert detect_format("a.txt", b"Title\n=====\n\n== Wiki ==\n\n[source]\n") == "text"
    assert detect_format("a.toml.txt", b"[[package]]\nname = 1\n") == "text"
    posts = (
        b'<posts>\n<row Id="1" Body="Write:\n== Head\n\n[source]\n----\nls\n----\n" />\n</posts>'
    )
    assert detect_format("Posts.xml", posts) == "stackexchange"
    assert detect_format("Posts.xml", posts + b"\0" * 64) == "stackexchange"


@pytest.mark.parametrize(
    ("start", "format"), [(b"<mediawiki><page>", "mediawiki"), (b"<rss><channel>", "feed")]
)
def test_a_dump_that_holds_a_pdf_stays_a_dump(start: bytes, format: str) -> None:
    """A damaged record may hold the bytes of another file, its zeros too."""
    assert detect_format("x.xml", start + b"T" * 32 + b"%PDF-1.4\n\0\0\0\0") == format
