"""What the elements of DocBook, JATS, TEI, FictionBook and XHTML are to a reader.

A dialect gives elements a role; `xml_text.py` says what each role does. An element without a role
is inline: its text goes on with the text around it, and blocks in it stand for themselves. So
sections, divisions and marks of emphasis need no line here.

A key is a name, `parent/name`, or `name=value` for a value of one of the attributes in VALUED. The
last decides first, then the parent.
"""

from __future__ import annotations

from collections.abc import Mapping

Dialect = Mapping[str, str]  # key → role

# Attributes that say what an element is, by their names without a namespace.
VALUED = frozenset(
    "type list-type article-type abstract-type fn-type sec-type ref-type rend class name".split()
)


def _dialect(**roles: str) -> Dialect:
    return {key: role for role, keys in roles.items() for key in keys.split()}


_MATH = "math tex-math"
_HTML_TABLE = {"table": "table", "row": "tr", "cell": "td th"}

DOCBOOK = _dialect(
    heading="title subtitle bridgehead",
    paragraph="para simpara attribution caption refpurpose question answer cmdsynopsis"
    " funcprototype msgtext",
    lines="literallayout address",
    code="programlisting screen synopsis funcsynopsisinfo classsynopsisinfo",
    list="itemizedlist variablelist glosslist simplelist calloutlist glossary",
    numbered="orderedlist procedure substeps",
    item="listitem varlistentry member step callout glossentry",
    inline="varlistentry/listitem",
    group="figure informalfigure example informalexample sidebar blockquote",
    term="term glossentry/glossterm refname",
    table="table informaltable",
    row="row tr",
    cell="entry entrytbl td th",
    note="footnote",
    admonition="note tip warning caution important",
    meta="info bookinfo articleinfo chapterinfo sectioninfo sect1info sect2info sect3info"
    " sect4info sect5info refentryinfo prefaceinfo appendixinfo partinfo setinfo blockinfo"
    " referenceinfo refsect1info refsect2info glossaryinfo",
    abstract="abstract",
    formula=f"equation informalequation inlineequation {_MATH}",
    reference="xref link",
    spaced="menuchoice keycombo shortcut simplelist=inline",
    quote="quote",
    superscript="superscript",
    subscript="subscript",
    parenthesis="citerefentry/manvolnum paramdef",
    newline="sbr",
    skip="titleabbrev footnoteref indexterm index setindex toc lot bibliography bibliodiv biblioref"
    " biblioentry bibliomixed bibliolist citation remark comment imageobject imageobjectco"
    " videoobject audioobject textobject objectinfo co coref areaspec refmeta refclass refmiscinfo"
    " refentry/refentryinfo/title bibliographyinfo legalnotice revhistory biblioset othercredit"
    " authorgroup alt beginpage itermset",
)

# Footnotes that tell of the authors, not of the subject.
_PERSONAL_NOTES = (
    "con conflict coi-statement COI-statement supported-by financial-disclosure presented-at"
    " presented-by present-address current-aff equal deceased corresp participating-researchers"
    " study-group-members previously-at prior-presentation edited-by"
)
JATS = _dialect(
    heading="article-title subtitle title",
    paragraph="p attrib caption/title",
    line="verse-line",
    speaker="speaker",
    code="preformat code",
    list="list def-list",
    numbered="list=order list=alpha-lower list=alpha-upper list=roman-lower list=roman-upper",
    item="list-item def-item",
    term="def-item/term",
    label="label",
    group="fig fig-group table-wrap boxed-text statement speech verse-group fn-group/fn"
    " table-wrap-foot/fn disp-quote",
    table="table array",
    row="tr",
    cell="td th",
    note="fn",
    noteref="xref=fn",
    mark="xref=bibr xref=table-fn xref=aff xref=corresp xref=author-notes",
    meta="front front-stub article-meta title-group",
    abstract="abstract",
    formula=f"inline-formula disp-formula {_MATH}",
    superscript="sup",
    subscript="sub",
    newline="break",
    skip="journal-meta article-id article-categories contrib-group author-notes pub-date history"
    " permissions kwd-group funding-group related-article related-object product self-uri counts"
    " custom-meta-group supplement conference aff trans-abstract trans-title-group alt-title"
    " ref-list graphic inline-graphic media supplementary-material inline-supplementary-material"
    " alt-text long-desc object-id sec-meta processing-meta bio index fn/label front/notes"
    " sub-article=translation sec=supplementary-material abstract=graphical abstract=toc"
    " abstract=teaser abstract=short abstract=object "
    + " ".join(f"fn={kind}" for kind in _PERSONAL_NOTES.split()),
)

TEI = _dialect(
    heading="head titlePart",
    paragraph="p ab opener closer byline docAuthor docImprint docDate imprimatur trailer stage u"
    " salute signed dateline",
    inline="p/stage l/stage ab/stage speaker/stage byline/docAuthor opener/salute opener/dateline"
    " closer/salute closer/signed closer/dateline opener/byline p/salute p/signed p/dateline",
    line="l",
    speaker="speaker",
    code="eg",
    list="list castList castGroup",
    numbered="list=ordered list=numbered",
    item="item castItem",
    term="list/label",
    group="lg sp figure titlePage floatingText",
    table="table",
    row="row",
    cell="cell",
    note="note",
    noteref="ref=noteAnchor ref=note ptr=noteAnchor ptr=note",
    formula=f"formula {_MATH}",
    superscript="hi=superscript hi=sup hi=super",
    subscript="hi=subscript hi=sub",
    linebreak="lb pb cb gb",
    skip="teiHeader facsimile sourceDoc standOff listBibl fw index divGen del rdg witDetail gap"
    " figDesc graphic am choice/sic choice/orig choice/abbr list/headLabel list/headItem interp"
    " interpGrp spanGrp linkGrp timeline div=index div=toc div=contents div=bibliography certainty"
    " respons join fs",
)

FICTION_BOOK = _dialect(
    heading="title subtitle book-title",
    paragraph="p text-author",
    line="v",
    group="stanza poem cite epigraph",
    **_HTML_TABLE,
    noteref="a=note a=comment",
    meta="description title-info",
    abstract="annotation",
    superscript="sup",
    subscript="sub",
    skip="binary stylesheet image document-info publish-info custom-info src-title-info output",
)

XHTML = _dialect(
    heading="h1 h2 h3 h4 h5 h6",
    paragraph="p div blockquote section figcaption caption legend summary",
    code="pre plain-text-body",
    list="ul dl task-list",
    numbered="ol",
    item="li dd task",
    term="dt",
    **_HTML_TABLE,
    formula=_MATH,
    superscript="sup",
    subscript="sub",
    newline="br",
    skip="style script img svg iframe video audio button form",
)
