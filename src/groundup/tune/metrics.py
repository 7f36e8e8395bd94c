"""Figures on held-out rows, measured the same way before and after tuning."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from groundup.artifacts.chat import encode_chat, encode_prompt
from groundup.artifacts.document import Turn
from groundup.artifacts.tokenizer import Tokenizer
from groundup.model.generate import generate
from groundup.model.packed_attention import choose_packed_kernel
from groundup.model.transformer import Transformer, evaluating, token_log_probabilities
from groundup.train.distributed import DistributedContext
from groundup.train.hardware import uncompiled
from groundup.tune.data import Row
from groundup.tune.packing import collate, loss_sum, pack, packed_size

# Rows that are measured, from a random order: the loss of 2,000 is nearly that of all, and answers
# are generated token by token.
LOSS_ROWS, PROMPTS, EXAMPLES = 2_000, 100, 5
# With more labels than this, their probabilities are not compared.
MAX_LABELS = 256
# Packed sequences in one forward pass.
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
class Reply:
    """A greedy answer, and whether <|im_end|> ended it."""

    text: str
    ended: bool


# Figures by name, and the replies to the first `PROMPTS` rows.
Measured = tuple[dict[str, Any], list[Reply]]


@dataclass(frozen=True)
class HeldOutEvaluator:
    """Measures models on held-out rows."""

    tokenizer: Tokenizer
    rows: Sequence[Row]
    labels: Sequence[str]
    answer_tokens: int
    # They share the rows, and all of them get the figures.
    ranks: DistributedContext = field(default_factory=DistributedContext)

    def figures(self, model: Transformer) -> Measured:
        """Measure a model. A figure without rows is None; accuracies are there for tasks only."""
        with uncompiled():
            return self._figures(model)

    def _figures(self, model: Transformer) -> Measured:
        rows = self.rows[:PROMPTS]
        replies = self.ranks.map(lambda row: self.reply(model, row.prompt), rows)
        figures: dict[str, Any] = {"loss": self.loss(model), "ended": None}
        if replies:
            figures["ended"] = sum(reply.ended for reply in replies) / len(replies)
        tasks = [(row, reply) for row, reply in zip(rows, replies, strict=True) if row.task]
        if tasks:
            right = sum(reply.text == row.answer for row, reply in tasks)
            figures["accuracy_generation"] = right / len(tasks)
            figures["accuracy_probability"] = None
            if len(self.labels) <= MAX_LABELS:
                prompts = [row.prompt for row, _ in tasks]
                labels = self.ranks.map(lambda prompt: self.best_label(model, prompt), prompts)
                right = sum(
                    row.answer == best for (row, _), best in zip(tasks, labels, strict=True)
                )
                figures["accuracy_probability"] = right / len(tasks)
        return figures, replies

    def loss(self, model: Transformer) -> float | None:
        """Return the mean loss over the learned tokens of the rows, float32."""
        rows = self.rows[:LOSS_ROWS]
        if not rows:
            return None
        packs = pack([packed_size(row) for row in rows], range(len(rows)), model.config.context)
        kernel = choose_packed_kernel(model.device.type, "fp32")

        def batch_loss(start: int) -> float:
            batch = collate(rows, packs[start : start + SEQUENCES])
            return float(loss_sum(model, batch.to(model.device), kernel))

        with evaluating(model), uncompiled():
            losses = self.ranks.map(batch_loss, range(0, len(packs), SEQUENCES))
        return math.fsum(losses) / sum(int(row.loss_mask.sum()) for row in rows)

    def reply(self, model: Transformer, prompt: Sequence[Turn]) -> Reply:
        """Return the greedy answer to a prompt."""
        stop, ended = self.tokenizer.stop_id, False
        ids: list[int] = []
        prompt_ids = encode_prompt(self.tokenizer, prompt)
        for token in generate(model, prompt_ids, self.answer_tokens, temperature=0):
            if token in (stop, self.tokenizer.end_id):
                ended = token == stop
                break
            ids.append(token)
        return Reply(self.tokenizer.decode(ids).strip(), ended)

    def best_label(self, model: Transformer, prompt: Sequence[Turn]) -> str:
        """Return the label that is the most probable answer."""
        chats = [[*prompt, {"role": "assistant", "content": label}] for label in self.labels]
        encoded = [encode_chat(self.tokenizer, chat) for chat in chats]
        # A prompt that is too long loses its beginning.
        tokens_BT, mask_BT = (
            pad_sequence(list(map(torch.tensor, lists)), batch_first=True)[
                :, -model.config.context - 1 :
            ]
            for lists in zip(*encoded, strict=True)
        )
        scores_BT = token_log_probabilities(model, tokens_BT).cpu() * mask_BT[:, 1:]
        return self.labels[int(scores_BT.sum(1).argmax())]


def baseline(train: Sequence[Row], held_out: Sequence[Row]) -> float | None:
    """Return the accuracy of the most frequent training label, on the rows whose replies count."""
    tasks = [row for row in held_out[:PROMPTS] if row.task]
    counts = Counter(row.answer for row in train if row.task)
    if not tasks or not counts:
        return None
    label = min(counts, key=lambda name: (-counts[name], name))
    return sum(row.answer == label for row in tasks) / len(tasks)


def examples(rows: Sequence[Row], replies: Mapping[str, Sequence[Reply]]) -> list[dict[str, Any]]:
    """Return a few prompts with the right answer and the replies, by name."""
    return [
        {"prompt": list(row.prompt), "answer": row.answer}
        | {name: asdict(given[n]) for name, given in replies.items()}
        for n, row in enumerate(rows[:EXAMPLES])
    ]
