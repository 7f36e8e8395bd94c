"""Rows of CSV files as programs and people write them; what is damaged costs its row."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples
from tests.helpers.items import item_from_bytes

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.archives import open_items
from groundup.collect.files.globs import Selection
from groundup.collect.readers.records import csv_rows
from groundup.collect.readers.records.csv_rows import read_csv
from groundup.collect.readers.registry import read_item
from groundup.recipe import Source

Read = Callable[..., list[Document | Reject]]


def rows(data: str | bytes, name: str = "x.csv") -> list[dict[str, str] | str]:
    """Return the rows of a file; of one that is listed, why."""
    raw = data.encode() if isinstance(data, str) else data
    results = list(read_csv(item_from_bytes(raw, name)))
    assert [row.record for _, row in results if isinstance(row, Reject)] == [
        index for index, row in results if isinstance(row, Reject)
    ]
    return [row.detail if isinstance(row, Reject) else row for _, row in results]


def texts(data: str | bytes, name: str = "x.csv") -> list[str | None]:
    """Return the column `text` of a file without damage."""
    return [row["text"] for row in rows(data, name) if isinstance(row, dict)]


FIELDS = st.text(st.sampled_from('ab",;\t|\\é \n'), max_size=8)


@examples(200)
@given(
    st.integers(2, 4).flatmap(
        lambda n: st.lists(st.lists(FIELDS, min_size=n, max_size=n), min_size=1, max_size=6)
    ),
    st.sampled_from(",;|"),
    st.sampled_from(("\n", "\r\n")),
    st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
)
def test_what_csv_writes_is_read(
    table: list[list[str]], delimiter: str, end: str, quoting: int
) -> None:
    """Whatever the fields hold, a file that is written by the rules is read as it was meant."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    header = [f"c{n}" for n in range(len(table[0]))]
    writer.writerows([header, *table])
    data = out.getvalue()
    if '\\"' in data:
        return  # What a backslash means is told by the file; see below.
    assert rows(data) == [dict(zip(header, row, strict=True)) for row in table]


def test_a_stray_quotation_mark_costs_its_row() -> None:
    """The row where it stands is listed by its line and the true reason; the next one is read."""
    lines = ["text,label", *(f"Document number {n},{n}" for n in range(1000))]
    lines[11] = '"' + lines[11]
    results = rows("\n".join(lines) + "\n")
    assert len(results) == 1000
    assert results[10] == "line 12: a quoted field runs on to line 1001: it has no end"
    expected = [{"text": f"Document number {n}", "label": str(n)} for n in range(1000)]
    assert results[:10] + results[11:] == expected[:10] + expected[11:]


@pytest.mark.parametrize(
    ("later", "reason"),
    [
        ('a,1\n"b c",2\n', "line 2: a quoted field runs on to line 4: ',' expected after '\"'"),
        (
            'a,1\nb",2,3\n',
            "line 2: a quoted field runs on to line 4: makes a row of 3 fields where the header"
            " has 2",
        ),
        ("a,1\n", "line 2: a quoted field runs on to line 3: it has no end"),
        ("", "line 2: a quoted field runs on to line 2: it has no end"),
    ],
)
def test_how_a_stray_quotation_mark_is_told(later: str, reason: str) -> None:
    """A quoted field ends badly: inside a line, in a row of another width, or never."""
    results = rows(f'text,n\n"stray,0\n{later}')
    assert results[0] == reason
    assert results[1:2] == ([{"text": "a", "n": "1"}] if later else [])


def test_fields_of_several_lines_stay_whole() -> None:
    """A field in quotation marks may hold line ends, delimiters and doubled quotation marks."""
    data = 'text,n\n"one,\r\n\n""two"", three\n",1\n"stray,2\n"four\nfive",3\n'
    assert texts(data) == ['one,\r\n\n"two", three\n', "four\nfive"]


def test_many_stray_marks_take_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that open a field and do not close that of the line before are not read for each."""
    monkeypatch.setattr(csv_rows, "MAX_RECORD", 1 << 16)
    taken = 0
    put_back = csv_rows._Lines.put_back

    def count(self: csv_rows._Lines, lines: list[str | None]) -> None:
        nonlocal taken
        taken += len(lines)
        put_back(self, lines)

    monkeypatch.setattr(csv_rows._Lines, "put_back", count)
    total = 20_000
    results = rows("text,n\n" + 'x",""",y\n' * total)
    assert len(results) == total and total < taken < 10 * total + (1 << 16)
    assert rows("text,n\n" + '"stray,1\n' * total + "last,2\n")[-1] == {"text": "last", "n": "2"}


def test_damage_behind_a_stray_mark_is_listed_last(read: Read) -> None:
    """A compressed file that is cut short keeps the rows between a stray mark and its end."""
    lines = "".join(f"row {n},{n}\n" for n in range(20_000))
    data = gzip.compress(('text,n\n"stray,0\n' + lines).encode())[:-4000]

    (item,) = open_items(Path("x.csv.gz"), io.BytesIO(data), "x.csv.gz", len(data), Selection())
    results = list(read_item(item, Source(path="x")))  # type: ignore[arg-type]
    assert isinstance(results[0], Reject) and isinstance(results[-1], Reject)
    assert results[-1].reason == "truncated"
    assert [d.text for d in results[1:4] if isinstance(d, Document)] == ["row 0", "row 1", "row 2"]
    assert sum(isinstance(result, Document) for result in results) == len(results) - 2 > 1000


SAID = 'She said "come in", and went.'


def test_quotation_marks_escaped_by_a_backslash() -> None:
    """Spark and MySQL write \\" within a field; a backslash before the closing mark is doubled."""
    escaped = SAID.replace('"', '\\"')
    data = f'"n","text"\n"1","{escaped}"\n"2","C:\\dir \\"x\\""\n"3","end\\\\"\n"4","a\\\nb"\n'
    assert texts(data) == [SAID, 'C:\\dir "x"', "end\\", "a\nb"]


def test_backslashes_of_an_ordinary_file_stay() -> None:
    """A path of Windows may end a quoted field with a backslash."""
    doubled = SAID.replace('"', '""')
    data = f'n,text\n1,"C:\\dir\\"\n2,"{doubled}"\n3,"\\\\host\\"\n4,C:\\\\x\n'
    assert texts(data) == ["C:\\dir\\", SAID, "\\\\host\\", "C:\\\\x"]


def test_a_row_may_be_escaped_otherwise_than_the_start_of_the_file() -> None:
    """The first escaped mark may come after the sample by which the dialect is told."""
    plain = "".join(f'"{n}","{"x" * 1000}"\n' for n in range(100))
    escaped = SAID.replace('"', '\\"')
    assert texts(f'"n","text"\n{plain}"1","{escaped}"\n')[-1] == SAID


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", ":", "^"])
@pytest.mark.parametrize("mark", ["sep={}", '"sep={}"', "SEP={}"])
def test_sep_line_names_the_delimiter(delimiter: str, mark: str) -> None:
    """Excel's first line is no header; the delimiter that it names is used."""
    data = f"{mark.format(delimiter)}\r\nid{delimiter}text\r\n1{delimiter}a, b; c\r\n"
    expected = [] if delimiter in ",;" else ["a, b; c"]
    assert texts(data) == expected


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_delimiters_and_encodings(delimiter: str, codec: str) -> None:
    """The delimiter is told by the header, without what is quoted in it, after blank lines."""
    data = f'\r\n\n"id, of the row"{delimiter}text\n1{delimiter}Grüße\n2{delimiter}two\n'
    assert texts(data.encode(codec)) == ["Grüße", "two"]


def test_marks_that_quote_no_field() -> None:
    """Quotation marks around a word, an inch sign, or marks that are not doubled are text."""
    data = 'text,n\n"Hello" he said,1\na 5" pipe,2\n"he said "hi" to me",3\n"Hello, world" he,4\n'
    assert texts(data) == ['"Hello" he said', 'a 5" pipe', 'he said "hi" to me', "Hello, world he"]
    assert texts('text\tn\n"Hello" he said\t1\n"b\t2\n', "x.tsv") == ['"Hello" he said', '"b']


def test_nulls_and_zero_bytes() -> None:
    """MySQL's null is none; the zero bytes of a failed disk are no characters."""
    assert texts("n\ttext\n1\t\\N\n2\ta\\Nb\n", "x.tsv") == [None, "a\\Nb"]
    assert rows(b"n,text\n1,a\0b\n\0\0\0\n2,c\n") == [
        {"n": "1", "text": "ab"},
        "line 3: a line of zero bytes",
        {"n": "2", "text": "c"},
    ]


def test_headers() -> None:
    """The index column of pandas, names that are there twice, and files that are a header only."""
    assert rows(",text\n0,a\n") == [{"": "0", "text": "a"}]
    assert rows("text,Text,n,n\na,b,1,2\n") == [{"text": "a", "Text.1": "b", "n": "1", "n.1": "2"}]
    assert rows("id,text\n") == rows("\n\n") == rows("sep=;\n") == []


def test_rows_of_another_width() -> None:
    """A row that is too short or too long is listed by its line; blank lines count as rows."""
    results = list(read_csv(item_from_bytes(b"n,text\n1\n\n2,a,b\n3,c\n", "x.csv")))
    assert [(n, r.detail if isinstance(r, Reject) else r["text"]) for n, r in results] == [
        (0, "line 2: a row of 1 fields where the header has 2"),
        (2, "line 4: a row of 3 fields where the header has 2"),
        (3, "c"),
    ]


def test_a_file_without_a_header_is_listed(read: Read) -> None:
    """Its first row is taken for names; each other row says which names were seen instead."""
    (result,) = read("text", "x.csv", "1,One sentence.\n2,Another one.\n")
    assert isinstance(result, Reject) and result.reason == "no-text"
    assert result.detail.endswith("among 1, One sentence.")


def test_columns_of_a_file_without_a_header_are_numbered() -> None:
    """A first row of prose is a row; a setting may then name its column."""
    prose = "This is the first of the rows and no name"
    assert rows(f'0,"{prose}",x\n4,Another one.,y\n') == [
        {"1": "0", "2": prose, "3": "x"},
        {"1": "4", "2": "Another one.", "3": "y"},
    ]
    assert texts(f"{prose}\nThe second row.\n") == [prose, "The second row."]
    # Names may be long, or years.
    assert rows("name of the country,1990\nA,1\n") == [{"name of the country": "A", "1990": "1"}]


@given(
    st.lists(
        st.tuples(st.text("ab\\\t\né", max_size=8), st.text("ab\\\t\n", max_size=8)), max_size=6
    )
)
def test_tab_separated_files_as_mysql_writes_them(table: list[tuple[str, str]]) -> None:
    """A tab, a line end and a backslash within a field stand behind a backslash."""

    def escaped(field: str) -> str:
        return re.sub(r"([\\\t\n])", r"\\\1", field)

    lines = [f"{escaped(a)}\t{escaped(b)}\n" for a, b in table]
    needed = [("\t" in a + b or "\n" in a + b) for a, b in table]
    # Where the width is right without, a backslash is one.
    expected = [
        {"c1": a, "c2": b} if need else {"c1": escaped(a), "c2": escaped(b)}
        for (a, b), need in zip(table, needed, strict=True)
        if a or b
    ]
    found = [
        row for row in rows("c1\tc2\n" + "".join(lines), "x.tsv") if row != {"c1": "", "c2": ""}
    ]
    assert found == expected
