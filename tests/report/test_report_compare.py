"""Test the page that compares several runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lxml import html
from tests.helpers.harmless import assert_harmless

from groundup.errors import GroundupError
from groundup.report.compare import compare_reports, differing_settings, flat_settings, labels


def write_run(root: Path, loss: float, **recipe: Any) -> Path:
    """Write the files that a comparison reads."""
    (root / "report").mkdir(parents=True)
    (root / "train").mkdir()
    figures = {
        "evaluate.model.bits_per_byte": {"value": loss, "unit": "bits/byte", "from": "x"},
        "evaluate.model.bits_per_byte.books": {"value": loss, "unit": "bits/byte", "from": "x"},
        "train.steps": {"value": 1_000, "unit": "steps", "from": "x"},
    }
    (root / "report" / "report.json").write_text(
        json.dumps({"name": root.name, "figures": figures, "recipe": recipe})
    )
    lines = [
        {"step": n, "loss": loss + 1 / n, "tokens": 10 * n, "validation_loss": loss}
        for n in range(1, 9)
    ]
    (root / "train" / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines)
    )
    return root


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    books = {"name": "books", "weight": 1.0}
    train = {"steps": 10, "clip": 1.0}
    return [
        write_run(tmp_path / "one", 2.0, train=train, source=[books]),
        write_run(
            tmp_path / "$x_$", 1.5, train=train | {"steps": 20}, source=[books | {"weight": 2.0}]
        ),
    ]


def test_only_differing_settings_are_listed(two: list[Path]) -> None:
    reports = [json.loads((root / "report" / "report.json").read_text()) for root in two]
    assert differing_settings(reports) == [
        ("train.steps", ["10", "20"]),
        ("source.books.weight", ["1.0", "2.0"]),
    ]
    assert flat_settings({"a": [1, 2], "b": {}, "c": None}) == {"a": "[1, 2]", "c": ""}


def test_figures_have_their_relative_change(two: list[Path]) -> None:
    document = html.fromstring(compare_reports(two))
    assert_harmless(document)
    rows = {
        row.xpath("./th/@title")[0]: [cell.text_content() for cell in row.xpath("./td")]
        for row in document.xpath("//tr[th/@title]")
    }
    assert rows["evaluate.model.bits_per_byte"] == ["2.000", "1.500 −25.0 %"]
    assert rows["train.steps"] == ["1,000", "1,000"]
    assert len(document.xpath('//*[name()="svg"]')) == 2
    assert "$x_$" in document.xpath('string(//*[name()="svg"][1])')


def test_equal_runs_give_equal_bytes_and_no_settings(two: list[Path]) -> None:
    assert compare_reports(two) == compare_reports(two)
    assert "the recipes are the same" in compare_reports([two[0], two[0]])


def test_runs_with_the_same_name_are_labeled_by_path(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "c"]
    assert labels(paths) == [str(paths[0]), str(paths[1]), "c"]


def test_a_run_without_a_report_is_an_error(tmp_path: Path, two: list[Path]) -> None:
    with pytest.raises(GroundupError, match="no report to compare"):
        compare_reports([two[0], tmp_path / "nowhere"])


def test_report_command_writes_the_comparison_to_out(run_copy: Path, tmp_path: Path) -> None:
    run = str(run_copy.parent / "runs" / "tiny")
    out = tmp_path / "both.html"
    command = [sys.executable, "-m", "groundup", "report", run, run, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(out)
    assert "2 runs compared" in out.read_text()
