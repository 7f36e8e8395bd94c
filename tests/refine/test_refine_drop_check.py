"""The drop check: a source that loses nearly all of its text stops the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from groundup.collect import stage as collect
from groundup.commands.inspect import describe_dropped, overview
from groundup.errors import RecipeError, SourceError
from groundup.flow import run_flow
from groundup.recipe import Recipe, Refine, Source, recipe_from
from groundup.refine import stage as refine
from groundup.runtime.run import Run

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def story(number: int) -> str:
    """Return text that passes every filter, and shares no five words with another number."""
    words = [f"{letter}{LETTERS[number]}{other}" for letter in LETTERS for other in LETTERS[:8]]
    return "\n".join(f"The {' '.join(words[n : n + 8])} have it." for n in range(0, len(words), 8))


def write(folder: Path, *texts: str) -> Source:
    folder.mkdir(parents=True)
    for number, text in enumerate(texts):
        (folder / f"{number:03}.txt").write_text(text, encoding="utf-8")
    return Source(path=folder.name, name=folder.name)


@pytest.fixture
def good(tmp_path: Path) -> Source:
    return write(tmp_path / "good", *(story(n) for n in range(8)))


def run(root: Path, *sources: Source, most_dropped: float = 0.95) -> str:
    """Collect and refine; return the error message, or ""."""
    recipe = Recipe(
        source=sources,
        refine=Refine(filters=("gopher_quality",), most_dropped=most_dropped),
        root=root,
    )
    (root / "run").mkdir(exist_ok=True)
    collect.run(opened := Run(root / "run", recipe))
    try:
        refine.run(opened)
    except SourceError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


def test_excessive_loss_stops_the_run(tmp_path: Path, good: Source) -> None:
    """The message has the source, share and reasons; the view exists; it repeats."""
    bad = write(tmp_path / "bad", story(20), *(f"{n} " * 30_000 for n in range(3)))
    told = run(tmp_path, good, bad)
    assert told.startswith('source "bad": 99.')
    assert " of its text is lost, more than most_dropped = 0.95; listed are 3 word" in told
    assert f"`groundup inspect {tmp_path / 'run'} --dropped word" in told
    assert "set most_dropped = 1 in its [[source]]" in told
    assert "bad" in overview(tmp_path / "run")
    assert describe_dropped(tmp_path / "run", told.partition("--dropped ")[2].partition("`")[0])
    assert run(tmp_path, good, bad) == told
    assert run(tmp_path, bad, good) == told


def test_allowed_losses(tmp_path: Path, good: Source) -> None:
    """For one source or for all; the allowance of a source is only its own."""
    bad = write(tmp_path / "bad", story(20), "1 " * 90_000)
    assert run(tmp_path, good, replace(bad, most_dropped=0.99)) != ""
    assert run(tmp_path, good, replace(bad, most_dropped=0.9999)) == ""
    assert run(tmp_path, good, bad, most_dropped=1.0) == ""
    assert run(tmp_path, replace(good, most_dropped=1.0), bad) != ""


def test_share_is_of_bytes(tmp_path: Path, good: Source) -> None:
    """The share is of bytes: many short documents may go, one long one may not."""
    many = write(tmp_path / "many", story(20), *(f"short {n}" for n in range(60)))
    assert run(tmp_path, good, many) == ""
    assert run(tmp_path, good, many, most_dropped=0.1).startswith('source "many"')


def test_empty_sources_are_named(
    tmp_path: Path, good: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    """All files rejected, all documents dropped, all texts empty; other sources follow."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "one.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    pictures = Source(path="pictures", name="pictures")
    assert run(tmp_path, good, pictures).startswith(
        'source "pictures": no document of kind text was collected; listed are 1 '
    )
    short = write(tmp_path / "short", "few words", "fewer")
    told = run(tmp_path, good, short, pictures)
    assert told.startswith('source "short": no document of it is kept; listed are 2 few_words')
    assert told.endswith('(the same holds for "pictures")')
    assert "set most_dropped = 1 in its [[source]]" in told
    links = write(tmp_path / "links", "https://example.org/a", "https://example.org/b")
    assert run(tmp_path, good, links).startswith(
        'source "links": no document of it is kept; listed are 2 empty'
    )
    allowed = [replace(source, most_dropped=1.0) for source in (pictures, short, links)]
    assert run(tmp_path, good, *allowed) == ""
    assert (
        'warning: source "short": no document of it is kept; listed are 2 few_words'
        in capsys.readouterr().err
    )
    assert run(tmp_path, *allowed).startswith("no source has a document left")


def test_exact_duplicates_are_no_loss(tmp_path: Path, good: Source) -> None:
    """Exact copies are no loss, but a source of copies only needs an allowance."""
    # The longer one of two copies is kept, and blank lines are folded before texts are compared.
    longer = write(tmp_path / "longer", *(story(n).replace("\n", "\n\n") for n in range(8)))
    own = write(
        tmp_path / "own", "\n".join(story(20).split("\n")[:9]), *(story(n) for n in range(8))
    )
    assert run(tmp_path, longer, own, most_dropped=0.01) == ""
    told = run(tmp_path, good, longer)
    assert told.startswith('source "good": no document of it is kept; listed are 8 exact_duplicate')
    assert run(tmp_path, replace(good, most_dropped=1.0), longer) == ""


def test_evaluation_files_are_exempt(tmp_path: Path, good: Source) -> None:
    (tmp_path / "tests.jsonl").write_text(
        '{"text": "A question that nobody has an answer to, or has he one after all?"}\n'
    )
    assert run(tmp_path, good, Source(path="tests.jsonl", name="tests", kind="evaluation")) == ""


def test_the_run_stops_before_tokens(tmp_path: Path, good: Source) -> None:
    short = write(tmp_path / "short", "few words", "fewer")
    recipe = Recipe(source=(good, short), refine=Refine(filters=("gopher_quality",)), root=tmp_path)
    with pytest.raises(SourceError, match='source "short": no document of it is kept'):
        run_flow(recipe, tmp_path / "run", until="tokenize", workers=1)
    assert (tmp_path / "run" / "refine" / "quality.json").exists()
    assert not (tmp_path / "run" / "tokenize").exists()


@pytest.mark.parametrize("value", [-0.1, 1.1, "most"])
def test_impossible_shares(value: float | str) -> None:
    for table in (
        {"refine": {"most_dropped": value}},
        {"source": [{"path": "x", "most_dropped": value}]},
    ):
        with pytest.raises(RecipeError, match="most_dropped"):
            recipe_from({"source": [{"path": "x"}]} | table, "recipe", Path())
