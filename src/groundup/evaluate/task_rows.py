"""Rows of benchmarks: the items that they become, and the columns and prompts that many share.

text(row, "question")                  # a column, or ValueError with what is wrong with it
choose("Hot?", ["ice", "fire"], 1)     # an item whose choices follow a prompt
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True, slots=True)
class TaskItem:
    """One question of a benchmark."""

    # What is read, and what is scored after it, of each choice.
    pairs: tuple[tuple[str, str], ...]
    gold: int = 0
    # Characters of each choice, by which acc_norm divides its log-probability.
    lengths: tuple[int, ...] = ()
    # The item with its answer, as it is shown before others.
    example: str = ""
    # Right answers of what is generated.
    answers: tuple[str, ...] = ()
    # Subject or paradigm, which has a figure of its own.
    group: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """What two layouts of the same item have in common: letters and digits, and the answer."""
        texts = {*map("".join, self.pairs), *self.answers}
        words = ("".join(filter(str.isalnum, text)).lower() for text in texts)
        return (*sorted(words), self.gold, self.group)


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Columns of a row, and how they become the arguments of a task's prompt."""

    columns: tuple[str, ...]
    read: Callable[[Row], tuple[Any, ...]]


# Columns


def text(row: Row, column: str) -> str:
    """Return a column of text; ValueError if it is something else or empty."""
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{column} is not text")
    return value


def texts(values: Any, least: int = 2) -> list[str]:
    """Return choices as a list; ValueError unless they are at least `least` texts."""
    values = list(values) if isinstance(values, (list, tuple)) else []
    if len(values) < least or not all(isinstance(value, str) and value.strip() for value in values):
        raise ValueError("the choices are not texts")
    return values


def index(value: Any, count: int, first: int = 0) -> int:
    """Return which of `count` choices is right, from a number; ValueError if it names none.

    `first` is the number of the first choice.
    """
    if isinstance(value, str) and re.fullmatch(r"-?\d+", value.strip()):
        value = int(value)
    if value in (None, "", -1):
        raise ValueError("no answer")
    if not isinstance(value, int) or not 0 <= value - first < count:
        raise ValueError("the answer names no choice")
    return value - first


def labeled(choices: Any, key: Any) -> tuple[list[str], int]:
    """Return texts and the right one of choices with labels, as columns or as a list of objects."""
    if isinstance(choices, list):
        choices = {name: [choice.get(name) for choice in choices] for name in ("text", "label")}
    if not isinstance(choices, Mapping):
        raise ValueError("the choices are not texts")
    options, labels = texts(choices.get("text")), [str(label) for label in choices.get("label", [])]
    if not key:
        raise ValueError("no answer")
    if str(key).strip() not in labels[: len(options)]:
        raise ValueError("the answer names no choice")
    return options, labels.index(str(key).strip())


def asked(column: str) -> RowLayout:
    """Return the layout of a question with labeled choices, whose text is in `column`."""

    def read(row: Row) -> tuple[Any, ...]:
        question = row[column]
        # The original files put text and choices into one object.
        if isinstance(question, Mapping):
            return text(question, "stem"), *labeled(question.get("choices"), row["answerKey"])
        return text(row, column), *labeled(row["choices"], row["answerKey"])

    return RowLayout((column, "answerKey"), read)


def query(before: str = "") -> RowLayout:
    """Return llm-foundry's layout, whose queries begin with the words `before`."""

    def read(row: Row) -> tuple[Any, ...]:
        choices = texts(row["choices"])
        question = text(row, "query").removeprefix(before)
        return question.rstrip("\n"), choices, index(row["gold"], len(choices))

    return RowLayout(("query", "choices", "gold"), read)


def lettered(pattern: str) -> RowLayout:
    """Return llm-foundry's layout where the query lists the choices, which are letters."""

    def read(row: Row) -> tuple[Any, ...]:
        match = re.fullmatch(pattern + r"Choices:\n(.*)\nAnswer:\s*", text(row, "query"), re.DOTALL)
        if match is None:
            raise ValueError("the query does not list its choices")
        choices = [line.partition(". ")[2] for line in match.groups()[-1].split("\n")]
        gold = index(row["gold"], len(texts(choices)))
        return *match.groups()[:-1], choices, gold

    return RowLayout(("query", "choices", "gold"), read)


# Prompts


def choose(prompt: str, choices: Sequence[str], gold: int) -> TaskItem:
    """Return an item whose choices follow a prompt, after a space."""
    pairs = tuple((prompt, f" {choice}") for choice in choices)
    lengths = tuple(map(len, choices))
    return TaskItem(pairs, gold, lengths, "".join(pairs[gold]))


def question(words: str) -> Callable[[str, Sequence[str], int], TaskItem]:
    """Return the prompt of a question with choices, from its words around the question."""
    return lambda asks, choices, gold: choose(words.format(asks), choices, gold)


def letters(words: str) -> Callable[[str, Sequence[str], int], TaskItem]:
    """Return the prompt that lists the choices and takes the letter of one for an answer."""

    def prompt(asks: str, choices: Sequence[str], gold: int) -> TaskItem:
        lines = "".join(f"{letter}. {c}\n" for letter, c in zip(LETTERS, choices, strict=False))
        return choose(
            f"{words.format(asks.strip())}\n{lines}Answer:", LETTERS[: len(choices)], gold
        )

    return prompt


def partial(contexts: Sequence[str], target: str, gold: int) -> TaskItem:
    """Return an item that scores the same words after each of several beginnings."""
    pairs = tuple((context, f" {target}") for context in contexts)
    return TaskItem(pairs, gold, (), "".join(pairs[gold]))
