"""From a request to jobs for the engine. Reads validated requests; writes nothing.

It runs on a thread of its own, since encoding a long text would keep the event loop from everybody
else.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from groundup.artifacts.chat import encode_prompt
from groundup.engines.own import Job
from groundup.model.sampling import SamplingParams
from groundup.serve.errors import ApiError
from groundup.serve.protocol import Asked, ChatRequest, CompletionRequest
from groundup.serve.serving import Serving

# OpenAI's own 16 makes a first try look broken; a client that cares says what it wants.
COMPLETION_TOKENS = 256


@dataclass(frozen=True)
class Work:
    """What one request asks of the engine.

    Attributes:
        jobs: one for each choice: n of the first prompt, n of the second, and so on.
        prompt_tokens: of all prompts, each counted once however many choices it has.
        echoes: text that stands before each choice.
        added: tokens put in front of each prompt, of which nothing is told.
    """

    jobs: tuple[Job, ...]
    prompt_tokens: int
    echoes: tuple[str, ...]
    added: int = 0


def completion_work(serving: Serving, asked: CompletionRequest) -> Work:
    """Return the jobs of a completion.

    A text is preceded by the end-of-text id, as documents are in training; ids are taken as they
    are.

    Raises:
        ApiError: a prompt is longer than the context, or a parameter cannot be met.
    """
    given = _listed(asked.prompt)
    # Counted before anything is encoded: a body holds half a million short texts.
    n = _choices(serving, asked, len(given))
    prompts = [
        _encoded(serving, one) if isinstance(one, str) else _checked(serving, one) for one in given
    ]
    wanted, echo = (
        COMPLETION_TOKENS if asked.max_tokens is None else asked.max_tokens,
        bool(asked.echo),
    )
    if not wanted and not echo:
        raise ApiError(
            400, "max_tokens: 0 gives nothing, unless echo is true", "invalid_value", "max_tokens"
        )
    limits, sampling = (
        [_room(serving, prompt, wanted, "prompt") for prompt in prompts],
        _sampling(serving, asked),
    )
    top, seeds = -1 if asked.logprobs is None else asked.logprobs, _seeds(asked, len(prompts) * n)
    jobs = [
        _job(serving, asked, prompts[i // n], limits[i // n], sampling, seed, top, echo)
        for i, seed in enumerate(seeds)
    ]
    _check_scores(serving, jobs)
    echoes = [_echo(serving, one) if echo else "" for one in given for _ in range(n)]
    return Work(
        tuple(jobs),
        sum(map(len, prompts)),
        tuple(echoes),
        added=1 if isinstance(given[0], str) else 0,
    )


def chat_work(serving: Serving, asked: ChatRequest) -> Work:
    """Return the jobs of a chat.

    Raises:
        ApiError: the conversation is longer than the context, or a parameter cannot be met.
    """
    turns = [{"role": _role(message.role), "content": message.text()} for message in asked.messages]
    _check_size(serving, [turn["content"] for turn in turns], "messages")
    prompt = encode_prompt(serving.tokenizer, turns)
    wanted = (
        asked.max_completion_tokens if asked.max_completion_tokens is not None else asked.max_tokens
    )
    if wanted == 0:
        raise ApiError(400, "max_tokens: 0 gives no answer", "invalid_value", "max_tokens")
    limit = _room(serving, prompt, serving.context if wanted is None else wanted, "messages")
    choices, sampling = _choices(serving, asked, 1), _sampling(serving, asked)
    top = (asked.top_logprobs or 0) if asked.logprobs else -1
    jobs = [
        _job(serving, asked, prompt, limit, sampling, seed, top, False)
        for seed in _seeds(asked, choices)
    ]
    _check_scores(serving, jobs)
    return Work(tuple(jobs), len(prompt), ("",) * choices)


def _job(
    serving: Serving,
    asked: Asked,
    prompt: Sequence[int],
    limit: int,
    sampling: SamplingParams,
    seed: int,
    top: int,
    echo: bool,
) -> Job:
    tokenizer = serving.tokenizer
    stop_ids = frozenset({tokenizer.end_id, tokenizer.stop_id})
    return Job(
        tuple(prompt),
        limit,
        sampling,
        seed,
        asked.stops(),
        stop_ids,
        top,
        prompt_scores=echo and top >= 0,
    )


def _listed(prompt: str | list[str] | list[int] | list[list[int]] | None) -> list[str | list[int]]:
    """Return the prompts, each a text or its ids."""
    if prompt is None or isinstance(prompt, str):
        return [prompt or ""]
    if isinstance(prompt[0], int):
        return [[part for part in prompt if isinstance(part, int)]]
    return [part for part in prompt if isinstance(part, str | list)]


def _encoded(serving: Serving, text: str) -> list[int]:
    _check_size(serving, [text], "prompt")
    return [serving.tokenizer.end_id, *serving.tokenizer.encode(text)]


def _checked(serving: Serving, ids: list[int]) -> list[int]:
    size = serving.tokenizer.vocab_size
    if max(ids) >= size:
        raise ApiError(
            400,
            f"prompt: a token id is not below {size}, the size of the vocabulary",
            "invalid_value",
            "prompt",
        )
    return ids


def _echo(serving: Serving, given: str | list[int]) -> str:
    return given if isinstance(given, str) else serving.tokenizer.decode(given)


def _check_size(serving: Serving, texts: Sequence[str], param: str) -> None:
    """Refuse without encoding what cannot fit: no token has more bytes than the longest."""
    size = sum(len(text.encode()) for text in texts)
    if size > serving.context * serving.longest_token:
        raise _too_long(serving, f"at least {size // serving.longest_token}", param)


def _room(serving: Serving, prompt: Sequence[int], wanted: int, param: str) -> int:
    """Return how many tokens may be generated: a limit is a bound, and the context is another."""
    left = serving.context - len(prompt)
    if left < min(wanted, 1):
        raise _too_long(serving, str(len(prompt)), param)
    return min(wanted, left)


def _too_long(serving: Serving, tokens: str, param: str) -> ApiError:
    message = (
        f"The prompt has {tokens} tokens; this model's context holds {serving.context}, of which"
        " one must be left for the answer."
    )
    return ApiError(400, message, "context_length_exceeded", param)


def _choices(serving: Serving, asked: Asked, prompts: int) -> int:
    """Return n; more choices than the server ever takes at once would be refused as busy forever."""
    load, n = serving.engine.load(), asked.n or 1
    most = min(serving.limits.choices, load.slots + load.queue)
    if prompts * n > most:
        raise ApiError(
            400,
            f"n: {prompts * n} completions in one request; at most {most}",
            "too_many_choices",
            "n",
        )
    return n


def _check_scores(serving: Serving, jobs: Sequence[Job]) -> None:
    most = serving.limits.scores
    count = sum(
        (job.top + 1) * (job.max_tokens + (len(job.prompt) if job.prompt_scores else 0))
        for job in jobs
    )
    if count > most:
        raise ApiError(
            400,
            f"logprobs: {count} log-probabilities in one request; at most {most}",
            "too_many_logprobs",
            "logprobs",
        )


def _seeds(asked: Asked, count: int) -> list[int]:
    first = secrets.randbits(63) if asked.seed is None else asked.seed
    return [first, *(_mixed(first, index) for index in range(1, count))]


def _mixed(seed: int, index: int) -> int:
    # Not seed + index: the second choice of seed 1 would be the first of seed 2.
    return int.from_bytes(hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest()) >> 1


def _sampling(serving: Serving, asked: Asked) -> SamplingParams:
    """Return the sampling; what is not said is the protocol's default."""
    try:
        return SamplingParams(
            temperature=1.0 if asked.temperature is None else asked.temperature,
            top_k=max(0, asked.top_k or 0),
            top_p=asked.top_p or 1.0,
            min_p=asked.min_p or 0.0,
            frequency_penalty=asked.frequency_penalty or 0.0,
            presence_penalty=asked.presence_penalty or 0.0,
            logit_bias=_biases(asked.logit_bias or {}, serving.tokenizer.vocab_size),
        )
    except ValueError as error:
        raise ApiError(400, str(error), "invalid_value") from None


def _biases(biases: dict[str, float], size: int) -> tuple[tuple[int, float], ...]:
    for name in biases:
        # isdecimal alone takes other scripts' digits, and int of a long text is slow.
        if not (name.isascii() and name.isdecimal() and len(name) <= 10 and int(name) < size):
            raise ApiError(
                400,
                f"logit_bias: its names are token ids below {size}",
                "invalid_value",
                "logit_bias",
            )
    return tuple((int(name), bias) for name, bias in biases.items())


def _role(role: str) -> str:
    return "system" if role == "developer" else role
