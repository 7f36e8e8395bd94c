"""Data to tune on, from files: every layout gives rows, bad rows are listed, and what is held out
was never learned.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.items import item_from_bytes
from tests.helpers.talking import CONTEXT, TUNE, Turns, talking_run, talks, turns

from groundup.artifacts.chat import encode_chat
from groundup.artifacts.document import UNLEARNED, Document, Reject
from groundup.artifacts.tokenizer import Tokenizer
from groundup.collect.readers.registry import read_item
from groundup.collect.stage import collect_tuning
from groundup.commands.tune import tune_by_hand
from groundup.errors import GroundupError
from groundup.recipe import Source, Tune
from groundup.runtime.files import read_json
from groundup.runtime.run import Run
from groundup.tune.data import (
    Conversation,
    Rows,
    collected_data,
    folded,
    make_rows,
    to_chat,
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return talking_run(tmp_path / "run")


def tuned(run: Run, data: Path, **changes: Any) -> dict[str, Any]:
    """Tune on a file; return the figures."""
    settings = Tune(**(TUNE | {"epochs": 1, "data": str(data)} | changes))
    tune_by_hand(run.root, dataclasses.replace(run.recipe, tune=settings))
    return dict(read_json(run.root / "tune" / "tuning.json"))


def left_out(run: Run) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (run.root / "tune" / "left-out.jsonl").read_text().splitlines()
    ]


def write(path: Path, records: list[Any]) -> Path:
    path.write_text(
        "".join(
            (record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records
        )
    )
    return path


def read(name: str, data: str, columns: tuple[str, ...] = ()) -> list[Document | Reject]:
    return list(
        read_item(item_from_bytes(data.encode(), name), Source("x", "tuning", columns=columns))
    )


SAID = {"q": "Who?", "a": "Me."}
LAYOUTS = {
    "messages": {
        "messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
    },
    "sharegpt": {
        "conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Me."}]
    },
    "tree": {
        "role": "prompter",
        "text": "Who?",
        "replies": [{"role": "assistant", "text": "Me.", "rank": 0, "replies": []}],
    },
    "alpaca": {"instruction": "Who?", "input": "", "output": "Me."},
    "pair": {"prompt": "Who?", "response": "Me."},
    "preference": {"prompt": "Who?", "chosen": "Me.", "rejected": "You."},
    "preference of turns": {
        "chosen": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}],
        "rejected": [],
    },
    "parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Who?"}]},
            {"role": "assistant", "content": "Me."},
        ]
    },
    "speakers": {
        "dialogue": [{"speaker": "Ann", "text": "Who?"}, {"speaker": "Bob", "text": "Me."}]
    },
    "strings": {"turns": ["Who?", "Me."]},
    "task": {"text": "Who?", "label": "Me."},
    "intent": {"Query": "Who?", "Intent": "Me."},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_says_the_same(layout: str) -> None:
    (found,) = read("rows.jsonl", json.dumps(LAYOUTS[layout]) + "\n")
    assert isinstance(found, Document)
    assert to_chat(found.turns) == turns("Who?", "Me.")


def test_an_answer_that_is_not_to_be_learned_is_context(tokenizer: Tokenizer) -> None:
    """Its tokens are in the row and not in the loss; alone it makes no row."""
    bad = {"role": UNLEARNED, "content": "Bad"}
    talk = [*turns("Who?", "x")[:1], bad, *turns("And?", "Good")]
    conversation = Conversation("a", 0, "a", talk)
    (row,) = make_rows([conversation], tokenizer, 256, validation=0).train
    learned = tokenizer.decode(row.ids[row.loss_mask].tolist())
    assert "Good" in learned and "Bad" not in learned and row.answer == "Good"
    assert row.ids.tolist() == encode_chat(tokenizer, turns("Who?", "Bad", "And?", "Good"))[0]
    for alone in ([*turns("Who?", "x")[:1], bad], [*turns("A?", "x")[:1], bad, talk[2]]):
        rows = make_rows([Conversation("a", 0, "a", alone)], tokenizer, 256)
        assert not rows.train and rows.reasons == {"not-to-learn": 1}


def test_a_table_of_turns_is_a_dialogue_and_a_table_of_labels_is_a_task() -> None:
    """Both have a text, and dialogues are labeled too."""
    (found,) = read("a.csv", "dialogue_id,speaker,text,intent\n1,ann,Who?,ask\n1,bob,Me.,tell\n")
    assert isinstance(found, Document) and to_chat(found.turns) == turns("Who?", "Me.")
    rows = read("b.tsv", "user\ttext\tlabel\nann\tgood\t1\nbob\tbad\t0\n")
    assert [to_chat(row.turns) for row in rows if isinstance(row, Document)] == [
        turns("good", "1"),
        turns("bad", "0"),
    ]


def test_columns_can_be_named() -> None:
    data = "id,words,verdict,text\n1,good film,yes,x\n2,bad film,no,x\n"
    assert next(
        found.turns
        for found in read("a.csv", data, ("words", "verdict"))
        if isinstance(found, Document)
    ) == [{"role": "user", "content": "good film"}, {"role": "label", "content": "yes"}]
    wrong, _ = read("a.csv", data, ("word", "verdict"))
    assert (
        isinstance(wrong, Reject)
        and 'no columns "word" and "verdict" in keys id, words' in wrong.detail
    )


def test_a_first_line_that_is_broken_does_not_decide() -> None:
    found = read(
        "a.jsonl",
        '{"text": \n{"text": "good", "label": 1}\n{"text": "bad", "label": null}\n{"text": ["x"],'
        ' "label": "y"}\n',
    )
    assert [type(one) for one in found] == [Reject, Document, Reject, Reject]
    assert [one.reason for one in found if isinstance(one, Reject)] == [
        "malformed",
        "no-label",
        "empty",
    ]


def test_bad_rows_are_listed_and_the_rest_is_learned(run: Run, tmp_path: Path) -> None:
    good = [{"messages": talk} for talk in talks()[:12]]
    bad = [
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"messages": turns("Hi", "Hello")[::-1]},
        '{"messages": [{"role": "us',
        {"messages": []},
        {"messages": turns("Hi", "word " * 500)},
        {
            "conversations": [
                {"from": "human", "value": "x"},
                {"from": "function_call", "value": "{}"},
                {"from": "gpt", "value": "y"},
            ]
        },
        {"messages": talks()[0]},
    ]
    found = tuned(run, write(tmp_path / "rows.jsonl", [*good, *bad]), validation=0.3)
    reasons = [
        "no-answer",
        "roles-out-of-order",
        "malformed",
        "no-turns",
        "too-long",
        "tool-calls",
        "duplicate",
    ]
    listed = {(row["record"], row["reason"]) for row in left_out(run)}
    assert listed >= {(12 + number, reason) for number, reason in enumerate(reasons[:-1])}
    assert {row["origin"] for row in left_out(run)} == {"rows.jsonl"}
    assert found["rows"]["train"] + found["rows"]["held_out"] == 12
    assert found["left_out"] == dict.fromkeys(sorted(reasons), 1)


def test_nothing_left_is_one_clear_error(run: Run, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", [{"messages": [{"role": "user", "content": "Hi"}]}] * 3)
    with pytest.raises(
        GroundupError, match=r"rows\.jsonl: nothing is left to tune on: 3 no-answer"
    ) as error:
        tuned(run, data)
    assert "\n" not in str(error.value)
    assert not (run.root / "tune").exists()


@pytest.mark.parametrize("name", ["missing.jsonl", "empty.jsonl", "noise.jsonl"])
def test_files_that_hold_nothing_are_one_clear_error(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "noise.jsonl").write_bytes(bytes(range(256)) * 40)
    with pytest.raises(GroundupError) as error:
        tuned(run, tmp_path / name)
    assert "\n" not in str(error.value) and name in str(error.value)


def rows_of(conversations: list[Turns], tokenizer: Tokenizer, **choice: Any) -> Rows:
    found = (
        Conversation("rows.jsonl", n, f"tuning:rows.jsonl#{n}", talk)
        for n, talk in enumerate(conversations)
    )
    return make_rows(found, tokenizer, CONTEXT, **choice)


def prompts(rows: list[Any]) -> list[str]:
    return [row.prompt[-1]["content"] for row in rows]


def test_what_is_held_out_does_not_depend_on_the_order_of_rows(tokenizer: Tokenizer) -> None:
    shuffled = talks()
    random.Random(1).shuffle(shuffled)
    first, second = (rows_of(some, tokenizer, validation=0.3) for some in (talks(), shuffled))
    assert prompts(first.held_out) == prompts(second.held_out) and 5 < len(first.held_out) < 40
    # Nor on other rows: with more of them, each stays on its side.
    fewer = rows_of(talks()[::2], tokenizer, validation=0.3)
    assert set(prompts(fewer.held_out)) <= set(prompts(first.held_out))
    assert prompts(first.held_out) != prompts(
        rows_of(talks(), tokenizer, validation=0.3, seed=2).held_out
    )


def test_a_prompt_that_is_answered_in_training_is_never_held_out(tokenizer: Tokenizer) -> None:
    """Neither the same conversation nor another answer, whatever case and spaces; the same question
    goes to one side.
    """
    again = [
        turns(talk[0]["content"].upper().replace(" ", "  "), "Something else.") for talk in talks()
    ]
    found = rows_of([*talks(), *again], tokenizer, validation=0.3)
    learned = {folded(prompt) for prompt in prompts(found.train)}
    assert found.held_out and not learned & {folded(prompt) for prompt in prompts(found.held_out)}
    # The split of a run is by group: there it takes a look at the text.
    given = [
        Conversation("a", 0, "x", talks()[0], False),
        Conversation("a", 1, "y", talks()[0], True),
        Conversation("a", 2, "z", talks()[1], True),
    ]
    found = make_rows(given, tokenizer, CONTEXT)
    assert prompts(found.held_out) == [talks()[1][0]["content"]]
    assert [one.reason for one in found.left_out] == ["answered-in-training"]


def test_a_thread_stays_whole(tokenizer: Tokenizer) -> None:
    threads = [
        Conversation("a", n, f"thread {n // 5}", talk) for n, talk in enumerate(talks()[:50])
    ]
    found = make_rows(threads, tokenizer, CONTEXT, validation=0.3)
    sides = [{row.record // 5 for row in side} for side in (found.train, found.held_out)]
    assert sides[1] and not sides[0] & sides[1]


def test_few_rows_leave_one_to_measure_on_and_one_to_learn(tokenizer: Tokenizer) -> None:
    for count, share in ((2, 0.01), (2, 0.9), (3, 0.9)):
        found = rows_of(talks()[:count], tokenizer, validation=share)
        assert found.train and found.held_out
    assert not rows_of(talks()[:1], tokenizer, validation=0.5).held_out
    assert not rows_of(talks(), tokenizer, validation=0.0).held_out


def test_a_long_conversation_becomes_rows_of_whole_exchanges(tokenizer: Tokenizer) -> None:
    said = [f"part {number} of it" for number in range(40)]
    system = {"role": "system", "content": "Be kind."}
    long = [system, *turns(*said[:20]), *turns("x", "word " * 300), *turns(*said[20:])]
    found = make_rows([Conversation("a", 0, "g", long)], tokenizer, CONTEXT, validation=0)
    assert len(found.train) > 2 and all(
        len(row.ids) <= CONTEXT and row.turns[0] == system for row in found.train
    )
    assert [turn["content"] for row in found.train for turn in row.turns[1:]] == said
    assert [one.reason for one in found.left_out] == ["too-long"]


def test_a_limit_is_drawn_not_cut(tokenizer: Tokenizer) -> None:
    found, shuffled = (
        rows_of(some, tokenizer, validation=0.0, limit=10) for some in (talks(), talks()[::-1])
    )
    assert len(found.train) == 10 and sorted(prompts(found.train)) == sorted(
        prompts(shuffled.train)
    )
    assert prompts(found.train) != prompts(rows_of(talks()[:10], tokenizer, validation=0.0).train)
    assert {one.reason for one in found.left_out} == {"limit"}


def test_a_task_is_learned_from_a_table(run: Run, tmp_path: Path) -> None:
    """Labels that follow from the text: after tuning they are the most probable answers, and
    written out.
    """
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "sentence", "category"])
        for number, talk in enumerate(talks()):
            table.writerow(
                [
                    number,
                    f"{talk[1]['content'][:20]} {('sun', 'rain')[number % 2]}",
                    ("good", "bad weather")[number % 2],
                ]
            )
    found = tuned(
        run, tmp_path / "rows.csv", epochs=12, learning_rate=0.01, validation=0.3, answer_tokens=16
    )
    assert found["labels"] == ["bad weather", "good"]
    assert found["before"]["accuracy_generation"] == 0
    assert (
        found["after"]["accuracy_probability"] >= 0.9
        and found["after"]["accuracy_generation"] >= 0.9
    )
    assert found["after"]["ended"] >= 0.9
    assert 0.2 < found["baseline"] < 0.8
    assert found["examples"][0]["answer"] in found["labels"]


# Folder or file → share of its records that cannot be learned from: calls of functions, prompts
# that nobody answered.
CONVERSATIONS = {
    "chatterbot_corpus/english": 0.0,
    "crosswoz": 0.0,
    "sgd": 0.0,
    "taskmaster4": 0.0,
    "topical_chat": 0.0,
    "ubuntu_irc/*2006*": 0.0,
    "instruct/alpaca_en_demo.json": 0.0,
    "instruct/glaive_toolcall_en_demo.json": 0.52,
    "instruct/dpo_en_demo.json.gz": 0.0,
    "instruct/v1_sft_demo.jsonl": 0.0,
    "instruct/dolly_hhrlhf_train_small.jsonl": 0.0,
    "instruct/stanford_alpaca_seed_tasks.jsonl": 0.0,
    "oasst/oasst2_filtered.trees.jsonl": 0.79,
    "oasst/en_100_tree.jsonl": 0.0,
    "oasst/en_100_message.jsonl": 0.0,
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_real_conversations_of_every_layout_give_rows(
    run: Run, tokenizer: Tokenizer, real_data: Path, name: str
) -> None:
    """Each record is learned, held out or listed, with user and assistant in turn."""
    asked = Run(
        run.root,
        dataclasses.replace(
            run.recipe, tune=Tune("sft", str(real_data / "conversations" / name), limit=50)
        ),
    )
    collect_tuning(asked)
    found, artifacts = collected_data(asked)
    seen = list(found.conversations())
    rows = make_rows(seen, tokenizer, 1024, validation=0.1)
    assert rows.train and rows.held_out
    # Chinese has many tokens in a vocabulary of English: too long is no fault of a layout.
    unusable = [
        one
        for one in rows.left_out
        if one.reason not in ("too-long", "duplicate", "answered-in-training")
    ]
    assert len(unusable) <= CONVERSATIONS[name] * len(seen)
    used = {(row.origin, row.record) for row in rows.train + rows.held_out} | {
        (one.origin, one.record) for one in rows.left_out
    }
    assert used == {(talk.origin, talk.record) for talk in seen}
    assert sum(artifact.facts["documents"] for artifact in artifacts) == len(seen)
