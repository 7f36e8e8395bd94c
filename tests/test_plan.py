"""The plan of a run that only makes data, and of a training here and on devices of the table."""

import json
from pathlib import Path

import pytest

from groundup.errors import GroundupError, SourceError
from groundup.plan import Plan, check_plan, make_plan
from groundup.recipe import Model, Recipe, Source, Tokenize, Train
from groundup.runtime.run import Run
from groundup.runtime.sealed import read_sealed
from tests.helpers.raw import write_books

TRAINING = {"training", "training memory", "checkpoints", "speed"}


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    write_books(tmp_path / "books", 2)
    return Recipe(source=(Source(str(tmp_path / "books")),), root=tmp_path)


def test_a_run_that_goes_on_to_train_plans_its_training(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.train.forecast.measure", lambda *_: 1.0)
    run = Run(tmp_path / "run", recipe)
    run.root.mkdir()

    def planned(trains: bool) -> set[str]:
        check_plan(run, trains)
        return set((read_sealed(run.root / "plan.json") or {})["figures"])

    data = planned(trains=False)
    assert not data & TRAINING and {"collect", "refine", "tokenize", "disk"} <= data
    whole = planned(trains=True)
    assert TRAINING | data <= whole
    # Later runs that stop early leave the whole plan as it is.
    assert planned(trains=False) == whole


def test_a_run_that_only_makes_data_needs_no_room_for_training(recipe: Recipe) -> None:
    large = Recipe(source=recipe.source, root=recipe.root, model=Model(layers=1000, width=65_536))
    assert make_plan(large).problems
    assert not make_plan(large, trains=False).problems


def test_a_context_longer_than_the_text_is_refused_before_the_probe(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> float:
        raise AssertionError("counted or probed")

    for name in ("place_here", "measure"):
        monkeypatch.setattr(f"groundup.train.forecast.{name}", fails)
    long = Recipe(source=recipe.source, root=recipe.root, model=Model(context=2_000_000))
    with pytest.raises(GroundupError, match="needs more text than about"):
        make_plan(long).refuse()


def on(device: str, preset: str = "tiny", batch_tokens: int = 8192, root: str = "/nowhere") -> Plan:
    """Plan a training of which the recipe leaves nothing to its text."""
    recipe = Recipe(
        source=(Source(f"{root}/raw", name="books"),),
        tokenize=Tokenize(vocab_size=2048),
        model=Model(preset=preset),
        train=Train(steps=1_000_000, batch_tokens=batch_tokens),
    )
    return make_plan(recipe, price=2.0, device=device)


def test_several_devices_take_fewer_hours_than_one() -> None:
    one, four = (on(name, "30m", 131_072) for name in ("1xa100-80gb", "4xa100-80gb"))
    assert one.value("training") > 1.5 * four.value("training")
    assert one.terms["exposed communication"].value == 0 < four.terms["exposed communication"].value
    assert four.value("money") == pytest.approx(2 * four.value("hours"))
    four.refuse()


def test_the_terms_of_a_step_add_up_to_it_and_give_the_hours() -> None:
    plan = on("8xh100")
    *terms, step = (term.value for term in plan.terms.values())
    assert min(terms) > 0 and step == pytest.approx(sum(terms))
    assert plan.value("training") == pytest.approx(plan.value("steps") * step / 3600)
    assert plan.value("tokens a second") == pytest.approx(8192 / step)


def test_devices_that_share_a_batch_unevenly_wait_for_the_one_with_most() -> None:
    # 64 sequences: 16 on each of four, 11 on the busiest of six, 8 on each of eight.
    hours = [on(f"{n}xa100-80gb", "300m", 131_072).value("training") for n in (4, 6, 8)]
    assert hours == sorted(hours, reverse=True)
    assert hours[1] / hours[0] == pytest.approx(11 / 16, abs=0.03)


def test_devices_without_a_sequence_are_named() -> None:
    plan = on("8xa100-80gb", batch_tokens=512)
    assert any("a step has 4 sequences: 4 of 8 devices work" in note for note in plan.notes)


def test_what_this_machine_lacks_is_a_note_of_a_plan_for_another_one(tmp_path: Path) -> None:
    plan = on("h200", root=str(tmp_path))
    assert not plan.problems and any('source "books" is not here' in note for note in plan.notes)
    with pytest.raises(SourceError):
        on("", root=str(tmp_path))


def test_what_does_not_fit_a_device_says_what_is_not_sharded() -> None:
    plan = on("8xl4", preset="3b")
    assert "training" not in plan.figures and plan.memory["weights"].value > 11e9
    with pytest.raises(GroundupError, match=r"each NVIDIA L4 leaves 20.4 of 24 .* not sharded"):
        plan.refuse()


def test_the_json_of_a_plan_keeps_its_keys() -> None:
    table = json.loads(on("8xh100").json())
    assert table["training"]["unit"] == "h" and table["training"]["value"] > 0
    assert table["step: linear"]["unit"] == "s" and table["memory: weights"]["unit"] == "B"
