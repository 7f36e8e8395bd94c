"""Layouts of benchmark questions, for what asks them and for what keeps them out of training text.

    last word  {"text": "... the last word"}  or  {"context": "...", "continuation": "word"}
    choices    {"query": "...", "choices": ["...", "..."], "gold": 0}
               or  {"ctx": "...", "endings": [...], "label": "0"}
    schema     {"context_options": ["...", "..."], "continuation": "...", "gold": 0}

LAMBADA (Paperno et al. 2016) asks for a last word; HellaSwag, ARC and the like have choices. A
layout is a class and its entry in LAYOUTS. The stage evaluate asks its questions, and collect reads
their text, so that refine can drop the documents that hold one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

# Standard deviations of a 95 % interval.
Z = 1.959964


@dataclass(frozen=True)
class ContinuationScore:
    """Log-probability (nats) of a target, and whether greedy decoding would produce it."""

    log_probability: float
    greedy: bool


Scores = Sequence[Sequence[ContinuationScore]]


@dataclass(frozen=True)
class Question:
    """A context and its possible continuations, of which `gold` is the right one."""

    context: str
    choices: tuple[str, ...]
    gold: int = 0
    layout: str = ""  # a key of LAYOUTS, which find_question fills in


def accuracy(right: int, n: int) -> dict[str, float | int | list[float]]:
    """Return a share of right answers with its 95 % interval.

    The interval is that of Wilson (1927), which also holds for small n.
    """
    if n == 0:
        return {"accuracy": math.nan, "right": right, "n": n, "interval": [0.0, 1.0]}
    share, square = right / n, Z * Z / n
    middle = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / n + square / (4 * n))
    interval = [max(0.0, middle - half), min(1.0, middle + half)]
    return {"accuracy": share, "right": right, "n": n, "interval": interval}


class Layout(ABC):
    """A form of question."""

    keys: ClassVar[str]  # of a row, for the error of a file in no known layout
    definition: ClassVar[str]  # what its figures mean, for evaluation.json

    @abstractmethod
    def parse(self, row: Mapping[str, Any]) -> Question | None:
        """Return the question of a row, None for another layout; ValueError if it is damaged."""

    @abstractmethod
    def figures(self, questions: Sequence[Question], scores: Scores) -> dict[str, Any]:
        """Return the figures of questions and the scores of their choices."""


class Choices(Layout):
    """A question with choices."""

    keys = "query/choices/gold"
    definition = (
        "the right choice has the highest log-probability per byte of the choice; raw: the highest"
        " log-probability"
    )

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
        return Question(query, tuple(choices), gold)

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


class Schema(Choices):
    """A sentence with several beginnings, as in WinoGrande; whole sentences are its choices."""

    keys = "context_options/continuation/gold"

    def parse(self, row: Mapping[str, Any]) -> Question | None:
        """Read context_options, continuation and gold."""
        if "context_options" not in row:
            return None
        options, continuation = row["context_options"], row.get("continuation")
        if not isinstance(options, list) or not isinstance(continuation, str):
            raise ValueError("context_options or continuation are not text")
        sentences = [f"{option} {continuation.strip()}" for option in options]
        return super().parse({"query": "", "choices": sentences, "gold": row.get("gold")})


class LastWord(Layout):
    """A question for the last word of a text."""

    keys = "text or context/continuation"
    definition = (
        "every token of the last word is the most probable one; perplexity: exp of the mean nats a"
        " word"
    )

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


# By name in evaluation.json, in the order in which a row is tried.
LAYOUTS: dict[str, Layout] = {
    "choices": Choices(),
    "schema": Schema(),
    "last word": LastWord(),
}


def find_question(row: Mapping[str, Any]) -> Question | None:
    """Return the question of a row in the first layout that knows it, None if none does.

    Raises ValueError if the row is damaged.
    """
    for name, layout in LAYOUTS.items():
        if question := layout.parse(row):
            return replace(question, layout=name)
    return None


def known_keys() -> str:
    """Return the keys of all layouts, in words."""
    return " or ".join(layout.keys for layout in LAYOUTS.values())
