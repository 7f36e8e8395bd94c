"""Finds the turns of a conversation in a record of any common layout. Reads plain values; yields
turns.

A turn is `{"role", "content"}`: role `user`, `assistant`, `system`, or a lower-case name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.artifacts.document import Turn

LIST_KEYS = (
    "messages",
    "conversations",
    "conversation",
    "turns",
    "utterances",
    "content",
    "dialogue",
    "dialog",
    "chat",
    "history",
    "log",
    "thread",
)
ROLE_KEYS = (
    "role",
    "from",
    "speaker",
    "agent",
    "author",
    "name",
    "sender",
    "user",
    "speaker_id",
    "character",
    "participant",
    "nick",
)
CONTENT_KEYS = (
    "content",
    "value",
    "text",
    "utterance",
    "message",
    "body",
    "statement",
    "line",
    "quote",
    "sentence",
    "speech",
)
THREAD_KEYS = (
    "conversation_id",
    "dialogue_id",
    "dialog_id",
    "message_tree_id",
    "debate_id",
    "episode_id",
    "thread_id",
    "session_id",
    "scene_id",
    "conversation",
    "dialogue",
    "dialog",
    "debate",
    "episode",
    "thread",
    "session",
    "scene",
)
_QUESTION_KEYS = ("prompt", "question", "query", "input", "context", "problem")
_ANSWER_KEYS = ("response", "completion", "answer", "output", "chosen", "reply", "solution")
_USERS = frozenset(
    {"user", "human", "prompter", "usr", "customer", "client", "question", "instruction"}
)
_ASSISTANTS = frozenset(
    {
        "assistant",
        "gpt",
        "bot",
        "chatbot",
        "chatgpt",
        "model",
        "sys",
        "ai",
        "answer",
        "response",
        "output",
    }
)
MAX_TREE_DEPTH = 200
# A list of parts of parts is as deep as any layout goes.
MAX_PARTS_DEPTH = 8
# The template that Stanford's Alpaca put around its instructions, baked into data made from it.
_ALPACA = re.compile(
    r"\ABelow is an instruction.*?### Instruction:\s*(.*?)\s*(?:### Input:\s*(.*?)\s*)?###"
    r" Response:\s*\Z",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Said:
    """One turn with the name as it was found."""

    name: str
    content: str


def role_of(name: str, system_speaks: bool = False) -> str:
    """Return a role: `user`, `assistant`, `system`, or the name in lower case.

    Args:
        name: as found.
        system_speaks: True where "system" is the machine in the dialogue, not its instructions.
    """
    role = re.sub(r"\s+", " ", name.strip().lower())
    if role in _USERS:
        return "user"
    return (
        "assistant"
        if role in _ASSISTANTS or (system_speaks and role == "system")
        else role or "speaker"
    )


def rendered(said: Sequence[Said]) -> tuple[str, list[Turn]]:
    """Return a conversation as lines `Name: content`, and as turns."""
    # Dialogue-system data call the machine SYSTEM; instructions come once, at the start.
    system_speaks = sum(turn.name.strip().lower() == "system" for turn in said) > 1
    turns, lines = [], []
    for turn in said:
        role = role_of(turn.name, system_speaks)
        turns.append({"role": role, "content": turn.content})
        shown = (
            role.capitalize()
            if role in ("user", "assistant", "system", "speaker")
            else turn.name.strip()
        )
        lines.append(f"{shown}: {turn.content}")
    return "\n".join(lines), turns


def find_turns(record: Any) -> list[Said]:
    """Return the turns of a record, or an empty list when it has no layout that is known."""
    if isinstance(record, (list, tuple)):
        return _listed(record)
    if not isinstance(record, Mapping):
        return []
    record = {str(key).lower(): value for key, value in record.items()}
    for find in (_tree, _messages, _instruction, _pair):
        said = find(record)
        if said:
            return said
    return []


def plain(value: Any, depth: int = MAX_PARTS_DEPTH) -> str:
    """Return the text of a message's content: a text, a list of parts, or a part; what nests deeper
    than `depth` is left out.
    """
    if isinstance(value, str):
        return value.strip()
    if depth == 0:
        return ""
    if isinstance(value, Mapping):
        return next(
            (
                plain(value[key], depth - 1)
                for key in ("text", "value", "content")
                if value.get(key)
            ),
            "",
        )
    return (
        "\n".join(filter(None, (plain(part, depth - 1) for part in value)))
        if isinstance(value, (list, tuple))
        else ""
    )


def message(entry: Mapping[str, Any]) -> Said | None:
    """Return one message, or None when it has no content."""
    folded = {str(key).lower(): value for key, value in entry.items()}
    content = next((text for key in CONTENT_KEYS if (text := plain(folded.get(key)))), "")
    name = next(
        (
            str(folded[key])
            for key in ROLE_KEYS
            if isinstance(folded.get(key), (str, int)) and str(folded[key]).strip()
        ),
        "",
    )
    return Said(name or "speaker", content) if content else None


def _listed(entries: Sequence[Any]) -> list[Said]:
    """Return the turns of a list of messages, or of texts by two who take turns."""
    if all(isinstance(entry, str) for entry in entries):
        return [
            Said(("user", "assistant")[n % 2], text.strip())
            for n, text in enumerate(entries)
            if text.strip()
        ]
    found = [message(entry) for entry in entries if isinstance(entry, Mapping)]
    return [said for said in found if said is not None]


def _messages(record: Mapping[str, Any]) -> list[Said]:
    for key in LIST_KEYS:
        entries = record.get(key)
        if isinstance(entries, (list, tuple)) and entries:
            said = _listed(entries)
            chosen = record.get("chosen")
            if said and isinstance(chosen, Mapping):
                said += _listed([chosen])
            if said:
                return _with_system(record, said)
    chosen = record.get("chosen")
    return _listed(chosen) if isinstance(chosen, (list, tuple)) else []


def _with_system(record: Mapping[str, Any], said: list[Said]) -> list[Said]:
    system = plain(record.get("system")) or plain(record.get("system_prompt"))
    return [Said("system", system), *said] if system and said and said[0].name != "system" else said


def _instruction(record: Mapping[str, Any]) -> list[Said]:
    """Return the turns of an Alpaca record: instruction, input, output, or instances of the last
    two.
    """
    instruction = plain(record.get("instruction"))
    if not instruction:
        return []
    instances = record.get("instances")
    said: list[Said] = []
    for number, part in enumerate(instances if isinstance(instances, list) else [record]):
        if not isinstance(part, Mapping):
            continue
        question = "\n\n".join(
            filter(
                None,
                [
                    instruction if number == 0 else "",
                    plain(part.get("input")) or plain(part.get("context")),
                ],
            )
        )
        answer = next((text for key in _ANSWER_KEYS if (text := plain(part.get(key)))), "")
        said += [Said("user", question), Said("assistant", answer)] if answer and question else []
    return _with_system(record, said)


def _pair(record: Mapping[str, Any]) -> list[Said]:
    answer = next((text for key in _ANSWER_KEYS if (text := plain(record.get(key)))), "")
    question = next((text for key in _QUESTION_KEYS if (text := plain(record.get(key)))), "")
    if not (question and answer):
        return []
    template = _ALPACA.match(question)
    if template is not None:
        question = "\n\n".join(filter(None, template.groups()))
    return _with_system(record, [Said("user", question), Said("assistant", answer)])


def _tree(record: Mapping[str, Any]) -> list[Said]:
    """Return one path of an OpenAssistant tree: from the prompt along the best-ranked reply at each
    step.
    """
    node = record.get("prompt") if isinstance(record.get("prompt"), Mapping) else record
    said: list[Said] = []
    while isinstance(node, Mapping) and "replies" in node and len(said) < MAX_TREE_DEPTH:
        turn = message({"role": node.get("role"), "text": node.get("text")})
        if turn is None:
            break
        said.append(turn)
        node = best_reply(node.get("replies"))
    return said


def best_reply(replies: Any) -> Mapping[str, Any] | None:
    """Return the reply of the best rank (the lowest number), the first of those without one."""
    found = (
        [reply for reply in replies if isinstance(reply, Mapping)]
        if isinstance(replies, list)
        else []
    )
    ranked: Iterable[tuple[float, int]] = (
        (_rank(reply), number) for number, reply in enumerate(found)
    )
    return found[min(ranked)[1]] if found else None


def _rank(reply: Mapping[str, Any]) -> float:
    rank = reply.get("rank")
    return float(rank) if isinstance(rank, (int, float)) else float("inf")
