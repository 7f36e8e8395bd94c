"""Fixtures for tuning: a tokenizer, a model without any zero weight, and the real data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.helpers.bpe import train_bpe
from tests.helpers.raw import TEXTS
from tests.helpers.talking import stirred

from groundup.artifacts.tokenizer import Tokenizer
from groundup.model.transformer import Transformer


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """The models of these tests are so small that threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_bpe([text for _, text in TEXTS[3]][:40], 400))


@pytest.fixture
def model(tokenizer: Tokenizer) -> Transformer:
    return stirred(tokenizer.vocab_size)


@pytest.fixture
def real_data() -> Path:
    """The folder of real data; the test is skipped without it."""
    folder = os.environ.get("GROUNDUP_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GROUNDUP_TEST_DATA does not name the folder of real data")
    return Path(folder)
