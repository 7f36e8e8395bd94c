"""Exports of Confluence: the current text of each page, without what is shown around it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from groundup.artifacts.document import Document, Reject
from groundup.collect.readers.web.feeds import parse_xml
from groundup.collect.readers.xml.confluence import _NAMESPACES, storage_text

Read = Callable[..., list[Document | Reject]]


def _macro(name: str, body: str = "", **parameters: str) -> str:
    given = "".join(
        f'<ac:parameter ac:name="{k}">{v}</ac:parameter>' for k, v in parameters.items()
    )
    return f'<ac:structured-macro ac:name="{name}">{given}{body}</ac:structured-macro>'


STORAGE = [
    ("<h2>A</h2><p>One <strong>two</strong>&nbsp;three.</p>", "A\n\nOne two three."),
    ("<ul><li>a<ul><li>b</li></ul></li></ul><ol><li>c</li></ol>", "- a\n- b\n\n1. c"),
    (
        "<table><tbody><tr><th>A</th><th><p>B</p></th></tr><tr><td>1</td><td>2<br/>3</td></tr>"
        "</tbody></table>",
        "A | B\n1 | 2 3",
    ),
    (
        _macro(
            "code",
            "<ac:plain-text-body><![CDATA[x\n  < y]]></ac:plain-text-body>",
            language="py",
            title="a.py",
        ),
        "a.py\n\nx\n  < y",
    ),
    (
        _macro("info", "<ac:rich-text-body><p>Mind.</p></ac:rich-text-body>", title="Note"),
        "Note\n\nMind.",
    ),
    (
        f"<p>a {_macro('status', title='DONE', colour='Red')}</p>{_macro('toc', maxLevel='2')}"
        f"{_macro('jira', key='AB-1')}{_macro('attachments')}",
        "a DONE",
    ),
    (
        '<p><ac:link><ri:page ri:content-title="Other"/></ac:link> <ac:link><ri:page'
        ' ri:content-title="X"/><ac:plain-text-link-body><![CDATA[there]]>'
        '</ac:plain-text-link-body></ac:link> <ac:link><ri:user ri:userkey="8a"/></ac:link>'
        '<ac:image><ri:attachment ri:filename="x.png"/></ac:image><ac:emoticon'
        ' ac:name="smile"/>.</p>',
        "Other there .",
    ),
    (
        "<ac:task-list><ac:task><ac:task-id>1</ac:task-id><ac:task-status>complete</ac:task-status>"
        "<ac:task-body>Do it</ac:task-body></ac:task></ac:task-list>",
        "- Do it",
    ),
]


@pytest.mark.parametrize("storage, prose", STORAGE)
def test_storage_format_becomes_prose(storage: str, prose: str) -> None:
    assert storage_text(parse_xml(storage, namespaces=_NAMESPACES)) == prose


def _object(name: str, number: int, **properties: str) -> str:
    inner = "".join(
        f'<property name="{key}">{value}</property>' for key, value in properties.items()
    )
    return f'<object class="{name}"><id name="id">{number}</id>{inner}</object>'


def export(body: str = "&lt;p&gt;Text.&lt;/p&gt;") -> str:
    """Return an export of a space: a page, its old version, a draft, and a comment."""
    objects = (
        _object("BodyContent", 70, body=body, content='<id name="id">7</id>'),
        _object("Page", 7, title="<![CDATA[A & B]]>", contentStatus="current", originalVersion=""),
        _object("Page", 6, title="Old", originalVersion='<id name="id">7</id>'),
        _object("BodyContent", 60, body="old", content='<id name="id">6</id>'),
        _object("Page", 8, title="Draft", contentStatus="draft"),
        _object("BodyContent", 80, body="d", content='<id name="id">8</id>'),
        _object("BodyContent", 90, body="c", content='<id name="id">9</id>'),
    )
    return f"<?xml version='1.0'?><hibernate-generic>{''.join(objects)}</hibernate-generic>"


def test_current_pages_of_an_export(read: Read) -> None:
    page, *others = read("documents", "entities.xml", export())
    assert isinstance(page, Document) and page.text == "A & B\n\nText."
    reasons = [(result.record, result.reason) for result in others if isinstance(result, Reject)]
    assert reasons == [(1, "old-version"), (2, "draft"), (3, "no-page")]


def test_a_damaged_export_is_read_up_to_its_damage(read: Read) -> None:
    page, *others = read("documents", "entities.xml", export()[:-100])
    assert isinstance(page, Document) and page.text == "A & B\n\nText."
    assert isinstance(others[-1], Reject) and others[-1].reason == "damaged"


def test_a_page_of_the_cloud_names_its_text(read: Read) -> None:
    """There the text does not say which page it is of."""
    markup = (
        '<hibernate-generic><object class="BlogPost"><id name="id">1</id><property name="title">T'
        '</property><collection name="bodyContents"><element class="BodyContent"><id name="id">2'
        f"</id></element></collection></object>{_object('BodyContent', 2, body='x')}"
        "</hibernate-generic>"
    )
    (page,) = read("documents", "entities.xml", markup)
    assert isinstance(page, Document) and page.text == "T\n\nx"


def test_code_inside_of_a_body(read: Read) -> None:
    """The end of its CDATA section is written with a space, as it stands inside of another."""
    macro = _macro("code", "<ac:plain-text-body><![CDATA[a < b]] ></ac:plain-text-body>")
    page, *_ = read("documents", "entities.xml", export(f"<![CDATA[{macro}<p>End.</p>]]>"))
    assert isinstance(page, Document) and page.text == "A & B\n\na < b\n\nEnd."


def test_pages_in_html(read: Read) -> None:
    """Breadcrumbs, authors, tables of contents and lists of attachments are left out."""
    markup = (
        "<!DOCTYPE html><html><head><title>Space : Few tweaks</title></head><body><ol"
        ' id="breadcrumbs"><li class="first"><a href="index.html">Space</a></li></ol><h1>Space :'
        ' Few tweaks</h1><div class="page-metadata">Created by Ann</div><div id="main-content"'
        ' class="wiki-content group"><style>x</style><div class="toc-macro"><ul><li>New</li></ul>'
        '</div><h3>New</h3><p>One<br/>two</p><div class="code panel"><pre>a\n  b</pre></div></div>'
        "<h2>Attachments:</h2><a>x.png</a></body></html>"
    )
    (page,) = read("documents", "Few_1.html", markup)
    assert isinstance(page, Document) and page.text == "Few tweaks\n\nNew\n\nOne\ntwo\n\na\n  b"
