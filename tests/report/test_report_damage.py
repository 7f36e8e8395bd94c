"""Test reports of damaged, missing and hostile files: each costs its section only."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import html
from tests.helpers.harmless import assert_harmless

from groundup.flow import run_flow, run_one
from groundup.recipe import load_recipe
from groundup.report.card import card, summary
from groundup.report.figures import Problems, metric_lines
from groundup.report.formatting import FORMS, formatted, visible
from groundup.report.gather import Report, gather_content, gather_facts, merge, plain
from groundup.report.page import LiveStatus, render_page

HOSTILE = (
    '"><script>alert(1)</script><img src=x'
    " onerror=alert(2)>\x1b[31m\x00\u202e\x9b2J{{7*7}}</style>$\\alpha$|`\n\ud800"
)


def report_of(root: Path) -> Report:
    return merge(gather_facts(root, "tiny"), gather_content(root, 1))


def sections(root: Path) -> tuple[set[str], list[str]]:
    """Return the sections of the page, and the problems that it shows."""
    report = report_of(root)
    document = html.fromstring(render_page(report, metric_lines(root)))
    assert card(report)
    assert summary(report)
    problems = [node.text_content() for node in document.xpath('//div[@class="told"]/p')]
    return set(document.xpath("//section/@id")), problems


def link_or_copy(source: str, target: str) -> None:
    """Link a read-only file, which no test changes in place."""
    if Path(source).stat().st_mode & 0o222:
        shutil.copy2(source, target)
    else:
        os.link(source, target)


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the run; a test damages a file by replacing it."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run", copy_function=link_or_copy))


ALL = {
    "data",
    "tokenizer",
    "architecture",
    "training",
    "evaluation",
    "tuning",
    "exports",
    "cost",
    "origins",
}
# File → damaged content, and the sections that may be missing then.
DAMAGE: dict[str, tuple[str, set[str]]] = {
    "evaluate/evaluation.json": ("{torn", {"evaluation"}),
    "evaluate/samples.json": ('[1, "x", {"prompt": "a"}]', set()),
    "train/train.json": ("[]", {"architecture"}),
    "train/best.json": ("{", set()),
    "train/ledger.jsonl": ('{"event": 1}\n[]\nnot json\n\xff', set()),
    "plan.json": ('{"figures": {"tokens": 3}}', set()),
    "export/parity.json": ("null", {"exports"}),
    "tune/tuning.json": (
        '{"before": 3, "examples": [1, {"a": [2], "b": {}}], "data": [[]]}',
        {"tuning"},
    ),
    "recipe.lock.toml": ("= = =", set()),
    "tokenize/tokenizer.json": ("{}", {"tokenizer"}),
    "tokenize/manifest.json": ("{}", {"tokenizer"}),
    "refine/manifest.json": ("torn", set()),
    "refine/quality.json": ('{"sources": {"books": {"lost": 1}}}', set()),
    "collect/manifest.json": ("torn", {"data"}),
    "ledger.jsonl": ('{"event": "finished", "stage": "train"}\n', {"cost"}),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_costs_its_section_only(run: Path, name: str) -> None:
    text, lost = DAMAGE[name]
    path = run / name
    path.unlink()
    path.write_text(text, encoding="latin-1")
    shown, problems = sections(run)
    assert ALL - lost <= shown
    for line in problems:
        assert "Traceback" not in line and str(run) not in line and "\n" not in line


@pytest.mark.parametrize("name", DAMAGE)
def test_an_unreadable_file_is_a_problem(run: Path, name: str) -> None:
    path = run / name
    path.unlink()
    path.write_bytes(b"\xff{torn")
    _, problems = sections(run)
    # Damaged lines of a ledger are skipped.
    assert bool(problems) == (name not in ("train/ledger.jsonl", "ledger.jsonl"))


@pytest.mark.parametrize("name", DAMAGE)
def test_a_missing_file_costs_its_section_only(run: Path, name: str) -> None:
    (run / name).unlink()
    shown, _ = sections(run)
    assert ALL - DAMAGE[name][1] <= shown


@pytest.mark.parametrize(
    "folder",
    ["collect/documents", "collect/dropped", "refine/documents", "refine/split", "tokenize/shards"],
)
def test_damaged_tables_cost_their_examples_only(run: Path, folder: str) -> None:
    for path in sorted((run / folder).iterdir()):
        path.unlink()
        path.write_bytes(b"PAR1 not any more")
    shown, problems = sections(run)
    assert shown >= ALL - {"tokenizer", "data"}
    assert problems


def test_damaged_lines_of_metrics_are_skipped(run: Path) -> None:
    path = run / "train" / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) > 3
    bad = [
        b"\xff\xfe\n",
        b"[1]\n",
        b'{"step": "x", "loss": 1}\n',
        b'{"step": 2, "loss": null}\n',
        b'{"step": 2, "loss": NaN, "tokens": 1}\n',
    ]
    path.write_bytes(b"".join([lines[0], *bad, *lines[1:], lines[-1][:20]]))
    shown, problems = sections(run)
    assert shown == ALL
    assert not problems
    assert report_of(run)["figures"]["train.steps"]["value"] == 6


def test_a_run_until_tokenize_has_no_sections_of_later_stages(run: Path) -> None:
    for name in ("train", "evaluate", "tune", "export"):
        shutil.rmtree(run / name, ignore_errors=True)
    shown, problems = sections(run)
    assert shown == ALL - {"architecture", "training", "evaluation", "tuning", "exports"}
    assert not problems
    run_one(run, "report")
    assert "Training</a>" not in (run / "report" / "index.html").read_text()


def test_an_empty_folder_has_an_empty_report(tmp_path: Path) -> None:
    shown, problems = sections(tmp_path)
    assert shown == {"origins"}
    assert not problems


def poisoned(value: Any) -> Any:
    """Replace every text of a report by hostile text, except those that the page looks up."""
    if isinstance(value, dict):
        return {
            key: poisoned(inner) if key not in ("from", "began", "ended") else inner
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [poisoned(inner) for inner in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_text_is_shown_and_not_executed(tiny_run: Path) -> None:
    report = report_of(tiny_run)
    figures = report["figures"]
    figures[f"evaluate.{HOSTILE}.accuracy"] = {"value": 0.5, "unit": HOSTILE, "from": HOSTILE}
    for name, origin in (
        (f"evaluate.{HOSTILE}.n", "evaluate/evaluation.json"),
        (f"collect.dropped.{HOSTILE}", "collect/manifest.json"),
        (f"documents.license.{HOSTILE}@books", "refine/documents"),
    ):
        figures[name] = {"value": 5, "unit": HOSTILE, "from": origin}
    tuning: dict[str, Any] = {
        "before": {"loss": 2.0},
        "after": {"loss": 1.0},
        "data": "x",
        "definitions": {"loss": "x"},
    }
    tuning["examples"] = [
        {
            "prompt": [{"role": "x", "content": "x"}],
            "answer": "x",
            "after": {"text": "x", "ended": False},
        }
    ]
    report["tuning"], report["recipe"][HOSTILE] = tuning, "x"
    report["training"]["events"] += [{"step": 3, "kind": "x", "words": "x"}]
    report["problems"] = ["x"]
    figures |= {
        f"tune.{k}.loss": {"value": 1.0, "unit": "", "from": "tune/tuning.json"}
        for k in ("before", "after")
    }
    hostile = {key: value if key == "figures" else poisoned(value) for key, value in report.items()}
    hostile["sources"] = report["sources"]
    for rows in ("kept", "left_out"):
        hostile["examples"][rows] += [
            row | {"source": "books"} for row in hostile["examples"]["kept"]
        ]
    of_books = hostile["distributions"]["sources"]["books"]
    of_books["dropped"][HOSTILE], of_books["languages"]["cleaned"][HOSTILE] = (
        {"documents": 5, "bytes": 5},
        5,
    )
    of_books["scores"][HOSTILE] = of_books["measures"]["bytes"] | {"bounds": [None, 1.0]}
    live = LiveStatus(HOSTILE, HOSTILE, heartbeat="now", refresh=30, step=2, of=3)
    markup = render_page(plain(hostile), metric_lines(tiny_run), live)
    document = html.fromstring(markup)
    assert_harmless(document)
    text = document.text_content()
    assert text.count("<script>alert(1)</script>") > 20
    assert not set(text) & set("\x00\x1b\x9b\u202e")
    assert "49" not in document.xpath("//h1")[0].text_content()
    assert "<script" not in card(plain(hostile)).replace("\\<script", "")


def test_hostile_documents_go_through_a_whole_run(tmp_path: Path) -> None:
    """HTML in a document or in its file name is shown as text."""
    folder = tmp_path / "raw" / "<b onclick=x>"
    folder.mkdir(parents=True)
    letters = "abcdefghijklmnop"
    for number, letter in enumerate(letters):
        words = " ".join(
            f"{letter}{other} the and with that {number} <script>alert('{letter}')</script>"
            for other in letters
        )
        (folder / f"{letter}\u202e'\"&.txt").write_text(
            f"\x1b[2J<img src=http://x.example/{letter} onerror=y>{words}\n"
        )
    (tmp_path / "recipe.toml").write_text(
        '[[source]]\npath = "raw"\nkind = "text"\nlicense = "<script>x</script>"\n[refine]\nfilters'
        " = []\n[tokenize]\nvocab_size = 400\n"
    )
    root = tmp_path / "run"
    run_flow(load_recipe(tmp_path / "recipe.toml"), root, until="tokenize", workers=1)
    run_one(root, "report")
    document = html.fromstring((root / "report" / "index.html").read_bytes())
    assert_harmless(document)
    assert "<script>" in document.text_content()
    assert "\u202e" not in document.text_content()
    assert json.loads((root / "report" / "report.json").read_text())["examples"]["kept"]


@given(st.text())
def test_visible_text_is_safe_and_keeps_all_letters(text: str) -> None:
    markup = str(visible(text))
    node = html.fragment_fromstring(f"<div>{markup}</div>")
    assert {child.tag for child in node.iter()} <= {"div", "span"}
    shown = node.text_content()
    assert all(c.isprintable() or c in "\n\t" or c.isspace() or ord(c) > 0xAC for c in shown)
    assert all(c in shown for c in text if c.isalnum())


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(sorted(FORMS)))
def test_every_number_can_be_formatted(value: float, form: str) -> None:
    if form not in ("seconds", "hours") or 0 <= value < 1e12:
        assert formatted(value, form)


@pytest.mark.parametrize(
    ("value", "form", "words"),
    [
        (1_377_920, "count", "1,377,920"),
        (1_377_920, "short", "1.38 M"),
        (999_999, "short", "1.00 M"),
        (12, "short", "12"),
        (0.015, "short", "0.015"),
        (26_503_168, "size", "26.5 MB"),
        (812, "size", "812 B"),
        (0.2345, "share", "23.4 %"),
        (-0.0312, "signed", "−3.1 %"),
        (267.858, "seconds", "4 min 28 s"),
        (59.6, "seconds", "60 s"),
        (7265, "seconds", "2 h 01 min"),
        (0.5, "hours", "30 min 00 s"),
        (None, "count", "–"),
        ("2026-11-22T15:33:40Z", "moment", "22 November 2026, 15:33 UTC"),
    ],
)
def test_formats_of_numbers(value: float | str | None, form: str, words: str) -> None:
    assert formatted(value, form) == words


def test_a_problem_is_one_line() -> None:
    def fail() -> None:
        raise ValueError("two\nlines")

    problems = Problems(Path())
    assert problems.guarded("part", fail, 7) == 7
    assert problems.lines == ["part: left out, because it could not be read (ValueError two lines)"]


def test_the_summary_shows_benchmarks_that_asked_questions(run: Path) -> None:
    path = run / "evaluate" / "evaluation.json"
    evaluation = json.loads(path.read_text())
    figures = {"chance": 0.25, "accuracy": 0.5, "n": 8, "raw": {"accuracy": 0.375, "n": 8}}
    evaluation["benchmarks"] = {"a.jsonl": figures, "b.jsonl": {"accuracy": None, "n": 0}}
    path.unlink()
    path.write_text(json.dumps(evaluation))
    text = summary(report_of(run))
    assert "a.jsonl: 50% of 8 right (chance 25%)\n" in text and "b.jsonl" not in text


def test_the_summary_says_which_scores_are_no_better_than_chance(run: Path) -> None:
    """And how many of a benchmark's items training text held."""
    report = report_of(run)
    values = {"accuracy": 0.3, "n": 8, "chance": 0.25, "low": 0.1, "high": 0.6}
    figures = {f"evaluate.mmlu:5.{key}": value for key, value in values.items()}
    figures |= {"refine.contaminated_items.mmlu": 2, "evaluate.core.missing_tasks": 3}
    for name, value in figures.items():
        report["figures"][name] = {"value": value, "unit": "", "from": "x"}
    text = summary(report)
    expected = "mmlu:5: 30% of 8 right (chance 25%, not told apart from it); at least 2 were in"
    assert expected in text and "core: no average, since 3 of its 22 tasks lack data" in text


def test_nothing_held_out_is_said_and_no_figure_is_nan(run: Path) -> None:
    """One document cannot be split: its losses are null, and 0 of 0 passages are right."""
    path = run / "evaluate" / "evaluation.json"
    evaluation = json.loads(path.read_text())
    for losses in evaluation["validation"].values():
        if isinstance(losses, dict):
            losses["sources"] = {}
            losses["total"] = dict.fromkeys(losses["total"]) | {"tokens": 0}
    evaluation["passages"] |= {"accuracy": None, "n": 0}
    evaluation["benchmarks"] = {}
    path.unlink()
    path.write_text(json.dumps(evaluation))
    report = report_of(run)
    text = summary(report)
    assert "not measured: nothing is held out" in text and "nan" not in text
    assert "nan" not in card(report)
    names = [name for name in report["figures"] if name.startswith("evaluate.")]
    assert not [name for name in names if "loss" in name or "bits" in name or ".low" in name]
    document = html.fromstring(render_page(report, metric_lines(run)))
    reason = "Not measured: nothing is held out; the split is by document"
    for place in ('//dl[@class="brief"]', '//section[@id="evaluation"]'):
        assert reason in " ".join(document.xpath(f"string({place})").split())
    words = document.text_content().split()
    assert "nan" not in words and "None" not in words
