"""`groundup init` on real folders: a recipe of the right kinds that accounts for every file."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from groundup.collect import stage
from groundup.collect.detect import detect_kind
from groundup.collect.sources import list_source
from groundup.collect.suggest import MAX_PATTERNS, MAX_SOURCES
from groundup.commands.init import write_recipe
from groundup.errors import GroundupError
from groundup.flow import run_flow
from groundup.recipe import Recipe, all_sources, load_recipe
from groundup.runtime.run import Run

TABLES = ("documents", "dropped")
# The expected kinds of a folder, by the longest prefix of its path; none where init has to refuse.
KINDS: dict[str, str] = {
    "": "books chat code conversations documents evaluation forum mail text web wikipedia",
    "books": "books",
    "code": "code",
    "conversations": "conversations",
    "dedup": "text",
    "evals": "",
    "langid": "text",
    "models": "text",
    "models/stories260K": "",
    "web": "web",
    "web/encodings": "conversations text web",
    "web/mojibake": "text",
    "web/quality": "text",
    "web/warc/cc_net": "",
    "wikipedia": "wikipedia",
    "wikipedia/minidumps/si": "",
    "wild": "chat code conversations documents forum mail text web",
    "wild/discord": "chat",
    "wild/ipynb": "code",
    "wild/latex": "documents",
    "wild/mail": "mail",
    "wild/mail/eml-ruby-mail/multipart_report_emails": "",
    "wild/mail/tika": "mail web",
    "wild/markdown": "documents",
    "wild/messy_folder": "documents mail text web",
    "wild/messy_folder/example-docs/img": "",
    "wild/office": "documents",
    "wild/office/pandoc": "code documents",
    "wild/org": "documents",
    "wild/jsonl": "conversations text web",
    "wild/parquet": "conversations text web",
    "wild/parquet/fineweb-like-made": "web",
    "wild/rst": "documents",
    "wild/signal": "chat",
    "wild/slack": "chat",
    "wild/slack/slackdump/export": "",
    "wild/slack/slackdump/messages": "",
    "wild/slack/slackdump/slack_api": "",
    "wild/slack/slackdump/source_dump_dir": "chat text",
    "wild/slack/slackdump/source_dump_dir/CHY5HUESG": "text",
    "wild/stackexchange": "forum",
    "wild/subtitles": "text",
    "wild/telegram": "chat",
    "wild/whatsapp": "chat",
}
FEW = (
    *(
        "books/gitenberg/24675",
        "wikipedia/minidumps/oc",
        "wikipedia/wikitext-pages",
        "web/html/readability/aclu",
        "web/warc/warcio",
    ),
    *(
        "web/encodings/Big5",
        "web/jsonl",
        "web/mojibake",
        "code/npm",
        "conversations/chatterbot_corpus/ukrainian",
    ),
    *(
        "conversations/sgd",
        "dedup/plagiarised-short-answers",
        "evals/copa",
        "models/stories260K",
        "wikipedia/minidumps/si",
    ),
    *("wild/markdown/rust-book", "wild/slack", "wild/whatsapp", "wild/parquet/fineweb-like-made"),
)


def expected(folder: str) -> set[str]:
    return set(
        KINDS[
            max(
                (start for start in KINDS if f"{folder}/".startswith(f"{start}/") or not start),
                key=len,
            )
        ].split()
    )


def check(folder: Path, name: str, out: Path) -> None:
    """Collect what `init` writes for a folder; check its kinds and that no file is missing."""
    out.mkdir()
    try:
        recipe, run = collected(folder, out)
    except GroundupError as error:
        assert not expected(name), f"{name}: {error}"
        assert "\n" not in str(error)
        return
    kinds = {source.kind for source in all_sources(recipe)}
    # A part of a mixed folder holds some of its kinds.
    is_part = len(expected(name)) > 1 and name
    assert kinds == expected(name) or (is_part and kinds < expected(name)), f"{name}: {kinds}"
    assert len(recipe.source) <= MAX_SOURCES
    for source in recipe.source:
        if source.kind != "evaluation":
            assert len(source.include) + len(source.exclude) <= MAX_PATTERNS, source
    accounted(folder, recipe, run)


def collected(folder: Path, out: Path) -> tuple[Recipe, Path]:
    write_recipe(folder, out / "recipe.toml")
    (out / "run").mkdir()
    recipe = load_recipe(out / "recipe.toml")
    stage.run(Run(out / "run", recipe))
    return recipe, out / "run"


def accounted(folder: Path, recipe: Recipe, run: Path) -> None:
    """Check that every file of a folder is in one source, and has a document or a reason there.

    Only a file that no reader reads may be in none.
    """
    told = defaultdict(set)
    for path in (path for table in TABLES for path in (run / "collect" / table).glob("*.parquet")):
        for row in pq.read_table(path, columns=["source", "origin"]).to_pylist():
            told[row["source"]].add(row["origin"].partition("!/")[0])
    listed = {source.name: list_source(source, recipe.root) for source in all_sources(recipe)}
    for source, listing in listed.items():
        assert {file.origin for file in listing.files} == told[source], source
    files = [file.path for listing in listed.values() for file in listing.files]
    assert len(set(files)) == len(files)
    hidden = [path for path in folder.rglob(".*") if path.is_file()]
    rest = {path.resolve() for path in folder.rglob("*") if path.is_file()} - {*files, *hidden}
    # A column for which there was no source left: the recipe's comment says how to read it.
    comment = (recipe.root / "recipe.toml").read_text()
    seen = {path: detect_kind(path) for path in sorted(rest)}
    columns = {path: kind.column for path, kind in seen.items() if kind.readable}
    assert not [path for path, column in columns.items() if not column]
    assert all(f'with text = "{column}"' in comment for column in columns.values())


@pytest.mark.parametrize("name", FEW)
def test_a_few_folders(name: str, real_data: Path, tmp_path: Path) -> None:
    """A few folders of each kind."""
    check(real_data / name, name, tmp_path / "out")


@pytest.mark.torture
def test_every_folder(real_data: Path, tmp_path: Path) -> None:
    """All of nearly 300 folders."""
    folders = sorted(path for path in (real_data, *real_data.rglob("*")) if path.is_dir())
    failures = []
    for number, folder in enumerate(folders):
        name = str(folder.relative_to(real_data)).removeprefix(".")
        try:
            check(folder, name, tmp_path / str(number))
        except (AssertionError, GroundupError) as error:
            failures.append(f"{name}: {error}"[:400])
        shutil.rmtree(tmp_path / str(number))
    assert not failures and len(folders) > 100


def refined(folder: Path, out: Path) -> None:
    """Run the recipe that `init` writes for a folder until its documents are refined."""
    out.mkdir()
    write_recipe(folder, out / "recipe.toml")
    run = run_flow(load_recipe(out / "recipe.toml"), out / "run", until="refine", workers=1)
    assert (run.root / "refine" / "manifest.json").exists()


def test_the_recipe_of_a_mixed_folder_runs(real_data: Path, tmp_path: Path) -> None:
    """A sample of everything: no filter, threshold or empty source stops the run."""
    small = (path for path in real_data.rglob("*") if path.is_file())
    small = (path for path in small if path.stat().st_size < 40_000)
    for path in sorted(small)[::60]:
        target = tmp_path / "raw" / path.relative_to(real_data)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    refined(tmp_path / "raw", tmp_path / "out")


@pytest.mark.torture
def test_the_recipe_of_every_top_folder_runs(real_data: Path, tmp_path: Path) -> None:
    """So does the recipe of each folder of one sort of material, and of all of them together."""
    folders = [real_data, *real_data.iterdir(), *(real_data / "wild").iterdir()]
    ran, failures = 0, []
    for number, folder in enumerate(sorted(path for path in folders if path.is_dir())):
        try:
            refined(folder, tmp_path / str(number))
            ran += 1
        except GroundupError as error:
            # Evaluation items are no text to train on, and a chat of ten lines is too short.
            if folder.name not in ("evals", "signal"):
                failures.append(f"{folder}: {error}"[:400])
        shutil.rmtree(tmp_path / str(number))
    assert not failures and ran > 20


@pytest.mark.torture
def test_single_files(real_data: Path, tmp_path: Path) -> None:
    """Every fortieth file, alone in a folder of neutral name, is accounted for or refused."""
    for number, path in enumerate(
        sorted(path for path in real_data.rglob("*") if path.is_file())[::40]
    ):
        folder, out = tmp_path / f"raw{number}", tmp_path / str(number)
        folder.mkdir()
        out.mkdir()
        shutil.copy2(path, folder)
        try:
            accounted(folder, *collected(folder, out))
        except GroundupError as error:
            assert "\n" not in str(error) and path.suffix in (".json", ".gz", ".bin", ".xml"), (
                f"{path}: {error}"
            )
