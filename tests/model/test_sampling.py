"""Drawing tokens: limits cut where they say, shares are those of the model, and neighbors in a
batch change nothing.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples
from torch import Tensor

from groundup.model import sampling
from groundup.model.sampling import Sampling, SequenceSampler, sample

# Shares 0.5, 0.3, 0.15, 0.05.
LOGITS = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))


def drawn(settings: Sampling, logits_V: Tensor = LOGITS, times: int = 300) -> list[int]:
    """Draw the first token of many texts at once."""
    drawings = [SequenceSampler(settings, seed, len(logits_V)) for seed in range(times)]
    return sample(logits_V.repeat(times, 1), drawings).tolist()


@pytest.mark.parametrize(
    ("settings", "possible"),
    [
        (Sampling(1.0), {0, 1, 2, 3}),
        (Sampling(1.0, top_k=2), {0, 1}),
        (Sampling(1.0, top_k=10**30), {0, 1, 2, 3}),
        (Sampling(1.0, top_p=0.6), {0, 1}),
        (Sampling(1.0, top_p=0.5), {0}),
        (Sampling(1.0, top_p=1e-320), {0}),
        # Of the two best, 0.5 / 0.8 is the first one's share: it alone reaches 0.6.
        (Sampling(1.0, top_k=2, top_p=0.6), {0}),
        (Sampling(1.0, min_p=0.2), {0, 1, 2}),
        (Sampling(1.0, min_p=1.0), {0}),
        (Sampling(1.0, top_k=3, min_p=0.55), {0, 1}),
        (Sampling(0.0), {0}),
        (Sampling(1e-300), {0}),
        (Sampling(1e300), {0, 1, 2, 3}),
        (Sampling(0.0, logit_bias=((2, 50.0),)), {2}),
        (Sampling(1.0, logit_bias=((0, -100.0), (1, -100.0))), {2, 3}),
    ],
)
def test_limits_cut_where_they_say(settings: Sampling, possible: set[int]) -> None:
    # Protects: what lies beyond the limits is never drawn, and what lies within is.
    assert set(drawn(settings)) == possible


# Three blocks and a part of one, of very different weight.
WIDE = torch.randn(200, generator=torch.Generator().manual_seed(4)) * 1.5


@pytest.mark.parametrize("logits_V", [LOGITS, WIDE])
@pytest.mark.parametrize(
    "settings",
    [
        Sampling(1.0),
        Sampling(1.0, top_k=200),
        Sampling(1.0, top_p=0.9999999),
        Sampling(1.0, min_p=1e-6),
    ],
)
def test_tokens_come_as_often_as_the_model_says(settings: Sampling, logits_V: Tensor) -> None:
    # Protects: the search by blocks and by order against any shift; 5 standard deviations of 20,000
    # draws, and 2 draws.
    count = 20_000
    found = (
        torch.bincount(torch.tensor(drawn(settings, logits_V, count)), minlength=len(logits_V))
        / count
    )
    expected = torch.softmax(logits_V, 0)
    assert (
        (found - expected).abs() < 5 * (expected * (1 - expected) / count).sqrt() + 2 / count
    ).all()


def reference(logits_V: Tensor, s: Sampling) -> set[int]:
    """Return what may be drawn, from the definition, in float64."""
    probabilities = torch.softmax(logits_V.double() / s.temperature, 0).tolist()
    order = sorted(range(len(probabilities)), key=lambda token: (-probabilities[token], token))[
        : s.top_k or None
    ]
    mass, before, kept = sum(probabilities[token] for token in order), 0.0, set()
    for token in order:
        if before < s.top_p * mass and probabilities[token] >= s.min_p * probabilities[order[0]]:
            kept.add(token)
        before += probabilities[token]
    return kept


@examples(60)
@given(
    size=st.sampled_from([2, 63, 64, 65, 129, 1025, 3000]),
    scale=st.floats(0.1, 8),
    temperature=st.floats(0.2, 2),
    top_k=st.sampled_from([0, 1, 5, 127, 128, 129, 1500]),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 0.99, 1.0]),
    min_p=st.sampled_from([0.0, 0.02, 0.5]),
    seed=st.integers(0, 2**32),
)
def test_any_look_gives_what_the_definition_gives(
    size: int, scale: float, temperature: float, top_k: int, top_p: float, min_p: float, seed: int
) -> None:
    # Protects: looking at few candidates first, blocks that the vocabulary does not fill, and rows
    # of mixed settings.
    logits = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * scale
    limited = Sampling(temperature, top_k, top_p, min_p)
    mixed = [limited, Sampling(0.0), Sampling(temperature), limited, limited]
    rows = sample(
        logits.repeat(5, 1), [SequenceSampler(s, seed + n, size) for n, s in enumerate(mixed)]
    ).tolist()
    allowed = reference(logits, limited)
    # Where sums in another precision fall on the other side of a limit, one candidate more or less
    # is right too.
    slack = reference(
        logits, Sampling(temperature, top_k, min(1.0, top_p * (1 + 1e-5)), min_p * (1 - 1e-5))
    )
    assert {rows[0], rows[3], rows[4]} <= allowed | slack
    assert rows[1] == int(logits.argmax())
    alone = [
        sample(logits[None].clone(), [SequenceSampler(s, seed + n, size)]).item()
        for n, s in enumerate(mixed)
    ]
    assert rows == alone


def test_looks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # Protects: a GPU, which sorts everything at once, draws what a CPU draws.
    logits = torch.randn(40, 3000, generator=torch.Generator().manual_seed(1)) * 3
    drawings = [
        SequenceSampler(Sampling(0.9, top_k=(0, 40, 2000)[n % 3], top_p=0.95), n, 3000)
        for n in range(40)
    ]
    by_looks = sample(logits.clone(), drawings)
    monkeypatch.setattr(sampling, "TOP_CANDIDATES", {})
    assert torch.equal(by_looks, sample(logits.clone(), drawings))


def test_penalties_follow_what_was_generated() -> None:
    # Protects: frequency counts each time, presence once, and a bias of the caller's stays beside
    # them.
    drawing = SequenceSampler(
        Sampling(0.0, frequency_penalty=0.5, presence_penalty=0.25, logit_bias=((1, 2.0),)), 1, 4
    )
    for token in (1, 1, 3):
        drawing.accept(token)
    assert drawing.bias_V is not None
    assert drawing.bias_V.tolist() == [0.0, 2.0 - 1.25, 0.0, -0.75]


def test_seeds_give_texts_of_their_own() -> None:
    # Protects: negative seeds are seeds too, and a text's random numbers move on with it.
    uniforms = {SequenceSampler(Sampling(), seed, 4).uniform for seed in (-1, 1, 0, 2**70)}
    assert len(uniforms) == 4
    drawing = SequenceSampler(Sampling(), 1, 4)
    before = drawing.uniform
    drawing.accept(0)
    assert drawing.uniform != before


@pytest.mark.parametrize(
    "settings",
    [
        Sampling(0.0),
        Sampling(0.7),
        Sampling(0.7, top_k=2),
        Sampling(0.7, top_p=0.5),
        Sampling(1.0, min_p=0.5),
    ],
)
def test_what_is_no_number_is_said_and_harms_no_neighbor(settings: Sampling) -> None:
    # Protects: NaN in one row of a batch.
    broken = [
        torch.full((200,), torch.nan),
        torch.zeros(200).index_fill(0, torch.tensor([7]), torch.inf),
        torch.zeros(200),
    ]
    broken[2][3] = torch.nan
    good = torch.zeros(200).index_fill(0, torch.tensor([42]), 60.0)
    rows = torch.stack([broken[0], good, broken[1], good, broken[2]])
    assert sample(rows, [SequenceSampler(settings, n, 200) for n in range(5)]).tolist() == [
        -1,
        42,
        -1,
        42,
        -1,
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": math.nan},
        {"min_p": -0.1},
        {"frequency_penalty": math.inf},
        {"presence_penalty": math.nan},
        {"logit_bias": ((1, 1e300),)},
    ],
)
def test_senseless_settings_are_refused(wrong: dict[str, float]) -> None:
    # Protects: a request that makes no sense is answered before anything runs.
    with pytest.raises(ValueError, match="must"):
        Sampling(**wrong)  # type: ignore[arg-type]


def test_a_bias_for_no_token_is_refused() -> None:
    # Protects: an index error in the middle of everybody's step.
    for token in (-1, 4):
        with pytest.raises(ValueError, match="logit_bias"):
            SequenceSampler(Sampling(logit_bias=((token, 1.0),)), 1, 4)
