"""How a conversation becomes tokens: ChatML (OpenAI 2023).

    <|im_start|>user\\nHello<|im_end|>\\n<|im_start|>assistant\\nHi.<|im_end|>\\n

Only this code inserts the special tokens: "<|im_end|>" in the text of a message stays text.

A pretrained tokenizer may lack both tokens. Then `<|im_start|>` is written as plain text, and a
turn ends with the end-of-text token, without a line break, so that no token spans two turns. Users
cannot write that token, as in the form of Zephyr (Tunstall et al. 2023, arXiv 2310.16944).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from groundup.artifacts.document import UNLEARNED
from groundup.artifacts.tokenizer import CHAT, Tokenizer

ROLES = ("system", "user", "assistant")

# Marks of transformers around what the assistant generates.
GENERATION_MARKS = ("{% generation %}", "{% endgeneration %}")

_START = CHAT[0]


def template(tokenizer: Tokenizer) -> str:
    """Return the same form as a Jinja template for tokenizer_config.json.

    The marks of generation enclose what `encode_chat` learns, for trainers that compute the loss on
    answers only (transformers' assistant mask). Content is a text or a list of text parts. No
    macros: the Jinja of llama.cpp and vLLM must read it too.
    """
    stop = tokenizer.special_name(tokenizer.stop_id)
    newline = r"{{ '\n' }}" if _has_chat_tokens(tokenizer) else ""
    parts = (
        "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
        "{% else %}{{ raise_exception('Only parts of type text are supported.') }}{% endif %}"
        "{% endfor %}"
    )
    content = (
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        f"{parts}{{% endif %}}{{{{ {stop!r} }}}}"
    )
    start = rf"{{{{ '{_START}' + message['role'] + '\n' }}}}"
    return (
        f"{{% for message in messages %}}{start}{{% if message['role'] == 'assistant' %}}"
        f"{GENERATION_MARKS[0]}{content}{GENERATION_MARKS[1]}{{% else %}}{content}{{% endif %}}"
        f"{newline}{{% endfor %}}"
        "{% if add_generation_prompt %}"
        rf"{{{{ '{_START}assistant\n' }}}}{{% endif %}}"
    )


def encode_chat(
    tokenizer: Tokenizer, turns: Sequence[Mapping[str, str]]
) -> tuple[list[int], list[bool]]:
    """Return the ids of a conversation, and which of them are targets of the loss.

    Those are the tokens of the assistant's answers with the `<|im_end|>` that ends each: without
    it, a tuned model never stops (trl #2059).
    """
    ids: list[int] = []
    learned: list[bool] = []

    def add(part: list[int], learn: bool = False) -> None:
        ids.extend(part)
        learned.extend([learn] * len(part))

    start, text = _turn_start(tokenizer)
    stop = [tokenizer.stop_id]
    newline = tokenizer.encode("\n") if _has_chat_tokens(tokenizer) else []
    for turn in turns:
        name = "assistant" if turn["role"] == UNLEARNED else turn["role"]
        role, content = f"{text}{name}", turn["content"]
        # Encoded as one text, as other programs do: merges may span the line of the role and the
        # content.
        whole = tokenizer.encode(f"{role}\n{content}")
        if turn["role"] != "assistant":
            add([*start, *whole, *stop, *newline])
            continue
        head = tokenizer.encode(f"{role}\n")
        # If a merge spans the newline, the content is encoded alone, so that the loss sees all of
        # it. The splitter cuts there otherwise.
        spans = whole[: len(head)] != head
        answer = tokenizer.encode(content) if spans else whole[len(head) :]
        add([*start, *head])
        add(answer + stop, learn=True)
        add(newline)
    return ids, learned


def encode_prompt(tokenizer: Tokenizer, turns: Sequence[Mapping[str, str]]) -> list[int]:
    """Return the ids of a conversation, up to where the assistant answers."""
    ids, _ = encode_chat(tokenizer, turns)
    start, text = _turn_start(tokenizer)
    return [*ids, *start, *tokenizer.encode(f"{text}assistant\n")]


def _has_chat_tokens(tokenizer: Tokenizer) -> bool:
    return len(tokenizer.chat_ids) > 1


def _turn_start(tokenizer: Tokenizer) -> tuple[list[int], str]:
    """Return what opens a turn: a special token, or text."""
    return ([tokenizer.chat_ids[0]], "") if _has_chat_tokens(tokenizer) else ([], _START)
