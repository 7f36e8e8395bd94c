"""The messages of a conversation in a record of any common layout.

    {"messages": [{"role": "user", "content": "Hi"}, ...]}              OpenAI
    {"conversations": [{"from": "human", "value": "Hi"}, ...]}          ShareGPT
    {"instruction": "Hi", "input": "", "output": "Hello"}               Alpaca
    {"prompt": "Hi", "response": "Hello"}                               question and answer
    {"prompt": {"role": "prompter", "text": "Hi", "replies": [...]}}    OpenAssistant
    ["Hi", "Hello"]                                                     two speakers in turn

All of these give the messages `user: Hi` and `assistant: Hello`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.artifacts.document import Turn
from groundup.collect.charset import repair_text
from groundup.collect.readers.records import lower_keys

# Names of keys, the preferred first.
LIST_KEYS = tuple(
    "messages conversations conversation turns utterances content dialogue dialog chat history log"
    " thread".split()
)
ROLE_KEYS = tuple(
    "role from speaker agent author name sender user speaker_id character participant nick".split()
)
CONTENT_KEYS = tuple(
    "content value text utterance message body statement line quote sentence speech".split()
)
THREAD_KEYS = tuple(
    "conversation_id dialogue_id dialog_id message_tree_id debate_id episode_id thread_id"
    " session_id scene_id conversation dialogue dialog debate episode thread session scene".split()
)
_QUESTION_KEYS = tuple("prompt question query input context problem".split())
_ANSWER_KEYS = tuple("response completion answer output chosen reply solution".split())
_USERS = frozenset("user human prompter usr customer client question instruction".split())
_ASSISTANTS = frozenset(
    "assistant gpt bot chatbot chatgpt model sys ai answer response output".split()
)
MAX_TREE_DEPTH = 200
# Content is a list of parts at most; a list of parts of parts is as deep as any layout goes.
MAX_PARTS_DEPTH = 8
# The prompt template of Stanford Alpaca, which stands in data made from it.
_ALPACA_TEMPLATE = re.compile(
    r"\ABelow is an instruction.*?### Instruction:\s*(.*?)\s*"
    r"(?:### Input:\s*(.*?)\s*)?### Response:\s*\Z",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One message of a conversation, with the speaker as the record names them."""

    speaker: str
    content: str


def render(messages: Sequence[Utterance]) -> tuple[str, list[Turn]]:
    """Return a conversation as lines `Name: content`, and as turns of role and content.

    A role is `user`, `assistant`, `system`, or the name of the speaker in lower case. Broken
    encodings are repaired.
    """
    messages = [Utterance(repair_text(it.speaker), repair_text(it.content)) for it in messages]
    # In data of dialogue systems SYSTEM is the machine; an instruction comes once, at the start.
    system_speaks = sum(message.speaker.strip().lower() == "system" for message in messages) > 1
    turns, lines = [], []
    for message in messages:
        role = re.sub(r"\s+", " ", message.speaker.strip().lower()) or "speaker"
        if role in _USERS:
            role = "user"
        elif role in _ASSISTANTS or (system_speaks and role == "system"):
            role = "assistant"
        turns.append({"role": role, "content": message.content})
        is_role = role in ("user", "assistant", "system", "speaker")
        name = role.capitalize() if is_role else message.speaker.strip()
        lines.append(f"{name}: {message.content}")
    return "\n".join(lines), turns


def find_messages(record: Any) -> list[Utterance]:
    """Return the messages of a record; [] when it has no known layout."""
    if isinstance(record, (list, tuple)):
        return _parse_list(record)
    if not isinstance(record, Mapping):
        return []
    record = lower_keys(record)
    layouts = (_reply_tree, _message_list, _instruction, _question_and_answer)
    return next(filter(None, (layout(record) for layout in layouts)), [])


def content_text(value: Any, depth: int = MAX_PARTS_DEPTH) -> str:
    """Return the text of a message's content: a text, a part, or a list of parts.

    What nests deeper than `depth` is left out.
    """
    if isinstance(value, str):
        return value.strip()
    if depth == 0:
        return ""
    if isinstance(value, Mapping):
        key = next((key for key in ("text", "value", "content") if value.get(key)), None)
        return content_text(value[key], depth - 1) if key else ""
    if isinstance(value, (list, tuple)):
        return "\n".join(filter(None, (content_text(part, depth - 1) for part in value)))
    return ""


def _first_content(record: Mapping[str, Any], keys: Sequence[str]) -> str:
    return next((text for key in keys if (text := content_text(record.get(key)))), "")


def parse_message(entry: Mapping[str, Any]) -> Utterance | None:
    """Return one message; None when it has no content."""
    entry = lower_keys(entry)
    content = _first_content(entry, CONTENT_KEYS)
    names = (str(entry[key]) for key in ROLE_KEYS if isinstance(entry.get(key), (str, int)))
    speaker = next((name for name in names if name.strip()), "speaker")
    return Utterance(speaker, content) if content else None


def _parse_list(entries: Sequence[Any]) -> list[Utterance]:
    """Return the messages of a list of mappings, or of a list of texts by two who alternate."""
    if all(isinstance(entry, str) for entry in entries):
        texts = [(index, text.strip()) for index, text in enumerate(entries)]
        return [Utterance(("user", "assistant")[index % 2], text) for index, text in texts if text]
    messages = (parse_message(entry) for entry in entries if isinstance(entry, Mapping))
    return [message for message in messages if message is not None]


def _with_system(record: Mapping[str, Any], messages: list[Utterance]) -> list[Utterance]:
    """Return messages behind the system prompt of their record, where it has one."""
    system = content_text(record.get("system")) or content_text(record.get("system_prompt"))
    if system and messages and messages[0].speaker != "system":
        return [Utterance("system", system), *messages]
    return messages


def _reply_tree(record: Mapping[str, Any]) -> list[Utterance]:
    """Return one path of an OpenAssistant tree: the prompt, then the best-ranked replies."""
    node = record.get("prompt") if isinstance(record.get("prompt"), Mapping) else record
    messages: list[Utterance] = []
    while isinstance(node, Mapping) and "replies" in node and len(messages) < MAX_TREE_DEPTH:
        message = parse_message({"role": node.get("role"), "text": node.get("text")})
        if message is None:
            break
        messages.append(message)
        node = best_reply(node.get("replies"))
    return messages


def best_reply(replies: Any) -> Mapping[str, Any] | None:
    """Return the reply of the best rank (the lowest number); one without a rank comes last."""

    def rank(reply: Mapping[str, Any]) -> float:
        value = reply.get("rank")
        return float(value) if isinstance(value, (int, float)) else float("inf")

    if not isinstance(replies, list):
        return None
    return min((reply for reply in replies if isinstance(reply, Mapping)), key=rank, default=None)


def _message_list(record: Mapping[str, Any]) -> list[Utterance]:
    """Return the messages of a list; in preference data, those of the chosen answer."""
    chosen = record.get("chosen")
    for key in LIST_KEYS:
        entries = record.get(key)
        if isinstance(entries, (list, tuple)) and entries:
            messages = _parse_list(entries)
            if messages and isinstance(chosen, Mapping):
                messages += _parse_list([chosen])
            if messages:
                return _with_system(record, messages)
    return _parse_list(chosen) if isinstance(chosen, (list, tuple)) else []


def _instruction(record: Mapping[str, Any]) -> list[Utterance]:
    """Return the messages of an Alpaca record: instruction, input, output.

    A record of seed tasks has several instances of input and output.
    """
    instruction = content_text(record.get("instruction"))
    if not instruction:
        return []
    instances = record.get("instances")
    messages: list[Utterance] = []
    for index, instance in enumerate(instances if isinstance(instances, list) else [record]):
        if not isinstance(instance, Mapping):
            continue
        parts = [instruction] if index == 0 else []
        parts += [_first_content(instance, ("input", "context"))]
        question = "\n\n".join(filter(None, parts))
        answer = _first_content(instance, _ANSWER_KEYS)
        if answer and question:
            messages += [Utterance("user", question), Utterance("assistant", answer)]
    return _with_system(record, messages)


def _question_and_answer(record: Mapping[str, Any]) -> list[Utterance]:
    question = _first_content(record, _QUESTION_KEYS)
    answer = _first_content(record, _ANSWER_KEYS)
    if not (question and answer):
        return []
    template = _ALPACA_TEMPLATE.match(question)
    if template is not None:
        question = "\n\n".join(filter(None, template.groups()))
    return _with_system(record, [Utterance("user", question), Utterance("assistant", answer)])
