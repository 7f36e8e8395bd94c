"""Questions with a right answer: public benchmarks, and which passage of the corpus comes next.

Benchmarks are read from JSONL files in one of the layouts in LAYOUTS.

    last word  {"text": "... the last word"}  or  {"context": "...", "continuation": "word"}
    choices    {"query": "...", "choices": ["...", "..."], "gold": 0}
               or  {"ctx": "...", "endings": [...], "label": "0"}

LAMBADA (Paperno et al. 2016) asks for a last word; HellaSwag, ARC and the like have choices. To add
a layout, write its class and list it in LAYOUTS.

Next passage is a test that every corpus provides. The model reads the beginning of a held-out
document and scores four passages with the same number of tokens: the one that follows, and three
from other held-out documents of the same source, taken at the same distance from their beginning.
Chance is a quarter.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from groundup.artifacts.kinds import KINDS
from groundup.artifacts.tokenizer import Tokenizer
from groundup.errors import GroundupError
from groundup.evaluate.loglikelihood import Continuation, ContinuationScore, accuracy, score
from groundup.evaluate.validation_data import Ids, ValidationData
from groundup.model.transformer import Transformer
from groundup.recipe import Recipe

_OPEN: Mapping[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".bz2": bz2.open}

# A longer line is not a question.
_MAX_LINE = 1 << 20
# Passages to choose from.
PASSAGES = 4
# Shares of the model's context that are read and chosen from. The names in a long passage would
# give it away.
CONTEXT_SHARE, PASSAGE_SHARE = 1 / 2, 1 / 8

Scores = Sequence[Sequence[ContinuationScore]]
Answers = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Question:
    """A context and its possible continuations, of which `gold` is the right one."""

    context: str
    choices: tuple[str, ...]
    gold: int = 0
    layout: str = "last word"


class Layout(ABC):
    """A form of question."""

    @abstractmethod
    def parse(self, row: Mapping[str, Any]) -> Question | None:
        """Return the question of a row, None for another layout; ValueError if it is damaged."""

    @abstractmethod
    def figures(self, questions: Sequence[Question], scores: Scores) -> dict[str, Any]:
        """Return the figures of questions and the scores of their choices."""


class Choices(Layout):
    """A question with choices."""

    def parse(self, row: Mapping[str, Any]) -> Question | None:
        """Read query, choices and gold, or HellaSwag's ctx, endings and label."""
        choices = row.get("choices", row.get("endings"))
        if choices is None:
            return None
        query, gold = row.get("query", row.get("ctx")), row.get("gold", row.get("label"))
        if isinstance(gold, str) and gold.isdigit():
            gold = int(gold)
        texts = [query, *choices] if isinstance(choices, list) else [None]
        if not all(isinstance(text, str) for text in texts) or not all(map(str.strip, choices)):
            raise ValueError("query or choices are not text")
        if len(choices) < 2 or not isinstance(gold, int) or not 0 <= gold < len(choices):
            raise ValueError("gold does not name one of at least two choices")
        return Question(query, tuple(choices), gold, "choices")

    def figures(self, questions: Sequence[Question], scores: Scores) -> dict[str, Any]:
        """Return how often the right choice is the most probable, per byte and raw."""
        raw = per_byte = 0
        for question, group in zip(questions, scores, strict=True):
            sums = [choice.log_probability for choice in group]
            lengths = [len(text.encode()) for text in question.choices]
            raw += int(np.argmax(sums)) == question.gold
            per_byte += int(np.argmax(np.array(sums) / lengths)) == question.gold
        n = len(questions)
        chance = sum(1 / len(question.choices) for question in questions) / n
        return {"chance": chance, "raw": accuracy(raw, n), **accuracy(per_byte, n)}


class LastWord(Layout):
    """A question for the last word of a text."""

    def parse(self, row: Mapping[str, Any]) -> Question | None:
        """Read text, or context and continuation."""
        if "continuation" in row:
            context, word = row.get("context"), row["continuation"]
        elif isinstance(row.get("text"), str):
            context, _, word = row["text"].rstrip().rpartition(" ")
        else:
            return None
        if not all(isinstance(text, str) and text.strip() for text in (context, word)):
            raise ValueError("context or continuation is empty")
        return Question(str(context), (str(word),))

    def figures(self, questions: Sequence[Question], scores: Scores) -> dict[str, Any]:
        """Return how often every token of the word is the most probable, and word perplexity."""
        nats = -math.fsum(word.log_probability for (word,) in scores) / len(scores)
        right = sum(word.greedy for (word,) in scores)
        return {"perplexity": math.exp(min(nats, 700)), **accuracy(right, len(questions))}


LAYOUTS: dict[str, Layout] = {
    "choices": Choices(),
    "last word": LastWord(),
}


def parse_question(line: str) -> Question:
    """Return the question of one JSON line, or raise ValueError with what it lacks."""
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
    """Return the benchmark files of a recipe, by label; GroundupError if one is missing.

    A recipe names a source of kind evaluation, or a path.
    """
    entries = [source for source in recipe.source if KINDS[source.kind].role == "evaluation"]
    sources = {source.name: source.path for source in entries}
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

    Raises GroundupError if the file cannot be read, or no line of it is a question.
    """
    questions: list[Question] = []
    left_out: Counter[str] = Counter()
    try:
        with _OPEN.get(path.suffix, open)(path, "rt", encoding="utf-8") as file:
            while line := file.readline(_MAX_LINE):
                try:
                    if line.strip():
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


def continuations(question: Question, tokenizer: Tokenizer) -> list[Continuation]:
    """Return one continuation per choice.

    An end-of-text id precedes the context, as it precedes every document in training. The space
    between context and choice belongs to the choice, as the pre-tokenizer splits it.
    """
    context = [tokenizer.end_id, *tokenizer.encode(question.context.rstrip())]
    spaced = [choice if choice[0].isspace() else " " + choice for choice in question.choices]
    return [Continuation(context, tokenizer.encode(choice)) for choice in spaced]


def benchmark_figures(
    model: Transformer, tokenizer: Tokenizer, path: Path, limit: int, seed: int
) -> dict[str, Any]:
    """Return the figures of a file, or of a random sample of `limit` questions (0 for all).

    Raises GroundupError if the file is not a benchmark.
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


def beginnings(data: ValidationData, source: str, length: int) -> list[Ids]:
    """Return the first `length` tokens of each held-out document of a source that has them."""
    documents: list[Ids] = []
    for stream in data.streams(source, "validation"):
        filters = ("shard", "=", stream.name), ("length", ">", length)
        index = data.documents("validation", ["offset"], *filters)
        # Position 0 of a stream is the end-of-text id before its first document.
        starts = np.sort(index["offset"].to_numpy()) + 1
        documents += [stream.slice(start, start + length) for start in starts.tolist()]
    return documents


def make_questions(
    documents: Sequence[Ids], context: int, count: int, seed: int
) -> list[list[Ids]]:
    """Return for each of `count` documents its context, its own passage, and three others.

    Documents and passages are drawn from `seed`; a passage equal to the true one is not used.
    """
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(len(documents), min(count, len(documents)), replace=False))
    questions = []
    for n in chosen:
        passage = documents[n][context:]
        others = [documents[i][context:] for i in random.permutation(len(documents)) if i != n]
        different = [o for o in others[: 4 * PASSAGES] if not np.array_equal(o, passage)]
        if len(different) >= PASSAGES - 1:
            questions.append([documents[n][:context], passage, *different[: PASSAGES - 1]])
    return questions


def passage_figures(
    model: Transformer, data: ValidationData, count: int, seed: int
) -> dict[str, Any]:
    """Ask `count` questions, spread over the sources; return accuracies in total and by source.

    `accuracy` takes the passage that gains most from the context: log p(passage | context) - log
    p(passage), the latter after the end-of-text id alone. `likelihood` takes the most probable
    passage, which favors plain ones.
    """
    context = max(1, int(model.config.context * CONTEXT_SHARE))
    passage = max(1, int(model.config.context * PASSAGE_SHARE))
    documents = {source: beginnings(data, source, context + passage) for source in data.shards}
    asked = [source for source, group in documents.items() if len(group) >= PASSAGES]
    share = -(-count // len(asked)) if asked else 0
    end = data.tokenizer.end_id
    answers: dict[str, Answers] = {}
    for source in asked:
        questions, items = make_questions(documents[source], context, share, seed), []
        for beginning, *passages in questions:
            targets = [choice.tolist() for choice in passages]
            items += [Continuation([end, *beginning.tolist()], target) for target in targets]
            items += [Continuation([end], target) for target in targets]
        scores = np.array([item.log_probability for item in score(model, items)])
        with_context, without_context = scores.reshape(len(questions), 2, PASSAGES).swapaxes(0, 1)
        choices = [(with_context - without_context).argmax(1), with_context.argmax(1)]
        # The true passage is choice 0.
        answers[source] = np.stack(choices, axis=1) == 0
    in_all = np.concatenate([np.empty((0, 2), np.bool_), *answers.values()])
    return {
        "chance": 1 / PASSAGES,
        "context_tokens": context,
        "passage_tokens": passage,
        **_accuracies(in_all),
        "sources": {source: _accuracies(group) for source, group in answers.items()},
        "sources_with_too_few_documents": [source for source in documents if source not in asked],
    }


def _accuracies(answers: Answers) -> dict[str, Any]:
    gain, likelihood = answers.sum(axis=0).tolist()
    return {**accuracy(gain, len(answers)), "likelihood": accuracy(likelihood, len(answers))}
