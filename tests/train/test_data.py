"""Sample i is f(seed, i): a permutation, weights kept, the same samples for all ranks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples
from tests.helpers.token_run import VOCAB, language, write_shards

from groundup.errors import GroundupError
from groundup.train.data import Loader, permute


@examples(80)
@given(size=st.integers(1, 5000), key=st.integers(0, 2**64 - 1))
def test_every_position_has_one_place(size: int, key: int) -> None:
    # Protects: no window is read twice in a pass and none is left out, for any number of windows.
    found = permute(np.arange(size, dtype=np.int64), size, key)
    assert np.array_equal(np.sort(found), np.arange(size))


def test_large_ranges_and_parts_of_them() -> None:
    # Protects: any part of the order is reached without the rest, at sizes that are never stored.
    size = 3 * 10**12
    positions = np.arange(10**6, 10**6 + 1000, dtype=np.int64)
    found = permute(positions, size, 7)
    assert len(set(found.tolist())) == 1000 and found.min() >= 0 and found.max() < size
    assert np.array_equal(found[500:], permute(positions[500:], size, 7))
    # Spread out, and another key gives another order.
    assert 0.4 < found.mean() / size < 0.6
    assert not np.array_equal(found, permute(positions, size, 8))


def test_the_order_is_fixed_for_ever() -> None:
    # Protects: a run that is resumed by a later version goes on with the same samples.
    assert permute(np.arange(10, dtype=np.int64), 10, 1).tolist() == [2, 1, 7, 5, 8, 3, 4, 0, 9, 6]


@pytest.fixture
def loader(tmp_path: Path) -> Loader:
    write_shards(tmp_path)
    return Loader(
        tmp_path / "tokenize" / "shards",
        "train",
        context=16,
        vocab_size=VOCAB,
        seed=3,
        weights={"books": 2.5, "web.1": 0.5},
    )


def test_windows_are_those_of_the_shards(loader: Loader) -> None:
    # Protects: a sample is context + 1 neighboring tokens of one shard, on the grid of its stride.
    grids = [language(size, n) for n, size in enumerate((4000, 2500, 3100))]
    known = {
        tokens[k * 16 : k * 16 + 17].tobytes()
        for tokens in grids
        for k in range((len(tokens) - 1) // 16)
    }
    for row in loader.samples(0, loader.epoch_size):
        assert row.astype(np.uint16).tobytes() in known


def test_weights_are_shares_and_no_window_repeats_before_its_turn(loader: Loader) -> None:
    # Protects: weight 2.5 gives two and a half times the windows over any number of epochs; weight
    # 0.5 alternates halves.
    windows = {source.name: source.windows for source in loader.sources}
    assert windows == {"books": 249 + 156, "web.1": 193}
    assert loader.epoch_size == round(2.5 * 405) + round(0.5 * 193)
    sources, found = loader.locate(np.arange(2 * loader.epoch_size, dtype=np.int64))
    books = Counter(found[sources == 0].tolist())
    assert set(books) == set(range(405)) and max(books.values()) - min(books.values()) <= 1
    assert max(Counter(found[sources == 1].tolist()).values()) == 1


@examples(40)
@given(step=st.integers(0, 10**6), world=st.integers(1, 12))
def test_ranks_share_the_samples_of_a_step(step: int, world: int) -> None:
    # Protects: which samples step N takes does not depend on how many processes take them.
    loader = _shared()
    whole = loader.share(step * 12, 12)
    parts = [loader.share(step * 12, 12, rank, world) for rank in range(world)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert np.array_equal(whole, loader.samples(step * 12, 12))


_LOADERS: list[Loader] = []


def _shared() -> Loader:
    import tempfile

    if not _LOADERS:
        root = Path(tempfile.mkdtemp())
        write_shards(root)
        _LOADERS.append(
            Loader(root / "tokenize" / "shards", "train", context=16, vocab_size=VOCAB, seed=3)
        )
    return _LOADERS[0]


def test_wrong_shards_are_named(tmp_path: Path) -> None:
    # Protects: a shard of another tokenizer, type or shape is found before it spoils a model.
    (tmp_path / "a.b.train.npy").write_bytes(b"nonsense")
    with pytest.raises(GroundupError, match=r"a\.b\.train\.npy"):
        Loader(tmp_path, "train", context=4, vocab_size=VOCAB, seed=1)
    np.save(tmp_path / "a.b.train.npy", np.zeros(50, dtype=np.uint32))
    with pytest.raises(GroundupError, match="uint16"):
        Loader(tmp_path, "train", context=4, vocab_size=VOCAB, seed=1)
    np.save(tmp_path / "a.b.train.npy", np.full(50, VOCAB, dtype=np.uint16))
    with pytest.raises(GroundupError, match="ends at 60"):
        Loader(tmp_path, "train", context=4, vocab_size=VOCAB, seed=1).samples(0, 1)


def test_a_large_vocabulary_wants_wide_ids(tmp_path: Path) -> None:
    # Protects: ids above 65,535 are never cut off.
    np.save(tmp_path / "a.b.train.npy", np.full(50, 70_000, dtype=np.uint32))
    assert (
        Loader(tmp_path, "train", context=4, vocab_size=70_001, seed=1).samples(0, 1).max()
        == 70_000
    )


def test_too_little_text_has_no_samples(tmp_path: Path) -> None:
    # Protects: shards shorter than a window are passed over; the stage says so when nothing is
    # left.
    np.save(tmp_path / "a.b.train.npy", np.zeros(4, dtype=np.uint16))
    np.save(tmp_path / "a.c.train.npy", np.zeros(0, dtype=np.uint16))
    assert Loader(tmp_path, "train", context=4, vocab_size=VOCAB, seed=1).epoch_size == 0
