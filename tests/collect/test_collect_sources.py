"""Listing sources: files, what is refused without opening it, and one-line errors."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.collect.files.globs import Selection, glob_to_regex, matches
from groundup.collect.sources import list_source
from groundup.commands.init import write_recipe
from groundup.errors import SourceError
from groundup.recipe import Source


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "raw/b.txt",
        "raw/a/x.txt",
        "raw/a/y.md",
        "raw/.git/config",
        "raw/a/.hidden",
        "secret.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def _origins(tree: Path, path: str, **settings: object) -> list[str]:
    return [file.origin for file in list_source(Source(path=path, **settings), tree).files]  # type: ignore[arg-type]


def test_folder_glob_and_file(tree: Path) -> None:
    """Origins start at the first glob of the path and are sorted; hidden files are skipped."""
    assert _origins(tree, "raw") == ["a/x.txt", "a/y.md", "b.txt"]
    assert _origins(tree, "raw/**/*.txt") == ["a/x.txt", "b.txt"]
    assert _origins(tree, "raw/*") == ["b.txt"]
    assert _origins(tree, "raw/a/x.txt") == ["x.txt"]
    assert _origins(tree, str(tree / "raw")) == ["a/x.txt", "a/y.md", "b.txt"]
    assert _origins(tree, "raw", exclude=("a",)) == ["b.txt"]
    assert _origins(tree, "raw", include=("*.md",)) == ["a/y.md"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("missing", "no such file or folder"),
        ("raw/*.zip", 'no file matches "\\*.zip"'),
        ("empty", "holds no file"),
        ("s3://169.254.169.254:80/x", "expected s3://BUCKET/PATH"),
        ("s3://Bucket/x", "expected s3://BUCKET/PATH"),
        ("hf://datasets/x", "expected hf://datasets/OWNER/NAME"),
        ("hf://models/a/b", "expected hf://datasets/OWNER/NAME"),
        ("http://example.org/x", "only https://"),
        ("pypi:name", "expected pypi:NAME==VERSION"),
    ],
)
def test_errors_are_one_line(tree: Path, path: str, said: str) -> None:
    """Whatever cannot be listed is one line that names source and path."""
    (tree / "empty").mkdir(exist_ok=True)
    with pytest.raises(SourceError, match=said) as caught:
        list_source(Source(path=path, name="mine"), tree)
    assert "\n" not in str(caught.value)


def test_include_that_leaves_nothing_says_so(tree: Path) -> None:
    """A misspelled include is an error, not an empty source."""
    with pytest.raises(SourceError, match="leave nothing of 3 files"):
        list_source(Source(path="raw", include=("*.tex",)), tree)


def test_special_files_are_refused_unread(tree: Path) -> None:
    """A FIFO would block the run, a link could lead anywhere; each is listed."""
    os.mkfifo(tree / "raw/pipe")
    (tree / "raw/out.txt").symlink_to(tree / "secret.txt")
    (tree / "raw/loop").symlink_to(tree / "raw")
    (tree / "raw/gone.txt").symlink_to(tree / "nowhere")
    (tree / "raw/in.txt").symlink_to(tree / "raw/b.txt")
    listing = list_source(Source(path="raw"), tree)
    assert {(refused.origin, refused.reason) for refused in listing.refused} == {
        ("pipe", "special-file"),
        ("out.txt", "link"),
        ("loop", "link"),
        ("gone.txt", "link"),
    }
    assert "in.txt" in [file.origin for file in listing.files]


def test_links_into_a_store_of_a_known_tool_are_followed(tree: Path) -> None:
    """The cache of the Hub, git-annex and DVC keep a data set as links into a store beside it."""
    stores = {
        "hub/snapshots/abc": "hub/blobs",
        "annex/data": "annex/.git/annex/objects",
        "dvc/data": "dvc/.dvc/cache",
    }
    for folder, store in stores.items():
        (tree / folder).mkdir(parents=True)
        (tree / store).mkdir(parents=True)
        (tree / store / "f00").write_text("text")
        (tree / folder / "a.txt").symlink_to(tree / store / "f00")
        (tree / folder / "out.txt").symlink_to(tree / "raw/b.txt")
        listing = list_source(Source(path=folder), tree)
        assert [file.origin for file in listing.files] == ["a.txt"]
        assert [(link.origin, link.reason) for link in listing.refused] == [("out.txt", "link")]
        assert 'follow_links = "DIR"' in listing.refused[0].detail


def test_all_snapshots_of_a_repository_share_its_store(tree: Path) -> None:
    for folder in ("hub/snapshots/abc", "hub/blobs", "other/blobs"):
        (tree / folder).mkdir(parents=True)
    for store in ("hub", "other"):
        (tree / store / "blobs/f00").write_text("text")
        (tree / f"hub/snapshots/abc/{store}.txt").symlink_to(tree / store / "blobs/f00")
    listing = list_source(Source(path="hub/snapshots"), tree)
    assert [file.origin for file in listing.files] == ["abc/hub.txt"]
    assert [link.origin for link in listing.refused] == ["abc/other.txt"]


def test_init_says_what_to_do_about_links_that_lead_out(tree: Path) -> None:
    (tree / "raw/out.txt").symlink_to(tree / "secret.txt")
    said = write_recipe(tree / "raw", tree / "recipe.toml")
    assert "1 × link" in said and said.count('follow_links = "DIR"') == 1


def test_links_into_a_named_folder_are_followed(tree: Path) -> None:
    (tree / "links").mkdir()
    (tree / "links/b.txt").symlink_to(tree / "raw/b.txt")
    (tree / "links/secret.txt").symlink_to(tree / "secret.txt")
    listing = list_source(Source(path="links", follow_links="raw"), tree)
    assert [file.origin for file in listing.files] == ["b.txt"]
    assert [link.origin for link in listing.refused] == ["secret.txt"]


def test_pattern_characters_in_real_names(tree: Path) -> None:
    """A folder that is called "b [1]" is taken literally."""
    (tree / "b [1]").mkdir()
    (tree / "b [1]" / "x*.txt").write_text("x")
    assert _origins(tree, "b [1]") == ["x*.txt"]
    assert _origins(tree, "b [1]/*.txt") == ["x*.txt"]
    assert _origins(tree, "b [1]/x*.txt") == ["x*.txt"]


def test_names_that_are_not_utf8(tree: Path) -> None:
    """A file name in another encoding becomes an origin that can be stored."""
    (tree / os.fsdecode(b"raw/caf\xe9.txt")).write_text("x")
    assert "caf\\xe9.txt" in _origins(tree, "raw")


def test_patterns() -> None:
    """Patterns match paths, tails, folders, archives, and names without a compression suffix."""
    member = "s-1.tar.gz!/s-1/doc/build/a.html"
    assert matches("doc/**/*.html", member)
    assert matches("doc/**/*.html", "doc/a.html")
    assert matches("doc/build", member)
    assert matches("*.tar.gz", member)
    assert matches("*.csv", "x/table.csv.gz")
    assert not matches("*.htm", member)
    assert not matches("oc/build", member)
    assert matches("[ab]?.txt", "z/a1.txt")
    assert not matches("[!ab]?.txt", "z/a1.txt")
    assert Selection(("*.txt",)).opens("x/inner.zip")
    assert not Selection(("*.txt",), ("*.zip",)).opens("x/inner.zip")


@given(st.text(max_size=20))
def test_any_pattern_compiles(pattern: str) -> None:
    """No pattern in a recipe can crash the run."""
    re.compile(glob_to_regex(pattern))
    matches(pattern, "a/b.txt")


@given(st.lists(st.text("ab", min_size=1, max_size=2), min_size=1, max_size=5))
def test_literal_paths_match_themselves_only(parts: list[str]) -> None:
    """A pattern without wildcards matches its path and what is below it."""
    path = "/".join(parts)
    assert matches(path, path)
    assert matches(path, f"{path}/below")
    assert not matches(path + "c", path)
