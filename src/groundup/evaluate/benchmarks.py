"""Public benchmarks in two layouts. Reads JSONL files; returns accuracies.

Last word (LAMBADA, Paperno et al. 2016): {"text"} whose last word is asked for, or {"context",
"continuation"}. Choices (HellaSwag, ARC and the like): {"query", "choices", "gold"}, or {"ctx",
"endings", "label"}.
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

from groundup.artifacts.tokenizer import Tokenizer
from groundup.errors import GroundupError
from groundup.evaluate.loglikelihood import Continuation, Scored, accuracy, score
from groundup.model.transformer import Transformer
from groundup.recipe import Recipe

_OPEN: Mapping[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".bz2": bz2.open}

# A line beyond this is no question.
_MAX_LINE = 1 << 20


@dataclass(frozen=True)
class Question:
    """A context and its possible continuations; a single one is a last word."""

    context: str
    choices: tuple[str, ...]
    gold: int = 0


def benchmark_files(recipe: Recipe) -> dict[str, Path]:
    """Return the files of the benchmarks that a recipe names: a source of kind evaluation, or a
    path.

    Raises:
        GroundupError: there is no such source or file.
    """
    sources = {source.name: source.path for source in recipe.source if source.kind == "evaluation"}
    found: dict[str, Path] = {}
    for name in recipe.evaluate.benchmarks:
        path = recipe.root / sources.get(name, name)
        files = [Path(p) for p in sorted(glob.glob(str(path), recursive=True)) if Path(p).is_file()]  # noqa: PTH207 may be absolute
        if path.is_dir():
            files = sorted(p for p in path.rglob("*.jsonl*") if p.is_file())
        if not files:
            known = f"; sources of kind evaluation: {', '.join(sources)}" if sources else ""
            raise GroundupError(f'[evaluate] benchmarks: "{name}": there is no file {path}{known}')
        for file in files:
            # Short names: what is written beside a figure must not depend on where the file lies.
            label = (
                file.name
                if name not in sources
                else name
                if len(files) == 1
                else f"{name}/{file.name}"
            )
            found[name if label in found else label] = file
    return found


def read_questions(path: Path) -> tuple[list[Question], Counter[str]]:
    """Return the questions of a file, and how many of its lines were left out for which reason.

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
    single = len(questions[0].choices) == 1
    same = [q for q in questions if (len(q.choices) == 1) == single]
    if len(same) < len(questions):
        left_out["another layout than the first question"] += len(questions) - len(same)
    return same, left_out


def _lines(path: Path) -> Iterator[str]:
    with _OPEN.get(path.suffix, open)(path, "rt", encoding="utf-8") as file:
        while line := file.readline(_MAX_LINE):
            if line.strip():
                yield line


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
    choices = row.get("choices", row.get("endings"))
    if choices is not None:
        return _choices(row, choices)
    if "continuation" in row:
        return _last_word(row.get("context"), row["continuation"])
    if isinstance(row.get("text"), str):
        return _last_word(*row["text"].rstrip().rpartition(" ")[::2])
    raise ValueError("neither text nor context/continuation nor query/choices/gold")


def _choices(row: Mapping[str, Any], choices: Any) -> Question:
    query, gold = row.get("query", row.get("ctx")), row.get("gold", row.get("label"))
    if isinstance(gold, str) and gold.isdigit():
        gold = int(gold)
    if (
        not isinstance(query, str)
        or not isinstance(choices, list)
        or not all(isinstance(c, str) and c.strip() for c in choices)
    ):
        raise ValueError("query or choices are not text")
    if len(choices) < 2 or not isinstance(gold, int) or not 0 <= gold < len(choices):
        raise ValueError("gold does not name one of at least two choices")
    return Question(query, tuple(choices), gold)


def _last_word(context: Any, word: Any) -> Question:
    if (
        not isinstance(context, str)
        or not isinstance(word, str)
        or not context.strip()
        or not word.strip()
    ):
        raise ValueError("context or continuation is empty")
    return Question(context, (word,))


def continuations(question: Question, tokenizer: Tokenizer) -> list[Continuation]:
    """Return one continuation a choice. The space between context and choice belongs to the choice,
    as the splitter has it.

    An end-of-text id stands before the context, as before every document in training.
    """
    context = [tokenizer.end_id, *tokenizer.encode(question.context.rstrip())]
    spaced = [choice if choice[0].isspace() else " " + choice for choice in question.choices]
    return [Continuation(context, tokenizer.encode(choice)) for choice in spaced]


def evaluate(
    model: Transformer, tokenizer: Tokenizer, path: Path, limit: int, seed: int
) -> dict[str, Any]:
    """Return the figures of one benchmark file; with `limit`, on a random sample of that many
    questions.

    Raises:
        GroundupError: the file is no benchmark.
    """
    questions, left_out = read_questions(path)
    available = len(questions)
    if limit and available > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(available, limit, replace=False))
        questions = [questions[i] for i in chosen]
    items = [continuations(question, tokenizer) for question in questions]
    flat = iter(score(model, [item for group in items for item in group]))
    scored = [[next(flat) for _ in group] for group in items]
    figures = last_word(scored) if len(questions[0].choices) == 1 else choice(questions, scored)
    return figures | {
        "available": available,
        "left_out": dict(sorted(left_out.items())),
        "file": path.name,
    }


def last_word(scored: Sequence[Sequence[Scored]]) -> dict[str, Any]:
    """Return the share of last words whose every token was the most probable, and the perplexity of
    a word.
    """
    nats = -math.fsum(group[0].log_probability for group in scored) / len(scored)
    right = sum(group[0].greedy for group in scored)
    return {
        "layout": "last word",
        "perplexity": math.exp(min(nats, 700)),
        **accuracy(right, len(scored)),
    }


def choice(questions: Sequence[Question], scored: Sequence[Sequence[Scored]]) -> dict[str, Any]:
    """Return the share of questions where the right choice has the highest log-probability, per
    byte and as a sum.
    """
    raw = per_byte = 0
    for question, group in zip(questions, scored, strict=True):
        sums = [one.log_probability for one in group]
        lengths = [len(text.encode()) for text in question.choices]
        raw += int(np.argmax(sums)) == question.gold
        per_byte += int(np.argmax(np.array(sums) / lengths)) == question.gold
    chance = sum(1 / len(question.choices) for question in questions) / len(questions)
    return {
        "layout": "choices",
        "chance": chance,
        "raw": accuracy(raw, len(questions)),
        **accuracy(per_byte, len(questions)),
    }
