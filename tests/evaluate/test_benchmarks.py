"""Benchmarks: layouts, damaged lines, and figures against a plain reference."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from tests.helpers.bpe import train_bpe
from tests.helpers.trained import tiny_model

from groundup.artifacts.questions import Question, accuracy
from groundup.artifacts.tokenizer import Tokenizer
from groundup.errors import GroundupError
from groundup.evaluate.benchmarks import (
    benchmark_figures,
    benchmark_files,
    continuations,
    parse_question,
    read_questions,
)
from groundup.evaluate.loglikelihood import Continuation, score
from groundup.recipe import recipe_from

LAYOUTS = [
    ({"text": "the cat sat on the mat"}, Question("the cat sat on the", ("mat",), 0, "last word")),
    (
        {"context": "the cat", "continuation": "sat"},
        Question("the cat", ("sat",), 0, "last word"),
    ),
    ({"query": "q", "choices": ["a", "b"], "gold": 1}, Question("q", ("a", "b"), 1, "choices")),
    (
        {"context_options": ["Ann", "Bo"], "continuation": " won.", "gold": 1},
        Question("", ("Ann won.", "Bo won."), 1, "schema"),
    ),
    ({"ctx": "q", "endings": ["a", "b"], "label": "0"}, Question("q", ("a", "b"), 0, "choices")),
]
BROKEN = [
    "[1]",
    "{",
    '{"text": "word"}',
    '{"text": 3}',
    '{"query": "q", "choices": ["a"], "gold": 0}',
    '{"query": "q", "choices": ["a", "b"], "gold": 2}',
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_bpe(["the cat sat on the mat and another cat sat there " * 10], 300))


@pytest.mark.parametrize(("row", "question"), LAYOUTS)
def test_layouts(row: dict[str, object], question: Question) -> None:
    """The layouts in which these sets are found."""
    assert parse_question(json.dumps(row)) == question


def test_damaged_lines_cost_themselves_only(tmp_path: Path) -> None:
    """They are counted by reason, and their neighbors are asked."""
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join([json.dumps(LAYOUTS[0][0]), *BROKEN, "", json.dumps(LAYOUTS[2][0])]))
    questions, left_out = read_questions(path)
    assert questions == [LAYOUTS[0][1]]
    assert left_out.total() == len(BROKEN) + 1


@pytest.mark.parametrize("data", [b"", b"{}\n", b"\xff\xfe\n", b"plain text\n"])
def test_a_file_that_is_no_benchmark_is_named(tmp_path: Path, data: bytes) -> None:
    """One line that says which file, and why."""
    (tmp_path / "x.jsonl").write_bytes(data)
    with pytest.raises(GroundupError, match=r"x\.jsonl: "):
        read_questions(tmp_path / "x.jsonl")


def test_names_become_files(tmp_path: Path) -> None:
    """A path from the recipe's folder, or a source of kind evaluation; anything else is named."""
    (tmp_path / "sets").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "sets" / name).write_text("{}")
    sources = [{"path": "raw"}, {"path": "sets/*.jsonl", "name": "mine", "kind": "evaluation"}]
    table = {"source": sources, "evaluate": {"benchmarks": ["mine", "sets/a.jsonl"]}}
    assert list(benchmark_files(recipe_from(table, "r", tmp_path))) == [
        "mine/a.jsonl",
        "mine/b.jsonl",
        "a.jsonl",
    ]
    table["evaluate"] = {"benchmarks": ["words"]}
    with pytest.raises(GroundupError, match=r'"words": there is no file .*mine'):
        benchmark_files(recipe_from(table, "r", tmp_path))


def test_scores_equal_one_row_at_a_time() -> None:
    """Batches and padding change nothing; long contexts lose their beginning."""
    model = tiny_model(40)
    generator = torch.Generator().manual_seed(1)
    sizes = [(1, 1), (5, 3), (31, 1), (32, 1), (40, 4), (3, 40), (2, 2), (30, 2)]
    items = [
        Continuation(*(torch.randint(40, (n,), generator=generator).tolist() for n in pair))
        for pair in sizes
    ]
    for item, scored in zip(items, score(model, items), strict=True):
        target = list(item.target)[:32]
        ids = (list(item.context) + target)[-33:] if len(target) < 33 else target
        with torch.no_grad():
            logs = torch.log_softmax(model(torch.tensor([ids[:-1]])).double(), -1)[
                0, -len(target) :
            ]
        expected = logs.gather(1, torch.tensor(target)[:, None]).sum()
        assert scored.log_probability == pytest.approx(float(expected), abs=1e-3)
        assert scored.greedy == (logs.argmax(1).tolist() == target)


def test_shared_contexts_change_no_score() -> None:
    """What rows begin with is read once, as long as the context holds them together."""
    model = tiny_model(40)
    contexts = [[5, 6, 7, 8, 9, 10], [5, 6, 7, 8, 9, 11, 12], [5, 6], [1, 2, 3] * 8]
    targets = [[1], [2], [1, 2], [1, 2, 3, 4], [3, 3, 3, 3, 3, 3, 3, 3, 3]]
    items = [Continuation(context, target) for context in contexts for target in targets]
    together = score(model, [*items, items[3]])
    for item, scored in zip([*items, items[3]], together, strict=True):
        (alone,) = score(model, [item])
        assert scored.log_probability == pytest.approx(alone.log_probability, abs=1e-4)
        assert scored.greedy == alone.greedy


def test_the_space_belongs_to_the_continuation(tokenizer: Tokenizer) -> None:
    """Context and choice have together the ids of the whole text, after the end-of-text id."""
    (item,) = continuations(Question("the cat ", ("sat",)), tokenizer)
    assert [*item.context, *item.target] == [tokenizer.end_id, *tokenizer.encode("the cat sat")]


def test_figures(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Counts, chance and intervals of both layouts; a limit takes so many questions."""
    model = tiny_model(tokenizer.vocab_size)
    path = tmp_path / "x.jsonl"
    path.write_text(
        "\n".join(json.dumps({"text": f"the cat {n} sat on the mat"}) for n in range(9))
    )
    found = benchmark_figures(model, tokenizer, path, 0, 1)
    assert (found["layout"], found["n"], found["available"]) == ("last word", 9, 9)
    assert benchmark_figures(model, tokenizer, path, 4, 1)["n"] == 4
    path.write_text(
        "\n".join(
            json.dumps({"query": f"the {n}", "choices": ["cat", "mat sat"], "gold": 0})
            for n in range(9)
        )
    )
    found = benchmark_figures(model, tokenizer, path, 0, 1)
    assert (found["layout"], found["n"], found["chance"], found["raw"]["n"]) == (
        "choices",
        9,
        0.5,
        9,
    )


def test_wilson_interval() -> None:
    """Known values (Newcombe 1998, table I), and no bound outside 0 and 1."""
    assert accuracy(81, 263)["interval"] == pytest.approx([0.2553, 0.3662], abs=1e-4)
    assert accuracy(0, 20)["interval"] == pytest.approx([0.0, 0.1611], abs=1e-4)
    assert accuracy(0, 0)["interval"] == [0.0, 1.0]
    assert accuracy(3, 4)["accuracy"] == 0.75


@pytest.mark.skipif(
    "GROUNDUP_TEST_DATA" not in os.environ, reason="needs GROUNDUP_TEST_DATA (real evaluation sets)"
)
def test_real_sets_are_read_whole() -> None:
    """LAMBADA, HellaSwag and ARC as they are published."""
    folder = Path(os.environ["GROUNDUP_TEST_DATA"]) / "evals"
    for name, count in (
        ("lambada/lambada_test.jsonl", 5153),
        ("arc_easy/arc_easy.jsonl", 2376),
        ("hellaswag/hellaswag_small.llm-foundry.jsonl", 4),
    ):
        questions, left_out = read_questions(folder / name)
        assert (len(questions), left_out.total()) == (count, 0)
