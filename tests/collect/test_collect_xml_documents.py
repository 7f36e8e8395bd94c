"""Documents in XML become prose: words, formulas and notes stay, what is said about them goes."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.artifacts.document import Document, Reject
from groundup.collect.detect import detect_kind
from groundup.collect.files.formats import detect_format

Read = Callable[..., list[Document | Reject]]

DOCBOOK = '<article xmlns="http://docbook.org/ns/docbook">{}</article>'
JATS = '<article article-type="x" xmlns:xlink="http://www.w3.org/1999/xlink">{}</article>'
TEI = '<TEI xmlns="http://www.tei-c.org/ns/1.0"><text><body>{}</body></text></TEI>'
FB2 = '<FictionBook xmlns:l="http://www.w3.org/1999/xlink">{}</FictionBook>'

CASES = {
    DOCBOOK: [
        ("<info><title>A <emphasis>b</emphasis></title><author>X</author></info>", "A b"),
        (
            "<section><title>S<indexterm><primary>x</primary></indexterm></title>"
            "<para>One\n  two.</para></section>",
            "S\n\nOne two.",
        ),
        (
            "<para>A<footnote><para>N.</para></footnote> b"
            "<itemizedlist><listitem><para>c</para></listitem></itemizedlist>d</para>",
            "A b\n\nN.\n\n- c\n\nd",
        ),
        (
            "<orderedlist numeration='loweralpha'><listitem><para>x</para><itemizedlist><listitem>"
            "<para>y</para></listitem></itemizedlist></listitem><listitem><para>z</para></listitem>"
            "</orderedlist>",
            "a. x\n- y\nb. z",
        ),
        (
            "<variablelist><varlistentry><term>-a</term><term>--all</term><listitem><para>All."
            "</para></listitem></varlistentry></variablelist>",
            "- -a, --all: All.",
        ),
        ("<programlisting>a;\n  <co/>b &lt; c;\n</programlisting>", "a;\n  b < c;"),
        (
            "<table><title>T</title><tgroup><tbody><row><entry>a</entry><entry><para>b</para>"
            "</entry></row><row><entry>1</entry><entry>2</entry></row></tbody></tgroup></table>",
            "T\n\na | b\n1 | 2",
        ),
        ("<warning><para>No.</para></warning>", "Warning\n\nNo."),
        (
            "<para>See <xref linkend='s'/>.</para><section xml:id='s'><title>End</title><para>x"
            "</para></section>",
            "See End.\n\nEnd\n\nx",
        ),
        (
            "<para><menuchoice><guimenu>File</guimenu><guimenu>Open</guimenu></menuchoice>"
            " <citerefentry><refentrytitle>ls</refentrytitle><manvolnum>1</manvolnum>"
            "</citerefentry> <quote>q</quote> x<superscript>2</superscript></para>",
            "File > Open ls(1) “q” x²",
        ),
        (
            "<refnamediv><refname>a</refname><refname>b</refname><refpurpose>do it</refpurpose>"
            "</refnamediv>",
            "a, b: do it",
        ),
        (
            "<para>x</para><bibliography><title>R</title><biblioentry><title>B</title>"
            "</biblioentry></bibliography><index/>",
            "x",
        ),
    ],
    JATS: [
        (
            "<front><journal-meta><journal-title>J</journal-title></journal-meta><article-meta>"
            "<title-group><article-title>T</article-title></title-group><contrib-group><contrib/>"
            "</contrib-group><abstract><p>In short.</p></abstract><abstract abstract-type='toc'>"
            "<p>no</p></abstract><kwd-group><title>Keywords</title></kwd-group></article-meta>"
            "</front><body><sec><label>1.</label><title>Aims</title><p>x</p></sec></body>",
            "T\n\nIn short.\n\n1. Aims\n\nx",
        ),
        (
            "<body><p>A [<xref ref-type='bibr'>1</xref>–<xref ref-type='bibr'>3</xref>], b"
            " <xref ref-type='bibr'>4</xref>, c<sup><xref ref-type='bibr'>5</xref></sup>.</p>"
            "</body>",
            "A, b, c.",
        ),
        (
            "<body><p>As <xref ref-type='bibr'>Li (2012)</xref> says (<xref ref-type='bibr'>Yu, 13"
            "</xref>; <xref ref-type='bibr'>Xi 14</xref>).</p></body>",
            "As Li (2012) says.",
        ),
        (
            "<body><p>A<xref ref-type='fn' rid='n'>*</xref>.</p><p>B.</p></body><back><fn-group>"
            "<title>Notes</title><fn id='n'><label>*</label><p>N.</p></fn><fn fn-type='conflict'>"
            "<p>None.</p></fn></fn-group></back>",
            "A.\n\nN.\n\nB.",
        ),
        (
            "<body><p>Let <inline-formula><tex-math>\\documentclass{a}\\begin{document}$$x_1$$"
            "\\end{document}</tex-math></inline-formula> be <disp-formula><label>(1)</label><math>"
            "<msup><mi>y</mi><mn>2</mn></msup></math></disp-formula>.</p></body>",
            "Let $x_1$ be\n\ny^2\n\n.",
        ),
        (
            "<body><fig><label>Figure 1</label><caption><title>T.</title><p>C.</p></caption>"
            "<graphic/></fig><table-wrap><label>Table 1</label><table><tr><th>a</th><th>b</th></tr>"
            "</table><table-wrap-foot><fn><label>a</label><p>F.</p></fn></table-wrap-foot>"
            "</table-wrap></body>",
            "Figure 1 T.\n\nC.\n\nTable 1\n\na | b\n\nF.",
        ),
        (
            "<body><list list-type='order'><list-item><p>x</p></list-item><list-item><label>(b)"
            "</label><p>y</p></list-item></list><def-list><def-item><term>D</term><def><p>z</p>"
            "</def></def-item></def-list></body>",
            "1. x\n(b) y\n\n- D: z",
        ),
        (
            "<body><p>x</p></body><back><sec><title>References</title><ref-list><ref>C</ref>"
            "</ref-list></sec></back>",
            "x",
        ),
    ],
    TEI: [
        (
            "<p>A <choice><sic>mna</sic><corr>man</corr></choice>, <choice><abbr>d.h.</abbr><expan>"
            "das heißt</expan></choice> <app><lem>good</lem><rdg>bad</rdg></app><del>x</del>.</p>",
            "A man, das heißt good.",
        ),
        (
            "<p>Un-<lb/>\nglück Wasch-<lb break='no'/><fw>h</fw><pb break='no'/><hi>Tag</hi>"
            " Nord-<lb/>Amerika one<lb/>two</p>",
            "Unglück WaschTag Nord-Amerika one two",
        ),
        (
            "<lg><head>Song</head><lg><l>One,<note>N.</note></l><l>two</l></lg><lg><l>three</l></lg>"
            "</lg>",
            "Song\n\nOne,\ntwo\n\nthree\n\nN.",
        ),
        (
            "<sp><speaker>Hamlet.</speaker><stage>Aside</stage><l>To be</l><l>or not</l></sp>"
            "<sp><speaker>OPH.</speaker><p>My <stage>weeps</stage> lord.</p></sp>",
            "Hamlet: Aside\n\nTo be\nor not\n\nOPH: My weeps lord.",
        ),
        (
            "<list type='gloss'><label>A</label><item>one</item></list><list type='ordered'><item>"
            "two</item></list>",
            "- A: one\n\n1. two",
        ),
        ("<p>E: <formula notation='TeX'>$E=mc^2$</formula>.</p>", "E: $E=mc^2$."),
        ("<div type='contents'><head>C</head><p>x</p></div><p>y</p>", "y"),
    ],
    FB2: [
        (
            "<description><title-info><book-title>B</book-title><annotation><p>On it.</p>"
            "</annotation></title-info><document-info><id>7</id></document-info></description>"
            "<body><section><title><p>One</p><p>more</p></title><p>A<a l:href='#n1' type='note'>[1]"
            "</a> b.</p><poem><stanza><v>x</v><v>y</v></stanza></poem></section></body>"
            "<body name='notes'><title><p>Notes</p></title><section id='n1'><title><p>1</p></title>"
            "<p>N.</p></section></body><binary id='i'>AAAA</binary>",
            "B\n\nOn it.\n\nOne more\n\nA b.\n\nN.\n\nx\ny",
        ),
    ],
}
FLAT = [(frame.format(body), prose) for frame, cases in CASES.items() for body, prose in cases]


@pytest.mark.parametrize("markup, prose", FLAT)
def test_documents_become_prose(read: Read, markup: str, prose: str) -> None:
    (document,) = read("documents", "a.xml", markup)
    assert isinstance(document, Document) and document.text == prose


HEADS = {
    '<!DOCTYPE book PUBLIC "-//OASIS//DTD DocBook XML V4.5//EN" "x" [<!ENTITY a "b">]><book/>': (
        "docbook"
    ),
    "<?xml version='1.0'?>\n<!-- c --><refentry><refmeta/></refentry>": "docbook",
    '<!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96)" "x">\n<article/>': "jats",
    "<article><front><x/></front></article>": "jats",
    "<pmc-articleset><article/></pmc-articleset>": "jats",
    "<?xml-model href='x'?><teiCorpus xmlns='http://www.tei-c.org/ns/1.0'/>": "tei",
    "<TEI.2><text/></TEI.2>": "tei",
    "<FictionBook/>": "fictionbook",
    "<hibernate-generic datetime='x'/>": "confluence",
    "<article><h1>A</h1></article>": "xml",
    "<informaltable><tgroup cols='2'>": "docbook",
    "no <tag/>": "text",
    "<?xml version='1.0'?><book><price>3</price></book>": "xml",
    "<html><body><article><p>x</p></article></body></html>": "html",
}


@pytest.mark.parametrize("head, format", HEADS.items())
def test_the_root_tells_the_format(head: str, format: str) -> None:
    assert detect_format("a.xml", head.encode()) == format


def test_init_knows_them(tmp_path: Path) -> None:
    """Each is told by its bytes, also in an archive, beside other files of it."""
    (tmp_path / "a.xml").write_text(JATS.format("<body/>"))
    with zipfile.ZipFile(tmp_path / "b.fb2.zip", "w") as archive:
        archive.writestr("b.fb2", FB2.format("<body><p>x</p></body>"))
    with zipfile.ZipFile(tmp_path / "space.zip", "w") as archive:
        archive.writestr("entities.xml", "<hibernate-generic/>")
        archive.writestr("exportDescriptor.properties", "source=cloud\n")
    paths = sorted(tmp_path.iterdir())
    found = [(detection.kind, detection.reason) for detection in map(detect_kind, paths)]
    assert found == [
        ("documents", "JATS articles"),
        ("books", "FictionBook books"),
        ("documents", "exports of Confluence"),
    ]


def test_facts_of_a_document(read: Read) -> None:
    """Title, license, language and group come from the head of a document."""
    tei = (
        "<TEI><teiHeader><titleStmt><title>A Book</title></titleStmt><availability><licence"
        " target='https://creativecommons.org/licenses/by-nc/3.0/'/></availability><langUsage>"
        "<language ident='deu'/></langUsage></teiHeader><text><p>Text.</p></text></TEI>"
    )
    (book,) = read("books", "a.xml", tei)
    assert isinstance(book, Document)
    assert (book.text, book.license, book.language) == ("A Book\n\nText.", "CC-BY-NC-3.0", "de")
    jats = JATS.replace("<article ", "<article xml:lang='en-US' ").format(
        "<front><article-meta><permissions><license><p>Mine alone.</p></license></permissions>"
        "</article-meta></front><body><p>Text.</p></body>"
    )
    (article,) = read("documents", "a.xml", jats)
    assert isinstance(article, Document)
    assert (article.license, article.language) == ("Mine alone.", "en")
    fiction = FB2.format(
        "<title-info><book-title>The B</book-title><author><last-name>Doe</last-name></author>"
        "</title-info><body><title><p>The B</p></title><p>Text.</p></body>"
    )
    (novel,) = read("books", "a.fb2", fiction)
    assert isinstance(novel, Document) and novel.group == "the b|doe"
    assert novel.text == "The B\n\nText."


def test_sets_are_cut_into_articles(read: Read) -> None:
    """A broken article costs itself, and each has a group of its own."""
    article = "<article article-type='x'><body><p>Text {} <mml:math>y</mml:math></p>{}</article>"
    parts = [
        article.format(1, "</body>"),
        article.format(2, "<p><i>"),
        article.format(3, "</body>"),
    ]
    results = read("documents", "a.xml", f"<pmc-articleset>{''.join(parts)}</pmc-articleset>")
    documents = [result for result in results if isinstance(result, Document)]
    assert [document.text.split()[1] for document in documents] == ["1", "2", "3"]
    assert len(results) == 3 and len({document.group for document in documents}) == 3


def test_entities_of_a_file(read: Read) -> None:
    """Short texts are filled in; files are not, and texts that multiply are refused."""
    head = '<!DOCTYPE article [<!ENTITY a "the app"><!ENTITY b SYSTEM "/etc/passwd">{}]>'
    body = "<article><para>Use &a; &b;&mdash;now.</para></article>"
    (document,) = read("documents", "a.xml", head.format("") + body)
    assert isinstance(document, Document) and document.text == "Use the app —now."
    bomb = head.format(f'<!ENTITY c "{"x" * 500}">') + body.replace("now", "&c;" * 5000)
    (reject,) = read("documents", "a.xml", bomb)
    assert isinstance(reject, Reject) and reject.reason == "bomb"


def test_what_stands_before_damage_is_kept(read: Read) -> None:
    document, reject = read("documents", "a.xml", TEI.format("<p>Kept.</p><p>Cut")[:-20])
    assert isinstance(document, Document) and document.text == "Kept.\n\nCut"
    assert isinstance(reject, Reject) and reject.reason == "truncated"
    deep = TEI.format("<p>Kept.</p>" + "<hi>" * 300 + "</hi>" * 300)
    document, reject = read("documents", "a.xml", deep)
    assert isinstance(document, Document) and document.text == "Kept."
    assert isinstance(reject, Reject) and reject.reason == "nesting"


HOSTILE = {
    "line breaks": TEI.format("<p>" + "a <lb break='no'/> " * 20000 + "</p>"),
    "marks": JATS.format("<body><p>" + "[( <xref ref-type='bibr'>1</xref>" * 20000 + "</p></body>"),
    "dashes": JATS.format("<body><p><xref ref-type='bibr'>1</xref>" + "(-" * 50000 + "</p></body>"),
    "notes in notes": TEI.format("<p><ref type='note' target='#a'>1</ref></p>" * 3000)
    + "<note xml:id='a'><p>N <ref type='note' target='#a'/></p></note>",
    "declarations": "<!DOCTYPE TEI [" + "<!ENTITY a '" * 20000 + "]>" + TEI.format("<p>x</p>"),
    "comments": "<!-- a -->" * 20000 + TEI.format("<p>x</p>"),
}


@pytest.mark.parametrize("markup", HOSTILE.values(), ids=HOSTILE)
def test_hostile_documents(read: Read, markup: str) -> None:
    """Each is read within the deadline: none takes time by the square of its length."""
    results = read("documents", "a.xml", markup)
    assert results and not any(getattr(result, "reason", "") == "timeout" for result in results)
