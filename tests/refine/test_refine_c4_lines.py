"""The line rules of C4, and what a shard reports about them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from groundup.artifacts.arrays import text_buffers
from groundup.refine.filter.apply import applicable_filters
from groundup.refine.filter.rules import prose_lines
from groundup.refine.shard import refine_shard
from groundup.refine.stats import TEXT_STATS, bin_codes, text_stats

Row = dict[str, Any]
PROSE = "This line is one of prose."


def lines_of(text: str) -> str:
    found: str = prose_lines(pa.array([text], pa.string()))[0].as_py()
    return found


def test_which_lines_stay() -> None:
    cases = {
        PROSE: True,
        "Is this a line of prose?": True,
        'He said "this is a line."': True,
        "He said “this is a line.”": True,
        "  This one is indented a bit.  ": True,
        "Home | About | Contact | More": False,
        "This line goes on like so...": False,
        "Four words are few.": False,
        "Please enable JavaScript in your browser.": False,
        "By going on you agree to our Terms of Use.": False,
        "This site uses cookies to know who you are.": False,
        "A word like this: " + "x" * 1_001 + " is no word.": False,
        "A word like this: " + "x" * 1_000 + " may be one.": True,
    }
    for line, stays in cases.items():
        assert lines_of(f"{PROSE}\n{line}\n\n{PROSE}") == "\n".join(
            [PROSE, *([line.strip()] if stays else []), PROSE]
        ), line
    assert (
        lines_of("It is so [12] as the other says [citation needed]. [3]")
        == "It is so  as the other says ."
    )
    assert [lines_of(text) for text in ("", "\n\n", "Home")] == ["", "", ""]


def plain(text: str) -> str:
    """Return the same as `prose_lines`, one line at a time."""
    found = []
    for line in text.split("\n"):
        line = re.sub(r"\[\d*\]|\[edit\]", "", line.strip()).strip()
        if (
            line.endswith((".", "!", '"', "”"))
            and not line.endswith("...")
            and len(line.split()) >= 5
            and "javascript" not in line.lower()
        ):
            found.append(line)
    return "\n".join(found)


@given(
    st.lists(
        st.lists(
            st.sampled_from(
                ["a", "é b c", " ", "d e", ".", "...", "”", "[1]", "[", "\n", "中", "JavaScript"]
            )
        ).map("".join)
    )
)
def test_lines_against_a_plain_reference(texts: list[str]) -> None:
    """The column is a slice, too."""
    column = pa.array(["in front of it.", *texts], pa.string())[1:]
    assert prose_lines(column).to_pylist() == [plain(text) for text in texts]


def test_a_shard_without_menus(
    tmp_path: Path, row: Callable[..., Row], collected: Callable[[Path, Sequence[Row]], Path]
) -> None:
    """English pages lose the lines; statistics describe the text that is left."""
    english = "\n".join(
        f"The story of number {n} is a long one, and it has to be told in full." for n in range(6)
    )
    german = (
        "Startseite | Kontakt\n"
        + "Das ist ein ganz gewöhnlicher Satz über das Wetter in der Stadt. " * 6
    )
    texts = [
        f"Home | About\n{english}\nMore",
        "Home of the brave people\nAbout them and their lives",
        german,
        english,
    ]
    out = tmp_path / "out"
    out.mkdir()
    source = collected(tmp_path / "in", [row(text, n, "web") for n, text in enumerate(texts)])
    facts = refine_shard(
        out, source, "web", [], applicable_filters(["gopher_quality", "c4_lines"], "web"), tmp_path
    )
    kept, dropped = (
        pq.read_table(out / f"{name}.parquet").to_pylist() for name in ("documents", "dropped")
    )
    assert [one["text"] for one in kept] == [english, german.strip(), english]
    assert [(one["record"], one["reason"], one["score"], one["detail"]) for one in dropped] == [
        (1, "no_prose_lines", 0.0, "c4_lines: at least 1")
    ]
    assert facts["changed"]["c4_lines"] == 2
    codes = bin_codes(text_stats(text_buffers(pa.array([one["text"] for one in kept]))))
    assert (np.load(out / "bins.npy")[: len(TEXT_STATS)] == codes.T).all()
    told = json.loads((out / "quality.json").read_text())
    assert told["dropped"]["no_prose_lines"] == {"documents": 1, "bytes": len(texts[1])}
