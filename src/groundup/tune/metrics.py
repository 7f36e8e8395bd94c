"""What a model does with held-out rows. Reads a model and rows; returns figures, the same before
tuning and after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from groundup.artifacts.chat import encode_chat, encode_prompt
from groundup.artifacts.document import Turn
from groundup.artifacts.tokenizer import Tokenizer
from groundup.model.generate import generate
from groundup.model.score import evaluating, token_log_probabilities
from groundup.model.transformer import Transformer
from groundup.tune.data import Row
from groundup.tune.packing import collate, loss_sum, pack, size_of

# Rows that are measured at most, chosen as the seed has it: the loss of all is nearly that of so
# many, and an answer is written token by token.
LOSS_ROWS, PROMPTS, EXAMPLES = 2_000, 100, 5
# Beyond so many labels each is no longer tried by probability.
MOST_LABELS = 256
SEQUENCES = 8

DEFINITIONS = {
    "loss": (
        "nats a token over the held-out answers and the <|im_end|> of each, given what stands"
        " before them"
    ),
    "ended": (
        "share of held-out prompts whose greedy answer ends itself with <|im_end|> within"
        " answer_tokens tokens"
    ),
    "accuracy_probability": (
        "share of held-out texts whose right label, with its <|im_end|>, is the most probable of"
        " all labels"
    ),
    "accuracy_generation": (
        "share of held-out texts whose greedy answer is the right label, letter by letter"
    ),
    "baseline": (
        "accuracy of always answering the label that is most frequent among the rows that are"
        " learnt"
    ),
}


@dataclass(frozen=True)
class Answer:
    """A greedy answer: its text, and whether <|im_end|> ended it."""

    text: str
    ended: bool


@dataclass(frozen=True)
class HeldOut:
    """The rows that a model is measured on, and how."""

    tokenizer: Tokenizer
    rows: Sequence[Row]
    labels: Sequence[str]
    answer_tokens: int

    def figures(self, model: Transformer) -> tuple[dict[str, Any], list[Answer]]:
        """Return the figures of a model, and its answers to the first `PROMPTS` rows; figures of
        nothing are None.
        """
        rows = self.rows[:PROMPTS]
        answers = [self.answer(model, row.prompt) for row in rows]
        tasks = [(row, answer) for row, answer in zip(rows, answers, strict=True) if row.task]
        found: dict[str, Any] = {"loss": self.loss(model)}
        found["ended"] = sum(answer.ended for answer in answers) / len(answers) if answers else None
        if tasks:
            found["accuracy_generation"] = sum(
                answer.text == row.answer for row, answer in tasks
            ) / len(tasks)
            chosen = (
                [self.choose(model, row.prompt) for row, _ in tasks]
                if len(self.labels) <= MOST_LABELS
                else []
            )
            right = sum(label == row.answer for label, (row, _) in zip(chosen, tasks, strict=False))
            found["accuracy_probability"] = right / len(chosen) if chosen else None
        return found, answers

    def loss(self, model: Transformer) -> float | None:
        """Return the mean loss over the learned tokens of the rows, float32."""
        rows = self.rows[:LOSS_ROWS]
        if not rows:
            return None
        packs = pack([size_of(row) for row in rows], range(len(rows)), model.config.context)
        total = 0.0
        with evaluating(model):
            for start in range(0, len(packs), SEQUENCES):
                total += float(
                    loss_sum(
                        model, collate(rows, packs[start : start + SEQUENCES]).to(model.device)
                    )
                )
        return total / sum(int(row.learned.sum()) for row in rows)

    def answer(self, model: Transformer, prompt: Sequence[Turn]) -> Answer:
        """Return what the model answers, taking the most probable token each time."""
        stop = self.tokenizer.stop_id
        ids: list[int] = []
        for token in generate(
            model, encode_prompt(self.tokenizer, prompt), self.answer_tokens, temperature=0
        ):
            if token in (stop, self.tokenizer.end_id):
                return Answer(self.tokenizer.decode(ids).strip(), token == stop)
            ids.append(token)
        return Answer(self.tokenizer.decode(ids).strip(), False)

    def choose(self, model: Transformer, prompt: Sequence[Turn]) -> str:
        """Return the label that is the most probable answer."""
        encoded = [
            encode_chat(self.tokenizer, [*prompt, {"role": "assistant", "content": label}])
            for label in self.labels
        ]
        width = max(len(ids) for ids, _ in encoded)
        tokens_BT = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in encoded])[
            :, -model.config.context - 1 :
        ]
        counted_BT = torch.tensor(
            [learned + [False] * (width - len(learned)) for _, learned in encoded]
        )[:, -model.config.context - 1 :]
        scores_BT = token_log_probabilities(model, tokens_BT).cpu() * counted_BT[:, 1:]
        return self.labels[int(scores_BT.sum(1).argmax())]


def baseline(train: Sequence[Row], rows: Sequence[Row]) -> float | None:
    """Return the accuracy of the most frequent label, on the rows whose answers are measured."""
    tasks = [row for row in rows[:PROMPTS] if row.task]
    counts = Counter(row.answer for row in train if row.task)
    if not tasks or not counts:
        return None
    label = min(counts, key=lambda name: (-counts[name], name))
    return sum(row.answer == label for row in tasks) / len(tasks)


def examples(
    rows: Sequence[Row], before: Sequence[Answer], after: Sequence[Answer]
) -> list[dict[str, Any]]:
    """Return a few prompts with the right answer and those before and after."""
    named: Mapping[str, Sequence[Answer]] = {"before": before, "after": after}
    return [
        {"prompt": list(row.prompt), "answer": row.answer}
        | {
            name: {"text": answers[number].text, "ended": answers[number].ended}
            for name, answers in named.items()
        }
        for number, row in enumerate(rows[: min(EXAMPLES, len(before))])
    ]
