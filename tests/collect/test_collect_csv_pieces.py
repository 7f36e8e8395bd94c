"""CSV in pieces: line ends within quotation marks, and whatever else a file may hold."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples
from tests.helpers.pieces import check

from groundup.collect import pieces
from groundup.collect.files import streams
from groundup.collect.files.streams import Item
from groundup.collect.readers.records import csv_pieces, csv_rows

FIELDS = (
    "",
    "word",
    "two words",
    'a "quoted" word',
    "one, two",
    "line\nline\n\nline",
    "é 雨",
    "\t",
)


def table(names: list[str], count: int, quoting: int, delimiter: str = ",") -> bytes:
    """Return a file as the standard library writes it, with all kinds of fields."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=quoting, delimiter=delimiter)  # type: ignore[arg-type]
    rows = ([f"{n} {FIELDS[n * m % 8]} {n % 5}" for m in range(len(names))] for n in range(count))
    writer.writerows([names, *rows])
    return out.getvalue().encode()


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("names", [["text"], ["id", "text"], ["text", "a", "b", "c"]])
def test_files_by_the_rules_are_cut_everywhere(names: list[str], quoting: int) -> None:
    """Every piece is proved, whatever the fields hold."""
    for name, delimiter in (("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t")):
        data = table(names, 1500, quoting, delimiter)
        parts = check(name, data, "text", 4000)
        assert len(parts) > len(data) / 4000 and all(part.is_counted for part in parts)


@pytest.mark.parametrize(
    "row",
    [
        b'"He said \\"come\nin\\", and went",1\n',
        b'"C:\\dir\\",1\n',
        b'a 5" pipe,2\n',
        b"a line alone\n",
        b"\n",
        b"\xe9t\xe9,3\n",
        b'"a\rb",4\n',
    ],
)
def test_rows_of_other_writers(row: bytes) -> None:
    """Marks that are escaped by a backslash, inches, short rows and other encodings are cut too."""
    data = b"text,n\n" + b"".join(b"row %d,%d\n" % (n, n) + row * (n % 3) for n in range(500))
    parts = check("a.csv", data, "text", 1000)
    assert len(parts) >= len(data) / 1000


def test_a_stray_mark_ends_the_pieces() -> None:
    """What a mark without an end might quote is read in one piece, from the range where it is."""
    rows = [b"row %d,%d\n" % (n, n) for n in range(1000)]
    rows[500] = b'"' + rows[500]
    parts = check("a.csv", b"text,n\n" + b"".join(rows), "text", 1000)
    assert 4 < len(parts) < 9 and parts[-1].size > 5000


PARTS = st.sampled_from(
    [b'"', b'""', b",", b"\n", b"\r\n", b"\r", b"\\", b'\\"', b"\\\n", b"\0", b"\t", b";", b"word"]
    + [b'",', b',"', b'"\n', b'\n"', b"\xe9", "é".encode(), b"\xef\xbb\xbf", b"a,b\n", b"x\ty\n"]
    + [b'"two\nlines",1\n', b'"a ""b""\n",2\n', b'"a \\"b\\"\n",3\n'] * 3
    # Beyond the limits below, and what MySQL writes.
    + [b'"1\n2\n3\n4\n5\n6",4\n', b'"1,2,3,4,5,6,7",5\n', b'"%s",6\n' % (b"word " * 9)]
    + [b"word\\\nword\t7\n", b"word\t8\n"] * 2
)


STARTS = st.sampled_from(
    (
        b"text,n\na text,1\n",
        b"text\tn\na text\t1\n",
        b"text\na text\n",
        b'"te\nxt",text\n1,a text\n',
        b"sep=;\nn;text\n1;a text\n",
        b"\n\xc3,text\n1,a text\n",
        b"\xef\xbb\xbftext,n\na text,1\n",
    )
)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@examples(200)
@given(
    STARTS,
    st.lists(PARTS, min_size=10, max_size=80),
    st.sampled_from([40, 80, 1000]),
    st.sampled_from([60, 200, 1 << 16]),
    st.integers(20, 100),
    st.booleans(),
)
def test_whatever_a_file_holds(
    name: str,
    start: bytes,
    parts: list[bytes],
    max_record: int,
    head: int,
    piece_bytes: int,
    anywhere: bool,
) -> None:
    """Protects: a cut within quotation marks; it is proved, wherever a row seems to start."""

    def lines(item: Item, data: bytes) -> list[int]:
        return [n + 1 for n, byte in enumerate(data) if byte == 10]

    data = start + b"".join(chain(parts, [b"\n"], reversed(parts)))
    with pytest.MonkeyPatch.context() as patch:
        if anywhere:
            form = replace(pieces.CUTTABLE["csv"], starts=lines)
            for each in ("csv", "tsv"):
                patch.setitem(pieces.CUTTABLE, each, form)
        patch.setattr(streams, "HEAD", head)
        patch.setattr(csv_pieces, "_BLOCK", 50)
        for module in (csv_rows, csv_pieces):
            patch.setattr(module, "MAX_RECORD", max_record)
        patch.setattr(csv_rows, "MAX_FIELDS", 6)
        patch.setattr(csv_rows, "MAX_LINES", 4)
        check(name, data, "text", piece_bytes)
