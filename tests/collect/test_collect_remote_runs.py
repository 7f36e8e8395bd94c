"""Runs over remote sources: pages become documents or are listed, a dataset stays pinned."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from tests.helpers.sites import Site, page, redirect, serving
from tests.helpers.stores import Hub

from groundup import flow, load_recipe, run_recipe
from groundup.collect.sources import source_sizes
from groundup.commands.verify import check_raw

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    # The plan of a whole run tries a training step, which has nothing to do with this.
    monkeypatch.setattr(flow, "check_plan", lambda run, trains: None)
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    with serving() as site:
        yield site


def _recipe(tmp_path: Path, text: str) -> Path:
    (tmp_path / "r.toml").write_text(f'name = "r"\n[[source]]\n{text}\n')
    return tmp_path / "r.toml"


def test_scraped_pages_become_documents(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The group is the host, every address is a document or listed, and a second run is fresh."""
    site.pages |= {
        "/1": page("One"),
        "/evil": redirect("http://10.1.2.3/"),
        "www.b.test/1": page("Other"),
    }
    addresses = [
        site.url("a.test", "/1"),
        site.url("a.test", "/evil"),
        site.url("www.b.test", "/1"),
        site.url("a.test", "/none"),
    ]
    (tmp_path / "sites.txt").write_text("\n".join(addresses))
    recipe = load_recipe(_recipe(tmp_path, 'kind = "web"\npath = "scrape:sites.txt"\ndelay = 0'))
    source_sizes(recipe.source[0], tmp_path)
    assert (
        'source "sites" will be fetched: 4 pages of 2 hosts' in capsys.readouterr().err
        and not site.seen
    )
    run = run_recipe(recipe, tmp_path / "run", until="collect", workers=1)
    documents = ds.dataset(tmp_path / "run/collect/documents").to_table().to_pylist()
    assert {(row["group"], row["text"].split("\n")[0].split(".")[0]) for row in documents} == {
        ("web:a.test", "One"),
        ("web:b.test", "Other"),
    }
    dropped = ds.dataset(tmp_path / "run/collect/dropped").to_table().to_pylist()
    listed = {row["origin"]: row["reason"] for row in dropped if row["reason"] != "warc-warcinfo"}
    assert listed == {addresses[1]: "private-address", addresses[3]: "http-status"}
    count = len(site.seen)
    run_recipe(recipe, tmp_path / "run", until="collect", workers=1)
    assert len(site.seen) == count and "collect   fresh" in capsys.readouterr().err
    assert run.root == tmp_path / "run" and list(check_raw(tmp_path / "run")) == []


def test_a_run_pins_the_commit(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run keeps its commit of a dataset until `--redo collect`; the lock names it."""
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{site.port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    hub = Hub(
        site,
        {OLD: {"a.txt": b"The first text of this."}, NEW: {"a.txt": b"The second text of this."}},
        OLD,
    )
    site.answer = hub.answer
    recipe = load_recipe(_recipe(tmp_path, 'path = "hf://datasets/me/texts/a.txt"'))

    def texts(**settings: object) -> list[str]:
        run_recipe(recipe, tmp_path / "run", until="collect", workers=1, **settings)  # type: ignore[arg-type]
        return [
            str(text)
            for text in ds.dataset(tmp_path / "run/collect/documents")
            .to_table()["text"]
            .to_pylist()
        ]

    assert texts() == ["The first text of this."]
    hub.head = NEW
    assert texts() == ["The first text of this."]
    assert list(check_raw(tmp_path / "run")) == []
    lock = tomllib.loads((tmp_path / "run/recipe.lock.toml").read_text())
    assert lock["places"] == {"hf://datasets/me/texts/a.txt": f"hf://datasets/me/texts@{OLD}/a.txt"}
    assert texts(redo=["collect"]) == ["The second text of this."]
