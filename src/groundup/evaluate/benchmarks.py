"""Public benchmarks, read from JSONL files in one of the layouts in LAYOUTS.

    last word  {"text": "... the last word"}  or  {"context": "...", "continuation": "word"}
    choices    {"query": "...", "choices": ["...", "..."], "gold": 0}
               or  {"ctx": "...", "endings": [...], "label": "0"}

LAMBADA (Paperno et al. 2016) asks for a last word; HellaSwag, ARC and the like have choices. To add
a layout, write a function that parses a row and one that computes the figures, and list both in
LAYOUTS.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from groundup.artifacts.kinds import KINDS
from groundup.artifacts.tokenizer import Tokenizer
from groundup.errors import GroundupError
from groundup.evaluate.loglikelihood import Continuation, ContinuationScore, accuracy, score
from groundup.model.transformer import Transformer
from groundup.recipe import Recipe

_OPEN: Mapping[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".bz2": bz2.open}

# A longer line is not a question.
_MAX_LINE = 1 << 20

Scores = Sequence[Sequence[ContinuationScore]]


@dataclass(frozen=True)
class Question:
    """A context and its possible continuations, of which `gold` is the right one."""

    context: str
    choices: tuple[str, ...]
    gold: int = 0
    layout: str = "last word"


@dataclass(frozen=True)
class Layout:
    """A form of question.

    Attributes:
        parse: returns the question of a row, or None if the row is of another layout; raises
            ValueError with the reason if the row is damaged.
        figures: returns the figures of questions and the scores of their choices.
    """

    parse: Callable[[Mapping[str, Any]], Question | None]
    figures: Callable[[Sequence[Question], Scores], dict[str, Any]]


def parse_choices(row: Mapping[str, Any]) -> Question | None:
    """Return a question with choices."""
    choices = row.get("choices", row.get("endings"))
    if choices is None:
        return None
    query, gold = row.get("query", row.get("ctx")), row.get("gold", row.get("label"))
    if isinstance(gold, str) and gold.isdigit():
        gold = int(gold)
    if not (
        isinstance(query, str)
        and isinstance(choices, list)
        and all(isinstance(choice, str) and choice.strip() for choice in choices)
    ):
        raise ValueError("query or choices are not text")
    if len(choices) < 2 or not isinstance(gold, int) or not 0 <= gold < len(choices):
        raise ValueError("gold does not name one of at least two choices")
    return Question(query, tuple(choices), gold, "choices")


def choice_figures(questions: Sequence[Question], scores: Scores) -> dict[str, Any]:
    """Return the share of questions whose right choice is the most probable, per byte and raw."""
    raw = per_byte = 0
    for question, group in zip(questions, scores, strict=True):
        sums = [choice.log_probability for choice in group]
        lengths = [len(text.encode()) for text in question.choices]
        raw += int(np.argmax(sums)) == question.gold
        per_byte += int(np.argmax(np.array(sums) / lengths)) == question.gold
    n = len(questions)
    chance = sum(1 / len(question.choices) for question in questions) / n
    return {"chance": chance, "raw": accuracy(raw, n), **accuracy(per_byte, n)}


def parse_last_word(row: Mapping[str, Any]) -> Question | None:
    """Return a question for the last word of a text."""
    if "continuation" in row:
        context, word = row.get("context"), row["continuation"]
    elif isinstance(row.get("text"), str):
        context, _, word = row["text"].rstrip().rpartition(" ")
    else:
        return None
    if not all(isinstance(text, str) and text.strip() for text in (context, word)):
        raise ValueError("context or continuation is empty")
    return Question(str(context), (str(word),))


def last_word_figures(questions: Sequence[Question], scores: Scores) -> dict[str, Any]:
    """Return the share of words of which every token is the most probable, and word perplexity."""
    nats = -math.fsum(word.log_probability for (word,) in scores) / len(scores)
    right = sum(word.greedy for (word,) in scores)
    return {"perplexity": math.exp(min(nats, 700)), **accuracy(right, len(questions))}


LAYOUTS = {
    "choices": Layout(parse_choices, choice_figures),
    "last word": Layout(parse_last_word, last_word_figures),
}


def parse_question(line: str) -> Question:
    """Return the question of one JSON line.

    Raises:
        ValueError: saying what it lacks.
    """
    try:
        row = json.loads(line)
    except ValueError:
        raise ValueError("not JSON") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    for layout in LAYOUTS.values():
        question = layout.parse(row)
        if question is not None:
            return question
    raise ValueError("neither text nor context/continuation nor query/choices/gold")


def benchmark_files(recipe: Recipe) -> dict[str, Path]:
    """Return the benchmark files of a recipe: a source of kind evaluation, or a path.

    Raises:
        GroundupError: there is no such source or file.
    """
    sources = {
        source.name: source.path
        for source in recipe.source
        if KINDS[source.kind].role == "evaluation"
    }
    files: dict[str, Path] = {}
    for name in recipe.evaluate.benchmarks:
        path = recipe.root / sources.get(name, name)
        # Path.glob takes no absolute pattern.
        names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
        matches = [Path(match) for match in names]
        if path.is_dir():
            matches = sorted(path.rglob("*.jsonl*"))
        matches = [match for match in matches if match.is_file()]
        if not matches:
            known = f"; sources of kind evaluation: {', '.join(sources)}" if sources else ""
            raise GroundupError(f'[evaluate] benchmarks: "{name}": there is no file {path}{known}')
        for file in matches:
            # Labels must not depend on where files lie, since they are written beside figures.
            label = file.name
            if name in sources:
                label = name if len(matches) == 1 else f"{name}/{file.name}"
            files[name if label in files else label] = file
    return files


def read_questions(path: Path) -> tuple[list[Question], Counter[str]]:
    """Return the questions of a file, and the number of lines left out by reason.

    Raises:
        GroundupError: the file cannot be read, or no line of it is a question.
    """
    questions: list[Question] = []
    left_out: Counter[str] = Counter()
    try:
        for line in _lines(path):
            try:
                questions.append(parse_question(line))
            except ValueError as error:
                left_out[str(error)] += 1
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise GroundupError(f"{path}: cannot be read: {error}") from None
    if not questions:
        reason = f" ({left_out.most_common(1)[0][0]})" if left_out else ""
        raise GroundupError(
            f"{path}: no line holds a question{reason}; expected text, context/continuation or"
            " query/choices/gold"
        )
    same = [question for question in questions if question.layout == questions[0].layout]
    if len(same) < len(questions):
        left_out["another layout than the first question"] += len(questions) - len(same)
    return same, left_out


def _lines(path: Path) -> Iterator[str]:
    with _OPEN.get(path.suffix, open)(path, "rt", encoding="utf-8") as file:
        while line := file.readline(_MAX_LINE):
            if line.strip():
                yield line


def continuations(question: Question, tokenizer: Tokenizer) -> list[Continuation]:
    """Return one continuation per choice.

    An end-of-text id precedes the context, as it precedes every document in training. The space
    between context and choice belongs to the choice, as the pre-tokenizer splits it.
    """
    context = [tokenizer.end_id, *tokenizer.encode(question.context.rstrip())]
    spaced = [choice if choice[0].isspace() else " " + choice for choice in question.choices]
    return [Continuation(context, tokenizer.encode(choice)) for choice in spaced]


def evaluate(
    model: Transformer, tokenizer: Tokenizer, path: Path, limit: int, seed: int
) -> dict[str, Any]:
    """Return the figures of one benchmark file; `limit` takes a random sample of its questions.

    Raises:
        GroundupError: the file is not a benchmark.
    """
    questions, left_out = read_questions(path)
    available = len(questions)
    if limit and available > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(available, limit, replace=False))
        questions = [questions[i] for i in chosen]
    items = [continuations(question, tokenizer) for question in questions]
    flat = iter(score(model, [item for group in items for item in group]))
    scores = [[next(flat) for _ in group] for group in items]
    layout = questions[0].layout
    return {
        "layout": layout,
        **LAYOUTS[layout].figures(questions, scores),
        "available": available,
        "left_out": dict(sorted(left_out.items())),
        "file": path.name,
    }
