"""`inspect --kept` and `--search`: what is shown was kept, and is shown without its cuts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tests.helpers.refined import refined_run

from groundup.cli import cli
from groundup.commands.inspect import describe_found, describe_kept
from groundup.errors import GroundupError

SHARDS = {
    "a.1": [(f"kept text {n}", 1 + n % 2) for n in range(30)] + [("a Needle, dropped", 0)],
    "b.1": [("x" * 1000 + " NEEDLE (here) " + "y" * 1000, 1), ("other", 1)],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return refined_run(tmp_path / "run", SHARDS).root


def test_random_kept_documents_by_source(root: Path) -> None:
    said = describe_kept(root, 5)
    assert said == describe_kept(root, 5)
    assert "a: 30 kept; 5 of them:" in said and "b: 2 kept; 2 of them:" in said
    assert said.count("| kept text") == 5 and "dropped" not in said
    assert "b: 2" not in describe_kept(root, 5, "a")
    with pytest.raises(GroundupError, match='no source "c" has documents; sources: a, b'):
        describe_kept(root, 5, "c")


def test_words_are_found_in_any_case_and_shown_where_they_are(root: Path) -> None:
    said = describe_found(root, "needle (HERE)")
    assert said.startswith('1 kept documents with "needle (HERE)"; 1 of them:')
    assert "NEEDLE (here)" in said and len(said) < 800
    assert describe_found(root, "KEPT", 3).count("| kept text") == 3
    assert describe_found(root, "needle", source="a") == '0 kept documents with "needle"'


def test_cut_lines_are_not_found(root: Path) -> None:
    (root / "refine" / "cuts").mkdir()
    np.save(root / "refine" / "cuts" / "b.1.npy", np.array([[0, 1001, 1007]]))
    assert describe_found(root, "needle").startswith("0 kept")


def test_options_go_together(root: Path) -> None:
    def run(*options: str) -> str:
        return CliRunner().invoke(cli, ["inspect", str(root), *options]).output

    assert "a: 30 kept; 5 of them:" in run("--kept")
    assert "a: 30 kept; 2 of them:" in run("--kept", "2", "--source", "a")
    assert '30 kept documents with "kept"; 2 of them:' in run("--search", "kept", "--kept", "2")
    assert "goes with --kept or --search" in run("--source", "a")
