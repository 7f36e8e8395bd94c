"""`data export --to hf://OWNER/NAME`: one commit to the Hub, private, resumed where it stopped."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from tests.helpers.refined import Shards, refined_run
from tests.helpers.sites import Reply, Seen, serving
from tests.helpers.stores import WritableHub

from groundup.commands.data_export import export_data
from groundup.errors import GroundupError
from groundup.runtime.lock import write_lock

SHARDS: Shards = {"a.1": [("first", 1), ("a copy", 0), ("held out", 2)], "b.1": [("more", 1)]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    run = refined_run(tmp_path / "run", SHARDS)
    write_lock(run.root, run.recipe)
    return run.root


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith("HF_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    # The compiled client of the newer storage speaks a protocol that the fake does not.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with serving() as site:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{site.port}")
        hub = WritableHub(site, token="hf_mine")
        site.answer = hub.answer
        yield hub


def puts(hub: WritableHub) -> list[Seen]:
    return [seen for seen in hub.site.seen if seen.method == "PUT"]


def test_the_kept_documents_become_a_private_data_set(
    root: Path, hub: WritableHub, tmp_path: Path
) -> None:
    said = export_data(root, "hf://me/texts")
    assert "/datasets/me/texts: 3 documents (train 2, validation 1)" in said
    assert hub.settings["visibility"] == "private" and hub.settings["type"] == "dataset"
    data = {name: body for name, body in hub.files.items() if name.startswith("data/")}
    assert list(data) == [
        f"data/{split}-00000-of-00001.parquet" for split in ("train", "validation")
    ]
    train = pq.read_table(pa.BufferReader(data["data/train-00000-of-00001.parquet"]))
    assert train["text"].to_pylist() == ["first", "more"]
    assert b'load_dataset("me/texts")' in hub.files["README.md"]
    assert not list((tmp_path / "cache" / "upload").iterdir())


def test_everybody_may_read_it_if_asked(root: Path, hub: WritableHub) -> None:
    export_data(root, "hf://datasets/me/texts", public=True)
    assert hub.settings["visibility"] == "public"


def test_an_upload_goes_on_where_it_stopped(root: Path, hub: WritableHub) -> None:
    """What arrived is not sent again, and nothing shows before everything is there."""

    def full(seen: Seen) -> Reply:
        return Reply(status=400) if puts(hub)[1:] else hub.answer(seen)

    hub.site.answer = full
    with pytest.raises(GroundupError, match="run the same command to resume"):
        export_data(root, "hf://me/texts")
    assert list(hub.files) == [".gitattributes"] and len(hub.stored) == 1
    hub.site.answer, before = hub.answer, len(puts(hub))
    export_data(root, "hf://me/texts")
    assert len(puts(hub)) == before + 1 and len(hub.files) == 5


def test_an_export_is_replaced_with_force_and_nothing_else_is(root: Path, hub: WritableHub) -> None:
    export_data(root, "hf://me/texts")
    with pytest.raises(GroundupError, match="is there already; --force replaces it"):
        export_data(root, "hf://me/texts")
    export_data(root, "hf://me/texts", split="train", force=True)
    assert "data/validation-00000-of-00001.parquet" not in hub.files
    hub.files["model.bin"] = b"mine"
    with pytest.raises(GroundupError, match="holds other files than an export"):
        export_data(root, "hf://me/texts", force=True)


def test_what_the_hub_refuses_is_said_in_one_line(
    root: Path, hub: WritableHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad token is found before any document is written, and is not quoted."""
    hub.refused = 403
    with pytest.raises(GroundupError, match="the token may not write there; set HF_TOKEN"):
        export_data(root, "hf://me/texts")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(GroundupError, match="the token was refused; set HF_TOKEN") as caught:
        export_data(root / "none", "hf://me/texts")
    assert "\n" not in str(caught.value) and "hf_other" not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(GroundupError, match="it needs a token; set HF_TOKEN"):
        export_data(root / "none", "hf://me/texts")


def test_a_missing_library_is_said_in_one_line(
    root: Path, hub: WritableHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(GroundupError, match="pip install huggingface-hub"):
        export_data(root, "hf://me/texts")


@pytest.mark.parametrize(
    "to", ["hf://me", "hf://me/a/b", "hf://me/../you", "hf://me/a b", "s3://b/c"]
)
def test_an_address_that_is_none(root: Path, to: str) -> None:
    with pytest.raises(GroundupError, match=r"expected .*hf://OWNER/NAME"):
        export_data(root, to)


def test_options_that_do_not_go_together(root: Path, tmp_path: Path) -> None:
    with pytest.raises(GroundupError, match="leave out --format"):
        export_data(root, "hf://me/texts", "jsonl")
    with pytest.raises(GroundupError, match="--public is for"):
        export_data(root, str(tmp_path / "out"), public=True)
