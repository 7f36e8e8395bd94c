"""The engine: outputs equal `generate` in any batch; limits, failures and shutdown are isolated."""

from __future__ import annotations

import gc
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.engine_kit import (
    CONTEXT,
    GREEDY,
    MODEL,
    STRINGS,
    TOKENIZER,
    Listener,
    Steps,
    generate_alone,
    make_model,
    make_request,
    prompts,
    running_engine,
    submit_all,
)
from tests.helpers.examples import examples
from torch import Tensor

from groundup.engines.own import chunk_tokens
from groundup.engines.request import (
    EngineClosed,
    EngineRequest,
    QueueFull,
    RequestOutput,
)
from groundup.errors import GroundupError
from groundup.model.kv_cache import fitting_slots
from groundup.model.sampling import Sampling
from groundup.model.transformer import Transformer, token_log_probabilities


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: at these sizes a second costs more than it gains."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SAMPLINGS = [
    GREEDY,
    Sampling(0.9),
    Sampling(1.0, top_k=20),
    Sampling(0.8, top_p=0.9),
    Sampling(1.1, min_p=0.05),
]


def mixed_requests(count: int) -> list[EngineRequest]:
    lengths = [5 + (n * 11) % 40 for n in range(count)]
    return [
        make_request(prompt, lengths[n], SAMPLINGS[n % len(SAMPLINGS)], seed=n)
        for n, prompt in enumerate(prompts(count))
    ]


@pytest.mark.parametrize("chunk", [0, 5, 1])
def test_outputs_equal_generate(chunk: int) -> None:
    """Greedy or seeded, alone or with 16 others, whole prompts or chunks."""
    requests = mixed_requests(17)
    with running_engine(17, chunk=chunk) as engine:
        together = [listener.text for listener in submit_all(engine, requests)]
        alone = submit_all(engine, requests[:1])[0].text
    assert together == [generate_alone(request) for request in requests]
    assert alone == together[0]


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_float32_and_grouped_query_attention(kv_heads: int) -> None:
    """In float32 the most probable token is clear enough to compare."""
    model = make_model(torch.float32, kv_heads)
    requests = [make_request(prompt, 12, GREEDY) for prompt in prompts(9)]
    with running_engine(4, model=model) as engine:
        assert [listener.text for listener in submit_all(engine, requests)] == [
            generate_alone(request, model) for request in requests
        ]


# Step of arrival, prompt, max_tokens, sampling, and number of steps until it is canceled.
ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.integers(0, 8),
        st.integers(0, 14),
        st.integers(0, 4),
        st.just(999) | st.integers(0, 15),
    ),
    max_size=12,
)


@examples(30)
@given(ARRIVALS, st.integers(1, 5), st.sampled_from([2, 7, 64]))
def test_requests_join_and_leave_at_any_step(
    arrivals: list[tuple[int, int, int, int, int]], slots: int, chunk: int
) -> None:
    """Any order of joining, ending and canceling leaves the other outputs unchanged."""
    steps, texts = Steps(slots, chunk), prompts(9, 20)
    waiting = sorted(arrivals)
    submitted = []
    for now in range(400):
        while waiting and waiting[0][0] <= now and steps.free:
            _, prompt, length, sampling, patience = waiting.pop(0)
            request = make_request(texts[prompt], length, SAMPLINGS[sampling], seed=now)
            submitted.append((request, now + patience, *steps.add(request)))
        for _, until, _, handle in submitted:
            if until == now:
                handle.cancel()
        steps.step()
        if not waiting and not steps.scheduler.running:
            break
    for request, _, listener, handle in submitted:
        assert listener.finish_reason == "length" or handle.canceled
        # A canceled output may end inside a character, which becomes U+FFFD.
        assert (
            generate_alone(request).startswith(listener.text.rstrip("\N{REPLACEMENT CHARACTER}"))
            if handle.canceled
            else listener.text == generate_alone(request)
        )


def test_long_prompt_does_not_stall_decoding() -> None:
    """While 80 prompt tokens are computed in chunks, a running stream gets a token each step."""
    steps = Steps(3, chunk=4)
    stream, _ = steps.add(make_request(prompts(1)[0][:3], 60, GREEDY, logprobs=0))
    steps.step()
    ids = tuple(TOKENIZER.encode("the " * 200))
    long, other = (steps.add(make_request(ids[:80], 3, GREEDY, logprobs=0))[0] for _ in range(2))
    for _ in range(19):
        before = steps.scheduler.prompt_tokens
        steps.step()
        assert steps.scheduler.prompt_tokens - before == 4
    assert not long.outputs
    assert stream.num_tokens in (19, 20)  # a token may wait for the rest of its character
    assert steps.scheduler.generated_tokens == 20
    steps.finish()
    assert (stream.num_tokens, long.num_tokens, other.num_tokens) == (60, 3, 3)


def test_stop_strings_at_any_token_boundary() -> None:
    """Every span of a real output, used as a stop string, ends it there."""
    request = make_request(prompts(5)[4], 24, Sampling(0.9), seed=4)
    text = generate_alone(request)
    spans = [(start, start + width) for start in range(0, len(text) - 6, 5) for width in (1, 3, 6)]
    requests = [
        make_request(
            request.prompt_token_ids, 24, Sampling(0.9), seed=4, stop=(text[a:b], "never there")
        )
        for a, b in spans
    ]
    with running_engine(8) as engine:
        for (a, b), listener in zip(spans, submit_all(engine, requests), strict=True):
            assert listener.text == text[: text.index(text[a:b])]
            assert listener.finish_reason == "stop"
            assert listener.num_tokens <= 24


def test_stop_token_ids_end_the_output() -> None:
    """The stop token has no text and no score, and is not counted."""
    request = make_request(prompts(5)[4], 24, Sampling(0.9), seed=4, logprobs=0)
    with running_engine() as engine:
        ids = [score.token_id for score in submit_all(engine, [request])[0].logprobs]
        first = ids.index(ids[10])
        stopped = submit_all(
            engine,
            [
                make_request(
                    request.prompt_token_ids,
                    24,
                    Sampling(0.9),
                    seed=4,
                    stop_token_ids=frozenset({ids[10]}),
                    logprobs=0,
                )
            ],
        )[0]
    assert [score.token_id for score in stopped.logprobs] == ids[:first]
    assert (stopped.num_tokens, stopped.finish_reason) == (first, "stop")
    assert stopped.text == TOKENIZER.decode(ids[:first])


def test_full_context_ends_the_output() -> None:
    """Prompt and output never exceed the context; a prompt without room is refused."""
    ids = tuple(TOKENIZER.encode("the " * 400))
    with running_engine() as engine:
        long, brief = submit_all(
            engine,
            [
                make_request(ids[: CONTEXT - 10], 1000, GREEDY),
                make_request(ids[: CONTEXT - 1], 1000, GREEDY),
            ],
        )
        assert (long.num_tokens, long.finish_reason) == (10, "length")
        assert (brief.num_tokens, brief.finish_reason) == (1, "length")
        with pytest.raises(
            ValueError,
            match=f"{CONTEXT} tokens; the context of {CONTEXT} takes at most {CONTEXT - 1}",
        ):
            engine.submit(make_request(ids[:CONTEXT], 1), print)
        # A prompt that is only scored may fill the context.
        scored = submit_all(engine, [make_request(ids[:CONTEXT], 0, prompt_logprobs=0)])[0]
        assert len(scored.prompt_logprobs) == CONTEXT


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": ()},
        {"prompt": (TOKENIZER.vocab_size,)},
        {"prompt": (-1,)},
        {"max_tokens": -1},
        {"logprobs": -1},
        {"prompt_logprobs": -1},
        {"stop": ("a", "")},
        {"sampling": Sampling(logit_bias=((10**9, 1.0),))},
    ],
)
def test_invalid_request_is_refused(wrong: dict[str, object]) -> None:
    """The error comes from `submit`, before the request takes a slot."""
    with running_engine(start=False) as engine, pytest.raises(ValueError):
        arguments: dict[str, Any] = {"prompt": (1,), "max_tokens": 5} | wrong
        engine.submit(make_request(**arguments), print)


@pytest.mark.parametrize("chunk", [0, 3])
def test_logprobs_equal_those_of_the_model(chunk: int) -> None:
    """Unaffected by sampling parameters, for prompt and output; alternatives best first."""
    biased = Sampling(
        0.6, top_k=10, frequency_penalty=1.0, presence_penalty=0.5, logit_bias=((7, 3.0),)
    )
    requests = [
        make_request(prompt, 9, sampling, seed=2, logprobs=4, prompt_logprobs=4)
        for prompt in prompts(6)[2:]
        for sampling in (GREEDY, biased)
    ]
    with running_engine(8, chunk=chunk) as engine:
        for request, listener in zip(requests, submit_all(engine, [*requests]), strict=True):
            scores = [*listener.prompt_logprobs, *listener.logprobs]
            ids = [score.token_id for score in scores]
            assert tuple(ids[: len(request.prompt_token_ids)]) == request.prompt_token_ids
            assert [score.token_bytes for score in scores] == [STRINGS[token] for token in ids]
            expected = token_log_probabilities(MODEL, torch.tensor([ids]))[0].tolist()
            assert scores[0].logprob is None
            assert [score.logprob for score in scores[1:]] == pytest.approx(expected, abs=1e-5)
            for score in scores[1:]:
                assert len(score.top_logprobs) == 4
                values = [value for _, value in score.top_logprobs]
                assert values == sorted(values, reverse=True)
                assert score.logprob is not None
                assert (
                    dict(score.top_logprobs).get(score.token_id, score.logprob)
                    == score.logprob
                    <= values[0]
                )
        assert all(
            score.token_id == score.top_logprobs[0][0]
            for score in submit_all(engine, [requests[0]])[0].logprobs
        )


def test_logprobs_only_on_request() -> None:
    """0 gives the score of the token itself without alternatives."""
    prompt = prompts(5)[4]
    with running_engine() as engine:
        unscored, scored = submit_all(
            engine, [make_request(prompt, 5, GREEDY), make_request(prompt, 5, GREEDY, logprobs=0)]
        )
    assert not unscored.logprobs
    assert len(scored.logprobs) == 5
    assert all(score.top_logprobs == () and score.logprob is not None for score in scored.logprobs)


def test_penalties_and_biases_take_effect() -> None:
    """A bias decides a greedy output; a penalty prevents repetition."""
    prompt = prompts(5)[4]
    with running_engine() as engine:
        same, other = submit_all(
            engine,
            [
                make_request(prompt, 8, Sampling(0.0, logit_bias=((40, 1000.0),)), logprobs=0),
                make_request(prompt, 8, Sampling(0.0, presence_penalty=1e4), logprobs=0),
            ],
        )
    assert [score.token_id for score in same.logprobs] == [40] * 8
    assert len({score.token_id for score in other.logprobs}) == 8


def test_cancel_frees_the_slot() -> None:
    """At the next step; canceling again has no effect."""
    steps = Steps(2)
    (canceled, handle), (other, _) = [
        steps.add(make_request(prompt, 40, GREEDY)) for prompt in prompts(2)
    ]
    for _ in range(5):
        steps.step()
    handle.cancel()
    steps.step()
    assert (steps.free, canceled.finish_reason) == (1, "cancelled")
    handle.cancel()
    steps.finish()
    assert other.finish_reason == "length"


def test_cancel_a_waiting_request() -> None:
    """It leaves the queue without having run."""
    with running_engine(1, 2, start=False) as engine:
        listeners = [Listener() for _ in range(3)]
        handles = [
            engine.submit(make_request((1, 2), 30, GREEDY), listener) for listener in listeners
        ]
        handles[1].cancel()
        engine.start()
        assert listeners[1].wait().finish_reason == "cancelled"
        assert listeners[1].num_tokens == 0
        assert [listeners[n].wait().finish_reason for n in (0, 2)] == ["length", "length"]


def test_full_queue_refuses_requests() -> None:
    """The next request is refused at once, and accepted when there is room again."""
    with running_engine(2, 3, start=False) as engine:
        listeners = [Listener() for _ in range(5)]
        for listener in listeners:
            engine.submit(make_request((1, 2, 3), 4, GREEDY), listener)
        with pytest.raises(QueueFull, match="2 requests run and 3 wait"):
            engine.submit(make_request((1, 2, 3), 4, GREEDY), print)
        assert (engine.stats().waiting, engine.stats().running) == (5, 0)
        engine.start()
        assert [listener.wait().finish_reason for listener in listeners] == ["length"] * 5
        assert submit_all(engine, [make_request((1, 2, 3), 4, GREEDY)])[0].finish_reason == "length"


def test_slot_is_free_before_the_last_output() -> None:
    """So a client with its last output can submit again, even without a queue."""
    with running_engine(2, 0) as engine:
        for turn in range(20):
            assert [
                listener.finish_reason
                for listener in submit_all(engine, [make_request((1, 2, 3), 2, GREEDY)] * 2)
            ] == ["length"] * 2
            assert engine.stats().finished == {"length": 2 * turn + 2}


def test_close_drains_submitted_requests() -> None:
    """Running and waiting requests finish; new ones are refused."""
    with running_engine(2) as engine:
        requests = [make_request(prompt, 20, GREEDY) for prompt in prompts(6)]
        listeners = [Listener() for _ in requests]
        for request, listener in zip(requests, listeners, strict=True):
            engine.submit(request, listener)
        engine.close(drain_seconds=60)
        assert [listener.text for listener in listeners] == [
            generate_alone(request) for request in requests
        ]
        assert {listener.finish_reason for listener in listeners} == {"length"}
        with pytest.raises(EngineClosed):
            engine.submit(requests[0], print)
        engine.close()


@pytest.mark.parametrize("started", [True, False])
def test_close_without_drain_cancels(started: bool) -> None:
    """Every request gets a last output, whether the engine was started or not."""
    with running_engine(1, start=started) as engine:
        listeners = [Listener() for _ in range(4)]
        for listener in listeners:
            engine.submit(make_request((1, 2, 3), 90, GREEDY), listener)
        engine.close()
        assert listeners[-1].finish_reason == "cancelled"
        assert all(listener.finish_reason in ("cancelled", "length") for listener in listeners)


POISON = 5


def poisoned(of: Callable[[Tensor, Tensor], Tensor]) -> Transformer:
    """Return a model that applies `of` where it embeds POISON, so keys and values are affected."""
    model = make_model()
    model.model.embed_tokens.register_forward_hook(
        lambda _, tokens, x_BTD: of(x_BTD, tokens[0] == POISON)
    )
    return model


def crash(x_BTD: Tensor, bad_BT: Tensor) -> Tensor:
    if bad_BT.any():
        raise RuntimeError("this prompt breaks the model")
    return x_BTD


def spoil(x_BTD: Tensor, bad_BT: Tensor) -> Tensor:
    return x_BTD.masked_fill(bad_BT[:, :, None], math.nan)


@pytest.mark.parametrize("way", [crash, spoil])
def test_failing_request_ends_alone(
    way: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """An exception or logits that are NaN end only the request that causes them."""
    texts = [tuple(token for token in prompt if token != POISON) or (1,) for prompt in prompts(6)]
    requests = [
        make_request(prompt, 12, Sampling(0.0, logit_bias=((POISON, -1e4),))) for prompt in texts
    ]
    bad = [
        make_request((*texts[3], POISON), 12, GREEDY),
        make_request((POISON, *texts[4]), 12, GREEDY, prompt_logprobs=0),
    ]
    # Its prompt is harmless; then it generates POISON.
    later = make_request(texts[2], 12, Sampling(0.0, logit_bias=((POISON, 1e4),)))
    with running_engine(4) as engine:
        expected = [listener.text for listener in submit_all(engine, requests)]
    with running_engine(4, model=poisoned(way)) as engine:
        results = submit_all(
            engine, [requests[0], bad[0], *requests[1:3], later, bad[1], *requests[3:]]
        )
        assert [results[n].text for n in (0, 2, 3, 6, 7, 8)] == expected
        assert [results[n].finish_reason for n in (1, 4, 5)] == ["error"] * 3
        assert results[4].num_tokens == 1
        # Their slots are clean: a NaN in a masked key would reach the next request.
        assert [listener.text for listener in submit_all(engine, requests[:4])] == expected[:4]
        assert engine.stats().finished == {"length": 10, "error": 3}


def test_scheduler_error_ends_running_requests() -> None:
    """Every request hears of it, and the engine serves the next ones."""
    with running_engine(2, start=False) as engine:
        listeners = [Listener() for _ in range(4)]
        for listener in listeners:
            engine.submit(make_request((1, 2, 3), 5, GREEDY), listener)
        step, calls = engine._scheduler.step, iter(range(100))
        engine._scheduler.step = lambda: step() if next(calls) != 2 else 1 / 0  # type: ignore[method-assign, assignment, return-value]
        engine.start()
        assert [listener.wait().finish_reason for listener in listeners] == [
            "error",
            "error",
            "length",
            "length",
        ]
        assert submit_all(engine, [make_request((1, 2, 3), 5, GREEDY)])[0].text == listeners[3].text
        assert (engine.stats().running, engine.stats().finished) == (0, {"error": 2, "length": 3})


def test_fatal_error_ends_all_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a permanent error, as of a GPU, all requests end and new ones are refused."""
    with running_engine(1, start=False) as engine:
        listeners = [Listener() for _ in range(3)]
        for listener in listeners:
            engine.submit(make_request((1, 2, 3), 5, GREEDY), listener)
        for name in ("step", "reset"):
            monkeypatch.setattr(engine._scheduler, name, lambda: 1 / 0)
        engine.start()
        assert [listener.wait().finish_reason for listener in listeners] == ["error"] * 3
        with pytest.raises(EngineClosed):
            engine.submit(make_request((1, 2, 3), 5, GREEDY), print)


def test_failing_callback_ends_its_request() -> None:
    """It gets no more outputs; other requests are unaffected."""
    heard: list[RequestOutput] = []

    def failing(output: RequestOutput) -> None:
        heard.append(output)
        raise OSError("gone")

    request = make_request(prompts(5)[4], 20, GREEDY)
    with running_engine(2) as engine:
        engine.submit(request, failing)
        assert submit_all(engine, [request])[0].text == generate_alone(request)
        assert len(heard) == 1
        assert engine.stats().finished == {"cancelled": 1, "length": 1}
        assert engine.stats().running == 0


def test_stats_add_up() -> None:
    """What metrics say is what was done."""
    requests = mixed_requests(12)
    with running_engine(4) as engine:
        listeners = submit_all(engine, requests)
        engine.close(10)
        stats = engine.stats()
    assert (stats.slots, stats.queue, stats.running, stats.waiting) == (4, 64, 0, 0)
    assert stats.prompt_tokens == sum(len(request.prompt_token_ids) for request in requests)
    assert (
        stats.generated_tokens
        == sum(listener.num_tokens for listener in listeners)
        == sum(request.params.max_tokens for request in requests)
    )
    assert stats.finished == {"length": 12}
    assert stats.steps >= max(request.params.max_tokens for request in requests)


def tensor_bytes() -> int:
    gc.collect()
    return sum(
        tensor.untyped_storage().nbytes() for tensor in gc.get_objects() if type(tensor) is Tensor
    )


def test_memory_does_not_grow() -> None:
    """A hundred requests of all kinds leave as many tensor bytes as ten."""
    requests = [
        *mixed_requests(10),
        make_request(
            (1, 2, 3),
            5,
            Sampling(0.5, presence_penalty=1.0),
            logprobs=3,
            prompt_logprobs=3,
            stop=("e",),
        ),
    ]
    with running_engine(4) as engine:
        submit_all(engine, requests)
        before, threads = tensor_bytes(), threading.active_count()
        for _ in range(9):
            submit_all(engine, requests)
        assert tensor_bytes() <= before + 10_000
        assert threading.active_count() == threads


def test_fitting_slots_follow_memory() -> None:
    """A budget that holds not one slot is an error."""
    full = torch.empty(0)
    slot_bytes = 2 * 3 * 2 * CONTEXT * 16 * 4
    assert fitting_slots(MODEL.config, full, max_slots=32, memory_bytes=slot_bytes * 5 + 1) == 5
    assert (
        fitting_slots(MODEL.config, full.bfloat16(), max_slots=8, memory_bytes=slot_bytes * 5) == 8
    )
    assert fitting_slots(MODEL.config, full, max_slots=32) == 32
    with pytest.raises(GroundupError, match="one request of 96 tokens needs"):
        fitting_slots(MODEL.config, full, max_slots=8, memory_bytes=slot_bytes - 1)


def test_chunk_size_follows_model_size() -> None:
    """Nothing but the size of the model decides."""
    from groundup.model.config import resolve
    from groundup.recipe import Model

    sizes = [
        chunk_tokens(resolve(Model(preset=name), 50_000, 10**9), "cpu")
        for name in ("tiny", "30m", "125m", "500m")
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1] >= 32
