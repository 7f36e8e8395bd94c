"""`groundup look`: a sample of raw files, the same at every call, and its page."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import html
from tests.helpers.raw import write_books

from groundup.collect.sources import RawFile
from groundup.commands import look as module
from groundup.commands.look import choose_sample, look, read_beginning
from groundup.errors import SourceError
from groundup.report.look import PAGE

SORTS = "//section[@id='files']//tbody//th"


def listed(name: str, sizes: list[int]) -> list[RawFile]:
    return [RawFile(f"{name}{n}", Path(name), size) for n, size in enumerate(sizes)]


def test_a_sample_is_spread_over_the_sources() -> None:
    """Small files of one source do not use up what a source of large files may have."""
    listings = {"small": listed("s", [1] * 500), "large": listed("l", [400] * 20), "none": []}
    chosen = choose_sample(listings, files=50, size=2000)
    assert chosen == choose_sample(listings, files=50, size=2000)
    counts = {name: sum(c.source == name for c in chosen) for name in listings}
    assert counts["small"] > 20 and counts["large"] >= 4 and counts["none"] == 0
    assert len(chosen) <= 51


def test_every_source_gives_a_file_and_a_large_one_is_cut() -> None:
    listings = {name: listed(name, [10_000]) for name in "abcd"}
    assert [c.size for c in choose_sample(listings, files=2, size=4000)] == [1000] * 4


def test_the_beginning_of_a_file_ends_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of a zip archive is no archive: it is taken whole, unless it is too large for that."""

    def raw(name: str, data: bytes) -> RawFile:
        (tmp_path / name).write_bytes(data)
        return RawFile(name, tmp_path / name, len(data))

    text, archive = raw("a.txt", "eins\nzwei\ndreiß".encode()), raw("a.zip", b"PK\x03\x04" * 50)
    assert read_beginning(text, 12) == b"eins\nzwei\n"
    assert read_beginning(text, 100) == "eins\nzwei\ndreiß".encode()
    assert read_beginning(archive, 20) == b"PK\x03\x04" * 50
    monkeypatch.setattr(module, "MAX_WHOLE", 100)
    assert read_beginning(archive, 20) is None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    write_books(tmp_path / "texts" / "books", count=6)
    return tmp_path / "texts"


def test_a_folder_a_recipe_and_a_run(folder: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_ctime_ns for path in folder.rglob("*")}
    said = look(folder, None, 3, 20.0)
    assert {path: path.stat().st_ctime_ns for path in folder.rglob("*")} == before
    path = Path(said.split()[1])
    assert path.is_relative_to(tmp_path / "cache")
    page = path.read_text()
    assert "A sample: 3 of 6 files" in page and "Project Gutenberg books" in page
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[[source]]\npath = "texts/books"\nkind = "books"\nname = "novels"\n')
    look(recipe, tmp_path / "run", 100, 20.0)
    page = (tmp_path / "run" / PAGE).read_text()
    assert "novels" in page and "A sample" not in page
    assert str(tmp_path / "run" / PAGE) in look(tmp_path / "run", None, 1, 1.0)


def test_a_large_folder_is_looked_at_in_part(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same files of it each time; the page says so, and sorts and sample are theirs."""
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    monkeypatch.setattr(module, "MAX_SURVEYED", 6)
    page = Path(look(folder, None, 100, 20.0).split()[1]).read_text()
    assert "Only 6 of 7 files were looked at to find sources." in page
    monkeypatch.setattr(module, "MAX_SURVEYED", 7)
    page = Path(look(folder, None, 100, 20.0).split()[1]).read_text()
    assert "were looked at" not in page
    sorts = [row.xpath("string()").split("\n")[0] for row in html.fromstring(page).xpath(SORTS)]
    assert sorts[:2] == ["Project Gutenberg books", "images"] and "<h3>Not read</h3>" in page


def test_a_recipe_without_files_of_this_machine(tmp_path: Path) -> None:
    recipe = tmp_path / "far.toml"
    recipe.write_text('[[source]]\npath = "https://a.example/b.txt"\nkind = "text"\n')
    with pytest.raises(SourceError, match="no source has files on this machine"):
        look(recipe, None, 10, 1.0)
