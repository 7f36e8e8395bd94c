"""Run directories of version 0.1: one finished, one whose training was stopped half-way."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from groundup.commands.status import run_status
from groundup.commands.verify import verify_run
from groundup.flow import run_flow
from groundup.recipe import load_recipe
from groundup.runtime.sealed import Ledger
from groundup.runtime.store import Store

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "runs-0.1.tar.xz"
MODEL = "train/checkpoints/step-000040/model.safetensors"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The recipe, its raw files and both run directories."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def keep_the_texts_of_pages(project: Path) -> None:
    """Put the headings of the pages into their first paragraph.

    Main text has a blank line below a heading since these runs were made; so the raw pages change
    here, and the texts do not.
    """
    for page in (project / "raw" / "web").glob("*.html"):
        text = re.sub(r"<h1>(Page \d+)</h1><p>", r"<p>\1<br>", page.read_text(encoding="utf-8"))
        page.write_text(text, encoding="utf-8")


def events(root: Path) -> dict[str, str]:
    """Return how each stage ended in the last run."""
    ends = ("fresh", "finished", "failed")
    lines = Ledger(root / "ledger.jsonl").events()
    return {str(line["stage"]): str(line["event"]) for line in lines if line["event"] in ends}


def test_a_finished_run_is_fresh(project: Path) -> None:
    """Readers, filters, scores and tuning have a later version by now and run again, and documents
    are packed otherwise; but to the same texts and tokens, so nothing is trained again.
    """
    keep_the_texts_of_pages(project)
    root = project / "runs" / "old"
    views = ("collect", "tokenize")
    before = {view: Store(root).view(view).content for view in views}  # type: ignore[union-attr]
    run_flow(load_recipe(project / "recipe.toml"), root, until="tune", workers=1)
    stages = events(root)
    assert stages["train"] == "fresh"
    assert before == {view: Store(root).view(view).content for view in views}  # type: ignore[union-attr]


def test_a_finished_run_is_read(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = project / "runs" / "old"
    assert all(stage["state"] == "done" for stage in run_status(root)["stages"].values())
    assert verify_run(root), capsys.readouterr().out


def test_a_stopped_training_goes_on_to_the_same_weights(project: Path) -> None:
    """The bytes are equal on the machine that made the archive; others round differently."""
    root = project / "runs" / "half"
    keep_the_texts_of_pages(project)
    assert not (root / MODEL).exists()
    run_flow(load_recipe(project / "recipe.toml"), root, until="train", workers=1)
    here, there = load_file(root / MODEL), load_file(project / "runs" / "old" / MODEL)
    assert here.keys() == there.keys()
    for name, weights in here.items():
        np.testing.assert_allclose(weights, there[name], rtol=1e-3, atol=1e-4, err_msg=name)
