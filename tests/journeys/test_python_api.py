"""The public Python API: about six names, and what a notebook does with them."""

from pathlib import Path

import pytest

import groundup


def test_the_names_are_kept() -> None:
    """Names may be added, never taken away."""
    assert {"GroundupError", "load_recipe", "make_plan", "open_run", "run_recipe", "verify_run"} <= set(groundup.__all__)
    assert all(callable(getattr(groundup, name)) for name in groundup.__all__)


def test_a_run_is_read_from_python(tiny_run: Path) -> None:
    run = groundup.open_run(tiny_run)
    kept = sum(len(batch) for batch in run.documents(["id"]))
    assert kept == sum(run.figures()[f"tokens.{split}.documents"]["value"] for split in ("train", "validation"))
    assert run.model().config.parameter_count() == run.figures()["model.parameters"]["value"]
    assert run.tokenizer().decode(run.tokenizer().encode("plain text")) == "plain text"
    assert run.metrics()[-1]["step"] == 6
    assert run.sample("The", tokens=5) == run.sample("The", tokens=5)


def test_a_plan_has_every_figure_and_refuses_what_cannot_fit(tiny_project: Path) -> None:
    plan = groundup.make_plan(groundup.load_recipe(tiny_project), price=2.0)
    assert {"tokens", "parameters", "training memory", "disk", "hours", "money"} <= set(plan.figures)
    plan.refuse()
    huge = groundup.load_recipe(tiny_project, ["model.width=65536", "model.layers=100", "model.head_width=64", "train.keep=1"])
    with pytest.raises(groundup.GroundupError, match="memory"):
        groundup.make_plan(huge).refuse()


def test_nothing_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(groundup.GroundupError, match="there is no run here"):
        groundup.open_run(tmp_path)
