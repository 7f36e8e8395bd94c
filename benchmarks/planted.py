"""Copies of texts with known edits, for measuring what finds them: from one changed word to half of
the text gone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

# What stands above and below other texts on the web and in code; pieces of the license are shared
# by many copies that have nothing else in common, so they are also a test of what a tool calls
# alike by mistake.
BOILERPLATE = (Path(__file__).parents[1] / "LICENSE").read_text(encoding="utf-8").split()

Edit = Callable[[str, random.Random, str], str]


def words_replaced(rate: int) -> Edit:
    """One word in `rate` comes from another text."""

    def edit(text: str, rng: random.Random, other: str) -> str:
        strange = other.split()
        return re.sub(
            r"\S+", lambda word: rng.choice(strange) if rng.randrange(rate) == 0 else word[0], text
        )

    return edit


def run_deleted(text: str, rng: random.Random, other: str) -> str:
    """A run of 1 to 50 % of the words is gone."""
    words = text.split(" ")
    count = round(len(words) * rng.uniform(0.01, 0.5))
    begin = rng.randrange(len(words) - count + 1)
    return " ".join(words[:begin] + words[begin + count :])


def run_inserted(text: str, rng: random.Random, other: str) -> str:
    """A run of another text, 1 to 60 % as long, stands in between."""
    words, strange = text.split(" "), other.split(" ")
    count = round(len(words) * rng.uniform(0.01, 0.6))
    begin = rng.randrange(len(words) + 1)
    return " ".join(words[:begin] + strange[:count] + words[begin:])


def boilerplate(rng: random.Random) -> str:
    begin = rng.randrange(0, len(BOILERPLATE) - 60, 40)
    return " ".join(BOILERPLATE[begin : begin + rng.choice([5, 10, 20, 40, 60])])


def appended(text: str, rng: random.Random, other: str) -> str:
    """5 to 60 words of a license stand below."""
    return f"{text}\n\n{boilerplate(rng)}"


def prepended(text: str, rng: random.Random, other: str) -> str:
    """5 to 60 words of a license stand above."""
    return f"{boilerplate(rng)}\n\n{text}"


def reordered(text: str, rng: random.Random, other: str) -> str:
    """Paragraphs, or else lines, or else sentences are in another order: all, or two neighbors."""
    parts, separator = text.split("\n\n"), "\n\n"
    for separator in ("\n\n", "\n", ". "):
        parts = text.split(separator)
        if len(parts) > 2:
            break
    if rng.random() < 0.5:
        rng.shuffle(parts)
    elif len(parts) > 1:
        at = rng.randrange(len(parts) - 1)
        parts[at], parts[at + 1] = parts[at + 1], parts[at]
    return separator.join(parts)


def respaced(text: str, rng: random.Random, other: str) -> str:
    """Other white space."""
    return re.sub(r"\s+", lambda space: rng.choice([" ", "  ", "\n", "\t", space[0]]), text)


def other_case(text: str, rng: random.Random, other: str) -> str:
    """All letters small, or all capital."""
    return text.lower() if rng.random() < 0.5 else text.upper()


def no_punctuation(text: str, rng: random.Random, other: str) -> str:
    """Marks that end sentences and clauses are gone."""
    return re.sub(r"[.,;:!?]+(?=\s|$)", "", text)


def truncated(text: str, rng: random.Random, other: str) -> str:
    """Only the first 50 to 99 % of the characters."""
    return text[: round(len(text) * rng.uniform(0.5, 0.99))]


def two_edits(text: str, rng: random.Random, other: str) -> str:
    """Two of the others, one after the other."""
    for edit in rng.sample([edit for name, edit in EDITS.items() if name != "two edits"], 2):
        text = edit(text, rng, other)
    return text


EDITS: dict[str, Edit] = {
    "same": lambda text, rng, other: text,
    **{
        f"one word in {rate} replaced": words_replaced(rate)
        for rate in (400, 200, 100, 70, 50, 30, 20, 12)
    },
    "words deleted": run_deleted,
    "words inserted": run_inserted,
    "boilerplate below": appended,
    "boilerplate above": prepended,
    "parts in another order": reordered,
    "other white space": respaced,
    "other case": other_case,
    "no punctuation": no_punctuation,
    "truncated": truncated,
    "two edits": two_edits,
}
# Edits after which a reader would say that the words are the same.
SAME_WORDS = ("same", "other white space", "other case", "no punctuation")


def planted(texts: Sequence[str], copies: int, rng: random.Random) -> list[tuple[str, int, str]]:
    """Return edited copies of texts drawn at random (some more than once), the number of the text
    that each is made of, and how.
    """
    made = []
    for number in range(copies):
        original, other = rng.randrange(len(texts)), rng.choice(texts)
        name = list(EDITS)[number % len(EDITS)]
        made.append((EDITS[name](texts[original], rng, other), original, name))
    return made
