"""Test `groundup init`: its recipe runs, and every raw file is kept or listed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from tests.helpers.raw import write_raw

from groundup.collect.sources import list_source
from groundup.recipe import load_recipe

# A folder of each kind of real data, small enough for the whole flow.
SAMPLES = (
    "books/gitenberg",
    "wikipedia/wikitext-pages",
    "web/html/newspaper4k",
    "web/warc/warcio",
    "code/pypi",
    "conversations/chatterbot_corpus",
)
SMALL = (
    "train.steps=2 train.batch_tokens=512 train.validation_tokens=2048 train.micro_batch=4"
    " train.precision=fp32 train.compile=off train.threads=1 model.preset=tiny"
    " model.context=64 tokenize.vocab_size=1024 evaluate.passages=4 evaluate.sample_tokens=8"
    " tune.epochs=1 tune.limit=50 tune.answer_tokens=4"
).split()


def groundup(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "groundup", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=400, cwd=cwd, check=False
    )


def init_and_run(folder: Path, cwd: Path) -> Path:
    """Write a recipe for `folder`, run it, and return the run directory."""
    made = groundup("init", str(folder), cwd=cwd)
    assert made.returncode == 0, made.stderr
    done = groundup(
        "run",
        "recipe.toml",
        "--out",
        "run",
        *[part for setting in SMALL for part in ("--set", setting)],
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return cwd / "run"


def kept_or_listed(run: Path, root: Path, raw: Path) -> set[Path]:
    """Return the raw files that have a document, or a line in a list of what was dropped."""
    files = set()
    recipe = load_recipe(root / "recipe.toml")
    origins: dict[str, set[str]] = {source.name: set() for source in recipe.source}
    for folder in ("documents", "dropped"):
        tables = [str(path) for path in (run / "collect" / folder).glob("*.parquet")]
        for row in ds.dataset(tables).to_table(columns=["source", "origin"]).to_pylist():
            origins[row["source"]].add(row["origin"].split("!/")[0])
    for path in (p for p in raw.rglob("*") if p.is_file()):
        name = path.relative_to(raw).as_posix()
        if any(
            name == origin or name.endswith("/" + origin)
            for known in origins.values()
            for origin in known
        ):
            files.add(path)
    return files


def test_mixed_files_of_a_user(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "my files")
    (raw / "notes [draft].txt").write_text("A note of my own, which is short.\n" * 3)
    (raw / "empty.txt").write_text("")
    (raw / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8)
    run = init_and_run(raw, tmp_path)
    # What holds no text is in no source: the recipe counts it, with an example.
    unread = {raw / "empty.txt", raw / "picture.png"}
    files = {path for path in raw.rglob("*") if path.is_file()}
    assert kept_or_listed(run, tmp_path, raw) == files - unread
    assert "#   1 × images: picture.png" in (tmp_path / "recipe.toml").read_text()


def test_real_data_of_every_kind(tmp_path: Path) -> None:
    data = os.environ.get("GROUNDUP_TEST_DATA")
    if not data or not Path(data).is_dir():
        pytest.skip("needs GROUNDUP_TEST_DATA (a folder of real data)")
    raw = tmp_path / "raw"
    for name in SAMPLES:
        shutil.copytree(
            Path(data) / name, raw / name, ignore=shutil.ignore_patterns("networkx*", "zstandard*")
        )
    for path in raw.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    run = init_and_run(raw, tmp_path)
    assert kept_or_listed(run, tmp_path, raw) == {path for path in raw.rglob("*") if path.is_file()}


def test_an_existing_recipe_is_not_overwritten(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    (tmp_path / "recipe.toml").write_text("mine")
    refused = groundup("init", "raw", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert (tmp_path / "recipe.toml").read_text() == "mine"
    assert groundup("init", "raw", "--force", cwd=tmp_path).returncode == 0


def test_the_recipe_is_not_collected(tmp_path: Path) -> None:
    """A recipe inside of the folder of raw files is excluded; a second `init` writes the same."""
    (tmp_path / "chat").mkdir()
    (tmp_path / "chat" / "a.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "Hello."}]}\n' * 30
    )
    (tmp_path / "notes.txt").write_text("A note of my own, which is long enough.\n" * 300)
    first = ""
    for arguments in ((), ("--force",)):
        assert groundup("init", ".", *arguments, cwd=tmp_path).returncode == 0
        text = (tmp_path / "recipe.toml").read_text()
        assert not first or text == first
        first = text
    read = {
        file.origin
        for source in load_recipe(tmp_path / "recipe.toml").source
        for file in list_source(source, tmp_path).files
    }
    assert read == {"notes.txt", "a.jsonl"}
