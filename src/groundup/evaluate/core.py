"""CORE, the average of 22 tasks of DCLM (Li et al. 2024, arXiv 2406.11794), as nanochat reports it.

    core=PATH        PATH is DCLM's eval_bundle: core.yaml, eval_meta_data.csv and eval_data/

core.yaml says how each task is asked, eval_meta_data.csv how often a guess is right. An accuracy
is centered: 0 for guesses, 1 if all is right. Where the data of a task are missing there is no
average, and the task is named. Prompts, examples and scores are those of nanochat (core_eval.py):
of several choices the one with the lowest mean loss is taken, over the tokens in which they differ.
"""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from groundup.artifacts.questions import accuracy
from groundup.artifacts.tokenizer import Tokenizer
from groundup.errors import GroundupError, one_line
from groundup.evaluate.loglikelihood import Continuation, score
from groundup.model.transformer import Transformer

CORE_TASKS = tuple(
    "hellaswag_zeroshot jeopardy bigbench_qa_wikidata arc_easy arc_challenge copa commonsense_qa"
    " piqa openbook_qa lambada_openai hellaswag winograd winogrande bigbench_dyck_languages"
    " agi_eval_lsat_ar bigbench_cs_algorithms bigbench_operators bigbench_repeat_copy_logic squad"
    " coqa boolq bigbench_language_identification".split()
)
# Seeds of nanochat: of the order of the rows, and with the row's number of its examples.
SHUFFLE_SEED, EXAMPLES_SEED = 1337, 1234
_FIELDS = {
    "multiple_choice": ("query", "choices", "gold"),
    "schema": ("context_options", "continuation", "gold"),
    "language_modeling": ("context", "continuation"),
}


@dataclass(frozen=True, slots=True)
class CoreTask:
    """One task of core.yaml; `baseline` is the accuracy of a guess."""

    label: str
    form: str
    file: str
    shots: int
    delimiter: str
    baseline: float


def core_figures(
    model: Transformer, tokenizer: Tokenizer, files: Mapping[str, Path], limit: int
) -> dict[str, Any]:
    """Return accuracies and centered accuracies by task, and their mean if all tasks have data.

    `files` is origin → path. Raises GroundupError if there is no core.yaml, or a file is damaged.
    """
    by_task: dict[str, Any] = {}
    for task in read_core(files):
        path = next((p for o, p in files.items() if f"/{o}".endswith(f"/{task.file}")), None)
        if path is not None:
            right = ask_task(model, tokenizer, task, path, limit)
            share = accuracy(sum(right), len(right))
            centered = (sum(right) / len(right) - task.baseline) / (1 - task.baseline)
            by_task[task.label] = {"shots": task.shots, "centered": centered, **share}
    missing = [label for label in CORE_TASKS if label not in by_task]
    if not by_task:
        raise GroundupError(f"benchmark core: no file of its tasks is there: {', '.join(missing)}")
    figures: dict[str, Any] = {"task": "core", "tasks": by_task, "missing": missing}
    if not missing:
        all_centered = [by_task[label]["centered"] for label in CORE_TASKS]
        figures["core"] = math.fsum(all_centered) / len(all_centered)
    return figures | {"missing_tasks": len(missing)}


def read_core(files: Mapping[str, Path]) -> list[CoreTask]:
    """Return the tasks of CORE that core.yaml describes; GroundupError if it cannot be read."""
    named = {origin.rpartition("/")[2]: path for origin, path in files.items()}
    if not {"core.yaml", "eval_meta_data.csv"} <= set(named):
        bundle = "DCLM's eval_bundle, with core.yaml and eval_meta_data.csv"
        raise GroundupError(f"benchmark core: expected the folder of {bundle}")
    try:
        with named["eval_meta_data.csv"].open(encoding="utf-8", newline="") as file:
            guesses = {row["Eval Task"]: row["Random baseline"] for row in csv.DictReader(file)}
        entries = yaml.safe_load(named["core.yaml"].read_text(encoding="utf-8"))["icl_tasks"]
        return [
            CoreTask(
                entry["label"],
                entry["icl_task_type"],
                entry["dataset_uri"],
                int(entry["num_fewshot"][0]),
                entry.get("continuation_delimiter", " "),
                float(guesses[entry["label"]]) / 100,
            )
            for entry in entries
            if entry["label"] in CORE_TASKS
        ]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        why = f"a field is missing or damaged: {one_line(error, 100)}"
        raise GroundupError(f"benchmark core: core.yaml or eval_meta_data.csv: {why}") from None


def ask_task(
    model: Transformer, tokenizer: Tokenizer, task: CoreTask, path: Path, limit: int
) -> list[bool]:
    """Return for each row, or for the first `limit` in nanochat's order, if it is right."""
    rows = _rows(task, path)
    random.Random(SHUFFLE_SEED).shuffle(rows)
    rows = rows[: limit or None]
    if len(rows) <= task.shots:
        few = f"{len(rows):,} rows are too few for {task.shots} examples"
        raise GroundupError(f"benchmark core: {path.name}: {few}")
    groups = [
        _continuations(tokenizer, task, rows, n, model.config.context) for n in range(len(rows))
    ]
    flat = iter(score(model, [item for group in groups for item in group if item.target]))
    right = []
    for row, group in zip(rows, groups, strict=True):
        scores = [next(flat) if item.target else None for item in group]
        if task.form == "language_modeling":
            right.append(all(answer is not None and answer.greedy for answer in scores))
            continue
        means = [
            -answer.log_probability / len(item.target) if answer else math.nan
            for answer, item in zip(scores, group, strict=True)
        ]
        right.append(means.index(min(means)) == row["gold"])
    return right


def _rows(task: CoreTask, path: Path) -> list[dict[str, Any]]:
    fields, rows = _FIELDS.get(task.form), []
    if fields is None:
        raise GroundupError(f"benchmark core: {task.label}: icl_task_type {task.form} is unknown")
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            row = json.loads(line)
            if missing := [name for name in fields if name not in row]:
                raise ValueError(f"line {number:,} has no {', '.join(missing)}")
            choices = row.get("choices", row.get("context_options", ()))
            if "gold" in fields and row["gold"] not in range(len(choices)):
                raise ValueError(f"line {number:,}: gold names no choice")
            rows.append(row)
    except (OSError, ValueError) as error:
        raise GroundupError(f"benchmark core: {path.name}: {one_line(error, 100)}") from None
    return rows


def _continuations(
    tokenizer: Tokenizer, task: CoreTask, rows: Sequence[Mapping[str, Any]], n: int, context: int
) -> list[Continuation]:
    """Return the choices of row `n` after its examples, each from where it differs from others."""
    others, delimiter = [row for m, row in enumerate(rows) if m != n], task.delimiter
    shown = random.Random(EXAMPLES_SEED + n).sample(others, task.shots)
    before = "".join(f"{_whole(task, row)}\n\n" for row in shown)
    row = rows[n]
    if task.form == "multiple_choice":
        prompts = [f"{before}{row['query']}{delimiter}{choice}" for choice in row["choices"]]
    elif task.form == "schema":
        prompts = [f"{before}{c}{delimiter}{row['continuation']}" for c in row["context_options"]]
    else:
        begun = f"{before}{row['context'].strip()}{delimiter}"
        prompts = [begun.strip(), begun + row["continuation"]]
    ids = [[tokenizer.end_id, *tokenizer.encode(prompt)] for prompt in prompts]
    starts = [_common(ids)] * len(ids)
    if task.form == "schema":
        ending = _common([sequence[::-1] for sequence in ids])
        starts = [len(sequence) - ending for sequence in ids]
    elif task.form == "language_modeling":
        ids, starts = ids[1:], [len(ids[0])]
    kept = [max(0, len(sequence) - context) for sequence in ids]
    return [
        Continuation(sequence[cut:start], sequence[max(cut, start) :])
        for sequence, start, cut in zip(ids, starts, kept, strict=True)
    ]


def _whole(task: CoreTask, row: Mapping[str, Any]) -> str:
    """Return a row with its answer, as an example."""
    if task.form == "multiple_choice":
        return f"{row['query']}{task.delimiter}{row['choices'][row['gold']]}"
    if task.form == "schema":
        return f"{row['context_options'][row['gold']]}{task.delimiter}{row['continuation']}"
    return f"{row['context'].strip()}{task.delimiter}{row['continuation']}"


def _common(sequences: Sequence[Sequence[int]]) -> int:
    """Return the number of tokens that all sequences begin with."""
    differs = (len(set(tokens)) > 1 for tokens in zip(*sequences, strict=False))
    return next((n for n, is_new in enumerate(differs) if is_new), min(map(len, sequences)))
