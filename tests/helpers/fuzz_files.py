"""Small whole files for every reader, containers of known records, and paths of real files."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec

import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.office_files import docx, lines, odf, p, pdf, pptx, shape, xls, xlsx
from tests.helpers.sevenzip import seven_zip

HAS_PDF = find_spec("pypdfium2") is not None
HAS_CALAMINE = find_spec("python_calamine") is not None

SENTENCE = "It was late in the year, and nobody in the village had seen the harvest come in. "
PAGE = (
    "<html><head><title>T</title></head><body><nav><a"
    f" href='/'>Home</a></nav><article><p>{SENTENCE * 4}</p></article></body></html>"
)
TALK = [
    {
        "messages": [
            {"role": "user", "content": f"Is it {n}?"},
            {"role": "assistant", "content": SENTENCE},
        ]
    }
    for n in range(4)
]
TEXT = "'''T''' is [[a|b]] {{{{c|d}}}} &lt;ref&gt;e&lt;/ref&gt;."
WIKI = (
    "<page><title>T{0}</title><ns>0</ns><id>{0}</id>"
    f"<revision><text>{TEXT}</text></revision></page>"
)
HTTP = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{PAGE}"


def _warc() -> bytes:
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.org/\r\nContent-Type:"
        " application/http; msgtype=response\r\n"
    )
    return f"{head}Content-Length: {len(HTTP)}\r\n\r\n{HTTP}\r\n\r\n".encode() * 3


def _arc() -> bytes:
    first = b"1 0 Test\nURL IP-address Archive-date Content-type Archive-length\n"
    start = b"filedesc://x.arc 10.0.0.1 20000101000000 text/plain %d\n" % len(first) + first + b"\n"
    return (
        start
        + f"http://a.org/ 10.0.0.1 20000101000000 text/html {len(HTTP)}\n{HTTP}\n".encode() * 3
    )


def _zip(members: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def _tar() -> bytes:
    """Return a tar file with pax records, a long name and the map of a sparse file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, pax in (
            ("a.txt", {"comment": "a"}),
            ("n" * 150 + ".txt", {}),
            ("s.txt", {"GNU.sparse.map": "0,100,200,100"}),
        ):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(SENTENCE) * 9, pax
            tar.addfile(info, io.BytesIO(SENTENCE.encode() * 9))
        long = tarfile.TarInfo("l" * 150 + ".txt").tobuf(tarfile.GNU_FORMAT)
        tar.fileobj.write(long)
        tar.offset += len(long)
    return out.getvalue()


def sealed(data: bytes) -> bytes:
    """Return data with a valid checksum in every tar header."""
    out = bytearray(data)
    for magic in re.finditer(rb"ustar", data):
        header = out[(at := magic.start() - 257) : at + 512]
        if at >= 0 and len(header) == 512:
            out[at + 148 : at + 156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
    return bytes(out)


def _epub() -> bytes:
    opf = (
        "<package"
        " xmlns:dc='http://purl.org/dc/elements/1.1/'><dc:title>T</dc:title><manifest>{}</manifest><spine>{}</spine></package>"
    )
    items = "".join(
        f"<item id='i{n}' href='p{n}.xhtml' media-type='application/xhtml+xml'/>" for n in range(3)
    )
    spine = "".join(f"<itemref idref='i{n}'/>" for n in range(3))
    container = "<container><rootfile full-path='b.opf'/></container>"
    return _zip(
        {"META-INF/container.xml": container, "b.opf": opf.format(items, spine)}
        | {f"p{n}.xhtml": PAGE for n in range(3)}
    )


def _parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": [SENTENCE] * 20, "url": ["http://a.org/"] * 20}), out)
    return out.getvalue()


def _arrow() -> bytes:
    out = io.BytesIO()
    table = pa.table({"text": [SENTENCE] * 20, "url": ["http://a.org/"] * 20})
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table, max_chunksize=5)
    return out.getvalue()


def _sqlite() -> bytes:
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE p (id INTEGER PRIMARY KEY, b TEXT)")
        database.execute("CREATE TABLE w (k TEXT PRIMARY KEY, b TEXT) WITHOUT ROWID")
        for table in ("p", "w"):
            rows = ((n, SENTENCE * 9) for n in range(9))
            database.executemany(f"INSERT INTO {table} VALUES (?, ?)", rows)
        database.commit()
        return database.serialize()


def _zst(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True)) * 2


FEED = "<rss version='2.0'><channel><link>http://a.org/</link>{}</channel></rss>".format(
    "".join(
        f"<item><title>T{n}</title><description>&lt;p&gt;{SENTENCE}&lt;/p&gt;</description></item>"
        for n in range(5)
    )
)
LINES = "".join(
    json.dumps({"text": SENTENCE, "url": f"http://a.org/{n}"}) + "\n" for n in range(10)
).encode()
DUMP = f"<mediawiki>{''.join(WIKI.format(n) for n in range(5))}</mediawiki>".encode()
BOOK = (
    f"Title: T\n\n*** START OF THE PROJECT GUTENBERG EBOOK T ***\n{SENTENCE * 9}\n*** END OF THE"
    " PROJECT GUTENBERG EBOOK T ***\n".encode()
)


def _eml(page: str = "<p>Fine.</p><blockquote type=cite>Is it?</blockquote>") -> str:
    """Return a mail of two alternatives, with a quote, a signature and an attachment."""
    headers = "From: Ann <a@x.org>\nSubject: =?utf-8?q?caf=C3=A9?=\nMessage-ID: <1@x>\nDate: none\n"
    plain = f"{SENTENCE}\n> Is it?\n-- \nAnn\n"
    note = "Content-Type: text/plain; name=a.txt\nContent-Transfer-Encoding: base64\n\nSGVsbG8h\n"
    inner = f"--d\nContent-Type: text/html\n\n{page}\n--d\n\n{plain}\n--d--\n"
    return (
        f"{headers}Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type:"
        f" multipart/alternative; boundary=d\n\n{inner}\n--b\n{note}\n--b--\n"
    )


def _mbox_record(n: int) -> str:
    return (
        f"From a@x.org Mon Sep 17 00:00:00 2001\nFrom: a@x.org\nSubject: S{n}\n"
        f"Message-ID: <{n}@x>\n\nRecord {n} is here.\n\n"
    )


def _question(n: int) -> str:
    """Return a question of Stack Exchange, and its answer on the next line."""
    owner = 'OwnerUserId="7" ContentLicense="CC BY-SA 4.0" />\n'
    body = f"&lt;p&gt;Record {n} is here. {SENTENCE}&lt;/p&gt;"
    return (
        f'  <row Id="{2 * n + 1}" PostTypeId="1" Score="3" Body="{body}" Title="T{n}" {owner}'
        f'  <row Id="{2 * n + 2}" PostTypeId="2" ParentId="{2 * n + 1}" Body="{body}" {owner}'
    )


TOPIC = {
    "post_stream": {
        "posts": [
            {"username": f"u{n}", "post_number": n, "cooked": f"<p>{SENTENCE}</p>"}
            for n in range(1, 4)
        ]
    },
    "id": 5,
    "title": "T",
}


def _article(n: int) -> str:
    """Return an article of a set in JATS."""
    return (
        f"<article article-type='a'><front><article-meta><article-title>Record {n}</article-title>"
        "</article-meta></front><body><sec><label>1</label><title>H</title><p>a<xref ref-type="
        "'bibr'>1</xref> <inline-formula><tex-math>$x$</tex-math></inline-formula></p><table><tr>"
        "<td>b</td><td>c</td></tr></table></sec></body></article>\n"
    )


POSTS = '<?xml version="1.0" encoding="utf-8"?>\n<posts>\n'
MYSQL = (
    "-- MySQL dump 10.13\nCREATE TABLE `p` (`id` int, `b` text);\nINSERT INTO `p` VALUES "
    + ",".join(f"({n},'{SENTENCE}It\\'s <b>{n}</b>.')" for n in range(8))
    + ";\nDELIMITER ;;\nCREATE TRIGGER t;;\nDELIMITER ;\n/*!40101 SET a */;\n"
).encode()
POSTGRES = (
    "--\n-- PostgreSQL database dump\n--\nSELECT $a$ b $a$;\nCREATE TABLE p (id int, b text);\n"
    "COPY p (id, b) FROM stdin;\n"
    + "".join(f"{n}\t{SENTENCE}\\n\\x41\n" for n in range(5))
    + f"\\.\nINSERT INTO p VALUES (9, E'a\\n{SENTENCE}'), (10, $$a$$), (f('a'), '\\x41'::bytea);\n"
).encode()
PHPBB = (
    "-- phpMyAdmin SQL Dump\nINSERT INTO `a_posts` (`post_id`, `topic_id`, `poster_id`,"
    " `post_time`, `post_subject`, `post_text`) VALUES "
    + ",".join(
        f"({n},{n % 2},{n},{n},'T','<r>[quote=a:1]x[/quote:1]<B><s>[b]</s>{SENTENCE}</B></r>')"
        for n in range(6)
    )
    + ";\nINSERT INTO `a_topics` (`topic_id`, `topic_title`, `topic_first_post_id`)"
    " VALUES (1,'T',1);"
).encode()
# Reader → (kind, name, a small whole file).
SMALL: dict[str, tuple[str, str, bytes]] = {
    "book": ("books", "x.txt", BOOK),
    "epub": ("books", "x.epub", _epub()),
    "dump": ("wikipedia", "x.xml", DUMP),
    "wikitext": (
        "wikipedia",
        "x.txt",
        b"'''T''' is [[a|b]] {{c|d}} {| a\n|-\n| b\n|}<ref>e</ref>\n== H ==\n" * 9,
    ),
    "html": ("web", "x.html", PAGE.encode()),
    "warc": ("web", "x.warc", _warc()),
    "arc": ("web", "x.arc", _arc()),
    "feed": ("web", "x.xml", FEED.encode()),
    "xml": (
        "text",
        "x.xml",
        f"<?xml version='1.0'?><a><b id='1'>{SENTENCE}</b><b>&lt;c&gt;</b></a>".encode(),
    ),
    "subtitles": (
        "text",
        "x.srt",
        "".join(
            f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n<i>Is it {n}?</i>\n\n" for n in range(1, 9)
        ).encode(),
    ),
    "code": ("code", "x.py", b'def f(x):\n    """Return x."""\n    return x\n' * 9),
    "irc": (
        "conversations",
        "x.txt",
        b"[10:01] <ann> is it late?\n[10:02] <bob> ann: it is\n=== cy [c@d] has joined #e\n" * 9,
    ),
    "eml": ("mail", "x.eml", _eml().encode()),
    "mbox": ("mail", "x.mbox", "".join(map(_mbox_record, range(5))).encode()),
    "mhtml": ("web", "x.mhtml", _eml(PAGE).encode()),
    "turns": ("conversations", "x.json", json.dumps(TALK).encode()),
    "slack": (
        "chat",
        "x.json",
        json.dumps(
            [
                {"type": "message", "user": "U1", "ts": f"170000000{n}.000100", "text": "Hi <@U2>"}
                for n in range(6)
            ]
        ).encode(),
    ),
    "telegram": (
        "chat",
        "x.json",
        json.dumps(
            {
                "about": "a",
                "chats": {
                    "list": [
                        {
                            "name": "b",
                            "id": 1,
                            "messages": [
                                {"type": "message", "date": "2020-01-01T10:00:00", "from": "c"}
                                | {"text": [SENTENCE, {"type": "mention", "text": "@d"}]}
                            ],
                        }
                    ]
                    * 3
                },
            }
        ).encode(),
    ),
    "whatsapp": (
        "chat",
        "x.txt",
        f"12/24/19, 10:01 AM - Ann: {SENTENCE}\n12/25/19, 9:02 PM - Bo: @Ann yes\n".encode() * 5,
    ),
    "discord": (
        "chat",
        "x.txt",
        b"=====\nGuild: g\nChannel: c\n=====\n\n"
        + b"[06-Jan-23 04:11 PM] ann\nHi\n\n{Embed}\na\n\n" * 5,
    ),
    "chat xml": (
        "chat",
        "x.xml",
        b"<slack>" + b"<message conversation_id='1'><ts>2018-01-01T10:00:00</ts><user>a</user>"
        b"<text>Hi &lt;@b&gt;</text></message>" * 5 + b"</slack>",
    ),
    "yaml": (
        "conversations",
        "x.yml",
        b"categories:\n- a\nconversations:\n- - is it late?\n  - it is\n- - b\n  - c\n" * 2,
    ),
    "stackexchange": (
        "forum",
        "Posts.xml",
        f"{POSTS}{''.join(map(_question, range(4)))}</posts>".encode(),
    ),
    "discourse": ("forum", "5.json", json.dumps(TOPIC).encode()),
    "topics": (
        "forum",
        "posts.csv",
        b"topic_id,post_number,username,raw\n"
        + "".join(f'{n % 2},{n},u{n},"{SENTENCE}"\n' for n in range(6)).encode(),
    ),
    "mysql": ("text", "x.sql", MYSQL),
    "postgres": ("text", "x.sql", POSTGRES),
    "phpbb": ("forum", "x.sql", PHPBB),
    "sqlite": ("text", "x.db", _sqlite()),
    "jsonl": ("text", "x.jsonl", LINES),
    "csv": ("text", "x.csv", f'id,text\n1,"{SENTENCE}"\n2,"a ""b"" c"\n'.encode() * 5),
    "docx": ("documents", "x.docx", docx(p(SENTENCE) * 9)),
    "pptx": ("documents", "x.pptx", pptx([shape("title", "T") + shape("body", SENTENCE)] * 3)),
    "odt": ("documents", "x.odt", odf(f"<text:h>T</text:h><text:p>{SENTENCE}</text:p>" * 9)),
    "odp": (
        "documents",
        "x.odp",
        odf(f"<draw:page><text:p>{SENTENCE * 2}</text:p></draw:page>" * 3, "presentation"),
    ),
    **({"pdf": ("documents", "x.pdf", pdf([lines([SENTENCE] * 5)] * 2))} if HAS_PDF else {}),
    **(
        {
            "xlsx": ("documents", "x.xlsx", xlsx(Notes=[["n", SENTENCE]] * 9)),
            "xls": ("documents", "x.xls", xls([["n", SENTENCE]] * 9)),
        }
        if HAS_CALAMINE
        else {}
    ),
    "rtf": (
        "documents",
        "x.rtf",
        (
            r"{\rtf1\ansi{\fonttbl{\f0\fcharset0 Arial;}}{\info{\title T}}\f0 "
            + rf"Caf\'e9 {{\b {SENTENCE}}}\par\trowd a\cell b\cell\row\u8217?x\par" * 5
            + "}"
        ).encode(),
    ),
    "parquet": ("text", "x.parquet", _parquet()),
    "arrow": ("text", "x.arrow", _arrow()),
    "evaluation": (
        "evaluation",
        "x.jsonl",
        (json.dumps({"query": SENTENCE, "choices": ["a", "b"], "gold": 1}) + "\n").encode() * 5,
    ),
    "markdown": (
        "documents",
        "x.md",
        b"---\ntitle: T\n---\n# A *b*\n\n> [!tip] [w](u)\n> - [[a|b]] `c`\n\n"
        b"|a|b|\n|-|-|\n|1|2|\n\n```py\nx\n```\n<!-- c -->\n\n    code\n\n$$\nx\n$$\n"
        b"1. a[^1]\n   <b>c</b>\n\n[^1]: n\n",
    ),
    "rst": (
        "documents",
        "x.rst",
        b"Title\n=====\n\n:Author: A\n\nText *a* ``b`` `c <d>`_ :ref:`e` |f| [1]_::\n\n    code\n\n"
        b".. |f| replace:: g\n.. [1] note\n.. note:: n\n   m\n\n- a\n  b\n\nterm\n  is\n\n"
        b"+---+---+\n| a | b |\n+---+---+\n\n=== ===\na   b\n=== ===\nc   d\n=== ===\n"
        b"\n.. image:: x\n",
    ),
    "org": (
        "documents",
        "x.org",
        b"#+TITLE: A\n* TODO Head :tag:\n:PROPERTIES:\n:ID: 1\n:END:\n"
        b"Text *bold* [[http://a][b]].\n"
        b"#+begin_src sh\nls\n#+end_src\n- one\n- two :: three\n| a | b |\n|---+---|\n| 1 | 2 |\n",
    ),
    "asciidoc": (
        "documents",
        "x.adoc",
        b"= Title\nAnn <a@x.org>\n:w: word\n\n"
        b"Text *a* `b` {w} https://x.org[c] <<d>>.footnote:[n]\n\n"
        b"[[d]]\n== Head\n\n* one\n** two\n+\n----\ncode\n----\n\nterm:: is\n\n"
        b"[NOTE]\n====\nx\n====\n\n"
        b"ifdef::w[]\nyes\nendif::[]\n|===\n|a |b\n\n2+|c\n|===\n\n. n\n\n____\n"
        b"q\n____\nimage::x[]\n",
    ),
    "man": (
        "documents",
        "x.1",
        b".TH X 1\n.ds s y\n.de Z\n.B \\\\$1\n..\n.SH NAME\n"
        b"x \\- \\fBdo\\fR \\*s\n.SH OPTIONS\n.TP\n"
        b'.BI \\-a " b"\nshow\n.IP \\(bu 2\none\n.ie n \\{\\\n.Z w\n'
        b".\\}\n.el no\n.nf\n  code\n.fi\n"
        b".TS\ntab(;);\nl l.\na;T{\nb\nT}\n.TE\n.UR http://x\nlink\n.UE .\n",
    ),
    "mdoc": (
        "documents",
        "x.mdoc",
        b".Dd 2020\n.Dt X 1\n.Os\n.Sh NAME\n.Nm x\n.Nd do\n.Sh SYNOPSIS\n.Nm\n.Op Fl a Ar b , c\n"
        b'.Fn f "int a"\n.Sh DESCRIPTION\n.Bl -tag -width a\n.It Fl a Ns = Ns Ar b\nshow\n.El\n'
        b".Bd -literal\n  code\n.Ed\n.Xr y 2 ,\n.Dq q\n.Bl -column a b\n.It a Ta b\n.El\n",
    ),
    "latex": (
        "documents",
        "x.tex",
        rb"\documentclass{a}\newcommand{\k}[1]{w #1}\title{T}\begin{document}\section{A \emph{b}}"
        b"\nC\\'e \\k{d}~\\cite{x} $a_1$\\footnote{n} % c\n\n"
        rb"\begin{itemize}\item[a] b\end{itemize}\begin{tabular}{l}a & b\\\end{tabular}\[x\]"
        rb"\begin{figure}\caption{c}\end{figure}\begin{verbatim}v\end{verbatim}\end{document}",
    ),
    "notebook": (
        "documents",
        "x.ipynb",
        b'{"cells": [{"cell_type": "markdown", "source": ["# A *b*"]}, {"cell_type": "code",'
        b' "source": "1", "outputs": [{"output_type": "execute_result", "data":'
        b' {"text/plain": ["2"]}}]}]}',
    ),
    "docbook": (
        "documents",
        "x.xml",
        b"<!DOCTYPE article [<!ENTITY e 'e'>]><article><info><title>T</title></info>"
        b"<sect1 id='s'><title>H</title><para>a &e; <xref linkend='s'/><footnote><para>n</para>"
        b"</footnote></para><orderedlist><listitem><para>b</para></listitem></orderedlist><table>"
        b"<tgroup><tbody><row><entry>c</entry><entry>d</entry></row></tbody></tgroup></table>"
        b"<screen>$ x</screen></sect1></article>",
    ),
    "jats": ("documents", "x.nxml", f"<pmc-articleset>{_article(1)}</pmc-articleset>".encode()),
    "tei": (
        "documents",
        "x.xml",
        b"<TEI><teiHeader><title>T</title></teiHeader><text><lg><l>a<note xml:id='n'>b</note></l>"
        b"</lg><sp><speaker>c</speaker><p>d-<lb/>e<choice><sic>f</sic><corr>g</corr></choice></p>"
        b"</sp><list type='gloss'><label>h</label><item>i<hi rend='sup'>2</hi></item></list>"
        b"<table><row><cell>j</cell></row></table><ref type='note' target='#n'/></text></TEI>",
    ),
    "fictionbook": (
        "books",
        "x.fb2",
        b"<FictionBook><description><title-info><book-title>T</book-title></title-info>"
        b"</description><body><section><title><p>H</p></title><p>a<a type='note' href='#n'>1</a>"
        b"</p><poem><stanza><v>b</v></stanza></poem></section></body><body name='notes'>"
        b"<section id='n'><p>c</p></section></body><binary>AA</binary></FictionBook>",
    ),
    "confluence": (
        "documents",
        "entities.xml",
        b"<hibernate-generic><object class='Page'><id name='id'>1</id><property name='title'>T"
        b"</property></object><object class='BodyContent'><id name='id'>2</id><property"
        b" name='body'><![CDATA[<p>a</p><ac:structured-macro ac:name='code'><ac:plain-text-body>"
        b"<![CDATA[b]] ></ac:plain-text-body></ac:structured-macro>]]></property><property"
        b" name='content'><id name='id'>1</id></property></object></hibernate-generic>",
    ),
    "notion": (
        "documents",
        "x.html",
        b'<html><body><article id="1d2c0f0e-0000-4000-8000-000000000001" class="page sans"><header>'
        b'<h1 class="page-title">T</h1></header><div class="page-body"><p>a</p><ul class="toggle">'
        b"<li><details><summary>b</summary><p>c</p></details></li></ul></div></article></body>",
    ),
    "gz": ("text", "x.jsonl.gz", gzip.compress(LINES)),
    "bz2": ("wikipedia", "x.xml.bz2", bz2.compress(DUMP)),
    "xz": ("text", "x.jsonl.xz", lzma.compress(LINES)),
    "zst": ("text", "x.jsonl.zst", _zst(LINES)),
    "tar": ("text", "x.tar", _tar()),
    "7z": ("text", "x.7z", seven_zip({"a.txt": SENTENCE.encode(), "d/b.jsonl": LINES})),
    "zip": (
        "text",
        "x.zip",
        _zip({"a.txt": SENTENCE, "d/b.jsonl": LINES.decode(), "c.html": PAGE}),
    ),
}
# Reader → glob of its real files.
REAL = {
    "book": "books/g*/*/*.txt",
    "stackexchange": "wild/stackexchange/*/Posts.xml",
    "dump": "wikipedia/ltgwiki*.xml",
    "wikitext": "wikipedia/wikitext-pages/*.txt",
    "html": "web/html/*/*/*.html",
    "feed": "web/encodings/*/*.xml",
    "warc": "web/warc/*/*.warc*",
    "arc": "web/warc/*/*.arc*",
    "xml": "evals/copa/*.xml",
    "subtitles": "web/encodings/*/*.srt",
    "code": "code/npm/express*.tgz",
    "irc": "conversations/ubuntu_irc/*",
    "eml": "wild/mail/*/*/*.eml",
    "mbox": "wild/mail/*/*.mbox",
    "turns": "conversations/*/*.json*",
    "slack": "wild/slack/slackdump/**/*.json*",
    "telegram": "wild/telegram/*/*.json",
    "whatsapp": "wild/whatsapp/*/*.txt",
    "chat xml": "wild/slack/*/*.xml",
    "yaml": "conversations/chatterbot_corpus/*/*.yml",
    "jsonl": "web/jsonl/*",
    "evaluation": "evals/*/*.jsonl",
    "bz2": "wikipedia/minidumps/*.bz2",
    "zip": "conversations/crosswoz/*.zip",
}


def _web(n: int) -> str:
    body = HTTP.replace("It was", f"Record {n} was")
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a{n}.org/\r\nContent-Type:"
        " application/http; msgtype=response\r\n"
    )
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}\r\n\r\n"


# Reader → (kind, name, what stands before the records, a record by its number, what stands after,
# the record after the damaged one from which on all must survive; 0 where a format has no mark to
# go on at). Each record says "Record N".
RECORDS: dict[str, tuple[str, str, str, Callable[[int], str], str, int]] = {
    "jsonl": (
        "text",
        "x.jsonl",
        "",
        lambda n: json.dumps({"text": f"Record {n} is here."}) + "\n",
        "",
        1,
    ),
    "stackexchange": ("forum", "Posts.xml", POSTS, _question, "</posts>", 1),
    "turns": (
        "conversations",
        "x.jsonl",
        "",
        lambda n: json.dumps({"messages": [{"role": "user", "content": f"Record {n}?"}]}) + "\n",
        "",
        1,
    ),
    "slack": (
        "chat",
        "x.jsonl",
        "",
        lambda n: (
            json.dumps({"user": "U", "ts": f"170000001{n}.000001", "text": f"Record {n}."}) + "\n"
        ),
        "",
        1,
    ),
    "evaluation": (
        "evaluation",
        "x.jsonl",
        "",
        lambda n: json.dumps({"query": f"Record {n}?", "choices": ["a"]}) + "\n",
        "",
        1,
    ),
    "dump": (
        "wikipedia",
        "x.xml",
        "<mediawiki>",
        lambda n: WIKI.format(n).replace(" is ", f" is Record {n}, "),
        "</mediawiki>",
        2,
    ),
    "feed": (
        "web",
        "x.xml",
        "<rss><channel>",
        lambda n: f"<item><title>Record {n}</title></item>\n",
        "</channel></rss>",
        2,
    ),
    "mbox": ("mail", "x.mbox", "", _mbox_record, "", 1),
    "jats": ("documents", "x.nxml", "<pmc-articleset>", _article, "</pmc-articleset>", 1),
    "mysql": (
        "text",
        "x.sql",
        "-- MySQL dump\n",
        lambda n: f"INSERT INTO `p` VALUES ({n},'Record {n} is here, and it is whole.');\n",
        "",
        2,
    ),
    "csv": ("text", "x.csv", "id,text\n", lambda n: f'{n},"Record {n} is here."\n', "", 0),
    "warc": ("web", "x.warc", "", _web, "", 0),
}
