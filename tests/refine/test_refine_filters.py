"""Filters: every rule at its bound, kinds and languages, the user's own functions, and language identification."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from groundup.document import DOCUMENT
from groundup.errors import GroundupError, RecipeError
from groundup.refine.filters import RULE_SETS, applicable, code_digest, judge

Judge = Callable[..., list[str]]
ROOT = Path()


def batch(*texts: str, kind: str = "web", code: str = "en", turns: object = None) -> pa.RecordBatch:
    rows = [{"text": text, "kind": kind, "language": code, "turns": turns} for text in texts]
    return pa.RecordBatch.from_pylist(rows, schema=DOCUMENT)


def reasons(
    *texts: str, kind: str = "web", filters: tuple[str, ...] = tuple(RULE_SETS), code: str = "en", turns: object = None
) -> list[str]:
    """Return the reason for which each text is dropped, "" where it is kept."""
    return list(judge(batch(*texts, kind=kind, code=code, turns=turns), kind, applicable(filters, kind), ROOT).reason)


def prose(count: int, seed: int = 1) -> str:
    """Return `count` different words in sentences of ten, with stop words."""
    chance = np.random.default_rng(seed)
    made = ["".join(chance.choice(list("abcdefghij"), 5)) for _ in range(count)]
    made[: min(count, 2)] = ["the", "and"][: min(count, 2)]
    return ". ".join(" ".join(made[i : i + 10]) for i in range(0, count, 10)) + "."


def test_bounds_gopher() -> None:
    """Documents on the right side of a published bound stay; those on the wrong side go with its reason."""
    good = prose(100)
    cases = {
        good: "",
        prose(50): "",
        prose(49): "few_words",
        " ".join(["the and a b"] + ["aa b" for _ in range(40)]): "word_length",
        good + " #" * 12: "hash_signs",
        good + " #" * 11: "",
        good + " x..." * 20: "ellipses",
        "\n".join(f"- {prose(5, n)}" for n in range(20)): "bullet_lines",
        "\n".join(f"{prose(20, n)} and so..." for n in range(20)): "ellipsis_lines",
        good + " 12345" * 30: "words_without_letters",
        good.replace("the", "foo"): "few_stop_words",
        "\n".join([prose(30), *["the same line and it is short"] * 3, "end of it"]): "repeated_lines",
        "\n".join([prose(50), *[prose(9, 5)] * 2, *(prose(10, n) for n in range(9, 12))]): "",
        good + " over and" * 30: "frequent_2gram",
    }
    assert dict(zip(cases, reasons(*cases), strict=True)) == cases


def test_bounds_c4() -> None:
    """C4's rules for pages; they say nothing about books."""
    good = prose(60)
    cases = {
        good: "",
        good + " Lorem Ipsum dolor": "lorem_ipsum",
        good + " {x}": "curly_brackets",
        prose(60).replace(".", ","): "few_sentences",
    }
    assert dict(zip(cases, reasons(*cases, filters=("c4",)), strict=True)) == cases
    assert reasons(*cases, kind="books", filters=("c4",)) == [""] * 4


def test_bounds_code() -> None:
    """Generated and minified files go, documentation in long lines stays."""
    cases = {"x = 1\n" * 5: "", "y" * 101: "long_lines", "x = 1\n" * 100 + "z" * 1001: "longest_line", "+-*/ " * 9: "few_alphanumeric"}
    assert dict(zip(cases, reasons(*cases, kind="code", code="python"), strict=True)) == cases
    assert reasons("a paragraph " * 100, kind="code", code="markdown") == [""]


def test_bounds_conversations() -> None:
    """Talk may be short; silence, symbols and one side of two may not be."""
    cases = {"User: Hi\nAssistant: Hello": "", "User: Hi": "few_words", "User: 1 2 3 4 5": "words_without_letters"}
    assert dict(zip(cases, reasons(*cases, kind="conversations"), strict=True)) == cases
    for turns, want in (
        ([("user", "hi there"), ("bot", "")], "one_sided"),
        ([("user", "hi"), ("bot", "yes")], ""),
        ([("user", "a speech")], ""),
    ):
        talk = [{"role": role, "content": content} for role, content in turns]
        assert reasons("User: some words to count", kind="conversations", turns=talk) == [want]


def test_unspaced_scripts() -> None:
    """Rules that count words do not drop Chinese text for having none between spaces."""
    text = "".join(chr(0x4E00 + n) for n in range(120)) + "。"
    assert reasons(text, code="zh", filters=("gopher",)) == [""]


def test_english_rules_ask_english() -> None:
    """Stop words are asked of English only."""
    assert reasons(prose(100).replace("the", "der"), code="de", filters=("gopher",)) == [""]


def test_scores() -> None:
    """A dropped document comes with its score and the bound in words."""
    verdict = judge(batch(prose(30)), "web", ["gopher"], ROOT)
    assert (verdict.score[0], verdict.detail[0]) == (30, "gopher: at least 50")


def test_unknown_name() -> None:
    """A misspelt filter is a line that names the right one."""
    with pytest.raises(RecipeError, match='"gofer" is unknown; did you mean "gopher"'):
        applicable(["gofer"], "web")


def test_own_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's function beside the recipe decides; its source is its identity; its faults are one line."""
    module = tmp_path / "own_filter_of_a_test.py"
    source = (
        "import pyarrow.compute as pc\n"
        "def short(batch):\n    size = pc.utf8_length(batch.column('text'))\n    return pc.less(size, 9), size\n"
    )
    module.write_text(source + "def bad(batch):\n    return [True], [0.0]\ndef worse(batch):\n    raise ValueError('no')\n")
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    name = "own_filter_of_a_test:short"
    verdict = judge(batch("few", "many more words"), "web", applicable([name], "web"), tmp_path)
    assert (verdict.keep.tolist(), verdict.reason[1], verdict.score[1]) == ([True, False], name, 15)
    assert len(code_digest(name, tmp_path)) == 64
    for broken, message in (("bad", "returned"), ("worse", "ValueError: no")):
        with pytest.raises(GroundupError, match=message):
            judge(batch("a", "b"), "web", [f"own_filter_of_a_test:{broken}"], tmp_path)
    for missing in ("own_filter_of_a_test:nothing", "no_such_module_of_a_test:f"):
        with pytest.raises(RecipeError, match="cannot be imported"):
            judge(batch("a"), "web", [missing], tmp_path)
