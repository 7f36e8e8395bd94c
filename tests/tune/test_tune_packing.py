"""Rows that share a sequence learn what each would learn alone."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.talking import CONTEXT, stirred, talks

from groundup.artifacts.tokenizer import Tokenizer
from groundup.model import packed_attention
from groundup.model.packed_attention import PackedAttention, PackedKernel
from groundup.model.transformer import Transformer
from groundup.recipe import Tune
from groundup.train.hardware import Hardware
from groundup.tune.data import Conversation, Row, make_rows
from groundup.tune.finetuner import Finetuner
from groundup.tune.packing import collate, loss_sum, pack, packed_size, packed_steps

TUNE = Tune("sft", epochs=1, learning_rate=1e-3, batch_tokens=4 * CONTEXT)


def attend_alone(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


# Whatever is asked of PyTorch's kernel for CUDA, computed document by document.
def varlen_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bounds: torch.Tensor,
    *_: object,
    **asked: Any,
) -> torch.Tensor:
    assert asked == {"window_size": (-1, 0), "enable_gqa": True} and bounds.dtype == torch.int32
    outputs = []
    for begin, end in pairwise(bounds.tolist()):
        outputs.append(attend_alone(*(x[begin:end].transpose(0, 1) for x in (q, k, v))))
    return torch.cat([y.transpose(0, 1) for y in outputs])


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=3),
    st.sampled_from(["documents", "mask", "varlen"]),
    st.integers(0, 4),
)
def test_packed_attention_is_that_of_each_document_alone(
    sizes: list[list[int]], kernel: PackedKernel, padding: int
) -> None:
    # Protects: values and gradients by each kernel, with fewer heads of keys than of queries.
    length = max(map(sum, sizes)) + padding
    generator = torch.Generator().manual_seed(length)
    qkv = [
        torch.randn(len(sizes), heads, length, 4, generator=generator, requires_grad=True)
        for heads in (4, 2, 2)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_attention, "_varlen", lambda: varlen_reference)
        together = PackedAttention(sizes, length, kernel)(*qkv)
    alone = torch.zeros_like(together)
    for line, row in enumerate(sizes):
        for begin, size in zip([0, *accumulate(row)], row, strict=False):
            document = (x[line : line + 1, :, begin : begin + size] for x in qkv)
            alone[line, :, begin : begin + size] = attend_alone(*document)[0]
    # Nothing reads what the padding gives.
    is_real = torch.stack([torch.arange(length) < sum(row) for row in sizes])[:, None, :, None]
    torch.testing.assert_close(together * is_real, alone, rtol=1e-5, atol=1e-6)
    weights = torch.randn(together.shape, generator=generator) * is_real
    ours, theirs = (
        torch.autograd.grad((y * weights).sum(), qkv, retain_graph=True) for y in (together, alone)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_kernel_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_attention, "_varlen", lambda: varlen_reference)
    choose = packed_attention.choose_packed_kernel
    assert [choose("cpu", "bf16"), choose("cuda", "bf16")] == ["documents", "varlen"]
    # The kernel has no float32, an older PyTorch has no such kernel, and Apple's GPUs have none.
    monkeypatch.setattr(packed_attention, "_varlen", lambda: None)
    pairs = [("cuda", "fp32"), ("cuda", "bf16"), ("mps", "fp32")]
    assert [choose(*pair) for pair in pairs] == ["mask"] * 3


@pytest.fixture(scope="module")
def rows(tokenizer: Tokenizer) -> list[Row]:
    found = make_rows(
        (Conversation("a", n, f"#{n}", t) for n, t in enumerate(talks())),
        tokenizer,
        CONTEXT,
        validation=0,
    )
    assert len(found.train) > 20
    return found.train


def gradients(model: Transformer) -> list[torch.Tensor]:
    return [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]


def test_packed_rows_have_the_loss_and_gradients_of_rows_alone(
    model: Transformer, rows: list[Row]
) -> None:
    """A mask or a position that leaks from one row into another would show."""
    chosen = rows[:9]
    for row in chosen:
        loss_sum(model, collate([row], [[0]])).backward()
    alone = [float(loss_sum(model, collate([row], [[0]])).detach()) for row in chosen]
    expected = gradients(model)
    model.zero_grad()
    packs = pack([packed_size(row) for row in chosen], range(9), CONTEXT)
    assert len(packs) < 9 and max(map(len, packs)) > 1
    together = loss_sum(model, collate(chosen, packs))
    together.backward()
    assert float(together.detach()) == pytest.approx(sum(alone), rel=1e-5)
    for ours, theirs in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_loss_alone_is_that_of_the_plain_model(model: Transformer, rows: list[Row]) -> None:
    """The same number by the model's own loss, without masks, positions or a chosen part of the
    head.
    """
    row = rows[3]
    ids = torch.from_numpy(row.ids)[None]
    targets = torch.where(torch.from_numpy(row.loss_mask)[None, 1:], ids[:, 1:], -1)
    plain = model.loss(ids[:, :-1], targets, "sum")
    assert float(loss_sum(model, collate([row], [[0]])).detach()) == pytest.approx(
        float(plain.detach()), rel=1e-5
    )


def test_only_answers_and_their_ends_are_targets(tokenizer: Tokenizer, rows: list[Row]) -> None:
    start, stop = tokenizer.chat_ids
    for row in rows:
        batch = collate([row], [[0]])
        learned = batch.targets[batch.targets >= 0].tolist()
        assert tokenizer.decode(learned) == f"{row.answer}<|im_end|>"
        assert learned[-1] == stop and start not in learned


def learner(tokenizer: Tokenizer, micro_batch: int, dropout: float = 0.0) -> Finetuner:
    return Finetuner(
        stirred(tokenizer.vocab_size, dropout=dropout),
        TUNE,
        Hardware(micro_batch=micro_batch),
        tokenizer.chat_ids,
        1,
    )


def test_accumulation_gives_the_gradient_of_the_whole_batch(
    tokenizer: Tokenizer, rows: list[Row]
) -> None:
    """Sequences with many and with few learned tokens: an average of averages would differ (axolotl
    #2262).
    """
    packs = [[2 * number] for number in range(4)]
    assert len({int(rows[number].loss_mask.sum()) for (number,) in packs}) > 1
    at_once, one_by_one = learner(tokenizer, 4), learner(tokenizer, 1)
    first = at_once.forward_backward(0, rows, packs)
    second = one_by_one.forward_backward(0, rows, packs)
    assert first.loss == pytest.approx(second.loss, rel=1e-5) and first.tokens == second.tokens
    torch.testing.assert_close(
        at_once.parameters.gradients, one_by_one.parameters.gradients, rtol=1e-4, atol=1e-7
    )


def test_dropout_is_a_function_of_the_step(tokenizer: Tokenizer, rows: list[Row]) -> None:
    losses: list[float] = []
    for number in (1, 1, 2):
        torch.manual_seed(len(losses))
        tuner = learner(tokenizer, 4, dropout=0.3)
        losses.append(tuner.forward_backward(number, rows, [[0], [2]]).loss)
    assert losses[0] == losses[1] != losses[2]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200), st.integers(0, 5))
def test_packs_hold_every_row_once_and_never_too_much(sizes: list[int], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(sizes)).tolist()
    packs = pack(sizes, order, 50)
    assert sorted(number for group in packs for number in group) == list(range(len(sizes)))
    assert all(0 < sum(sizes[number] for number in group) <= 50 for group in packs)


def test_every_epoch_has_all_rows_in_an_order_of_its_own() -> None:
    plan = list(packed_steps([10] * 23, 50, 100, 3, seed=1))
    epochs = [
        [number for epoch, packs in plan if epoch == wanted for group in packs for number in group]
        for wanted in range(3)
    ]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert (
        plan
        == list(packed_steps([10] * 23, 50, 100, 3, seed=1))
        != list(packed_steps([10] * 23, 50, 100, 3, seed=2))
    )


def test_positions_begin_again_in_each_row(rows: list[Row]) -> None:
    """Positions are checked as such: rotary attention looks at distances only, so a wrong start
    would not show in the loss.
    """
    batch = collate(rows, [[4, 7], [5]])
    sizes = [packed_size(rows[number]) for number in (4, 7)]
    assert batch.positions[0, : sum(sizes)].tolist() == [*range(sizes[0]), *range(sizes[1])]
