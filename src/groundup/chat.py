"""How a conversation is written as tokens: ChatML (OpenAI 2023). Reads and writes nothing.

    <|im_start|>user\\nHello<|im_end|>\\n<|im_start|>assistant\\nHi.<|im_end|>\\n

The three special tokens are put in by this code alone: "<|im_end|>" in what somebody wrote is text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from groundup.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")

# The same form for other programs, in tokenizer_config.json.
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def encode_chat(tokenizer: Tokenizer, turns: Sequence[Mapping[str, str]]) -> tuple[list[int], list[bool]]:
    """Return the ids of a conversation, and which of them a model must learn to write.

    Those are the tokens of the assistant's answers with the `<|im_end|>` that ends each: without it, a tuned model never
    stops (trl #2059).
    """
    ids: list[int] = []
    learnt: list[bool] = []
    for part, answer in _parts(tokenizer, turns):
        ids += part
        learnt += [answer] * len(part)
    return ids, learnt


def encode_prompt(tokenizer: Tokenizer, turns: Sequence[Mapping[str, str]]) -> list[int]:
    """Return the ids of a conversation that the assistant is to go on with."""
    ids, _ = encode_chat(tokenizer, turns)
    return [*ids, tokenizer.chat_ids[0], *tokenizer.encode("assistant\n")]


def _parts(tokenizer: Tokenizer, turns: Sequence[Mapping[str, str]]) -> Iterator[tuple[list[int], bool]]:
    start, stop = tokenizer.chat_ids
    newline = tokenizer.encode("\n")
    for turn in turns:
        role, content = turn["role"], turn["content"]
        # Encoded as one text, as other programs do: merges may cross from the role's line into the content.
        whole, head = tokenizer.encode(f"{role}\n{content}"), tokenizer.encode(f"{role}\n")
        if role != "assistant":
            yield [start, *whole, stop, *newline], False
            continue
        yield [start, *head], False
        # Of the answer's tokens none may be lost where a merge crosses the newline; the splitter cuts there otherwise.
        yield (whole[len(head) :] if whole[: len(head)] == head else tokenizer.encode(content)) + [stop], True
        yield newline, False
