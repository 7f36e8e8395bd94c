"""Dumps of databases and SQLite files: rows, dialects, damage, boards, and what is not public."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.helpers.items import item_from_bytes

from groundup.artifacts.document import Document, Reject
from groundup.collect.detect import detect_kind
from groundup.collect.files.formats import detect_format
from groundup.collect.files.streams import DamagedError
from groundup.collect.readers.forum.forums import body_text
from groundup.collect.readers.forum.post_markup import MARKUPS
from groundup.collect.readers.forum.threads import Post
from groundup.collect.readers.records.sql_dump import SqlDump, TableRow
from groundup.collect.readers.speakers import pseudonym

Read = Callable[..., list[Document | Reject]]
PROSE = "It was late in the year, and nobody in the village had seen the harvest."
MYSQL = "-- MySQL dump 10.13\nCREATE TABLE `p` (`id` int, `b` text, PRIMARY KEY (`id`));\n"


def rows(dump: str) -> list[object]:
    """Return the values of the rows of a dump; the reason of those that are damaged."""
    read = SqlDump(item_from_bytes(dump.encode(), "x.sql"))
    return [row.reason if isinstance(row, Reject) else list(row.record.values()) for row in read]


def told(results: list[Document | Reject]) -> list[str]:
    return [it.text if isinstance(it, Document) else it.reason for it in results]


def test_values_of_mysql() -> None:
    dump = MYSQL + (
        r"INSERT INTO `p` VALUES (1,'It\'s\n; (\\'),(2,NULL),(-3.5e+2,'a''b\"'),(0x41,"
        r"_binary 'a\0');"
        "\nINSERT IGNORE INTO `db`.`p` (`b`) VALUES ('c'),\n(\"d'\") ON DUPLICATE KEY UPDATE b=1;\n"
        "DELIMITER ;;\nCREATE TRIGGER t BEGIN INSERT INTO p VALUES (9,'x'); END;;\nDELIMITER ;\n"
        "INSERT INTO `p` VALUES (5,X'42');\n"
    )
    values = [["1", "It's\n; (\\"], ["2", None], ["-3.5e+2", "a'b\""], [b"A", b"a\0"]]
    assert rows(dump) == [*values, ["c"], ["d'"], ["5", b"B"]]


def test_values_of_postgres() -> None:
    dump = (
        "--\n-- PostgreSQL database dump\n--\n\\restrict x\nCREATE FUNCTION f() AS $$ INSERT INTO"
        " p VALUES (1); $$;\nCREATE TABLE public.p (\n  id integer,\n  \"B\" text DEFAULT 'x',\n"
        '  CONSTRAINT c CHECK ((id > 0))\n);\nCOPY public.p (id, "B") FROM stdin;\n'
        "1\tIt's\\n\\\\ \\x41\n2\t\\N\n3\n\\.\nINSERT INTO public.p VALUES (4, 'C:\\'), "
        "(5, E'a\\nb\\''), (6, $q$It's$q$), (7, 'a'::text);\n"
    )
    values = [["1", "It's\n\\ A"], ["2", None], "malformed", ["4", "C:\\"], ["5", "a\nb'"]]
    assert rows(dump) == [*values, ["6", "It's"], ["7", "a"]]


def test_copy_with_a_delimiter() -> None:
    """People write dumps whose fields stand between bars."""
    dump = "BEGIN;\nCOPY a (b, c) FROM stdin WITH DELIMITER AS '|';\n1|It's\tlate\n2|\\N\n\\.\n"
    assert rows(dump) == [["1", "It's\tlate"], ["2", None]]


def test_values_of_sqlite_and_sql_server() -> None:
    """sqlite3 writes texts with line ends as calls; SQL Server ends no statement."""
    dump = (
        'PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE t(a text, "b c" blob);\n'
        r"INSERT INTO t VALUES(replace(replace('x\r\ny','\r',char(13)),'\n',char(10)),X'4142');"
        "\n"
        r"INSERT INTO t VALUES(unistr('a\u000ab\\'),1.5);"
    )
    assert rows(dump) == [["x\r\ny", b"AB"], ["a\nb\\", "1.5"]]
    server = (
        "SET IDENTITY_INSERT [P] ON\nGO\nINSERT [dbo].[P] ([A], [B]) VALUES (1, N'it''s')\nGO\n"
    )
    read = SqlDump(item_from_bytes(("\ufeff" + server * 2).encode("utf-16-le"), "x.sql"))
    assert [row.record for row in read if isinstance(row, TableRow)] == [
        {"A": "1", "B": "it's"}
    ] * 2


def test_damage_costs_its_row() -> None:
    dump = MYSQL + (
        "INSERT INTO `p` VALUES (1,'a'),(2,'b),(3,'c'),(4,'d','f'),(5,'e'),(6;'g');\n"
        "INSERT INTO `p` VALUES (7,'h'\nINSERT INTO `p` VALUES (8,'i');\n"
        "INSERT INTO `p` VALUES (9,'j'"
    )
    bad = "malformed"
    assert rows(dump) == [["1", "a"], bad, ["3", "c"], bad, ["5", "e"], bad, bad, ["8", "i"], bad]


def test_rows_longer_than_what_is_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value may cross any number of chunks; one row too long costs itself."""
    monkeypatch.setattr("groundup.collect.readers.records.sql_dump.MAX_RECORD", 5_000_000)
    long = "it''s " * 400_000
    dump = f"{MYSQL}INSERT INTO `p` VALUES (1,'{long}'),(2,'{long * 3}'),(3,'c');\n"
    assert rows(dump) == [["1", long.replace("''", "'")], "too-large", ["3", "c"]]


def test_a_file_of_nothing_but_damage_ends() -> None:
    """What is tried again is bounded by what was read."""
    for piece in ("INSERT INTO p VALUES (1,'a", "\nSET 'a", "/* ", "(1,$a", "),(", "\n-- \n/*"):
        with suppress(DamagedError):
            list(SqlDump(item_from_bytes(piece.encode() * 30_000, "x.sql")))


def test_a_table_of_prose_and_one_of_none(read: Read) -> None:
    """Titles come first; a column that another holds is left out; HTML becomes text."""
    dump = (
        "-- MySQL dump\nCREATE TABLE `o` (`k` text, `v` text);\nINSERT INTO `o` VALUES ('a_b','1'),"
        "('c','d');\nCREATE TABLE `faq` (`title` text, `q` text, `a` text, `short` text);\n"
        f"INSERT INTO `faq` VALUES ('Harvest','Was anyone there to see it?','<p>{PROSE}</p><p>No."
        f"</p>','{PROSE}');\n"
    )
    results = read("text", "x.sql", dump)
    assert told(results) == [
        "no-text",
        f"Harvest\n\nWas anyone there to see it?\n\n{PROSE}\n\nNo.",
    ]
    assert [it.record for it in results] == [0, 2]


@pytest.mark.parametrize("text", ["p.b", "b", "{p.b}"])
def test_columns_that_a_source_names(read: Read, text: str) -> None:
    dump = MYSQL + "INSERT INTO `p` VALUES (1,'a');\nCREATE TABLE q (c text);\n"
    results = read("text", "x.sql", f"{dump}INSERT INTO `q` VALUES ('{PROSE}');", text=text)
    assert told(results) == ["a", "no-text"]


def phpbb(posts: str, topics: str) -> str:
    return (
        "-- phpMyAdmin SQL Dump\nINSERT INTO `phpbb_forums` (`forum_desc`) VALUES"
        f" ('{PROSE}');\nINSERT INTO `phpbb_posts` (`post_id`, `topic_id`, `poster_id`,"
        " `post_time`, `post_username`, `post_subject`, `post_text`, `post_visibility`) VALUES"
        f" {posts};\nINSERT INTO `phpbb_topics` (`topic_id`, `topic_title`, `topic_first_post_id`,"
        f" `topic_visibility`) VALUES {topics};\n"
    )


def test_topics_of_phpbb(read: Read) -> None:
    """A topic is a document, in the order of its posts; what is hidden is listed."""
    posts = (
        "(2,5,8,20,'','Re: Rain','[quote=\"A\":1f]Will it?[/quote:1f][b:1f]No[/b:1f] &amp; never.',"
        "1),"
        "(1,5,7,10,'','Rain','<r>Will it <B><s>[b]</s>rain<e>[/b]</e></B>?</r>',1),"
        "(3,5,7,30,'','','deleted',2),(4,6,7,40,'','','<t>secret</t>',1)"
    )
    results = read("forum", "x.sql", phpbb(posts, "(5,'Rain &amp; snow?',1,1),(6,'Staff',4,2)"))
    a, b = pseudonym("7"), pseudonym("8")
    assert told(results) == [
        "not-public",
        "private",
        f"Rain & snow?\n\n{a}: Will it rain?\n\n{b}: No & never.",
        "not-public",
    ]
    document = results[2]
    assert isinstance(document, Document)
    assert document.turns == [
        {"role": a.lower(), "content": "Rain & snow?\n\nWill it rain?"},
        {"role": b.lower(), "content": "No & never."},
    ]


def test_pages_of_wordpress(read: Read) -> None:
    dump = (
        "-- MySQL dump\nINSERT INTO `wp_posts` (`ID`,`post_title`,`post_content`,`post_status`,"
        "`post_type`,`post_password`) VALUES (1,'Rain','<!-- wp:paragraph -->\\n<p>Will it "
        "<em>rain</em>?</p>\\n<!-- /wp:paragraph -->[gallery ids=\"1\"]','publish','post',''),"
        "(2,'Snow','It will [sic].\\n\\nOr not.','publish','page',''),(3,'','x','draft','post',''),"
        "(4,'','x','publish','post','secret');\nINSERT INTO `wp_users` (`d`) VALUES"
        f" ('{PROSE}');\n"
    )
    assert told(read("text", "x.sql", dump)) == [
        "Rain\n\nWill it rain?",
        "Snow\n\nIt will [sic].\n\nOr not.",
        "not-public",
        "not-public",
        "private",
    ]


@pytest.mark.parametrize(
    ("markup", "text", "plain"),
    [
        (
            "bbcode",
            "a\n[code]if x<1:\n  [b]y[/b][/code]\nb [size=2]c[/size]",
            "a\n\nif x<1:\n  [b]y[/b]\n\nb c",
        ),
        ("bbcode", "[list][*]a\n[*]b[/list][img]http://x/y.png[/img] [1]", "- a\n- b [1]"),
        ("bbcode", "[quote=a][quote=b]x[/quote]y[/quote]z", "z"),
        (
            "phpbb",
            '<r><QUOTE a="b"><s>[quote]</s>x<e>[/quote]</e></QUOTE>y<br/>\n<E>:)</E></r>',
            "y\n:)",
        ),
        ("phpbb", "a &lt;b&gt;<br />c", "a <b>\nc"),
        ("wordpress", 'a [caption id="1"]b[/caption]\nc', "a b\nc"),
    ],
)
def test_markup_of_posts(markup: str, text: str, plain: str) -> None:
    assert body_text(Post("", 0, MARKUPS[markup](text))) == plain


@pytest.fixture(name="database")
def _database(tmp_path: Path) -> Path:
    path = tmp_path / "x.db"
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE o (k); INSERT INTO o VALUES (1); CREATE VIEW v AS SELECT * FROM p;"
        "CREATE TABLE p (id INTEGER PRIMARY KEY, body TEXT); CREATE VIRTUAL TABLE f USING fts4(c);"
        "CREATE TABLE w (k TEXT PRIMARY KEY, note TEXT) WITHOUT ROWID;"
        f"INSERT INTO w VALUES ('a', '{PROSE}');"
    )
    rows = [(n, f"{PROSE} {n}") for n in range(2500)]
    connection.executemany("INSERT INTO p VALUES (?, ?)", rows)
    connection.execute("UPDATE p SET body = cast(x'e974e9' AS text) WHERE id = 7")
    connection.commit()
    connection.close()
    return path


def test_a_sqlite_file(read: Read, database: Path) -> None:
    """Its rows come in calls of a child; texts in other encodings are repaired."""
    results = read("text", "x.db", database.read_bytes())
    texts = [it.text for it in results if isinstance(it, Document)]
    assert texts == [*(f"{PROSE} {n}" if n != 7 else "été" for n in range(2500)), PROSE]
    assert len({it.record for it in results}) == len(results)
    assert all(it.reason == "no-text" for it in results if isinstance(it, Reject))


def test_a_damaged_sqlite_file_keeps_what_can_be_read(read: Read, database: Path) -> None:
    data = database.read_bytes()
    results = read("text", "x.db", data[: len(data) // 2])
    assert sum(isinstance(it, Document) for it in results) > 500
    assert "damaged" in told(results)
    assert told(read("text", "x.db", data[:3000])) == ["damaged"]


def test_formats() -> None:
    heads = (
        "INSERT INTO a VALUES (1);",
        "DELIMITER ;;\nINSERT INTO `a` VALUES (1);;",
        "# c\n/*!40101 SET a */;\nREPLACE INTO `a` (b) VALUES (1)",
        "BEGIN;\nCOPY a (b) FROM stdin;\n1\n\\.\n",
    )
    assert {detect_format("a.sql", head.encode()) for head in heads} == {"sql"}
    prose = b"Use the statement below:\n\nINSERTION is hard."
    assert detect_format("a.txt", prose) == "text"
    assert detect_format("a.sql", b"SELECT 1;\nINSERT INTO a VALUES (1);") == "text"
    assert detect_format("a.bin", b"SQLite format 3\0" + bytes(84)) == "sqlite"


def test_init_tells_boards_from_tables(tmp_path: Path, database: Path) -> None:
    posts = "".join(f"({n},{n},7,10,'','','{PROSE}',1)," for n in range(1, 40))
    dump = phpbb(f"{posts}(99,5,8,20,'','','No.',1)", "(5,'Rain',1,1)")
    for name, text in (("a.sql", dump), ("b.sql", MYSQL + "INSERT INTO p VALUES (1,'x');")):
        (tmp_path / name).write_text(text)
    kinds = [detect_kind(path).kind for path in (tmp_path / "a.sql", tmp_path / "b.sql", database)]
    assert kinds == ["forum", None, "text"]
