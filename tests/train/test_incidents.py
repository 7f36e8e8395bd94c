"""Poisoned documents among honest ones, from raw text to the line that names them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.helpers.refined import refined_run
from tests.helpers.token_run import FIXED
from tests.helpers.trained import WORDS

from groundup.artifacts.document import DOCUMENT, TableWriter, document_id
from groundup.recipe import Model, Train
from groundup.runtime.files import read_json
from groundup.runtime.run import Run
from groundup.tokenize.stage import run as tokenize
from groundup.train import stage
from groundup.train.data import Loader
from groundup.train.guard import ENOUGH

# A window holds a good part of a poisoned document of ten thousand tokens.
CONTEXT = 1024
POISON = {"one token": " the" * 10_000, "zero bytes": "\x00" * 10_000}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def poisoned(root: Path, text: str) -> tuple[Run, str]:
    """A run with tokens of honest documents that have some grammar, and of a poisoned one; return
    the poison's id.
    """
    random = np.random.default_rng(5)
    honest = []
    for _ in range(150):
        order = np.cumsum(random.integers(1, 3, 3000)) % len(WORDS)
        honest.append((" ".join(WORDS[n] for n in order) + ".\n", 1))
    documents = [*honest[:75], (text, 1), *honest[75:], (honest[0][0], 2)]
    run = refined_run(root, {"web.1": documents}, {"web": "web"}, tokenize={"vocab_size": 320})
    (root / "collect" / "documents").mkdir(parents=True)
    with TableWriter(root / "collect" / "documents" / "web.1.parquet", DOCUMENT) as writer:
        for record, (body, _) in enumerate(documents):
            row = {
                "id": document_id("web", "web.1", record),
                "text": body,
                "source": "web",
                "record": record,
                "origin": "pages.warc",
            }
            writer.add(row, len(body.encode()))
    tokenize(run)
    return run, document_id("web", "web.1", 75)


def first_bad_sample(root: Path, seed: int, poison: str) -> int:
    """The first sample that holds tokens of the poison."""
    (row,) = pq.read_table(
        root / "tokenize" / "index.parquet", filters=[("id", "==", poison)]
    ).to_pylist()
    loader = Loader(
        root / "tokenize" / "shards", "train", context=CONTEXT, vocab_size=320, seed=seed
    )
    starts = [start for _, _, start in loader.places(0, loader.epoch_size)]
    return next(
        n
        for n, start in enumerate(starts)
        if start + CONTEXT >= row["offset"] and start < row["offset"] + row["length"]
    )


@pytest.mark.parametrize("kind", POISON)
def test_the_first_bad_step_leads_to_the_document(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Protects: a document that repeats one token is kept out of the weights from its first window
    # on, and is named.
    run, poison = poisoned(tmp_path, POISON[kind])
    # A seed under which the guard has seen enough honest steps before.
    seed, step = next(
        (s, n)
        for s in range(100)
        if ENOUGH + 6 < (n := first_bad_sample(tmp_path, s, poison)) < ENOUGH + 40
    )
    train = Train(
        steps=step + 3,
        batch_tokens=CONTEXT,
        warmup_steps=10,
        learning_rate=0.01,
        checkpoint_every=1000,
        validate_every=1000,
        sample_seconds=1e9,
        **(FIXED | {"micro_batch": 1}),  # type: ignore[arg-type]
    )
    model = Model(
        preset="tiny", layers=2, width=32, heads=2, head_width=16, feed_forward=64, context=CONTEXT
    )
    stage.run(Run(tmp_path, dataclasses.replace(run.recipe, seed=seed, train=train, model=model)))
    first = sorted((tmp_path / "train" / "incidents").iterdir())[0]
    assert first.name == f"step-{step:06d}-0.json"
    found = read_json(first)
    assert "the loss" in found["reason"] and "above the recent" in found["reason"]
    named = [document["id"] for document in found["sequences"][0]["documents"]]
    assert (
        poison in named
        and {"id": poison, "source": "web", "origin": "pages.warc#75"}
        in found["sequences"][0]["documents"]
    )
    said = capsys.readouterr().err
    assert f"step {step}: the loss" in said and f"{poison} (web: pages.warc#75)" in said
    # What it had learned before stays learned.
    assert read_json(tmp_path / "train" / "best.json")["loss"] < 1.5
