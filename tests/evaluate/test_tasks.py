"""Benchmarks of the field: prompts, layouts, few-shot, files that nearly fit, and figures."""

from __future__ import annotations

import bz2
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.helpers.bpe import train_bpe
from tests.helpers.trained import tiny_model

from groundup.artifacts.tokenizer import Tokenizer
from groundup.collect.readers.text import item_text
from groundup.errors import GroundupError, RecipeError
from groundup.evaluate.benchmarks import benchmark_files
from groundup.evaluate.loglikelihood import Continuation
from groundup.evaluate.task_files import TaskItems, read_task
from groundup.evaluate.task_scores import encode_pair, prefixes, rolling, task_figures
from groundup.evaluate.tasks import TASKS
from groundup.recipe import all_sources, parse_benchmark, recipe_from
from groundup.recipe.benchmarks import PUBLIC

LETTERED = {"text": ["ice", "fire"], "label": ["A", "B"]}
STEMS = {"stem": "Hot?", "choices": [{"text": "ice", "label": "A"}, {"text": "fire", "label": "B"}]}
ARC = [("Question: Hot?\nAnswer:", " ice"), ("Question: Hot?\nAnswer:", " fire")]
COPA = [("He ran because", "  it rained."), ("He ran because", "  he sat.")]
COPA_ROW = {
    "premise": "He ran.",
    "choice1": "It rained.",
    "choice2": "He sat.",
    "question": "cause",
}
BOOLQ = [("P.\nQuestion: is it?\nAnswer:", " no"), ("P.\nQuestion: is it?\nAnswer:", " yes")]
LISTED = "Where?\nA. bank\nB. mall\nAnswer:"
SIQA = [("Q: He ran. Why?\nA:", " fun"), ("Q: He ran. Why?\nA:", " fear")]
GRANDE = [("Ann beat Bo so Ann", " won."), ("Ann beat Bo so Bo", " won.")]
SCHEMA = {"context_options": ["Ann beat Bo so Ann", "Ann beat Bo so Bo"], "continuation": "won."}
# A row in each known layout, the pairs that are scored, and the right one.
ROWS: list[tuple[str, dict[str, Any], list[tuple[str, str]], int]] = [
    ("arc_easy", {"question": "Hot?", "choices": LETTERED, "answerKey": "B"}, ARC, 1),
    ("arc_challenge", {"question": STEMS, "answerKey": "B"}, ARC, 1),
    ("arc_easy", {"query": "Question: Hot?", "choices": ["ice", "fire"], "gold": 1}, ARC, 1),
    ("blimp", {"sentence_good": "A b.", "sentence_bad": "B a."}, [("", " A b."), ("", " B a.")], 0),
    ("boolq", {"passage": "P.", "question": "is it", "label": 1}, BOOLQ, 1),
    ("boolq", {"passage": "P.", "question": "is it", "answer": True}, BOOLQ, 1),
    (
        "boolq",
        {"query": "Passage: P.\nQuestion: is it?", "choices": ["no", "yes"], "gold": 0},
        BOOLQ,
        0,
    ),
    (
        "commonsense_qa",
        {
            "question": "Where?",
            "choices": {"text": ["bank", "mall"], "label": ["A", "B"]},
            "answerKey": "A",
        },
        [(f"Question: {LISTED}", " A"), (f"Question: {LISTED}", " B")],
        0,
    ),
    (
        "commonsense_qa",
        {
            "query": "Question: Where?\nChoices:\nA. bank\nB. mall\nAnswer:",
            "choices": ["A", "B"],
            "gold": 0,
        },
        [(f"Question: {LISTED}", " A"), (f"Question: {LISTED}", " B")],
        0,
    ),
    ("copa", {**COPA_ROW, "label": 0}, COPA, 0),
    (
        "hellaswag",
        {
            "activity_label": "Run",
            "ctx_a": "A man. [header] x",
            "ctx_b": "he [title] Go",
            "endings": ["runs [step] on", " stops"],
            "label": "1",
        },
        [("Run: A man. x He. go", " runs on"), ("Run: A man. x He. go", " stops")],
        1,
    ),
    (
        "hellaswag",
        {"query": "Run: A man", "choices": ["runs", "stops"], "gold": 0},
        [("Run: A man", " runs"), ("Run: A man", " stops")],
        0,
    ),
    ("lambada", {"text": "a b c"}, [("a b", " c")], 0),
    ("lambada", {"context": "a b", "continuation": "c"}, [("a b", " c")], 0),
    (
        "mmlu",
        {"question": " Where? ", "choices": ["bank", "mall"], "answer": "B", "subject": "law"},
        [(LISTED, " A"), (LISTED, " B")],
        1,
    ),
    (
        "openbookqa",
        {"question_stem": "Hot:", "choices": LETTERED, "answerKey": "A"},
        [("Hot:", " ice"), ("Hot:", " fire")],
        0,
    ),
    ("piqa", {"goal": "Hot?", "sol1": "ice", "sol2": "fire", "label": 1}, ARC, 1),
    (
        "sciq",
        {
            "support": " S.",
            "question": "Hot?",
            "distractor1": "a",
            "distractor2": "b",
            "distractor3": "c",
            "correct_answer": "d",
        },
        [("S.\nQuestion: Hot?\nAnswer:", f" {letter}") for letter in "abcd"],
        3,
    ),
    (
        "siqa",
        {
            "context": "He ran.",
            "question": "Why?",
            "answerA": "fun",
            "answerB": "fear",
            "answerC": "joy",
            "label": "2",
        },
        [*SIQA, ("Q: He ran. Why?\nA:", " joy")],
        1,
    ),
    (
        "siqa",
        {
            "query": "Context: He ran.\nQuestion: Why?\nChoices:\nA. fun\nB. fear\nAnswer:",
            "choices": ["A", "B"],
            "gold": 1,
        },
        SIQA,
        1,
    ),
    (
        "triviaqa",
        {"question": "Who?", "answer": {"aliases": ["Ann"]}},
        [("Question: Who??\nAnswer:", "")],
        0,
    ),
    (
        "triviaqa",
        {"context": "Question: Who?\nAnswer:", "aliases": ["Ann"], "answer": "Ann"},
        [("Question: Who??\nAnswer:", "")],
        0,
    ),
    ("gsm8k", {"question": "1+1?", "answer": "#### 2"}, [("Question: 1+1?\nAnswer:", "")], 0),
    (
        "wikitext",
        {"page": " = A = \n It 's 1 @.@ 5 , so . \n"},
        [("", " = A =\nIt's 1.5, so.\n")],
        0,
    ),
    (
        "winogrande",
        {"sentence": "Ann beat Bo so _ won.", "option1": "Ann", "option2": "Bo", "answer": "1"},
        GRANDE,
        0,
    ),
    ("winogrande", {**SCHEMA, "gold": 0}, GRANDE, 0),
    ("winograd", {**SCHEMA, "gold": 0}, [(context, f" {target}") for context, target in GRANDE], 0),
]


@pytest.mark.parametrize(("task", "row", "pairs", "gold"), ROWS)
def test_prompts(task: str, row: dict[str, Any], pairs: list[tuple[str, str]], gold: int) -> None:
    """What is read and what is scored, character by character, and the right choice."""
    item = TASKS[task].item(row)
    assert (list(item.pairs), item.gold) == (pairs, gold)


def test_every_name_of_a_recipe_is_asked() -> None:
    """A task of each name, but for CORE, which is many, and HumanEval, whose answers are run."""
    assert set(PUBLIC) - {"core", "humaneval"} == set(TASKS)
    assert {name for name, _, _, _ in ROWS} == set(TASKS)


@pytest.mark.parametrize(
    ("task", "row", "reason"),
    [
        ("arc_easy", {"question": "Hot?", "choices": LETTERED}, "no answerKey"),
        ("arc_easy", {"question": "Hot?", "choices": LETTERED, "answerKey": ""}, "no answer"),
        ("arc_easy", {"question": "?", "choices": LETTERED, "answerKey": "E"}, "names no choice"),
        (
            "arc_easy",
            {"question": 3, "choices": LETTERED, "answerKey": "A"},
            "question is not text",
        ),
        ("hellaswag", {"query": "a", "choices": ["b", "c"], "gold": -1}, "no answer"),
        ("hellaswag", {"query": "a", "choices": ["b", ""], "gold": 0}, "choices are not texts"),
        (
            "winogrande",
            {"sentence": "a", "option1": "b", "option2": "c", "answer": "1"},
            "no blank",
        ),
        (
            "winogrande",
            {"sentence": "_", "option1": "b", "option2": "c", "answer": ""},
            "no answer",
        ),
        ("copa", {**COPA_ROW, "question": "why", "label": 0}, "neither cause nor effect"),
        ("gsm8k", {"question": "1+1?", "answer": "2"}, "no answer"),
        ("lambada", {"text": "word"}, "no last word"),
        ("blimp", {"x": 1}, "no sentence_good/sentence_bad"),
    ],
)
def test_a_damaged_row_says_why(task: str, row: dict[str, Any], reason: str) -> None:
    """One reason each, never an item with a wrong answer."""
    with pytest.raises(ValueError, match=reason):
        TASKS[task].item(row)


def write(folder: Path, files: dict[str, str]) -> dict[str, Path]:
    """Write text files; return them by origin."""
    for name, words in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(words)
    return {name: folder / name for name in files}


def arc_line(n: int, **changes: Any) -> str:
    """Return a row of ARC as a JSON line."""
    return (
        json.dumps({"question": f"Q{n}?", "choices": LETTERED, "answerKey": "A", **changes}) + "\n"
    )


def test_a_folder_is_read_with_what_does_not_belong_there(tmp_path: Path) -> None:
    """Other files are named, the same items count once, and damaged rows by reason."""
    foundry = {"query": "Question: Q1?", "choices": ["ice", "fire"], "gold": 0}
    files = write(
        tmp_path,
        {
            "a.jsonl": arc_line(1) + arc_line(2) + arc_line(2) + arc_line(3, answerKey="") + "{\n",
            "b.jsonl": json.dumps(foundry),
            "nll/model.csv": "nll_0,nll_1\n-1.0,-2.0\n",
            "readme.md": "words",
            "broken.parquet": "PAR1",
        },
    )
    read = read_task("arc_easy", files, 0)
    assert ([item.pairs[0][0][10:13] for item in read.items], read.repeated) == (
        ["Q1?", "Q2?", "Q2?"],
        1,
    )
    assert dict(read.left_out) == {"no answer": 1, "not an object": 1}
    assert set(read.skipped) == set(files) - {"a.jsonl"}
    assert read.skipped["b.jsonl"] == "the same items as a.jsonl"
    assert read.skipped["readme.md"] == "another sort of file"


def test_formats_give_the_same_items(tmp_path: Path) -> None:
    """JSON lines, an array, Parquet, and compressed files."""
    row = json.loads(arc_line(1))
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(json.dumps([row]))
    (tmp_path / "a.jsonl.bz2").write_bytes(bz2.compress(arc_line(1).encode()))
    found = [read_task("arc_easy", {p.name: p}, 0).items for p in sorted(tmp_path.iterdir())]
    assert len(found) == 3
    assert found[0] == found[1] == found[2] == [TASKS["arc_easy"].item(row)]


def test_labels_beside_the_questions(tmp_path: Path) -> None:
    """PIQA's layout; a file of labels of another length is never paired."""
    lines = "".join(
        json.dumps({"goal": f"g{n}", "sol1": "a", "sol2": "b"}) + "\n" for n in range(2)
    )
    files = write(tmp_path, {"valid.jsonl": lines, "valid-labels.lst": "1\n0\n"})
    assert [item.gold for item in read_task("piqa", files, 0).items] == [1, 0]
    write(tmp_path, {"valid-labels.lst": "1\n"})
    with pytest.raises(GroundupError, match=r"valid\.jsonl: 1 labels for 2 rows"):
        read_task("piqa", files, 0)


def test_mmlu_as_published(tmp_path: Path) -> None:
    """Files without a header, subjects from their names, and the first examples of each."""
    dev = "".join(f"D{n}?,a,b,c,d,B\n" for n in range(2))
    files = write(tmp_path, {"dev/law_dev.csv": dev, "test/law_test.csv": "T?,a,b,c,d,C\n"})
    read = read_task("mmlu", files, 2)
    (before,) = prefixes(TASKS["mmlu"], read.items, read.examples, 2)
    about = "The following are multiple choice questions (with answers) about law.\n\n"
    shown = "".join(f"D{n}?\nA. a\nB. b\nC. c\nD. d\nAnswer: B\n\n" for n in range(2))
    assert (before, read.items[0].gold, read.items[0].group) == (about + shown, 2, "law")
    with pytest.raises(GroundupError, match=r"3 examples of law .* 2 are there; .* mmlu:0=PATH"):
        read_task("mmlu", files, 3)


def test_the_part_that_is_asked(tmp_path: Path) -> None:
    """Test rows are asked, training rows are examples, and validation rows neither."""
    names = {"train.jsonl": 1, "validation.jsonl": 2, "test.jsonl": 3}
    files = write(tmp_path, {name: arc_line(n) for name, n in names.items()})
    read = read_task("arc_easy", files, 1)
    assert [item.pairs[0][0] for item in read.items] == ["Question: Q3?\nAnswer:"]
    assert prefixes(TASKS["arc_easy"], read.items, read.examples, 1) == [
        "Question: Q1?\nAnswer: ice\n\n"
    ]
    assert list(read.skipped) == ["validation.jsonl"]


@pytest.mark.parametrize("words", ["", "{}\n", arc_line(1, answerKey="")])
def test_no_item_is_an_error(tmp_path: Path, words: str) -> None:
    """An empty file, another layout, a set without answers: one line, and no figure."""
    with pytest.raises(GroundupError, match=r"benchmark arc_easy: no file holds an item.*x\.jsonl"):
        read_task("arc_easy", write(tmp_path, {"x.jsonl": words}), 0)


@pytest.mark.parametrize(
    ("entry", "path", "task", "shots"),
    [
        ("arc_easy=exams", "exams", "arc_easy", None),
        ("mmlu:5=a=b", "a=b", "mmlu", 5),
        ("lambada_openai=x", "x", "lambada", None),
        ("exams/arc_easy.jsonl", "exams/arc_easy.jsonl", "", None),
        ("words", "words", "", None),
    ],
)
def test_entries_of_a_recipe(entry: str, path: str, task: str, shots: int | None) -> None:
    """Names, numbers of examples and paths."""
    found = parse_benchmark(entry)
    assert (found.path, found.task, found.shots) == (path, task, shots)


def test_public_places_are_pinned() -> None:
    """A bare name is a commit of the Hub, and with examples the whole folder."""
    commit = "hf://datasets/Rowan/hellaswag@218ec52e09a7e7462a5400043bb9a69a41d06b76/data"
    assert parse_benchmark("hellaswag").path == f"{commit}/validation-*"
    assert parse_benchmark("hellaswag:10").path == commit
    assert all(
        len(folder.partition("@")[2].split("/")[0]) == 40 for folder, _ in PUBLIC.values() if folder
    )


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("humaneval", "runs no generated code"),
        ("humaneval=x", "runs no generated code"),
        ("arc_eassy=x", "arc_eassy is none of arc_challenge"),
        ("core", "write core=PATH"),
    ],
)
def test_a_recipe_says_what_is_not_asked(entry: str, reason: str, tmp_path: Path) -> None:
    """Before any work."""
    table = {"source": [{"path": "raw"}], "evaluate": {"benchmarks": [entry]}}
    with pytest.raises(RecipeError, match=reason):
        recipe_from(table, "r", tmp_path)


def test_benchmarks_are_collected_under_their_names(tmp_path: Path) -> None:
    """So training text that holds an item is found; their files are those that are asked."""
    write(tmp_path, {"exams/x.jsonl": arc_line(1), "exams/y.txt": "z"})
    table = {"source": [{"path": "raw"}], "evaluate": {"benchmarks": ["arc_easy:0=exams"]}}
    recipe = recipe_from(table, "r", tmp_path)
    source = all_sources(recipe)[-1]
    assert (source.path, source.kind, source.name) == ("exams", "evaluation", "arc_easy")
    (asked,) = benchmark_files(recipe).items()
    assert (asked[0], sorted(asked[1].files)) == ("arc_easy:0", ["x.jsonl", "y.txt"])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_bpe(["the cat sat on the mat and another cat sat there " * 10], 300))


def test_ids_of_a_pair(tokenizer: Tokenizer) -> None:
    """Spaces go to what follows, and the end-of-text id stands for an empty context."""
    ids = tokenizer.encode("the cat sat")
    size = len(tokenizer.encode("the cat"))
    assert encode_pair(tokenizer, "the cat ", "sat") == Continuation(ids[:size], ids[size:])
    assert encode_pair(tokenizer, "", " sat").context == [tokenizer.end_id]
    with pytest.raises(ValueError, match="no token"):
        encode_pair(tokenizer, "the", "")


def test_windows_score_each_token_once(tokenizer: Tokenizer) -> None:
    """The first window follows the end-of-text id, the last one is full."""
    windows = rolling(tokenizer, "the cat sat on the mat " * 3, 8)
    ids = tokenizer.encode("the cat sat on the mat " * 3)
    assert [token for window in windows for token in window.target] == ids
    assert windows[0].context == [tokenizer.end_id]
    assert {len(window.context) + len(window.target) for window in windows} == {9}


def test_figures_say_what_was_asked(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """acc and acc_norm with intervals, chance, and whether they differ."""
    files = write(tmp_path, {"x.jsonl": "".join(arc_line(n) for n in range(12))})
    model = tiny_model(tokenizer.vocab_size)
    found = task_figures(model, tokenizer, "arc_easy", files, None, 0, 1)
    assert found["n"] == found["acc"]["n"] == 12
    assert found["accuracy"] == found["acc_norm"]["accuracy"]
    assert (found["chance"], found["files"], found["shots"]) == (0.5, ["x.jsonl"], 0)
    low, high = found["interval"]
    assert found["within_chance"] == (low <= 0.5 <= high)
    assert task_figures(model, tokenizer, "arc_easy", files, None, 4, 1)["n"] == 4


def test_perplexities(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Of documents by word and byte; the intervals hold the figures."""
    page = " = A = \n the cat sat \n = B = \n the mat sat on the cat \n = C = \n and there \n"
    files = write(tmp_path, {"x.txt": page})
    model = tiny_model(tokenizer.vocab_size)
    found = task_figures(model, tokenizer, "wikitext", files, None, 0, 1)
    assert found["n"] == 3
    for name in ("word_perplexity", "byte_perplexity"):
        low, high = found[f"{name}_interval"]
        assert low <= found[name] <= high


needs_data = pytest.mark.skipif(
    "GROUNDUP_TEST_DATA" not in os.environ, reason="needs GROUNDUP_TEST_DATA (real evaluation sets)"
)


def public(name: str, path: str, shots: int = 0) -> TaskItems:
    """Read a folder of the public files."""
    folder = Path(os.environ["GROUNDUP_TEST_DATA"]) / path
    files = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
    return read_task(name, dict(sorted(files.items())), shots)


@needs_data
@pytest.mark.parametrize(
    ("name", "path", "count", "skipped"),
    [
        ("arc_challenge", "evals/more/arc_challenge", 40, 0),
        ("arc_easy", "evals/arc_easy", 2376, 0),
        ("blimp", "evals/blimp", 36000, 0),
        ("boolq", "evals/more/boolq", 40, 0),
        ("commonsense_qa", "evals/more/commonsense_qa", 40, 0),
        ("copa", "evals/copa", 500, 1),
        ("gsm8k", "evals/gsm8k", 1319, 0),
        ("hellaswag", "evals/hellaswag", 10042, 3),
        ("lambada", "evals/lambada", 5153, 1),
        ("openbookqa", "evals/more/openbook_qa", 40, 0),
        ("piqa", "evals/more/piqa", 40, 1),
        ("siqa", "evals/more/siqa", 40, 0),
        ("triviaqa", "evals/more/triviaqa", 40, 0),
        ("winograd", "evals/more/winograd", 40, 0),
        ("winogrande", "evals/more/winogrande", 40, 0),
    ],
)
def test_public_sets_are_read_whole(name: str, path: str, count: int, skipped: int) -> None:
    """Every row of the files as they are found, and the files that are not asked."""
    read = public(name, path)
    assert (len(read.items), len(read.skipped), read.left_out.total()) == (count, skipped, 0)


@needs_data
def test_mmlu_of_three_subjects() -> None:
    """Test files are asked, dev files give the examples."""
    read = public("mmlu", "evals/more/mmlu", shots=5)
    assert len(read.items) == 120
    assert {group: len(items) for group, items in read.examples.items()} == {
        "anatomy": 5,
        "astronomy": 5,
        "philosophy": 5,
    }


@pytest.mark.parametrize(
    "row",
    [
        {**SCHEMA, "gold": 0},
        {"sentence": "Ann beat Bo so _ won.", "option1": "Ann", "option2": "Bo", "answer": "1"},
    ],
)
def test_training_text_is_compared_with_whole_sentences(row: dict[str, Any]) -> None:
    """Not with the end of a schema, or with its blank."""
    assert item_text(row) == "Ann beat Bo so Ann won.\nAnn beat Bo so Bo won."
