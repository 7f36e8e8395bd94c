"""Repeated lines: which lines count, how they are counted, cut and listed."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.artifacts.arrays import text_array, text_buffers
from groundup.artifacts.corpus import Cuts, remove_spans
from groundup.refine.clean.unicode_classes import UNSPACED, WORD, WORD_CLASSES
from groundup.refine.clean.whitespace import normalize_whitespace
from groundup.refine.lines import (
    LINE_KINDS,
    MIN_WORDS,
    MIN_WORDS_LEFT,
    LineIndex,
    count_lines,
    cut_lines,
    find_lines,
    find_repeated_lines,
    line_cuts,
    line_hashes,
    list_lines,
    min_documents,
    rows_with,
)
from groundup.refine.out_of_core import IndexedShard, RowFile, hash_ranges
from groundup.refine.shard import refine_shard

Row = dict[str, object]
Find = Callable[..., tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, list[str]]]]
NOTICE = "This site uses cookies to make your visit better."


def halves(piece: str) -> int:
    """Return the half words of a piece between two spaces, one code point at a time."""
    inside = [letter for letter in piece if WORD_CLASSES[ord(letter)] != UNSPACED]
    kinds = "".join(
        "j"
        if letter in "'’-"
        else "d"
        if letter in "0123456789"
        else "l"
        if WORD_CLASSES[ord(letter)] == WORD
        else "s"
        for letter in inside
    )
    letters = kinds.strip("js").replace("j", "")
    plain = bool(letters) and set(letters) == {"l"} and not (set(kinds.strip("sj")) & {"s", "d"})
    return len(piece) - len(inside) + 2 * plain


def counts(line: str) -> bool:
    return sum(map(halves, line.split())) >= 2 * MIN_WORDS


def hashed(line: str) -> int:
    (found,) = line_hashes(text_buffers(pa.array([line])))[0].tolist() or [0]
    return int(found)


@pytest.mark.parametrize(
    "line",
    [
        NOTICE,
        "| Home | About us | Shop | Terms & Privacy |",
        "Alle Rechte vorbehalten, auch die der Übersetzung.",
        "请登录后发表评论，谢谢您的支持",
        "Don’t miss our well-known (weekly) news letter",
    ],
)
def test_boilerplate_counts(line: str) -> None:
    assert hashed(line)
    assert hashed(line) == hashed(f" \t {line.replace(' ', '   ')} ")


@pytest.mark.parametrize(
    "line",
    [
        "See also",
        "from sqlalchemy.ext.declarative import declarative_base",
        "id: Mapped[int] = mapped_column(primary_key=True)",
        'return f"User(id={self.id!r}, name={self.name!r}, fullname={self.fullname!r})"',
        "SELECT user_account.id, user_account.name, user_account.fullname FROM user_account",
        "| 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 |",
        "---------------------------------",
        "",
    ],
)
def test_headings_code_and_tables_do_not_count(line: str) -> None:
    assert not hashed(line)


LINES = st.text(
    alphabet=["a", "b", "é", " ", " ", " ", "\t", "'", "-", ".", "(", "|", "7", "\n", "中", "の"],
    max_size=120,
)


@given(st.lists(LINES, max_size=5))
def test_hashes_against_a_reference(texts: list[str]) -> None:
    """Equal folded lines have equal hashes, unequal ones do not."""
    hashes, rows = line_hashes(text_buffers(pa.array(texts, pa.string())))
    want = [sorted({hashed(line) for line in text.split("\n") if counts(line)}) for text in texts]
    assert [hashes[rows == number].tolist() for number in range(len(texts))] == want
    folded = {" ".join(line.split()) for text in texts for line in text.split("\n") if counts(line)}
    assert len({hashed(line) for line in folded}) == len(folded)
    assert set(hashes.tolist()) == {hashed(line) for line in folded}


OTHERS = ["one", "  two", "\tthree of them", "", "", ""]
LISTED = [NOTICE, f"   {NOTICE}", "All the rights are reserved, and so on."]


def cut(texts: Sequence[str], listed: Sequence[str]) -> list[str]:
    buffers = text_buffers(pa.array(texts, pa.string()))
    cuts = line_cuts(
        buffers,
        find_lines(buffers, np.unique(np.array([hashed(line) for line in listed], np.uint64))),
    )
    found: list[str] = remove_spans(
        pa.array(texts, pa.string()), cuts[:, 0], cuts[:, 1:]
    ).to_pylist()
    return found


@given(st.lists(st.lists(st.sampled_from(OTHERS + LISTED), max_size=12), min_size=1, max_size=4))
def test_cuts_take_only_listed_lines(documents: list[list[str]]) -> None:
    """Other lines stay in order, and white space stays normalized."""
    prose = np.zeros(len(documents), np.bool_)
    buffers = text_buffers(pa.array(["\n".join(lines) for lines in documents]))
    offsets, data, *_ = normalize_whitespace(buffers, prose, prose)
    texts = text_array(offsets, data).to_pylist()
    for before, after in zip(texts, cut(texts, LISTED), strict=True):
        kept = [
            line
            for line in before.split("\n")
            if line.strip() and line.strip() not in [listed.strip() for listed in LISTED]
        ]
        # A first line is not indented.
        assert [line.strip() for line in after.split("\n") if line.strip()] == [
            line.strip() for line in kept
        ]
        assert [line for line in after.split("\n")[1:] if line.strip()] == kept[1:]
        buffers = text_buffers(pa.array([after]))
        assert normalize_whitespace(buffers, prose[:1], prose[:1])[1].tobytes().decode() == after


def test_cut_keeps_the_longer_gap() -> None:
    assert cut(
        [f"a\n{NOTICE}\n\nb", f"a\n\n{NOTICE}\n  b", f"{NOTICE}\n\n\nb\n\n{NOTICE}", NOTICE],
        [NOTICE],
    ) == [
        "a\n\nb",
        "a\n\n  b",
        "b",
        "",
    ]


def test_cuts_of_a_part_of_a_shard(tmp_path: Path) -> None:
    """Missing rows do not shift the cuts of other rows."""
    np.save(tmp_path / "cuts.npy", np.array([[0, 0, 1], [2, 1, 3], [2, 4, 5], [7, 0, 2]]))
    cuts = Cuts.load(tmp_path / "cuts.npy")
    batch = pa.RecordBatch.from_pydict(
        {"id": ["b", "c", "h"], "text": ["second", "ABCDEF", "last"]}
    )
    assert cuts.apply(batch, np.array([1, 2, 7])).column("text").to_pylist() == [
        "second",
        "ADF",
        "st",
    ]
    assert cuts.apply(batch.slice(1, 1), np.array([2])).column("text").to_pylist() == ["ADF"]
    assert cuts.apply(batch.select(["id"]), np.array([1, 2, 7])).column_names == ["id"]
    assert len(cuts.apply(batch.slice(0, 0), np.zeros(0, np.int64))) == 0
    assert cuts.removed(9).tolist() == [1, 0, 3, 0, 0, 0, 0, 2, 0]


def sketched(folder: Path, texts: Sequence[Sequence[str]]) -> Path:
    folder.mkdir()
    with (
        RowFile(folder / ".hashes", np.dtype(np.uint64)) as hashes,
        RowFile(folder / ".rows", np.dtype(np.uint32)) as rows,
    ):
        lines = LineIndex(folder, hashes, rows)
        for batch in texts:
            lines.append(text_buffers(pa.array(batch, pa.string())))
        lines.save()
    return folder


@pytest.mark.parametrize("part", [1, 7, 1_000])
def test_line_index_is_counted_in_parts(tmp_path: Path, part: int) -> None:
    """For any part size, counts equal those of a Counter over the kept documents."""
    sentences = [
        f"number {word} of the few lines here"
        for word in ("one", "two", "three", "four", "five", "six")
    ]
    chance = np.random.default_rng(1)
    texts = [["\n".join(chance.choice(sentences, 4)) for _ in range(9)] for _ in range(4)]
    shards = [
        sketched(tmp_path / "a", texts[:2]),
        sketched(tmp_path / "b", texts[2:]),
        sketched(tmp_path / "c", []),
    ]
    kept = [np.arange(18) % 3 > 0, np.arange(18) % 4 > 0, np.zeros(0, np.bool_)]
    want: Counter[int] = Counter()
    for text, mask in zip(itertools.chain(*texts), np.concatenate(kept), strict=True):
        want.update({hashed(line) for line in text.split("\n")} if mask else ())
    got = [
        pair
        for low, high in hash_ranges(len(want), part)
        for lines, numbers in [count_lines(zip(shards, kept, strict=True), low, high)]
        for pair in zip(lines.tolist(), numbers.tolist(), strict=True)
    ]
    assert got == sorted(want.items())
    listed = np.array([hashed(sentences[0])], np.uint64)
    assert rows_with(shards[1], listed, 18).tolist() == [
        sentences[0] in text for text in itertools.chain(*texts[2:])
    ]
    assert not rows_with(shards[1], listed[:0], 18).any()


@pytest.fixture
def find(
    tmp_path: Path, row: Callable[..., Row], collected: Callable[[Path, Sequence[Row]], Path]
) -> Find:
    """Refine shards (name, kind → texts); return repeated lines, drops and remaining texts."""

    def found(
        shards: dict[str, tuple[str, Sequence[str]]],
        duplicates: Sequence[int] = (),
        fewest: int = 10,
    ) -> Any:
        folders = [(name, tmp_path / name) for name in shards]
        for name, (kind, texts) in shards.items():
            rows = [row(text, n, kind, name) for n, text in enumerate(texts)]
            (tmp_path / name).mkdir()
            refine_shard(
                tmp_path / name, collected(tmp_path / f"in-{name}", rows), kind, [], [], Path()
            )
        (out := tmp_path / "list").mkdir()
        listed = tmp_path / "listed.npy"
        np.save(listed, np.array([(number, 0) for number in duplicates], np.int64).reshape(-1, 2))
        members, first = defaultdict[str, list[IndexedShard]](list), 0
        for name, (kind, texts) in shards.items():
            if kind in LINE_KINDS:
                shard = IndexedShard(name, tmp_path / name, first, len(texts))
                members[name.rpartition(".")[0]].append(shard)
            first += len(texts)
        repeated, cuts = defaultdict[str, list[Path]](list), defaultdict[str, list[Any]](list)
        for source, of_source in members.items():
            for part, (low, high) in enumerate(hash_ranges(2, 1)):
                (path := tmp_path / f"{source}.lines.{part}").mkdir()
                find_repeated_lines(path, of_source, listed, fewest, low, high)
                repeated[source].append(path)
            for shard in of_source:
                (path := out / shard.name).mkdir()
                cuts[source].append((path, cut_lines(path, shard, listed, repeated[source])))
        facts = list_lines(out, repeated, cuts)
        left = {}
        for name, folder in folders:
            (batch,) = (
                pq.read_table(folder / "documents.parquet", columns=["text"])
                .combine_chunks()
                .to_batches()
            )
            cut = Cuts.load(out / name / "cuts.npy")
            left[name] = cut.apply(batch, np.arange(len(batch))).column("text").to_pylist()
        lines, dropped = (
            pq.read_table(out / f"{name}.parquet").to_pylist() for name in ("lines", "dropped")
        )
        assert sum(counts["lines"] for counts in facts["sources"].values()) == len(lines)
        assert sum(counts["dropped"] for counts in facts["sources"].values()) == len(dropped)
        return lines, dropped, left

    return found


def page(number: int, *more: str) -> str:
    """Return a page of unique words, and these lines."""
    return "\n\n".join(
        [f"The story that is called {number} goes like this, and is told nowhere else.", *more]
    )


def test_minimum_number_of_documents(find: Find) -> None:
    others = "Nine of these pages close with this very line."
    pages = [page(n, NOTICE, *([others] if n < 9 else [])) for n in range(10)]
    lines, dropped, left = find({"web.a": ("web", pages)})
    assert [(line["text"], line["documents"], line["source"]) for line in lines] == [
        (NOTICE, 10, "web")
    ]
    assert left["web.a"] == [page(n, *([others] if n < 9 else [])) for n in range(10)]
    assert dropped == []
    assert lines[0]["hash"] == hashed(NOTICE)


def test_duplicates_and_repeats_inside_a_document_do_not_count(find: Find) -> None:
    """A page with many copies does not turn its own text into boilerplate."""
    pages = [page(0, NOTICE)] * 30 + [page(n, NOTICE, NOTICE, NOTICE) for n in range(1, 9)]
    assert find({"web.a": ("web", pages)}, duplicates=range(1, 30)) == ([], [], {"web.a": pages})


def test_lines_are_counted_by_source(find: Find) -> None:
    pages = [page(n, NOTICE) for n in range(15)]
    lines, _, left = find(
        {"one.a": ("web", pages[:5]), "one.b": ("web", pages[5:10]), "two.a": ("text", pages[10:])}
    )
    assert [line["source"] for line in lines] == ["one"]
    assert left == {
        "one.a": [page(n) for n in range(5)],
        "one.b": [page(n) for n in range(5, 10)],
        "two.a": pages[10:],
    }


def test_code_conversations_and_books_are_left_alone(find: Find) -> None:
    pages = [page(n, NOTICE) for n in range(12)]
    kinds = ("code", "conversations", "books")
    assert find({f"{kind}.a": (kind, pages) for kind in kinds}) == (
        [],
        [],
        {f"{kind}.a": pages for kind in kinds},
    )


def test_documents_left_empty_are_dropped(find: Find) -> None:
    few = " ".join(["word"] * (MIN_WORDS_LEFT - 1))
    pages = [page(n, NOTICE) for n in range(10)] + [
        f"{few}\n{NOTICE}",
        f"{few} more\n{NOTICE}",
        few,
    ]
    _, dropped, left = find({"web.a": ("web", pages)})
    assert [(row["record"], row["reason"]) for row in dropped] == [(10, "boilerplate")]
    assert dropped[0]["detail"].startswith(f"{MIN_WORDS_LEFT - 1} words are left")
    assert left["web.a"][10:] == [few, f"{few} more", few]


def test_large_sources_need_a_share() -> None:
    assert [min_documents(10, count) for count in (20, 1_000_000, 1_000_001)] == [10, 10, 11]


def test_hostile_shapes(find: Find) -> None:
    """A million equal lines, a document of very many lines, a source of one document."""
    names = (
        " ".join(f"{a}{b}{c}" for a in "xyzuvw")
        for b, c in itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=2)
    )
    many = "\n".join(f"{name} {first}" for name in names for first in ("one", "two", "three"))
    lines, dropped, left = find(
        {"web.a": ("web", ["\n".join([NOTICE] * 1_000_000), many]), "lone.a": ("text", [NOTICE])},
        fewest=2,
    )
    assert (lines, dropped) == ([], [])
    assert left["web.a"][1] == many
    assert left["lone.a"] == [NOTICE]
