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
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from groundup.artifacts.document import UNLEARNED, Turn
from groundup.collect import read_table
from groundup.collect.charset import repair_text
from groundup.collect.readers.records.records import lower_keys

_TABLES = read_table("readers/chat/chat.toml")
_WORDS = {name: tuple(words.split()) for name, words in _TABLES.items()}
LIST_KEYS, ROLE_KEYS, CONTENT_KEYS, THREAD_KEYS, LEARN_KEYS = (
    _WORDS[keys] for keys in ("list", "role", "content", "thread", "learn")
)
_QUESTION_KEYS, _ANSWER_KEYS = _WORDS["question"], _WORDS["answer"]
_USERS, _ASSISTANTS = _WORDS["users"], _WORDS["assistants"]
# Columns of a table for tuning.
TEXT_COLUMNS, LABEL_COLUMNS = _WORDS["text_columns"], _WORDS["label_columns"]
# What a message shows beside its text, as a key of the record or the type of a part of the content.
_MEDIA = tuple("image audio video file".split())
MAX_TREE_DEPTH = 200
# Content is a list of parts at most; a list of parts of parts is as deep as any layout goes.
MAX_PARTS_DEPTH = 8
# Turns of a transcript: 2.6 million of them, in a record of 60 MB, took 1.9 GB.
MAX_TURNS = 1 << 19
# Transcripts in one string, as in hh-rlhf of Anthropic.
_TRANSCRIPT = re.compile(r"(?:\A|\n\n)(Human|User|Assistant):[ ]?")
# What a layout makes of a record with keys in lower case: its messages, [] for another layout.
Layout = Callable[[Mapping[str, Any]], list["Utterance"]]
_LAYOUTS: list[Layout] = []  # tried in the order of their definitions


def _layout(function: Layout) -> Layout:
    _LAYOUTS.append(function)
    return function


class Utterance(NamedTuple):
    """One message of a conversation, with the speaker as the record names them."""

    speaker: str
    content: str
    learn: bool = True  # False where the record says that this message is not to be learned


def render(messages: Sequence[Utterance]) -> tuple[str, list[Turn]]:
    """Return a conversation as lines `Name: content`, and as turns of role and content.

    A role is `user`, `assistant`, `system`, or the name of the speaker in lower case. Broken
    encodings are repaired.
    """
    speakers = [repair_text(message.speaker) for message in messages]
    # In data of dialogue systems SYSTEM is the machine; an instruction comes once, at the start.
    system_speaks = sum(speaker.strip().lower() == "system" for speaker in speakers) > 1
    turns, lines = [], []
    for speaker, message in zip(speakers, messages, strict=True):
        role, name = _role(speaker, system_speaks)
        content = repair_text(message.content)
        unlearned = role == "assistant" and not message.learn
        turns.append({"role": UNLEARNED if unlearned else role, "content": content})
        lines.append(f"{name}: {content}")
    return "\n".join(lines), turns


def _role(speaker: str, system_speaks: bool) -> tuple[str, str]:
    """Return the role of a speaker, and the name that stands before a line."""
    role = " ".join(speaker.lower().split()) or "speaker"
    if role in _USERS:
        role = "user"
    elif role in _ASSISTANTS or (system_speaks and role == "system"):
        role = "assistant"
    is_role = role in ("user", "assistant", "system", "speaker")
    return role, role.capitalize() if is_role else speaker.strip()


def find_messages(record: Any) -> list[Utterance]:
    """Return the messages of a record; [] when it has no known layout."""
    if isinstance(record, (list, tuple)):
        return _parse_list(record)
    if not isinstance(record, dict):
        return []
    record = lower_keys(record)
    return next(filter(None, (layout(record) for layout in _LAYOUTS)), [])


def refusal(record: Any) -> tuple[str, str] | None:
    """Return why nothing is to be learned from a record (reason, detail), None if nothing says so.

    A label that is false is a bad answer (KTO); an answer about a picture is no answer without it.
    """
    if not isinstance(record, dict):
        return None
    values = lower_keys(record)
    zero = next((key for key in LEARN_KEYS if key in values and _is_zero(values[key])), None)
    if zero is not None:
        return "not-to-learn", f"{zero} is {values[zero]!r}"
    if _is_zero(values.get("label")) and _question_and_answer(values):
        return "not-to-learn", f"label is {values['label']!r}: a bad answer"
    if any(map(_has_too_many_turns, values.values())):
        return "too-large", f"a transcript of more than {MAX_TURNS:,} turns"
    # A key "file" is a path more often than a picture; a part of type file is one.
    media = next((name for name in _MEDIA[:3] if values.get(name) or values.get(f"{name}s")), None)
    media = media or next(filter(None, map(_media_part, values.values())), None)
    return ("media", f"it is about {media} data, which is not read") if media else None


def _is_zero(value: Any) -> bool:
    """Whether a value is false, 0, or a text of these, as tables hold them."""
    if isinstance(value, str):
        return value.strip().lower() in ("false", "0", "0.0")
    return isinstance(value, (bool, int, float)) and not value


def _media_part(value: Any, depth: int = MAX_PARTS_DEPTH) -> str | None:
    """Return the kind of the first part of a content that is no text."""
    if depth == 0 or not isinstance(value, (dict, list, tuple)):
        return None
    parts: Iterable[Any] = value
    if isinstance(value, dict):
        kind = str(value.get("type", "")).removeprefix("input_").removesuffix("_url")
        if kind in _MEDIA and len(value) <= 3:
            return kind
        parts = value.values()
    for part in parts:
        if isinstance(part, (dict, list, tuple)) and (inner := _media_part(part, depth - 1)):
            return inner
    return None


def content_text(value: Any, depth: int = MAX_PARTS_DEPTH) -> str:
    """Return the text of a message's content: a text, a part, or a list of parts.

    What nests deeper than `depth` is left out.
    """
    if isinstance(value, str):
        return value.strip()
    if depth == 0:
        return ""
    if isinstance(value, dict):
        key = next((key for key in ("text", "value", "content") if value.get(key)), None)
        return content_text(value[key], depth - 1) if key else ""
    if isinstance(value, (list, tuple)):
        return "\n".join(filter(None, (content_text(part, depth - 1) for part in value)))
    return ""


def _first_content(record: Mapping[str, Any], keys: Sequence[str]) -> str:
    for key in keys:
        if key in record and (text := content_text(record[key])):
            return text
    return ""


def parse_message(entry: Mapping[str, Any]) -> Utterance | None:
    """Return one message; None when it has no content."""
    entry = lower_keys(entry)
    content = _first_content(entry, CONTENT_KEYS)
    if not content:
        return None
    learn = entry.keys().isdisjoint(LEARN_KEYS) or not any(
        _is_zero(entry[key]) for key in LEARN_KEYS if key in entry
    )
    for key in ROLE_KEYS:
        if key in entry and isinstance(entry[key], (str, int)) and str(entry[key]).strip():
            return Utterance(str(entry[key]), content, learn)
    return Utterance("speaker", content, learn)


def parse_messages(entries: Iterable[Mapping[str, Any]]) -> list[Utterance]:
    """Return the messages of those entries that have any content."""
    return [message for message in map(parse_message, entries) if message is not None]


def _parse_list(entries: Sequence[Any]) -> list[Utterance]:
    """Return the messages of a list of mappings, or of a list of texts by two who alternate."""
    if all(isinstance(entry, str) for entry in entries):
        texts = [(index, text.strip()) for index, text in enumerate(entries)]
        return [Utterance(("user", "assistant")[index % 2], text) for index, text in texts if text]
    return parse_messages(entry for entry in entries if isinstance(entry, dict))


def _with_system(record: Mapping[str, Any], messages: list[Utterance]) -> list[Utterance]:
    """Return messages behind the system prompt of their record, where it has one."""
    system = content_text(record.get("system")) or content_text(record.get("system_prompt"))
    if system and messages and messages[0].speaker != "system":
        return [Utterance("system", system), *messages]
    return messages


@_layout
def _reply_tree(record: Mapping[str, Any]) -> list[Utterance]:
    """Return one path of an OpenAssistant tree: the prompt, then the best-ranked replies."""
    node = record.get("prompt") if isinstance(record.get("prompt"), dict) else record
    messages: list[Utterance] = []
    while isinstance(node, dict) and "replies" in node and len(messages) < MAX_TREE_DEPTH:
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
    return min((reply for reply in replies if isinstance(reply, dict)), key=rank, default=None)


@_layout
def _prompt_list(record: Mapping[str, Any]) -> list[Utterance]:
    """Return the messages of a prompt that is a list, with the answer, as TRL writes them."""
    prompt = record.get("prompt")
    if not isinstance(prompt, (list, tuple)) or not all(isinstance(m, dict) for m in prompt):
        return []
    messages = _parse_list(prompt)
    for answer in map(record.get, _ANSWER_KEYS):
        if isinstance(answer, (list, tuple)):
            answers = _parse_list(answer)
            repeats = answers[: len(messages)] == messages  # some answers repeat the prompt
            return _with_system(record, answers if repeats else [*messages, *answers])
        if text := content_text(answer):
            return _with_system(record, [*messages, Utterance("assistant", text)])
    return []


def _has_too_many_turns(text: Any) -> bool:
    if not isinstance(text, str) or len(text) <= MAX_TURNS:
        return False
    return sum(1 for _ in _TRANSCRIPT.finditer(text)) > MAX_TURNS


def _transcript(text: str) -> list[Utterance]:
    """Return the messages of a conversation in one string; [] if it is none."""
    if _TRANSCRIPT.match(text.strip()) is None or _has_too_many_turns(text):
        return []
    _, *parts = _TRANSCRIPT.split(text.strip())
    speakers = ("assistant" if name == "Assistant" else "user" for name in parts[::2])
    pairs = zip(speakers, parts[1::2], strict=True)
    return [Utterance(speaker, content.strip()) for speaker, content in pairs if content.strip()]


@_layout
def _message_list(record: Mapping[str, Any]) -> list[Utterance]:
    """Return the messages of a list; in preference data, those of the chosen answer."""
    chosen = record.get("chosen")
    for entries in map(record.get, LIST_KEYS):
        messages = _parse_list(entries) if isinstance(entries, (list, tuple)) else []
        if messages and isinstance(chosen, dict):
            messages += _parse_list([chosen])
        if messages:
            return _with_system(record, messages)
    return _parse_list(chosen) if isinstance(chosen, (list, tuple)) else []


@_layout
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
        if not isinstance(instance, dict):
            continue
        parts = [instruction] if index == 0 else []
        parts += [_first_content(instance, ("input", "context"))]
        question = "\n\n".join(filter(None, parts))
        answer = _first_content(instance, _ANSWER_KEYS)
        if answer and question:
            messages += [Utterance("user", question), Utterance("assistant", answer)]
    return _with_system(record, messages)


@_layout
def _question_and_answer(record: Mapping[str, Any]) -> list[Utterance]:
    question = _first_content(record, _QUESTION_KEYS)
    answer = _first_content(record, _ANSWER_KEYS)
    if answer and (messages := _transcript(f"{question}\n\n{answer}" if question else answer)):
        # The prompt may end with the assistant's name, and the answer begin without it.
        named = messages[-1].speaker == "assistant" or not question
        return messages if named else [*_transcript(question), Utterance("assistant", answer)]
    if not (question and answer):
        return []
    # An Alpaca prompt. By parts, because one pattern for it takes time by the cube of the length.
    body, end, rest = question.rstrip().rpartition("### Response:")
    preamble, start, inside = body.partition("### Instruction:")
    if end and start and not rest and preamble.startswith("Below is an instruction"):
        instruction, _, given = inside.partition("### Input:")
        question = "\n\n".join(filter(None, (instruction.strip(), given.strip())))
    return _with_system(record, [Utterance("user", question), Utterance("assistant", answer)])
