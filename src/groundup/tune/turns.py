"""Turns as they were collected → turns of user and assistant, as a model learns to answer. Reads
and writes nothing.

A dialogue between people is a conversation in which the last speaker answers: what one says in a
row is one turn, and roles alternate backwards from the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from groundup.artifacts.chat import ROLES
from groundup.artifacts.document import LABEL, Turn

# Calls of functions and what came back: text that no person wrote or should read.
TOOL_ROLES = frozenset(
    (
        "function",
        "function_call",
        "function-call",
        "function_response",
        "observation",
        "tool",
        "tool_call",
        "tool_calls",
        "tool_response",
    )
)
# Turns without a name are not known to be of one speaker.
NAMELESS = "speaker"


class Unusable(Exception):  # noqa: N818 - a verdict on data, not a failure
    """Nothing can be learned from a conversation: `reason` is a short code, `detail` is for a
    person.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def is_task(turns: Sequence[Mapping[str, str]]) -> bool:
    """Say whether the answer is the label of a task."""
    return any(turn["role"] == LABEL for turn in turns)


def to_chat(turns: Sequence[Mapping[str, str]] | None) -> list[Turn]:
    """Return a conversation of which the first turn may be the system's, and user and assistant
    alternate after it.

    Contents are stripped, consecutive turns of one speaker joined, and turns after the last answer
    left out.

    Raises:
        Unusable: empty, no-answer, tool-calls or roles-out-of-order.
    """
    said = [
        {"role": turn["role"], "content": turn["content"].strip()}
        for turn in turns or ()
        if (turn["content"] or "").strip()
    ]
    if not said:
        raise Unusable("empty", "no turn has any text")
    tools = sorted({turn["role"] for turn in said} & TOOL_ROLES)
    if tools:
        raise Unusable("tool-calls", f"it holds turns of {', '.join(tools)}")
    head, rest = (said[:1], said[1:]) if said[0]["role"] == "system" else ([], said)
    rest = [turn | {"role": "assistant"} if turn["role"] == LABEL else turn for turn in rest]
    chat = _ordered(rest) if {turn["role"] for turn in rest} <= set(ROLES) else _alternating(rest)
    while chat and chat[-1]["role"] == "user":
        chat.pop()
    if not chat:
        raise Unusable("no-answer", "nobody answers in it")
    return head + chat


def _ordered(turns: Sequence[Turn]) -> list[Turn]:
    for number, turn in enumerate(turns):
        if turn["role"] == "system":
            raise Unusable(
                "roles-out-of-order",
                f"turn {number + 1} is the system's, which may only come first",
            )
    if turns and turns[0]["role"] == "assistant":
        raise Unusable("roles-out-of-order", "it begins with the assistant")
    return _joined(turns)


def _alternating(turns: Sequence[Turn]) -> list[Turn]:
    joined = _joined(turns)
    # An odd first turn answers nobody.
    joined = joined[len(joined) % 2 :]
    return [
        {"role": ("user", "assistant")[number % 2], "content": turn["content"]}
        for number, turn in enumerate(joined)
    ]


def _joined(turns: Sequence[Turn]) -> list[Turn]:
    """Join consecutive turns of one speaker."""
    found: list[Turn] = []
    for role, group in groupby(turns, key=lambda turn: turn["role"]):
        contents = [turn["content"] for turn in group]
        found += [
            {"role": role, "content": text}
            for text in (contents if role == NAMELESS else ["\n".join(contents)])
        ]
    return found


def exchanges(chat: Sequence[Turn]) -> Iterator[list[Turn]]:
    """Yield a question with its answer, one after the other; the system's turn belongs to none."""
    rest = chat[1:] if chat[0]["role"] == "system" else chat
    for start in range(0, len(rest), 2):
        yield list(rest[start : start + 2])
