"""The engine: an answer is that of `generate`, whatever runs beside it; limits, failures and the
end cost nobody else.
"""

from __future__ import annotations

import gc
import math
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.engine_kit import (
    CONTEXT,
    MODEL,
    STRINGS,
    TOKENIZER,
    Listener,
    Steps,
    answers,
    engine,
    make_model,
    plain,
    prompts,
)
from tests.helpers.examples import examples
from torch import Tensor

from groundup.engines.jobs import Closed, Job, Piece, QueueFull
from groundup.engines.scheduler import chunk_tokens
from groundup.engines.slot_cache import fitting_slots, slot_bytes
from groundup.errors import GroundupError
from groundup.model.sampling import Sampling
from groundup.model.score import token_log_probabilities
from groundup.model.transformer import Transformer


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """At these sizes a second thread costs more than it does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


GREEDY = Sampling(0.0)
SAMPLINGS = [
    GREEDY,
    Sampling(0.9),
    Sampling(1.0, top_k=20),
    Sampling(0.8, top_p=0.9),
    Sampling(1.1, min_p=0.05),
]


def mixed_jobs(count: int) -> list[Job]:
    lengths = [5 + (n * 11) % 40 for n in range(count)]
    return [
        Job(prompt, lengths[n], SAMPLINGS[n % len(SAMPLINGS)], seed=n)
        for n, prompt in enumerate(prompts(count))
    ]


@pytest.mark.parametrize("chunk", [0, 5, 1])
def test_answers_are_those_of_generate(chunk: int) -> None:
    """Greedy or seeded, alone or among 16 others, prompts read whole or in chunks."""
    jobs = mixed_jobs(17)
    with engine(17, chunk=chunk) as found:
        together = [listener.text for listener in answers(found, jobs)]
        alone = answers(found, jobs[:1])[0].text
    assert together == [plain(job) for job in jobs]
    assert alone == together[0]


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_answers_in_float32_and_with_grouped_heads(kv_heads: int) -> None:
    """The type that people use, where the most probable token stands clear; fewer key heads than
    query heads.
    """
    model = make_model(torch.float32, kv_heads)
    jobs = [Job(prompt, 12, GREEDY) for prompt in prompts(9)]
    with engine(4, model=model) as found:
        assert [listener.text for listener in answers(found, jobs)] == [
            plain(job, model) for job in jobs
        ]


# The step at which it comes, its prompt, tokens, sampling, and after how many steps it is canceled.
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
    """Any order of joining, ending and cancelling leaves every other answer as it is: no slot is
    mistaken for another.
    """
    steps, texts = Steps(slots, chunk), prompts(9, 20)
    waiting = sorted(arrivals)
    asked = []
    for now in range(400):
        while waiting and waiting[0][0] <= now and steps.free:
            _, prompt, length, sampling, patience = waiting.pop(0)
            job = Job(texts[prompt], length, SAMPLINGS[sampling], seed=now)
            asked.append((job, now + patience, *steps.add(job)))
        for _, until, _, ticket in asked:
            if until == now:
                ticket.cancel()
        steps.step()
        if not waiting and not steps.batch.running:
            break
    for job, _, listener, ticket in asked:
        assert listener.finish == "length" or ticket.canceled
        # A canceled answer may end within a character, which is then U+FFFD.
        assert (
            plain(job).startswith(listener.text.rstrip("\N{REPLACEMENT CHARACTER}"))
            if ticket.canceled
            else listener.text == plain(job)
        )


def test_a_long_prompt_does_not_stall_the_others() -> None:
    """While a prompt of 80 tokens is read in chunks, a running stream gets a token at every step."""
    steps = Steps(3, chunk=4)
    stream, _ = steps.add(Job(prompts(1)[0][:3], 60, GREEDY, top=0))
    steps.step()
    ids = tuple(TOKENIZER.encode("the " * 200))
    long, other = (steps.add(Job(ids[:80], 3, GREEDY, top=0))[0] for _ in range(2))
    for _ in range(19):
        before = steps.batch.prompt_tokens
        steps.step()
        assert steps.batch.prompt_tokens - before == 4
    assert not long.pieces
    assert stream.count in (19, 20)  # a token may wait for the rest of its character
    assert steps.batch.generated_tokens == 20
    steps.finish()
    assert (stream.count, long.count, other.count) == (60, 3, 3)


def test_stop_strings_end_an_answer_wherever_tokens_part() -> None:
    """Every stretch of a real answer, as a stop string, ends it there; what comes before it is all
    that leaves.
    """
    job = Job(prompts(5)[4], 24, Sampling(0.9), seed=4)
    text = plain(job)
    spans = [(start, start + width) for start in range(0, len(text) - 6, 5) for width in (1, 3, 6)]
    jobs = [Job(job.prompt, 24, job.sampling, 4, stop=(text[a:b], "never there")) for a, b in spans]
    with engine(8) as found:
        for (a, b), listener in zip(spans, answers(found, jobs), strict=True):
            assert listener.text == text[: text.index(text[a:b])]
            assert listener.finish == "stop"
            assert listener.count <= 24


def test_stop_ids_end_an_answer_and_are_no_part_of_it() -> None:
    """The end token leaves neither text nor score, and is not counted."""
    job = Job(prompts(5)[4], 24, Sampling(0.9), seed=4, top=0)
    with engine() as found:
        ids = [score.id for score in answers(found, [job])[0].tokens]
        first = ids.index(ids[10])
        stopped = answers(
            found, [Job(job.prompt, 24, job.sampling, 4, stop_ids=frozenset({ids[10]}), top=0)]
        )[0]
    assert [score.id for score in stopped.tokens] == ids[:first]
    assert (stopped.count, stopped.finish) == (first, "stop")
    assert stopped.text == TOKENIZER.decode(ids[:first])


def test_a_full_context_ends_an_answer() -> None:
    """Prompt and answer together never exceed the context; a prompt that leaves no room is refused."""
    ids = tuple(TOKENIZER.encode("the " * 400))
    with engine() as found:
        long, brief = answers(
            found, [Job(ids[: CONTEXT - 10], 1000, GREEDY), Job(ids[: CONTEXT - 1], 1000, GREEDY)]
        )
        assert (long.count, long.finish) == (10, "length")
        assert (brief.count, brief.finish) == (1, "length")
        with pytest.raises(
            ValueError,
            match=f"{CONTEXT} tokens; the context of {CONTEXT} takes at most {CONTEXT - 1}",
        ):
            found.submit(Job(ids[:CONTEXT], 1), print)
        # To be scored, it may fill the context.
        scored = answers(found, [Job(ids[:CONTEXT], 0, prompt_scores=True)])[0]
        assert len(scored.prompt) == CONTEXT


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": ()},
        {"prompt": (TOKENIZER.vocab_size,)},
        {"prompt": (-1,)},
        {"max_tokens": -1},
        {"top": -2},
        {"stop": ("a", "")},
        {"sampling": Sampling(logit_bias=((10**9, 1.0),))},
    ],
)
def test_a_job_that_cannot_be_done_is_refused(wrong: dict[str, object]) -> None:
    """Before it takes a slot, with an error that an API can hand on."""
    with engine(start=False) as found, pytest.raises(ValueError):
        found.submit(Job(**({"prompt": (1,), "max_tokens": 5} | wrong)), print)  # type: ignore[arg-type]


@pytest.mark.parametrize("chunk", [0, 3])
def test_scores_are_the_log_probabilities_of_the_model(chunk: int) -> None:
    """Of prompt and answer, at temperature 1, whatever is done to the logits for drawing;
    alternatives best first.
    """
    biased = Sampling(
        0.6, top_k=10, frequency_penalty=1.0, presence_penalty=0.5, logit_bias=((7, 3.0),)
    )
    jobs = [
        Job(prompt, 9, sampling, seed=2, top=4, prompt_scores=True)
        for prompt in prompts(6)[2:]
        for sampling in (GREEDY, biased)
    ]
    with engine(8, chunk=chunk) as found:
        for job, listener in zip(jobs, answers(found, [*jobs]), strict=True):
            scores = [*listener.prompt, *listener.tokens]
            ids = [score.id for score in scores]
            assert tuple(ids[: len(job.prompt)]) == job.prompt
            assert [score.data for score in scores] == [STRINGS[token] for token in ids]
            expected = token_log_probabilities(MODEL, torch.tensor([ids]))[0].tolist()
            assert scores[0].logprob is None
            assert [score.logprob for score in scores[1:]] == pytest.approx(expected, abs=1e-5)
            for score in scores[1:]:
                assert len(score.top) == 4
                values = [value for _, value in score.top]
                assert values == sorted(values, reverse=True)
                assert score.logprob is not None
                assert dict(score.top).get(score.id, score.logprob) == score.logprob <= values[0]
        assert all(score.id == score.top[0][0] for score in answers(found, [jobs[0]])[0].tokens)


def test_scores_are_made_only_when_asked_for() -> None:
    """Nobody else pays for them, and top 0 gives the token's own without alternatives."""
    prompt = prompts(5)[4]
    with engine() as found:
        without, own = answers(found, [Job(prompt, 5, GREEDY), Job(prompt, 5, GREEDY, top=0)])
    assert not without.tokens
    assert len(own.tokens) == 5
    assert all(score.top == () and score.logprob is not None for score in own.tokens)


def test_penalties_act_on_the_answer() -> None:
    """A bias decides a greedy answer, a penalty keeps it from repeating itself."""
    prompt = prompts(5)[4]
    with engine() as found:
        same, other = answers(
            found,
            [
                Job(prompt, 8, Sampling(0.0, logit_bias=((40, 1000.0),)), top=0),
                Job(prompt, 8, Sampling(0.0, presence_penalty=1e4), top=0),
            ],
        )
    assert [score.id for score in same.tokens] == [40] * 8
    assert len({score.id for score in other.tokens}) == 8


def test_a_canceled_request_gives_its_slot_back() -> None:
    """Running or waiting, at the next step; its last piece says so, and cancelling again does no
    harm.
    """
    steps = Steps(2)
    (one, ticket), (other, _) = [steps.add(Job(prompt, 40, GREEDY)) for prompt in prompts(2)]
    for _ in range(5):
        steps.step()
    ticket.cancel()
    steps.step()
    assert (steps.free, one.finish) == (1, "cancelled")
    ticket.cancel()
    steps.finish()
    assert other.finish == "length"


def test_those_who_wait_can_leave() -> None:
    """A canceled request in the queue ends and makes room there, without ever having run."""
    with engine(1, 2, start=False) as found:
        listeners = [Listener() for _ in range(3)]
        tickets = [found.submit(Job((1, 2), 30, GREEDY), listener) for listener in listeners]
        tickets[1].cancel()
        found.start()
        assert listeners[1].wait().finish == "cancelled"
        assert listeners[1].count == 0
        assert [listeners[n].wait().finish for n in (0, 2)] == ["length", "length"]


def test_the_queue_has_an_end() -> None:
    """Slots and queue full: one more is refused at once, and taken again when there is room."""
    with engine(2, 3, start=False) as found:
        listeners = [Listener() for _ in range(5)]
        for listener in listeners:
            found.submit(Job((1, 2, 3), 4, GREEDY), listener)
        with pytest.raises(QueueFull, match="2 requests run and 3 wait"):
            found.submit(Job((1, 2, 3), 4, GREEDY), print)
        assert (found.load().waiting, found.load().running) == (5, 0)
        found.start()
        assert [listener.wait().finish for listener in listeners] == ["length"] * 5
        assert answers(found, [Job((1, 2, 3), 4, GREEDY)])[0].finish == "length"


def test_whoever_has_an_answer_can_ask_again() -> None:
    """The slot is free and everything counted before the last piece is heard, even without a queue."""
    with engine(2, 0) as found:
        for turn in range(20):
            assert [
                listener.finish for listener in answers(found, [Job((1, 2, 3), 2, GREEDY)] * 2)
            ] == ["length"] * 2
            assert found.load().finished == {"length": 2 * turn + 2}


def test_closing_finishes_what_was_taken() -> None:
    """Running and waiting requests come to their end; new ones are refused."""
    with engine(2) as found:
        jobs = [Job(prompt, 20, GREEDY) for prompt in prompts(6)]
        listeners = [Listener() for _ in jobs]
        for job, listener in zip(jobs, listeners, strict=True):
            found.submit(job, listener)
        found.close(drain_seconds=60)
        assert [listener.text for listener in listeners] == [plain(job) for job in jobs]
        assert {listener.finish for listener in listeners} == {"length"}
        with pytest.raises(Closed):
            found.submit(jobs[0], print)
        found.close()


@pytest.mark.parametrize("started", [True, False])
def test_closing_at_once_cancels(started: bool) -> None:
    """Nobody is left without a last piece, be the engine at work or never started."""
    with engine(1, start=started) as found:
        listeners = [Listener() for _ in range(4)]
        for listener in listeners:
            found.submit(Job((1, 2, 3), 90, GREEDY), listener)
        found.close()
        assert listeners[-1].finish == "cancelled"
        assert all(listener.finish in ("cancelled", "length") for listener in listeners)


POISON = 5


def poisoned(of: Callable[[Tensor, Tensor], Tensor]) -> Transformer:
    """Return a model that meets `of` where it looks up the token POISON, so that its keys and
    values are hit as well.
    """
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
def test_a_request_that_breaks_the_model_breaks_alone(
    way: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """An exception in a step, or scores that are not numbers, end the request at fault; the others
    do not notice.
    """
    texts = [tuple(token for token in prompt if token != POISON) or (1,) for prompt in prompts(6)]
    jobs = [Job(prompt, 12, Sampling(0.0, logit_bias=((POISON, -1e4),))) for prompt in texts]
    bad = [
        Job((*texts[3], POISON), 12, GREEDY),
        Job((POISON, *texts[4]), 12, GREEDY, prompt_scores=True),
    ]
    # Its prompt is right; then it writes the bad one itself.
    later = Job(texts[2], 12, Sampling(0.0, logit_bias=((POISON, 1e4),)))
    with engine(4) as found:
        expected = [listener.text for listener in answers(found, jobs)]
    with engine(4, model=poisoned(way)) as found:
        results = answers(found, [jobs[0], bad[0], *jobs[1:3], later, bad[1], *jobs[3:]])
        assert [results[n].text for n in (0, 2, 3, 6, 7, 8)] == expected
        assert [results[n].finish for n in (1, 4, 5)] == ["error"] * 3
        assert results[4].count == 1
        # The slots that they held are clean: a hidden key that is no number would still reach
        # whoever comes next.
        assert [listener.text for listener in answers(found, jobs[:4])] == expected[:4]
        assert found.load().finished == {"length": 10, "error": 3}


def test_an_error_of_the_engine_itself_ends_what_runs() -> None:
    """Whatever goes wrong between requests, everybody hears of it, and the next requests are
    served.
    """
    with engine(2, start=False) as found:
        listeners = [Listener() for _ in range(4)]
        for listener in listeners:
            found.submit(Job((1, 2, 3), 5, GREEDY), listener)
        step, calls = found._batch.step, iter(range(100))
        found._batch.step = lambda: step() if next(calls) != 2 else 1 / 0  # type: ignore[method-assign, assignment, return-value]
        found.start()
        assert [listener.wait().finish for listener in listeners] == [
            "error",
            "error",
            "length",
            "length",
        ]
        assert answers(found, [Job((1, 2, 3), 5, GREEDY)])[0].text == listeners[3].text
        assert (found.load().running, found.load().finished) == (0, {"error": 2, "length": 3})


def test_an_engine_that_cannot_go_on_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error that stays, as those of a GPU do, every request ends and new ones are refused."""
    with engine(1, start=False) as found:
        listeners = [Listener() for _ in range(3)]
        for listener in listeners:
            found.submit(Job((1, 2, 3), 5, GREEDY), listener)
        for name in ("step", "forget"):
            monkeypatch.setattr(found._batch, name, lambda: 1 / 0)
        found.start()
        assert [listener.wait().finish for listener in listeners] == ["error"] * 3
        with pytest.raises(Closed):
            found.submit(Job((1, 2, 3), 5, GREEDY), print)


def test_a_listener_that_fails_costs_its_own_request() -> None:
    """It hears no more, and its neighbors hear everything."""
    heard: list[Piece] = []

    def failing(piece: Piece) -> None:
        heard.append(piece)
        raise OSError("gone")

    job = Job(prompts(5)[4], 20, GREEDY)
    with engine(2) as found:
        found.submit(job, failing)
        assert answers(found, [job])[0].text == plain(job)
        assert len(heard) == 1
        assert found.load().finished == {"cancelled": 1, "length": 1}
        assert found.load().running == 0


def test_counters_add_up() -> None:
    """What metrics say is what was done."""
    jobs = mixed_jobs(12)
    with engine(4) as found:
        listeners = answers(found, jobs)
        found.close(10)
        load = found.load()
    assert (load.slots, load.queue, load.running, load.waiting) == (4, 64, 0, 0)
    assert load.prompt_tokens == sum(len(job.prompt) for job in jobs)
    assert (
        load.generated_tokens
        == sum(listener.count for listener in listeners)
        == sum(job.max_tokens for job in jobs)
    )
    assert load.finished == {"length": 12}
    assert load.steps >= max(job.max_tokens for job in jobs)


def tensor_bytes() -> int:
    gc.collect()
    return sum(
        found.untyped_storage().nbytes() for found in gc.get_objects() if type(found) is Tensor
    )


def test_memory_does_not_grow() -> None:
    """After a hundred requests of every kind there are as many bytes in tensors as after ten."""
    jobs = [
        *mixed_jobs(10),
        Job(
            (1, 2, 3),
            5,
            Sampling(0.5, presence_penalty=1.0),
            top=3,
            prompt_scores=True,
            stop=("e",),
        ),
    ]
    with engine(4) as found:
        answers(found, jobs)
        before, threads = tensor_bytes(), threading.active_count()
        for _ in range(9):
            answers(found, jobs)
        assert tensor_bytes() <= before + 10_000
        assert threading.active_count() == threads


def test_slots_follow_the_memory() -> None:
    """A budget decides how many requests run; one that holds none is an error that says so."""
    cpu = torch.device("cpu")
    one = slot_bytes(MODEL.config, torch.float32)
    assert one == 2 * 3 * 2 * CONTEXT * 16 * 4
    assert fitting_slots(MODEL.config, torch.float32, cpu, most=32, memory_bytes=one * 5 + 1) == 5
    assert fitting_slots(MODEL.config, torch.bfloat16, cpu, most=8, memory_bytes=one * 5) == 8
    assert fitting_slots(MODEL.config, torch.float32, cpu, most=32) == 32
    with pytest.raises(GroundupError, match="one request of 96 tokens needs"):
        fitting_slots(MODEL.config, torch.float32, cpu, most=8, memory_bytes=one - 1)


def test_chunks_suit_the_model() -> None:
    """A larger model reads less of a prompt in one step, within bounds; nothing but its size
    decides.
    """
    from groundup.model.presets import resolve
    from groundup.recipe import Model

    sizes = [
        chunk_tokens(resolve(Model(preset=name), 50_000, 10**9), "cpu")
        for name in ("tiny", "30m", "125m", "500m")
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1] >= 32
