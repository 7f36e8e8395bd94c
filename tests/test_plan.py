"""The plan of a run that only makes data: no training in it, until the run goes on to train."""

from pathlib import Path

import pytest

from groundup import plan
from groundup.plan import check_plan, make_plan
from groundup.recipe import Model, Recipe, Source
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
    monkeypatch.setattr(plan, "probe", lambda config, device: 1e12)
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
