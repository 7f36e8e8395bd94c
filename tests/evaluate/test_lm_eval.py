"""Every item's log-probabilities and its marks equal lm-evaluation-harness's on the same export.

The harness's own tasks are asked, with rows in the layout of the Hugging Face Hub that are made
here, apart from the reader under test, of the public files that the reader reads. Needs lm_eval
(`pip install lm-eval`) and GROUNDUP_TEST_DATA.
"""

from __future__ import annotations

import bz2
import csv
import dataclasses
import gzip
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from lxml import etree
from tests.helpers.bpe import train_bpe
from tests.helpers.trained import tiny_model

from groundup.artifacts.tokenizer import Tokenizer, write_config
from groundup.evaluate.task_files import read_task
from groundup.evaluate.task_scores import ItemScore, prefixes, score_items
from groundup.evaluate.tasks import TASKS
from groundup.model.hf_io import save_model
from groundup.model.transformer import Transformer

pytestmark = [
    pytest.mark.skipif(
        find_spec("lm_eval") is None, reason="needs lm_eval: pip install lm-eval (0.4.13)"
    ),
    pytest.mark.skipif(
        "GROUNDUP_TEST_DATA" not in os.environ, reason="needs GROUNDUP_TEST_DATA (evaluation sets)"
    ),
]
DATA = Path(os.environ.get("GROUNDUP_TEST_DATA", ".")) / "evals"
# Items of each benchmark; GROUNDUP_LM_EVAL_ITEMS=0 compares them all.
ITEMS = int(os.environ.get("GROUNDUP_LM_EVAL_ITEMS", "4"))
Rows = dict[str, list[dict[str, Any]]]


def lines(path: str) -> list[dict[str, Any]]:
    """Return the rows of JSON lines."""
    file = DATA / path
    data = gzip.decompress(file.read_bytes()) if path.endswith(".gz") else file.read_bytes()
    return [json.loads(line) for line in data.splitlines() if line.strip()]


def labeled(texts: Sequence[str]) -> dict[str, list[str]]:
    """Return choices with the letters that the Hub gives them."""
    return {"text": list(texts), "label": list("ABCDE"[: len(texts)])}


def common(first: str, second: str) -> int:
    """Return the number of characters that two texts begin with."""
    same = [a == b for a, b in zip(first, second, strict=False)]
    return [*same, False].index(False)


def arc(path: str) -> Rows:
    """Rows of ARC."""
    return {
        "test": [
            {
                "question": row["query"].removeprefix("Question: "),
                "choices": labeled(row["choices"]),
                "answerKey": "ABCDE"[row["gold"]],
            }
            for row in lines(path)
        ]
    }


def openbookqa(path: str) -> Rows:
    """Rows of OpenBookQA."""
    rows = arc(path)["test"]
    return {"test": [{"question_stem": row.pop("question"), **row} for row in rows]}


def boolq(path: str) -> Rows:
    """Rows of BoolQ."""
    pattern = re.compile(r"Passage: (.*)\nQuestion: (.*)\?", re.DOTALL)
    split = [pattern.fullmatch(row["query"]) for row in lines(path)]
    return {
        "validation": [
            {"passage": match[1], "question": match[2], "label": row["gold"]}
            for match, row in zip(split, lines(path), strict=True)
            if match
        ]
    }


def listed(query: str) -> tuple[list[str], list[str]]:
    """Return the lines before the choices, and the choices."""
    before, _, rest = query.partition("\nChoices:\n")
    return before.split("\n"), [line[3:] for line in rest.removesuffix("\nAnswer:").split("\n")]


def commonsense_qa(path: str) -> Rows:
    """Rows of CommonsenseQA; these have four of the five choices."""
    rows = []
    for row in lines(path):
        (question,), choices = listed(row["query"])
        key = "ABCDE"[row["gold"]]
        rows.append({"question": question[10:], "choices": labeled(choices), "answerKey": key})
    return {"validation": rows}


def siqa(path: str) -> Rows:
    """Rows of SIQA; these have two of the three answers."""
    rows = []
    for row in lines(path):
        (context, question), choices = listed(row["query"])
        named = dict(zip(("answerA", "answerB"), choices, strict=True))
        words = {"context": context[9:], "question": question[10:]}
        rows.append({**words, **named, "label": str(row["gold"] + 1)})
    return {"validation": rows}


def copa(path: str) -> Rows:
    """Rows of COPA."""
    return {
        "validation": [
            {
                **dict(zip(("premise", "choice1", "choice2"), (e.text for e in item), strict=True)),
                "question": item.get("asks-for"),
                "label": int(item.get("most-plausible-alternative", "0")) - 1,
            }
            for item in etree.parse(DATA / path).getroot()
        ]
    }


def hellaswag(path: str) -> Rows:
    """Rows of HellaSwag; the text has the context in one part."""
    all_lines = bz2.decompress((DATA / path).read_bytes()).decode().rstrip("\n").split("\n")
    rows = []
    for start in range(0, len(all_lines), 6):
        context, label, *endings = all_lines[start : start + 6]
        activity, _, words = context.partition(": ")
        named = {"activity_label": activity, "ctx_a": words, "ctx_b": ""}
        rows.append({**named, "endings": endings, "label": label})
    return {"validation": rows}


def mmlu(path: str) -> Rows:
    """Rows of one subject of MMLU, with its examples."""
    rows = {}
    for part in ("dev", "test"):
        with (DATA / path / part / f"anatomy_{part}.csv").open(newline="") as file:
            rows[part] = [
                {
                    "question": row["question"],
                    "choices": [row[f"choice{n}"] for n in range(4)],
                    "answer": int(row["answer"]),
                }
                for row in csv.DictReader(file)
            ]
    return rows


def piqa(path: str) -> Rows:
    """Rows of PIQA."""
    labels = (DATA / path / "valid-labels.lst").read_text().split()
    rows = lines(f"{path}/valid.jsonl")
    return {
        "validation": [
            {**row, "label": int(label)} for row, label in zip(rows, labels, strict=True)
        ]
    }


def winogrande(path: str) -> Rows:
    """Rows of WinoGrande: the blank is where the two contexts begin to differ."""
    rows = []
    for row in lines(path):
        first, second = row["context_options"]
        start = common(first, second)
        rows.append(
            {
                "sentence": f"{first[:start]}_ {row['continuation']}",
                "option1": first[start:],
                "option2": second[start:],
                "answer": str(row["gold"] + 1),
            }
        )
    return {"validation": rows}


def winograd(path: str) -> Rows:
    """Rows of the Winograd schemas: what differs stands for the pronoun."""
    rows = []
    for row in lines(path):
        contexts = row["context_options"]
        start = common(*contexts)
        place = {"pronoun": "@", "pronoun_loc": start, "options": [c[start:] for c in contexts]}
        text = f"{contexts[0][:start]}@ {row['continuation']}"
        rows.append({"text": text, "label": row["gold"], **place})
    return {"test": rows}


def triviaqa(path: str) -> Rows:
    """Rows of TriviaQA."""
    return {
        "validation": [
            {
                "question": re.sub(r"Question: (.*)\nAnswer:", r"\1", row["context"]),
                "answer": {"aliases": row["aliases"]},
            }
            for row in lines(path)
        ]
    }


@dataclass
class Case:
    """A benchmark: where its files are, and the harness's task with rows that are made of them."""

    path: str
    config: str
    rows: Callable[[str], Rows]
    shots: int = 0
    changed: dict[str, Any] = field(default_factory=dict)  # of the harness's task


FOUR = (
    "Question: {{ question.strip() }}\nA. {{choices['text'][0]}}\nB. {{choices['text'][1]}}\n"
    "C. {{choices['text'][2]}}\nD. {{choices['text'][3]}}\nAnswer:"
)
GENERATED = {"until": ["Question:", "</s>", "<|im_end|>"], "do_sample": False, "max_gen_toks": 256}
CASES = {
    "arc_challenge": Case("more/arc_challenge/arc_challenge.jsonl", "arc/arc_challenge", arc),
    "arc_easy": Case("arc_easy/arc_easy.jsonl", "arc/arc_easy", arc),
    "blimp": Case(
        "blimp/passive_1.jsonl.gz", "blimp/passive_1", lambda path: {"train": lines(path)}
    ),
    "boolq": Case("more/boolq/boolq.jsonl", "super_glue/boolq/default", boolq),
    "commonsense_qa": Case(
        "more/commonsense_qa/commonsense_qa.jsonl",
        "commonsense_qa/default",
        commonsense_qa,
        changed={"doc_to_text": FOUR, "doc_to_choice": list("ABCD")},
    ),
    "copa": Case("copa/copa-dev.xml", "super_glue/copa/default", copa),
    "gsm8k": Case("gsm8k/test.jsonl", "gsm8k/gsm8k", lambda path: {"test": lines(path)}),
    "hellaswag": Case("hellaswag/hellaswag_val_full.txt.bz2", "hellaswag/hellaswag", hellaswag),
    "lambada": Case(
        "lambada/lambada_test.jsonl",
        "lambada/lambada_openai",
        lambda path: {"test": lines(path)},
    ),
    "mmlu": Case("more/mmlu", "mmlu/default/mmlu_anatomy", mmlu),
    "mmlu:5": Case("more/mmlu", "mmlu/default/mmlu_anatomy", mmlu, shots=5),
    "openbookqa": Case("more/openbook_qa/openbook_qa.jsonl", "openbookqa/openbookqa", openbookqa),
    "piqa": Case("more/piqa", "piqa/piqa", piqa),
    "siqa": Case(
        "more/siqa/siqa.jsonl",
        "siqa/siqa",
        siqa,
        changed={"doc_to_choice": "{{[answerA, answerB]}}"},
    ),
    "triviaqa": Case("more/triviaqa/triviaqa_sm_sub.jsonl", "triviaqa/default", triviaqa),
    "wikitext": Case("", "wikitext/wikitext", lambda path: {"test": pages()}),
    "winograd": Case("more/winograd/winograd_wsc.jsonl", "wsc273/default", winograd),
    "winogrande": Case("more/winogrande/winogrande.jsonl", "winogrande/default", winogrande),
}


def pages() -> list[dict[str, Any]]:
    """Return the articles of WikiText, cut at headings of the first level."""
    found: list[str] = []
    with (DATA.parent / "wikipedia/plain/wikitext-2-valid.txt").open(encoding="utf-8") as file:
        for line in file:
            if re.fullmatch(r" = [^=]+ = \n", line) or not found:
                found.append("")
            found[-1] += line
    return [{"page": page} for page in found if page.strip()]


@pytest.fixture(scope="module")
def model() -> Transformer:
    """A model with random weights and a context that the shorter items fit into."""
    small = tiny_model(512)
    config = dataclasses.replace(small.config, context=384)
    longer = Transformer(config)
    longer.load_state_dict(small.state_dict())
    return longer.eval()


@pytest.fixture(scope="module")
def engine() -> tokenizers.Tokenizer:
    """A tokenizer of ordinary words, as it is trained."""
    return train_bpe([row["text"] for row in lines("lambada/lambada_test.jsonl")[:200]], 512)


@pytest.fixture(scope="module")
def tokenizer(engine: tokenizers.Tokenizer) -> Tokenizer:
    """The same with our encoder."""
    return Tokenizer(engine)


@pytest.fixture(scope="module")
def harness(
    model: Transformer, engine: tokenizers.Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The harness's model of the same weights, as transformers loads them."""
    folder = tmp_path_factory.mktemp("export")
    save_model(folder, model)
    engine.save(str(folder / "tokenizer.json"))
    write_config(folder, model.config.context)
    hflm = import_module("lm_eval.models.huggingface").HFLM
    return hflm(pretrained=str(folder), device="cpu", batch_size=4, dtype="float32")


def asked_by_harness(harness: Any, case: Case) -> list[dict[str, Any]]:
    """Return the harness's samples of a task, whose rows are ours."""
    lm_eval, loader = import_module("lm_eval"), import_module("lm_eval.tasks._yaml_loader")
    config = loader.load_yaml(Path(str(loader.__file__)).parent / f"{case.config}.yaml")
    table = import_module("datasets").Dataset
    parts = {part: table.from_list(rows) for part, rows in case.rows(case.path).items()}
    for split in ("training_split", "validation_split", "test_split", "fewshot_split"):
        if config.get(split) not in parts:
            config.pop(split, None)
    config |= {"custom_dataset": lambda **_: parts, **case.changed}
    for key in ("dataset_path", "dataset_name", "dataset_kwargs", "tag"):
        config.pop(key, None)
    results = lm_eval.simple_evaluate(
        harness, tasks=[config], num_fewshot=case.shots, limit=ITEMS or None, bootstrap_iters=0
    )
    assert results is not None
    (samples,) = results["samples"].values()
    # One entry a filter; the first is the strict one.
    first = samples[0]["filter"]
    return sorted(
        (sample for sample in samples if sample["filter"] == first), key=lambda s: s["doc_id"]
    )


def asked_here(model: Transformer, tokenizer: Tokenizer, name: str, case: Case) -> list[ItemScore]:
    """Return our scores of the same items."""
    task, path = TASKS[name], DATA / case.path
    if name == "wikitext":
        path = DATA.parent / "wikipedia/plain/wikitext-2-valid.txt"
    files = {path.name: path}
    if path.is_dir():
        files = {str(file.relative_to(path)): file for file in path.rglob("*") if file.is_file()}
    read = read_task(name, files, case.shots)
    items = [item for item in read.items if name != "mmlu" or item.group == "anatomy"]
    items = items[: ITEMS or None]
    before = prefixes(task, items, read.examples, case.shots)
    return score_items(model, tokenizer, task, items, before)


@pytest.mark.parametrize("label", CASES)
def test_scores_equal_the_harness(
    label: str, model: Transformer, tokenizer: Tokenizer, harness: Any
) -> None:
    """Log-probabilities of every choice, acc, acc_norm, and generated answers."""
    name, case = label.partition(":")[0], CASES[label]
    ours = asked_here(model, tokenizer, name, case)
    theirs = asked_by_harness(harness, case)
    assert len(ours) == len(theirs)
    for score, sample in zip(ours, theirs, strict=True):
        if TASKS[name].kind == "generate":
            assert score.answer == sample["resps"][0][0]
            assert score.acc == bool(sample["exact_match"])
            continue
        responses = [response[0] for response in sample["resps"]]
        sums = [r[0] if isinstance(r, (list, tuple)) else r for r in responses]
        assert score.log_probabilities == pytest.approx(tuple(map(float, sums)), rel=1e-4, abs=1e-3)
        if "acc" in sample:
            assert score.acc == bool(sample["acc"])
        assert (score.acc_norm is None) == ("acc_norm" not in sample)
        if score.acc_norm is not None:
            assert score.acc_norm == bool(sample["acc_norm"])
