"""The [tune] table: what cannot be is one line before anything is spent, and what is planned
counts.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groundup.commands.init import write_recipe
from groundup.errors import RecipeError, SourceError
from groundup.plan import make_plan
from groundup.recipe import Recipe, load_recipe


def recipe(folder: Path, *lines: str, overrides: tuple[str, ...] = ()) -> Recipe:
    (folder / "talk.jsonl").write_text('{"messages": [{"role": "user", "content": "Hi"}]}\n' * 50)
    source = ["[[source]]", 'path = "talk.jsonl"', 'kind = "conversations"', "[tune]"]
    (folder / "r.toml").write_text("\n".join([*source, *lines]) + "\n")
    return load_recipe(folder / "r.toml", overrides)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('method = "full"', 'tune: method: "full" is not one of none, sft, lora'),
        ("epoch = 2", 'did you mean "epochs"'),
        ("epochs = 0", "epochs must be at least 1"),
        ("rank = 5000", "rank must be at most 4,096"),
        ("alpha = 0.0", "alpha must lie between"),
        ("learning_rate = 0.0", "learning_rate must lie between"),
        ('learning_rate = "fast"', '"fast" is not a number or auto'),
        ("validation = 1.0", "validation 1.0 must lie between"),
        ("limit = -1", "limit must not be negative"),
        ('columns = ["text"]', "columns are two"),
        ('columns = ["text", ""]', "columns are two"),
        ('sources = ["tlak"]', 'did you mean "talk"'),
        ('data = "x"\nsources = ["talk"]', "name either data or sources"),
    ],
)
def test_what_cannot_be_is_said_with_its_key(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(RecipeError, match="tune") as error:
        recipe(tmp_path, line)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_no_source_is_of_the_kind_of_tuning_data(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="name such files as"):
        recipe(tmp_path, overrides=("source.0.kind=tuning",))


def test_a_missing_file_is_found_before_training(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"missing\.csv"):
        make_plan(recipe(tmp_path, 'method = "sft"', 'data = "missing.csv"'))


def test_a_plan_counts_tuning(tmp_path: Path) -> None:
    plain, tuned, longer = (
        make_plan(recipe(tmp_path, *lines))
        for lines in ([], ['method = "sft"'], ['method = "sft"', "epochs = 6"])
    )
    assert "tuning" not in plain.figures
    assert longer.value("tuning tokens") == 2 * tuned.value("tuning tokens") > 0
    assert tuned.value("hours") == pytest.approx(
        sum(tuned.value(name) for name in ("collect", "refine", "tokenize", "training", "tuning"))
    )


@pytest.mark.parametrize(("count", "books", "epochs"), [(400, 3, 3), (400, 0, 1), (20, 3, None)])
def test_init_asks_for_tuning_where_there_are_many_answers(
    tmp_path: Path, count: int, books: int, epochs: int | None
) -> None:
    """A few exchanges teach nothing; what the model read anyway is not repeated three times."""
    talk = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "Me."}]
    raw = tmp_path / "raw"
    (raw / "talk").mkdir(parents=True)
    (raw / "talk" / "a.jsonl").write_text((json.dumps({"messages": talk}) + "\n") * count)
    (raw / "talk" / "none.jsonl").write_text(json.dumps({"messages": talk[:1]}) + "\n")
    for number in range(books):
        (raw / f"{number}.txt").write_text("It was a bright cold day in April. " * 1000)
    write_recipe(raw, tmp_path / "r.toml")
    tune = load_recipe(tmp_path / "r.toml").tune
    assert (tune.method, tune.epochs if epochs else None) == ("sft" if epochs else "none", epochs)
    assert tune.sources == (("talk" if books else "raw",) if epochs else ())
