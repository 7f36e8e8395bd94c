"""How a conversation is written as tokens: ChatML (OpenAI 2023). Reads and writes nothing.

    <|im_start|>user\\nHello<|im_end|>\\n<|im_start|>assistant\\nHi.<|im_end|>\\n

The special tokens are put in by this code alone: "<|im_end|>" in what somebody wrote is text.

A tokenizer from elsewhere may lack both. Then `<|im_start|>` is written as plain text, and a turn
ends with the end of a text, without a line break, so that a turn and what opens the next never
share a token. That end is what nobody can write, as in Zephyr's form (Tunstall et al. 2023, arXiv
2310.16944).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from groundup.artifacts.tokenizer import CHAT, Tokenizer

ROLES = ("system", "user", "assistant")

_START = CHAT[0]


def template(tokenizer: Tokenizer) -> str:
    """Return the same form for other programs (Jinja), as tokenizer_config.json has it."""
    end = tokenizer.special_name(tokenizer.stop_id) + ("\n" if _has_form(tokenizer) else "")
    return (
        f"{{% for message in messages %}}{{{{ '{_START}' + message['role'] + '\\n' +"
        f" message['content'] + {end!r} }}}}{{% endfor %}}{{% if add_generation_prompt %}}{{{{"
        f" '{_START}assistant\\n' }}}}{{% endif %}}"
    )


def encode_chat(
    tokenizer: Tokenizer, turns: Sequence[Mapping[str, str]]
) -> tuple[list[int], list[bool]]:
    """Return the ids of a conversation, and which of them a model must learn to write.

    Those are the tokens of the assistant's answers with the `<|im_end|>` that ends each: without
    it, a tuned model never stops (trl #2059).
    """
    ids: list[int] = []
    learned: list[bool] = []
    for part, answer in _parts(tokenizer, turns):
        ids += part
        learned += [answer] * len(part)
    return ids, learned


def encode_prompt(tokenizer: Tokenizer, turns: Sequence[Mapping[str, str]]) -> list[int]:
    """Return the ids of a conversation that the assistant is to go on with."""
    ids, _ = encode_chat(tokenizer, turns)
    special, text = _opening(tokenizer)
    return [*ids, *special, *tokenizer.encode(f"{text}assistant\n")]


def _has_form(tokenizer: Tokenizer) -> bool:
    return len(tokenizer.chat_ids) > 1


def _opening(tokenizer: Tokenizer) -> tuple[list[int], str]:
    """Return the special token that opens a turn, or the text that does."""
    return ([tokenizer.chat_ids[0]], "") if _has_form(tokenizer) else ([], _START)


def _parts(
    tokenizer: Tokenizer, turns: Sequence[Mapping[str, str]]
) -> Iterator[tuple[list[int], bool]]:
    start, text = _opening(tokenizer)
    stop = tokenizer.stop_id
    newline = tokenizer.encode("\n") if _has_form(tokenizer) else []
    for turn in turns:
        role, content = f"{text}{turn['role']}", turn["content"]
        # Encoded as one text, as other programs do: merges may cross from the role's line into the
        # content.
        whole, head = tokenizer.encode(f"{role}\n{content}"), tokenizer.encode(f"{role}\n")
        if turn["role"] != "assistant":
            yield [*start, *whole, stop, *newline], False
            continue
        yield [*start, *head], False
        # Of the answer's tokens none may be lost where a merge crosses the newline; the splitter
        # cuts there otherwise.
        yield (
            (whole[len(head) :] if whole[: len(head)] == head else tokenizer.encode(content))
            + [stop],
            True,
        )
        yield newline, False
