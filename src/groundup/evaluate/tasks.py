"""The benchmarks of the field: how a row of each public layout becomes an item, and what is scored.

    task = TASKS["arc_easy"]
    item = task.item({"query": "Question: Which is hot?", "choices": ["ice", "fire"], "gold": 1})
    item.pairs      # (("Question: Which is hot?\\nAnswer:", " ice"), (... , " fire"))

A layout names the columns that it needs, and reads from them the arguments of the task's prompt.
The first layout is that of the Hugging Face Hub, the others are the original files and
llm-foundry's conversions. Prompts and normalizations are those of lm-evaluation-harness
(EleutherAI, 0.4.13), whose scores of the same items are equal: also where it is odd, as with two
spaces before the choices of COPA.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from groundup.evaluate.task_rows import (
    LETTERS,
    Row,
    RowLayout,
    TaskItem,
    asked,
    choose,
    index,
    lettered,
    letters,
    partial,
    query,
    question,
    text,
    texts,
)


@dataclass(frozen=True)
class Task:
    """A benchmark."""

    prompt: Callable[..., TaskItem]
    layouts: tuple[RowLayout, ...]
    # choices: the most probable of several; word: greedy decoding gives the target; generate: the
    # text that is generated holds the answer; text: perplexity of whole documents.
    kind: Literal["choices", "word", "generate", "text"] = "choices"
    # acc_norm where the harness reports it.
    metric: Literal["acc", "acc_norm"] = "acc"
    # Name of the part of the set that is asked; the others are not, where files say which is which.
    split: str = "test"
    shots: int = 0
    # Examples are the first of their part, not drawn for each item.
    first_examples: bool = False
    # What precedes the examples and the item.
    preamble: Callable[[TaskItem], str] = field(default=lambda item: "")
    # Where generation ends, and what it may be taken for.
    until: tuple[str, ...] = ()
    extract: Callable[[str], str] = field(default=lambda text: text)

    def layout(self, columns: Sequence[str]) -> RowLayout:
        """Return the layout of a row with these columns; ValueError if one is missing."""
        for layout in self.layouts:
            if set(layout.columns) <= set(columns):
                return layout
        nearest = max(self.layouts, key=lambda layout: len(set(layout.columns) & set(columns)))
        if set(nearest.columns) & set(columns):
            missing = [column for column in nearest.columns if column not in columns]
            raise ValueError(f"no {', '.join(missing)}")
        raise ValueError(f"no {' or '.join('/'.join(layout.columns) for layout in self.layouts)}")

    def item(self, row: Row) -> TaskItem:
        """Return the item of a row; ValueError if the row is damaged or has no answer."""
        item = self.prompt(*self.layout(list(row)).read(row))
        group = next((str(row[key]) for key in ("subject", "UID") if row.get(key)), "")
        return replace(item, group=group) if group else item


def _clean_hellaswag(words: str) -> str:
    """Return text without the marks of WikiHow's headings."""
    words = re.sub(r"\[.*?\]", "", words.strip().replace(" [title]", ". "))
    return words.replace("  ", " ")


def _hellaswag(asks: str, choices: Sequence[str], gold: int) -> TaskItem:
    return choose(_clean_hellaswag(asks), [_clean_hellaswag(c) for c in choices], gold)


def _hellaswag_row(row: Row) -> tuple[Any, ...]:
    endings = texts(row["endings"])
    begun = f"{row['activity_label']}: {row['ctx_a']} {str(row['ctx_b']).capitalize()}"
    return begun, endings, index(row["label"], len(endings))


def _piqa_row(row: Row) -> tuple[Any, ...]:
    return text(row, "goal"), [text(row, "sol1"), text(row, "sol2")], index(row["label"], 2)


def _winogrande_row(row: Row) -> tuple[Any, ...]:
    before, blank, after = text(row, "sentence").partition("_")
    if not blank:
        raise ValueError("sentence has no blank")
    options = [before + text(row, name) for name in ("option1", "option2")]
    return options, after.strip(), index(row["answer"], 2, first=1)


def _winograd_schema(row: Row) -> tuple[Any, ...]:
    # The Hub's rows have a space before the words that follow the pronoun.
    contexts, target, gold = _schema_row(row)
    return contexts, f" {target}", gold


def _schema_row(row: Row) -> tuple[Any, ...]:
    contexts = texts(row["context_options"])
    return contexts, text(row, "continuation").strip(), index(row["gold"], len(contexts))


# Words of options that are small in the middle of a sentence.
_UPPER = frozenset("A An The She He It They My His Her Their".split())


def _winograd_row(row: Row) -> tuple[Any, ...]:
    words, pronoun = text(row, "text").replace("  ", " "), text(row, "pronoun")
    start, options = int(row["pronoun_loc"]), []
    owns = "'s" if pronoun.lower() in ("my", "his", "her", "our", "their") else ""
    for option in texts(row["options"]):
        first = option.split()[0]
        is_small = words[start - 2] != "." and first in _UPPER
        name = option.replace(first, first.lower()) if is_small else option
        options.append(words[:start] + name + owns)
    return options, words[start + len(pronoun) :], index(row["label"], len(options))


def _boolq(passage: str, asks: str, gold: int) -> TaskItem:
    return choose(f"{passage}\nQuestion: {asks}?\nAnswer:", ("no", "yes"), gold)


def _boolq_row(row: Row, column: str) -> tuple[Any, ...]:
    answer = row[column]
    gold = int(answer) if isinstance(answer, bool) else index(answer, 2)
    return text(row, "passage"), text(row, "question"), gold


def _boolq_query(row: Row) -> tuple[Any, ...]:
    passage, found, asks = text(row, "query").removeprefix("Passage: ").rpartition("\nQuestion: ")
    if not found or [str(choice).strip() for choice in texts(row["choices"])] != ["no", "yes"]:
        raise ValueError("the query is no passage with a question of yes or no")
    return passage, asks.strip().removesuffix("?"), index(row["gold"], 2)


def _copa(premise: str, choices: Sequence[str], gold: int) -> TaskItem:
    return choose(premise, [f" {choice[:1].lower()}{choice[1:]}" for choice in choices], gold)


def _copa_row(row: Row) -> tuple[Any, ...]:
    links = {"cause": "because", "effect": "therefore"}
    if row["question"] not in links:
        raise ValueError("question is neither cause nor effect")
    # The period goes.
    premise = f"{text(row, 'premise').strip()[:-1]} {links[row['question']]}"
    return premise, [text(row, "choice1"), text(row, "choice2")], index(row["label"], 2)


def _sciq_row(row: Row) -> tuple[Any, ...]:
    columns = ("distractor1", "distractor2", "distractor3", "correct_answer")
    support = row.get("support") or ""
    asks = f"{support.lstrip()}\nQuestion: {text(row, 'question')}\nAnswer:"
    return asks, [text(row, column) for column in columns], 3


def _siqa(context: str, asks: str, choices: Sequence[str], gold: int) -> TaskItem:
    return choose(f"Q: {context} {asks}\nA:", choices, gold)


def _siqa_row(row: Row) -> tuple[Any, ...]:
    choices = [text(row, f"answer{letter}") for letter in "ABC"]
    return text(row, "context"), text(row, "question"), choices, index(row["label"], 3, first=1)


def _mmlu_row(row: Row) -> tuple[Any, ...]:
    choices, answer = texts(row["choices"]), row["answer"]
    if isinstance(answer, str) and answer.strip() in LETTERS[: len(choices)]:
        answer = LETTERS.index(answer.strip())
    return text(row, "question"), choices, index(answer, len(choices))


def _mmlu_preamble(item: TaskItem) -> str:
    about = item.group.replace("_", " ")
    return f"The following are multiple choice questions (with answers) about {about}.\n\n"


def _blimp(good: str, bad: str) -> TaskItem:
    return TaskItem((("", f" {good}"), ("", f" {bad}")), 0, (), f" {good}")


def _lambada(context: str, word: str) -> TaskItem:
    return TaskItem(((context, f" {word}"),), example=f"{context}  {word}")


def _lambada_row(row: Row) -> tuple[Any, ...]:
    context, _, word = text(row, "text").rpartition(" ")
    if not context or not word.strip():
        raise ValueError("text has no last word")
    return context, word


def _triviaqa(asks: str, answers: Sequence[str]) -> TaskItem:
    prompt = f"Question: {asks}?\nAnswer:"
    return TaskItem(((prompt, ""),), answers=tuple(answers), example=f"{prompt} {answers[0]}")


def _triviaqa_row(row: Row) -> tuple[Any, ...]:
    answer = row["answer"]
    if not isinstance(answer, Mapping) or not answer.get("aliases"):
        raise ValueError("no answer")
    return text(row, "question"), texts(list(filter(str.strip, answer["aliases"])), least=1)


def _triviaqa_original(row: Row) -> tuple[Any, ...]:
    answer = row["Answer"]
    if not isinstance(answer, Mapping):
        raise ValueError("no answer")
    return text(row, "Question"), texts(answer.get("Aliases"), least=1)


def _triviaqa_foundry(row: Row) -> tuple[Any, ...]:
    asks = text(row, "context").removeprefix("Question: ").removesuffix("\nAnswer:")
    return asks, texts(row["aliases"], least=1)


_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _plain(answer: str) -> str:
    """Return an answer without case, punctuation and space around it."""
    return answer.strip().lower().translate(_PUNCTUATION)


def _gsm8k(asks: str, answer: str) -> TaskItem:
    if "#### " not in answer:
        raise ValueError("no answer")
    prompt = f"Question: {asks}\nAnswer:"
    return TaskItem(((prompt, ""),), answers=(answer,), example=f"{prompt} {answer}")


def _gsm8k_number(answer: str) -> str:
    """Return the number after ####, as the harness's strict match does; "" if there is none."""
    match = re.search(r"#### (\-?[0-9\.\,]+)", answer)
    return re.sub(r"[,$]|\.$", "", match[1]) if match else ""


# What turns the marks of WikiText into plain text, in this order.
_WIKITEXT: tuple[tuple[str, str], ...] = (
    (r"s '", "s'"),
    (r"/' [0-9]/", r"/'[0-9]/"),
    (r" @-@ ", "-"),
    (r" @,@ ", ","),
    (r" @\.@ ", "."),
    *((f" {re.escape(mark)} ", f"{mark} ") for mark in ":;.!?,"),
    (r"\(\s*([^\)]*?)\s*\)", r"(\1)"),
    (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
    (r"{\s*([^}]*?)\s*}", r"{\1}"),
    (r"\"\s*([^\"]*?)\s*\"", r'"\1"'),
    (r"'\s*([^']*?)\s*'", r"'\1'"),
    (r"= = = =", "===="),
    (r"= = =", "==="),
    (r"= =", "=="),
    (r" \u00b0 ", "\u00b0"),
    (r" \n", "\n"),
    (r"\n ", "\n"),
    (r" N ", " 1 "),
    (r" 's", "'s"),
)


def _document(page: str) -> TaskItem:
    """Return a page as it is scored; words and bytes are counted of the page as it is published."""
    plain = page
    for pattern, replacement in _WIKITEXT:
        plain = re.sub(pattern, replacement, plain)
    return TaskItem((("", plain),), answers=(page,))


_QUERY = query()
_SCHEMA = ("context_options", "continuation", "gold")
_ARC = Task(
    question("Question: {}\nAnswer:"), (asked("question"), query("Question: ")), metric="acc_norm"
)

# By name in a recipe.
TASKS: dict[str, Task] = {
    "arc_challenge": _ARC,
    "arc_easy": _ARC,
    "blimp": Task(
        _blimp,
        (
            RowLayout(
                ("sentence_good", "sentence_bad"),
                lambda row: (text(row, "sentence_good"), text(row, "sentence_bad")),
            ),
        ),
        split="",
    ),
    "boolq": Task(
        _boolq,
        (
            RowLayout(("passage", "question", "label"), lambda row: _boolq_row(row, "label")),
            RowLayout(("passage", "question", "answer"), lambda row: _boolq_row(row, "answer")),
            RowLayout(("query", "choices", "gold"), _boolq_query),
        ),
        split="validation",
    ),
    "commonsense_qa": Task(
        letters("Question: {}"),
        (asked("question"), lettered(r"Question: (.*)\n")),
        split="validation",
    ),
    "copa": Task(
        _copa,
        (RowLayout(("premise", "choice1", "choice2", "question", "label"), _copa_row), _QUERY),
        split="validation",
    ),
    "gsm8k": Task(
        _gsm8k,
        (
            RowLayout(
                ("question", "answer"), lambda row: (text(row, "question"), text(row, "answer"))
            ),
        ),
        kind="generate",
        shots=5,
        until=("Question:", "</s>", "<|im_end|>"),
        extract=_gsm8k_number,
    ),
    "hellaswag": Task(
        _hellaswag,
        (
            RowLayout(("activity_label", "ctx_a", "ctx_b", "endings", "label"), _hellaswag_row),
            _QUERY,
        ),
        metric="acc_norm",
        split="validation",
    ),
    "lambada": Task(
        _lambada,
        (
            RowLayout(("text",), _lambada_row),
            RowLayout(
                ("context", "continuation"),
                lambda row: (text(row, "context").rstrip(), text(row, "continuation").strip()),
            ),
        ),
        kind="word",
    ),
    "mmlu": Task(
        letters("{}"),
        (RowLayout(("question", "choices", "answer"), _mmlu_row),),
        first_examples=True,
        preamble=_mmlu_preamble,
    ),
    "openbookqa": Task(
        question("{}"), (asked("question_stem"), asked("question"), _QUERY), metric="acc_norm"
    ),
    "piqa": Task(
        question("Question: {}\nAnswer:"),
        (RowLayout(("goal", "sol1", "sol2", "label"), _piqa_row), query("Question: ")),
        metric="acc_norm",
        split="validation",
    ),
    "sciq": Task(
        choose,
        (
            RowLayout(
                ("question", "distractor1", "distractor2", "distractor3", "correct_answer"),
                _sciq_row,
            ),
        ),
        metric="acc_norm",
    ),
    "siqa": Task(
        _siqa,
        (
            RowLayout(("context", "question", "answerA", "answerB", "answerC", "label"), _siqa_row),
            lettered(r"Context: (.*?)\nQuestion: (.*)\n"),
        ),
        split="validation",
    ),
    "triviaqa": Task(
        _triviaqa,
        (
            RowLayout(("question", "answer"), _triviaqa_row),
            RowLayout(("Question", "Answer"), _triviaqa_original),
            RowLayout(("context", "aliases"), _triviaqa_foundry),
        ),
        kind="generate",
        split="validation",
        until=("\n", ".", ","),
        extract=_plain,
    ),
    "wikitext": Task(
        _document, (RowLayout(("page",), lambda row: (text(row, "page"),)),), kind="text"
    ),
    "winograd": Task(
        partial,
        (
            RowLayout(("text", "pronoun", "pronoun_loc", "options", "label"), _winograd_row),
            RowLayout(_SCHEMA, _winograd_schema),
        ),
    ),
    "winogrande": Task(
        partial,
        (
            RowLayout(("sentence", "option1", "option2", "answer"), _winogrande_row),
            RowLayout(_SCHEMA, _schema_row),
        ),
        split="validation",
    ),
}
