"""Conversations of every common layout become turns; the thread is the group."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.artifacts.document import Document, Reject
from groundup.collect.readers.chat.layouts import find_messages, render

Read = Callable[..., list[Document | Reject]]
EXPECTED = [("user", "Hi"), ("assistant", "Hello")]
ASKED = {"from": "human", "value": "Hi"}
BEST = {"role": "assistant", "text": "Hello", "rank": 0, "replies": []}
LAYOUTS: dict[str, Any] = {
    "openai": {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    },
    "parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "value": "Hi"}]},
            {"role": "assistant", "content": {"text": "Hello"}},
        ]
    },
    "sharegpt": {"conversations": [ASKED, {"from": "gpt", "value": "Hello"}]},
    "alpaca": {"instruction": "Hi", "input": "", "output": "Hello"},
    "seed tasks": {"instruction": "Hi", "instances": [{"input": "", "output": "Hello"}]},
    "prompt": {"prompt": "Hi", "response": "Hello"},
    "baked template": {
        "prompt": "Below is an instruction that.\n\n### Instruction:\nHi\n\n### Response:\n",
        "response": "Hello",
    },
    "question": {"question": "Hi", "answer": "Hello"},
    "strings": {"dialog": ["Hi", "Hello"]},
    "list": ["Hi", "Hello"],
    "taskmaster": {
        "utterances": [{"speaker": "USER", "text": "Hi"}, {"speaker": "ASSISTANT", "text": "Hello"}]
    },
    "dpo": {
        "conversations": [ASKED],
        "chosen": {"from": "gpt", "value": "Hello"},
        "rejected": {"from": "gpt", "value": "No"},
    },
    "prompt of messages": {
        "prompt": [{"role": "user", "content": "Hi"}],
        "chosen": [{"role": "assistant", "content": "Hello"}],
        "rejected": [{"role": "assistant", "content": "No"}],
    },
    "prompt of messages, repeated": {
        "prompt": [{"role": "user", "content": "Hi"}],
        "chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
    },
    "prompt of messages, plain answer": {
        "prompt": [{"role": "user", "content": "Hi"}],
        "completion": "Hello",
    },
    "hh": {
        "chosen": "\n\nHuman: Hi\n\nAssistant: Hello",
        "rejected": "\n\nHuman: Hi\n\nAssistant: No",
    },
    "hh with a prompt": {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello"},
    "a prompt that names its user": {"prompt": "Human: Hi", "completion": "Hello"},
    "kto": {"prompt": "Hi", "completion": "Hello", "label": True, "weight": 1.0, "image": None},
    "tree": {
        "prompt": {
            "role": "prompter",
            "text": "Hi",
            "replies": [BEST | {"text": "Worse", "rank": 1}, BEST],
        }
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str) -> None:
    """Each layout gives the same two turns."""
    _, turns = render(find_messages(LAYOUTS[layout]))
    assert [(turn["role"], turn["content"]) for turn in turns] == EXPECTED


PICTURE = {"type": "image_url", "image_url": {"url": "https://a.test/b.png"}}


@pytest.mark.parametrize(
    ("record", "reason", "said"),
    [
        ({"prompt": "Hi", "completion": "Bad", "label": False}, "not-to-learn", "label is False"),
        ({"prompt": "Hi", "completion": "Bad", "label": "false"}, "not-to-learn", "label is"),
        ({"question": "Hi", "answer": "Bad", "label": 0}, "not-to-learn", "a bad answer"),
        (LAYOUTS["alpaca"] | {"weight": 0}, "not-to-learn", "weight is 0"),
        (LAYOUTS["sharegpt"] | {"train": False}, "not-to-learn", "train is False"),
        (LAYOUTS["sharegpt"] | {"image": "a.jpg"}, "media", "image data"),
        (LAYOUTS["sharegpt"] | {"videos": ["a.mp4"]}, "media", "video data"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "What?"}, PICTURE]},
                    {"role": "assistant", "content": "A cat."},
                ]
            },
            "media",
            "image data",
        ),
    ],
)
def test_what_a_record_says_not_to_learn_is_listed(
    read: Read, record: dict[str, object], reason: str, said: str
) -> None:
    good = LAYOUTS["prompt"]
    found = read("conversations", "a.jsonl", "\n".join(map(json.dumps, (record, good))))
    assert isinstance(found[0], Reject) and isinstance(found[1], Document)
    assert found[0].reason == reason and said in found[0].detail


def test_a_message_that_is_not_to_be_learned_stays_as_context() -> None:
    text, turns = render(
        find_messages(
            {
                "messages": [
                    {"role": "user", "content": "Hi"},
                    {"role": "assistant", "content": "Bad", "weight": 0},
                    {"role": "user", "content": "No", "weight": 0},
                    {"role": "assistant", "content": "Good", "weight": 1},
                ]
            }
        )
    )
    roles = ["user", "assistant-unlearned", "user", "assistant"]
    assert [turn["role"] for turn in turns] == roles and "Bad" in text


def test_names_and_system() -> None:
    """Speakers keep their names; "system" is an instruction once, and the assistant if it talks."""
    text, turns = render(
        find_messages(
            [
                {"speaker": "Holt, Lester", "text": "Good evening."},
                {"speaker": "agent_2", "text": "Thank you."},
            ]
        )
    )
    assert text == "Holt, Lester: Good evening.\nagent_2: Thank you."
    assert [turn["role"] for turn in turns] == ["holt, lester", "agent_2"]
    openai = LAYOUTS["openai"]
    assert isinstance(openai, dict)
    _, turns = render(find_messages({"system": "Be brief.", "messages": openai["messages"]}))
    assert turns[0]["role"] == "system"
    dialogue = [
        {"speaker": name, "utterance": "x"} for name in ("USER", "SYSTEM", "USER", "SYSTEM")
    ]
    assert [turn["role"] for turn in render(find_messages({"turns": dialogue}))[1]] == [
        "user",
        "assistant",
    ] * 2


@pytest.mark.parametrize(
    "record",
    [
        None,
        3,
        "text",
        {},
        {"messages": []},
        {"messages": [{"role": "user"}]},
        {"a": {"b": 1}},
        {"messages": {"x": 1}},
    ],
)
def test_other_shapes_have_no_turns(record: object) -> None:
    """A record that is no conversation gives no messages."""
    assert find_messages(record) == []


def test_files(read: Read) -> None:
    """JSON arrays, JSON objects by id, JSONL and YAML give one document a conversation."""
    record = LAYOUTS["openai"]
    for name, data in {
        "a.json": json.dumps([record, {"x": 1}, record], indent=1),
        "b.json": json.dumps({"t1": record, "t2": {"x": 1}, "t3": record}),
        "c.jsonl": "\n".join(map(json.dumps, [record, {"x": 1}, record])),
        "d.yml": json.dumps(
            {"categories": ["x"], "conversations": [["Hi", "Hello"], 7, ["Hi", "Hello"]]}
        ),
    }.items():
        results = read("conversations", name, data)
        assert [f.text if isinstance(f, Document) else f.reason for f in results] == [
            "User: Hi\nAssistant: Hello",
            "no-turns",
            "User: Hi\nAssistant: Hello",
        ], name
        assert isinstance(results[0], Document) and results[0].turns == [
            {"role": role, "content": content} for role, content in EXPECTED
        ]


def test_rows_of_a_thread(read: Read) -> None:
    """Consecutive rows of one thread are one conversation; without a thread column each row is."""
    results = read(
        "conversations", "d.csv", "speaker,statement,debate\nA,one,1\nB,two,1\nA,three,2\n"
    )
    assert [f.text for f in results if isinstance(f, Document)] == ["A: one\nB: two", "A: three"]
    assert [f.group for f in results if isinstance(f, Document)] == ["d.csv#1", "d.csv#2"]
    results = read("conversations", "d.csv", "speaker,text\nA,one\nB,two\n")
    assert [f.text for f in results if isinstance(f, Document)] == ["A: one", "B: two"]


def test_rows_of_a_tree(read: Read) -> None:
    """Rows that name their parents follow the best-ranked reply."""
    rows = [
        ("m1", None, "prompter", "Hi", None),
        ("m2", "m1", "assistant", "Worse", 1),
        ("m3", "m1", "assistant", "Hello", 0),
    ]
    lines = [
        json.dumps(
            {
                "message_tree_id": "tree-of-sixteen-1",
                "message_id": i,
                "parent_id": p,
                "role": r,
                "text": t,
                "rank": k,
            }
        )
        for i, p, r, t, k in rows
    ]
    (result,) = read("conversations", "m.jsonl", "\n".join(lines))
    assert isinstance(result, Document) and (result.text, result.group) == (
        "User: Hi\nAssistant: Hello",
        "tree-of-sixteen-1",
    )


def test_irc_logs(read: Read) -> None:
    """A log is cut at an hour of silence; joins and renames are no turns."""
    log = (
        "[10:00] <anna> hello\n=== bob has joined\n[10:01] <bob> hi\n[12:30] <anna> still"
        " here?\n[12:31] <bob> yes\n"
    )
    results = read("conversations", "x.txt", log)
    assert [f.text for f in results if isinstance(f, Document)] == [
        "anna: hello\nbob: hi",
        "anna: still here?\nbob: yes",
    ]
    assert len({f.group for f in results if isinstance(f, Document)}) == 1


def test_real_conversations(read: Read, real_data: Path) -> None:
    """Counts of the real data sets are those of their README."""
    counts = {"taskmaster4": 710, "sgd": 324, "topical_chat": 539, "crosswoz": 500, "oasst": 580}
    import gzip
    import zipfile

    for folder, expected in counts.items():
        total = 0
        for path in sorted((real_data / "conversations" / folder).iterdir()):
            data = path.read_bytes()
            data = gzip.decompress(data) if path.suffix == ".gz" else data
            data = zipfile.ZipFile(path).read("val.json") if path.suffix == ".zip" else data
            results = read(
                "conversations", path.name.removesuffix(".gz").removesuffix(".zip"), data
            )
            total += sum(isinstance(f, Document) and bool(f.turns) for f in results)
        assert total == expected, folder


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"text": "The last word"}, "The last word"),
        ({"context": "The last", "continuation": " word"}, "The last word"),
        ({"query": "Q", "choices": ["a", "b"], "gold": 1}, "Q\na\nb"),
        ({"ctx": "C", "endings": ["x", "y"], "label": 0}, "C\nx\ny"),
        ({"question": "Q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}}, "Q\na\nb"),
        ({"question": "Q", "answer": "A"}, "Q\nA"),
        ({"sentence_good": "g", "sentence_bad": "b"}, "g\nb"),
    ],
)
def test_evaluation_items(read: Read, record: dict[str, object], text: str) -> None:
    """An item is all of its text, since any part of it could be in training data."""
    (result,) = read("evaluation", "e.jsonl", json.dumps(record))
    assert isinstance(result, Document) and result.text == text


def test_deep_content_costs_its_record(read: Read) -> None:
    """Content nested 900 deep is rejected; the other conversations of the file are read."""
    deep = '{"messages": ' + '[{"content": ' * 450 + '"x"' + "}]" * 450 + "}"
    good = json.dumps(
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi."}]}]}
    )
    results = read("conversations", "a.jsonl", "\n".join((good, deep, good)))
    assert [type(result) for result in results] == [Document, Reject, Document]


def test_a_transcript_of_too_many_turns_costs_its_record(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.collect.readers.chat.layouts.MAX_TURNS", 40)
    rows = [{"response": "Human: a\n\nAssistant: b" + "\n\nHuman: c" * n} for n in (38, 39)]
    fits, refused = read("conversations", "x.jsonl", "\n".join(map(json.dumps, rows)))
    assert isinstance(fits, Document) and fits.turns is not None and len(fits.turns) == 40
    assert refused == Reject("too-large", 1, "a transcript of more than 40 turns")
