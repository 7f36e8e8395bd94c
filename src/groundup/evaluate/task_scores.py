"""Asks the items of a benchmark: log-probabilities of their choices, generated answers, figures.

    figures = task_figures(model, tokenizer, "arc_easy", files, shots=0, limit=0, seed=1)
    figures["acc_norm"]                       # {"accuracy": 0.41, "right": ..., "interval": ...}

As lm-evaluation-harness scores a model without a token that begins every text: nothing precedes a
context, and the end-of-text id stands for an empty one. Spaces at the end of a context belong to
what follows.
"""

from __future__ import annotations

import math
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groundup.artifacts.questions import ContinuationScore, accuracy
from groundup.artifacts.tokenizer import Tokenizer
from groundup.errors import GroundupError
from groundup.evaluate.loglikelihood import Continuation, score
from groundup.evaluate.task_files import TaskItems, read_task
from groundup.evaluate.task_rows import TaskItem
from groundup.evaluate.tasks import TASKS, Task
from groundup.model.generate import generate
from groundup.model.transformer import Transformer

# Seed with which lm-evaluation-harness draws examples.
EXAMPLES_SEED = 1234
# Tokens of a generated answer.
MAX_NEW_TOKENS = 256
# Samples of the items with replacement, of which 95 % of the figures lie in the interval.
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class ItemScore:
    """One item as it was answered."""

    log_probabilities: tuple[float, ...]  # nats, of each choice or of the target
    acc: bool
    acc_norm: bool | None = None  # None where the harness has no such figure
    answer: str = ""  # that was generated


def prefixes(
    task: Task, items: Sequence[TaskItem], examples: Mapping[str, Sequence[TaskItem]], shots: int
) -> list[str]:
    """Return what precedes each item: the preamble of its group, and `shots` examples.

    Examples are drawn as the harness draws them: from one generator for each group, in the order of
    the items.
    """
    generators: dict[str, random.Random] = defaultdict(lambda: random.Random(EXAMPLES_SEED))
    texts = []
    for item in items:
        chosen = list(examples.get(item.group, ()))[:shots]
        if shots and not task.first_examples:
            chosen = generators[item.group].sample(list(examples[item.group]), shots)
        shown = "".join(f"{example.example}\n\n" for example in chosen)
        texts.append(task.preamble(item) + shown)
    return texts


def encode_pair(tokenizer: Tokenizer, context: str, target: str) -> Continuation:
    """Return the ids of a context and of what follows it; ValueError if the latter has none."""
    read = context.rstrip()
    target = context[len(read) :] + target
    if not read:
        ids, start = [tokenizer.end_id, *tokenizer.encode(target)], 1
    else:
        ids, start = tokenizer.encode(read + target), len(tokenizer.encode(read))
    if start >= len(ids):
        raise ValueError("a choice has no token of its own")
    return Continuation(ids[:start], ids[start:])


def score_items(
    model: Transformer,
    tokenizer: Tokenizer,
    task: Task,
    items: Sequence[TaskItem],
    before: Sequence[str],
) -> list[ItemScore]:
    """Return the scores of items, `before` which comes what is shown first."""
    if task.kind == "generate":
        shown = [text + item.pairs[0][0] for text, item in zip(before, items, strict=True)]
        answers = [_generated(model, tokenizer, text, task.until) for text in shown]
        return [_compared(task, item, text) for item, text in zip(items, answers, strict=True)]
    if task.kind == "text":
        groups = [rolling(tokenizer, item.pairs[0][1], model.config.context) for item in items]
    else:
        groups = [
            [encode_pair(tokenizer, text + context, target) for context, target in item.pairs]
            for text, item in zip(before, items, strict=True)
        ]
    flat = iter(score(model, [pair for group in groups for pair in group]))
    scores = [[next(flat) for _ in group] for group in groups]
    return [_answered(task, item, group) for item, group in zip(items, scores, strict=True)]


def rolling(tokenizer: Tokenizer, text: str, context: int) -> list[Continuation]:
    """Return a document in windows of the context, each token once, as much as fits before it."""
    ids = [tokenizer.end_id, *tokenizer.encode(text)]
    windows, start = [], 1
    while start < len(ids):
        stop = min(start + context, len(ids))
        first = max(0, stop - context - 1)
        windows.append(Continuation(ids[first:start], ids[start:stop]))
        start = stop
    return windows


def _answered(task: Task, item: TaskItem, scores: Sequence[ContinuationScore]) -> ItemScore:
    sums = tuple(choice.log_probability for choice in scores)
    if task.kind == "text":
        return ItemScore((math.fsum(sums),), acc=False)
    if task.kind == "word":
        return ItemScore(sums, scores[0].greedy)
    acc_norm = None
    if item.lengths and task.metric == "acc_norm":
        acc_norm = int(np.argmax(np.array(sums) / item.lengths)) == item.gold
    return ItemScore(sums, int(np.argmax(sums)) == item.gold, acc_norm)


def _generated(model: Transformer, tokenizer: Tokenizer, prompt: str, until: Sequence[str]) -> str:
    """Return what greedy decoding adds to a prompt, up to the first of the words that end it."""
    room = max(1, model.config.context - MAX_NEW_TOKENS)
    ids, new, text = tokenizer.encode(prompt)[-room:], list[int](), ""
    ends, hidden = re.compile("|".join(map(re.escape, until))), set(tokenizer.specials.values())
    for token in generate(model, ids, MAX_NEW_TOKENS, temperature=0, stop={tokenizer.end_id}):
        new += [token] if token not in hidden else []
        text = tokenizer.decode(new)
        if ends.search(text):
            break
    return ends.split(text, maxsplit=1)[0]


def _compared(task: Task, item: TaskItem, text: str) -> ItemScore:
    answer = task.extract(text)
    right = bool(answer) and answer in {task.extract(given) for given in item.answers}
    return ItemScore((), right, answer=text)


# Figures


def task_figures(
    model: Transformer,
    tokenizer: Tokenizer,
    name: str,
    files: Mapping[str, Path],
    shots: int | None,
    limit: int,
    seed: int,
) -> dict[str, Any]:
    """Return the figures of a benchmark, or of a random sample of `limit` items (0 for all).

    `shots` None takes the benchmark's usual number of examples. Raises GroundupError if the files
    hold no item, or too few examples.
    """
    task = TASKS[name]
    shots = task.shots if shots is None else shots
    read = read_task(name, files, shots)
    available, before = len(read.items), prefixes(task, read.items, read.examples, shots)
    chosen = list(range(available))
    if limit and available > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(available, limit, False)).tolist()
    items = [read.items[n] for n in chosen]
    try:
        scores = score_items(model, tokenizer, task, items, [before[n] for n in chosen])
    except ValueError as error:
        raise GroundupError(f"benchmark {name}: {', '.join(read.files)}: {error}") from None
    summary = _perplexities if task.kind == "text" else _accuracies
    return {
        "task": name,
        "kind": task.kind,
        "shots": shots,
        **summary(task, items, scores, seed),
        "available": available,
        **_provenance(read),
    }


def _provenance(read: TaskItems) -> dict[str, Any]:
    return {
        "files": read.files,
        "skipped_files": dict(sorted(read.skipped.items())),
        "left_out": dict(sorted(read.left_out.items())),
        "repeated": read.repeated,
    }


def _accuracies(
    task: Task, items: Sequence[TaskItem], scores: Sequence[ItemScore], seed: int
) -> dict[str, Any]:
    n, figures = len(items), dict[str, Any]()
    metrics = {"acc": [score.acc for score in scores]}
    if task.metric == "acc_norm":
        metrics["acc_norm"] = [bool(score.acc_norm) for score in scores]
    for metric, right in metrics.items():
        figures[metric] = accuracy(sum(right), n)
    figures |= {"metric": task.metric, **figures[task.metric]}
    if task.kind == "choices":
        chance = sum(1 / len(item.pairs) for item in items) / n
        low, high = figures["interval"]
        figures |= {"chance": chance, "within_chance": low <= chance <= high}
    if task.kind == "word":
        nats = np.array([-score.log_probabilities[0] for score in scores])
        figures |= _resampled("perplexity", nats, np.ones(n), seed)
    groups = sorted({item.group for item in items} - {""})
    if groups:
        right = metrics[task.metric]
        of_group = {
            g: [r for r, i in zip(right, items, strict=True) if i.group == g] for g in groups
        }
        figures["groups"] = {group: accuracy(sum(of), len(of)) for group, of in of_group.items()}
    return figures


def _perplexities(
    task: Task, items: Sequence[TaskItem], scores: Sequence[ItemScore], seed: int
) -> dict[str, Any]:
    """Return perplexity by word and by byte of the text as it is published, with its marks."""
    nats = np.array([-score.log_probabilities[0] for score in scores])
    pages = [item.answers[0] for item in items]
    words = np.array([len(re.split(r"\s+", page)) for page in pages])
    sizes = np.array([len(page.encode()) for page in pages])
    return {
        "n": len(items),
        "bits_per_byte": float(nats.sum() / sizes.sum() / math.log(2)),
        **_resampled("byte_perplexity", nats, sizes, seed),
        **_resampled("word_perplexity", nats, words, seed),
    }


def _resampled(name: str, nats: Any, sizes: Any, seed: int) -> dict[str, Any]:
    """Return exp of the nats a unit, with the 95 % interval of samples of the items (bootstrap)."""
    draws = np.random.default_rng(seed).integers(0, len(nats), (RESAMPLES, len(nats)))
    means = nats[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.exp(np.minimum(np.percentile(means, [2.5, 97.5]), 700)).tolist()
    figure = math.exp(min(nats.sum() / sizes.sum(), 700))
    return {name: figure, f"{name}_interval": [low, high]}
