"""Recipes: every key has a default, an unknown one names its neighbor, an impossible number is one
line.
"""

import codecs
import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.errors import RecipeError
from groundup.recipe import Recipe, default_name, load_recipe, overridden, recipe_from
from groundup.schema import settings


def recipe(**tables: object) -> Recipe:
    return recipe_from({"source": [{"path": "raw/*.txt"}]} | tables, "test.toml", Path())


def test_one_source_is_a_whole_recipe() -> None:
    assert recipe().source[0].name == "raw"
    assert recipe().tokenize.validation == 0.05


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"tokenise": {}}, 'unknown key "tokenise"; did you mean "tokenize"'),
        ({"train": {"stepz": 1}}, 'train: unknown key "stepz"; did you mean "steps"'),
        ({"train": {"steps": "many"}}, '"many" is not a whole number or auto'),
        ({"tune": {"method": "many"}}, '"many" is not one of none, sft, lora'),
        ({"train": {"steps": 10**30}}, "steps: .* is too large"),
        ({"train": {"steps": 10**10}}, "more than a thousand million"),
        ({"train": {"clip": 10**400}}, "clip: inf is not a finite number"),
        ({"train": {"sample_seconds": -1}}, "sample_seconds must not be negative"),
        ({"source": [{"path": "x", "encoding": "zlib"}]}, "not one that Python knows"),
        ({"source": [{"path": "x", "encoding": "idna"}]}, "not one that Python knows"),
        ({"source": [{"path": "x", "include": ["*"] * 1001}]}, "more than 1,000 patterns"),
        ({"train": {"steps": 0}}, "steps must be at least 1"),
        ({"train": {"steps": True}}, "expected a whole number, found bool"),
        (
            {"train": {"checkpoint_steps": [10, "x"]}},
            r"checkpoint_steps\[1\]: expected a whole number",
        ),
        ({"tokenize": {"validation": 1.5}}, "validation 1.5 must lie between"),
        ({"tokenize": {"vocab_size": 10}}, "vocab_size 10 must lie between"),
        ({"refine": {"near_threshold": float("nan")}}, "not a finite number"),
        ({"refine": {"languages": "en"}}, "expected a list"),
        (
            {"refine": {"languages": ["en", "english"]}},
            r'language "english" is unknown; did you mean "en" \(English\)',
        ),
        (
            {"refine": {"languages": ["nb"]}},
            r'language "nb" is unknown; did you mean "no" \(Norwegian\)',
        ),
        ({"refine": {"languages": ["zh-Hant"]}}, r'did you mean "zh" \(Chinese\)'),
        ({"refine": {"languages": ["tlh"]}}, 'language "tlh" is unknown; '),
        ({"refine": {"languages": [""]}}, 'language "" is unknown; it is not one of the 130'),
        ({"refine": 3}, "expected a table"),
        ({"refine": {"thresholds": {"c4": 3}}}, "thresholds.c4: expected a table"),
        (
            {"refine": {"thresholds": {"c4": {"few_sentences": "3"}}}},
            "thresholds.c4.few_sentences: expected a number",
        ),
        (
            {"refine": {"thresholds": {"c4": {"few_sentences": ["3"]}}}},
            r"few_sentences\[0\]: expected a number",
        ),
        ({"source": []}, r"there is no \[\[source\]\]"),
        ({"source": [{"kind": "books"}]}, '"path" is missing'),
        ({"source": [{"path": "x", "kind": "book"}]}, 'did you mean "books"'),
        ({"source": [{"path": "a/x"}, {"path": "b/x"}]}, 'two sources are called "x"'),
        ({"source": [{"path": "x", "sha256": "beef"}]}, "64 hexadecimal digits"),
        (
            {"source": [{"path": "x", "encoding": "klingon"}]},
            'encoding "klingon" is not one that Python knows',
        ),
        ({"name": "../escape"}, "may hold letters"),
        ({"name": ".."}, "no name for a folder"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tables: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        recipe(**tables)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_recipe_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[[source]\n")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("bad.toml", "binary.toml", "missing.toml", "."):
        with pytest.raises(RecipeError) as caught:
            load_recipe(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_overrides_reach_nested_tables_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[[source]]\npath = "x"\n')
    loaded = load_recipe(
        path, ["train.steps=7", "source.0.kind=books", 'refine.languages=["en"]', "name=other"]
    )
    assert (loaded.train.steps, loaded.source[0].kind, loaded.refine.languages, loaded.name) == (
        7,
        "books",
        ("en",),
        "other",
    )
    assert load_recipe(path).name == "mine"
    for wrong in ("train.steps", "train.steps.deeper=1", "source.9.kind=books", "=1"):
        with pytest.raises(RecipeError):
            load_recipe(path, [wrong])


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("raw/books/**/*.txt", "books"),
        ("raw/wiki/enwiki-latest.xml.bz2", "enwiki-latest"),
        ("pypi:rich==13.9.4", "rich"),
        ("pypi:gensim==4.4.0/gensim.whl", "gensim"),
        ("https://example.org/data/talk.jsonl.gz", "talk"),
        ("/", "source"),
        ("my texts/", "my-texts"),
    ],
)
def test_a_source_is_named_after_its_place(path: str, name: str) -> None:
    assert default_name(path) == name


@given(st.text(min_size=1, max_size=40))
def test_any_path_gives_a_usable_name(path: str) -> None:
    name = default_name(path)
    assert name
    assert len(name) <= 80


def test_settings_round_trip_and_never_hold_the_root(tmp_path: Path) -> None:
    thresholds = {"gopher": {"few_words": 30, "word_length": [2, 12]}}
    one = dataclasses.replace(
        recipe(train={"steps": 3}, refine={"thresholds": thresholds}), root=tmp_path
    )
    assert settings(one)["refine"]["thresholds"] == thresholds
    assert "root" not in settings(one)
    assert recipe_from(settings(one), "again", tmp_path) == one


def test_the_registry_of_kinds_has_every_kind_of_a_recipe() -> None:
    """Recipes are decoded below the registry, so the names are written in both places."""
    from groundup.artifacts.kinds import KINDS as REGISTRY
    from groundup.recipe import KINDS, TUNING

    assert sorted(REGISTRY) == sorted([*KINDS, TUNING])
    assert [name for name, kind in REGISTRY.items() if kind.role == "tuning"] == [TUNING]


RECIPE = '[[source]]\npath = "räw"\n'


@pytest.mark.parametrize(
    "data",
    [
        RECIPE.encode("utf-8-sig"),
        RECIPE.replace("\n", "\r\n").encode("utf-8-sig"),
        RECIPE.encode("utf-16"),
        codecs.BOM_UTF16_BE + RECIPE.encode("utf-16-be"),
    ],
)
def test_a_recipe_is_read_as_editors_save_it(tmp_path: Path, data: bytes) -> None:
    """Notepad and PowerShell begin a file with a byte order mark."""
    path = tmp_path / "mine.toml"
    path.write_bytes(data)
    assert load_recipe(path).source[0].path == "räw"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (RECIPE.encode("latin-1"), "save it as UTF-8"),
        (b"x=" + b"[" * 20_000 + b"]" * 20_000, "nests too deeply"),
        (b"a." * 100_000 + b"a = 1", "nests too deeply"),
        (b"name = 'x'\n[train]\nsteps = " + b"9" * 5_000, "cannot be read as TOML"),
        (b"#" * (2 << 20), "a recipe has at most"),
        (b"name = ", "cannot be read as TOML"),
    ],
)
def test_a_file_that_no_parser_takes_is_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(data)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_an_override_that_nests_too_deeply_is_text() -> None:
    with pytest.raises(RecipeError, match="expected a whole number"):
        overridden(recipe(), [f"train.keep={'[' * 20_000}"])
