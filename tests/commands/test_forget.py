"""Test that a forgotten document leaves every artifact and never comes back, even after a kill."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.helpers.holders import holders
from tests.helpers.killing import digests
from tests.helpers.shards_kit import (
    RECORDS,
    SECRET,
    SHARDS,
    artifacts,
    names,
    run,
    texts,
    write,
    write_project,
)

from groundup.api import open_run
from groundup.artifacts.document import document_id
from groundup.artifacts.forgotten import Forgotten
from groundup.commands.forget import forget
from groundup.commands.inspect import describe_document, dropped_by_reason
from groundup.commands.verify import (
    check_accounted,
    check_bytes,
    check_forgotten,
    check_round_trip,
    check_split,
    check_tokens,
)
from groundup.errors import ExpensiveError, GroundupError, SourceError, StoreError
from groundup.runtime.sealed import Ledger
from groundup.runtime.store import Store

DATA_CHECKS = (
    check_accounted,
    check_bytes,
    check_forgotten,
    check_round_trip,
    check_split,
    check_tokens,
)


def first_file(number: int) -> str:
    return [name for name, _ in zip(names(begin=True), range(SHARDS), strict=False)][number]


# A `forget` takes at least so many.
RENAMES = 40
SOURCE, RECORD = "notes", RECORDS - 1
ORIGIN = first_file(1)
ID, COPY = document_id(SOURCE, ORIGIN, RECORD), document_id(SOURCE, first_file(2), 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = write_project(tmp_path_factory.mktemp("forget"))
    run(recipe)
    return recipe


@pytest.fixture
def recipe(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made.parent, tmp_path / "copy") / made.name


@pytest.fixture(scope="module")
def expected(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests after a `forget` that was not killed."""
    recipe = shutil.copytree(made.parent, tmp_path_factory.mktemp("expected") / "copy") / made.name
    forget(recipe.parent / "run", [ID, COPY], workers=1)
    return digests(recipe.parent / "run")


def test_its_text_is_gone_and_its_shards_are_built_again(recipe: Path) -> None:
    root, before = recipe.parent / "run", artifacts(recipe.parent / "run")
    assert holders(root, SECRET)
    told = forget(root, [ID, COPY], workers=1)
    assert holders(root, SECRET) == []
    built = {name.rpartition("-")[0] for name in artifacts(root) - before}
    assert sum(name.startswith("collect/shard/") for name in built) == 2
    assert dropped_by_reason(root)["forgotten"] == 2
    assert "the raw files stay" in told and SECRET in (recipe.parent / "raw" / ORIGIN).read_text()
    assert [problem for check in DATA_CHECKS for problem in check(root)] == []
    assert "dropped: forgotten" in describe_document(
        root, ID
    ) and "there is no training in this run" in describe_document(root, ID)


def test_the_next_run_builds_nothing_and_does_not_bring_it_back(recipe: Path) -> None:
    root = recipe.parent / "run"
    forget(root, [ID, COPY], workers=1)
    before = artifacts(root)
    run(recipe)
    assert artifacts(root) == before and holders(root, SECRET) == []


def test_its_near_duplicate_comes_back_and_is_named(recipe: Path) -> None:
    root = recipe.parent / "run"
    assert "near_duplicate" in describe_document(root, COPY)
    told = forget(root, [ID], workers=1)
    kept = {
        row for batch in open_run(root).documents(["id"]) for row in batch.column("id").to_pylist()
    }
    assert COPY in kept and ID not in kept
    assert COPY in told and "forget these too" in told


def test_copies_that_stay_dropped_are_named(
    recipe: Path,
) -> None:
    root, path = recipe.parent / "run", recipe.parent / "raw" / first_file(2)
    copy, *others = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    write(path, [copy, copy, *others[1:]])
    run(recipe)
    again = document_id(SOURCE, first_file(2), 1)
    told = forget(root, [ID], workers=1)
    assert COPY in told and again in told
    assert (
        "still here" not in forget(root, [COPY, again], workers=1) and holders(root, SECRET) == []
    )


def test_the_document_that_it_duplicates_is_named(recipe: Path) -> None:
    told = forget(recipe.parent / "run", [COPY], workers=1)
    assert f"still here, and alike or the same: {ID};" in told


def test_an_unknown_id_changes_nothing(recipe: Path) -> None:
    root, listing = recipe.parent / "run", sorted((recipe.parent / "run").rglob("*"))
    with pytest.raises(GroundupError, match="there is no document 0bad"):
        forget(root, [ID, "0bad"], workers=1)
    assert sorted(root.rglob("*")) == listing


def test_forgetting_twice_builds_nothing(recipe: Path) -> None:
    root = recipe.parent / "run"
    forget(root, [ID], workers=1)
    events = len(Ledger(root / "ledger.jsonl").events())
    assert forget(root, [ID], workers=1) == f"{ID} is forgotten already"
    assert len(Ledger(root / "ledger.jsonl").events()) == events


def test_a_missing_source_is_an_error_and_changes_nothing(recipe: Path) -> None:
    root = recipe.parent / "run"
    (recipe.parent / "raw").rename(recipe.parent / "elsewhere")
    with pytest.raises(GroundupError, match="there is no such file"):
        forget(root, [ID], workers=1)
    assert Forgotten.load(root) == Forgotten()


def test_a_run_that_has_only_collected_stays_there(recipe: Path) -> None:
    shutil.rmtree(recipe.parent / "run")
    root = run(recipe, until="collect")
    forget(root, [ID, COPY], workers=1)
    assert holders(root, SECRET) == [] and not (root / "refine").exists()


def test_every_document_of_a_source_can_be_forgotten(
    recipe: Path,
) -> None:
    """The check of sources that lose too much would keep the text; it does not apply here."""
    root = recipe.parent / "run"
    ids = [
        one
        for path in sorted((root / "collect/documents").iterdir())
        for one in pq.read_table(path)["id"].to_pylist()
    ]
    forget(root, ids, workers=1)
    assert holders(root, SECRET) == [] and not Forgotten.load(root).pending
    assert [batch for batch in open_run(root).documents(["id"]) if len(batch)] == []
    assert [problem for check in DATA_CHECKS for problem in check(root)] == []
    with pytest.raises(SourceError, match=f"{len(ids)} forgotten"):
        run(recipe)


def test_a_concurrent_forget_is_not_lost(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents are looked up before the run is locked."""
    root, once = recipe.parent / "run", list[object]()

    def slow(*_: object) -> None:
        if not once:
            once.append(forget)
            with monkeypatch.context() as patch:
                patch.setattr("groundup.commands.forget.list_source", lambda *_: None)
                forget(root, [ID], workers=1)

    monkeypatch.setattr("groundup.commands.forget.list_source", slow)
    forget(root, [COPY], workers=1)
    assert Forgotten.load(root).ids == {ID, COPY} and holders(root, SECRET) == []


def test_a_damaged_artifact_is_deleted_too(recipe: Path) -> None:
    root = recipe.parent / "run"
    shard = next(path for path in (root / ".store/refine/shard").iterdir() if holders(path, SECRET))
    old = shutil.copytree(shard, shard.with_name("notes.old-0123456789abcdef"))
    (old / "manifest.json").unlink()
    forget(root, [ID, COPY], workers=1)
    assert holders(root, SECRET) == []


def test_archived_views_that_hold_it_are_deleted(recipe: Path) -> None:
    root = recipe.parent / "run"
    shutil.copytree(root / "refine", root / "aside" / "refine-before-the-fair")
    shutil.copytree(root / "tokenize", root / "aside" / "tokenize-1")
    forget(root, [COPY], workers=1)
    # COPY was dropped: the list in refine names it, and no tokens are made of it.
    assert sorted(path.name for path in (root / "aside").iterdir()) == ["tokenize-1"]
    forget(root, [ID], workers=1)
    assert list((root / "aside").iterdir()) == [] and holders(root, SECRET) == []


def test_expensive_artifacts_are_replaced_without_asking(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.runtime.run.EXPENSIVE_SECONDS", 0.0)
    root = recipe.parent / "run"
    forget(root, [ID, COPY], workers=1)
    assert holders(root, SECRET) == [] and not (root / "aside").exists()
    write(recipe.parent / "raw" / first_file(0), texts(9))
    with pytest.raises(ExpensiveError):
        run(recipe)


def test_a_changed_raw_file_is_warned_of(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record is known by its number: after a new first line, another text has it."""
    root = recipe.parent / "run"
    forget(root, [ID], workers=1)
    capsys.readouterr()
    write(recipe.parent / "raw" / ORIGIN, ["A line in front.", *texts(3)])
    run(recipe)
    assert f"{ORIGIN} changed since records of it were forgotten" in capsys.readouterr().err
    assert dropped_by_reason(root)["forgotten"] == 1


def test_a_damaged_list_stops_the_run(recipe: Path) -> None:
    """Without the list, forgotten documents would come back."""
    root = recipe.parent / "run"
    forget(root, [ID], workers=1)
    (root / "forgotten.json").write_text('{"documents": [')
    with pytest.raises(StoreError, match=r"forgotten\.json: damaged"):
        run(recipe)


def test_verify_finds_a_forgotten_document(recipe: Path) -> None:
    root = recipe.parent / "run"
    old = shutil.copytree(root / "collect", recipe.parent / "old")
    forget(root, [ID], workers=1)
    assert list(check_forgotten(root)) == []
    shutil.rmtree(root / "collect")
    shutil.copytree(old, root / "collect")
    assert any(ID in problem for problem in check_forgotten(root))


class Killed(BaseException):
    """Stands for the end of the process: no code catches it."""


@pytest.fixture
def killing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, bool], None]:
    """Arm a kill before or after the n-th rename from now.

    Every commit, every list and every deletion is one rename.
    """
    rename, left = Path.rename, [0, False]

    def fatal(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] == 0 and not left[1]:
            raise Killed
        done = rename(self, target)
        if left[0] == 0:
            raise Killed
        return done

    def arm(number: int, after: bool) -> None:
        left[:] = [number, after]

    monkeypatch.setattr(Path, "rename", fatal)
    return arm


def renames(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many renames a `forget` takes."""
    count, rename = [0], Path.rename
    with monkeypatch.context() as patch:
        patch.setattr(
            Path,
            "rename",
            lambda self, target: (count.__setitem__(0, count[0] + 1), rename(self, target))[1],
        )
        forget(recipe.parent / "run", [ID, COPY], workers=1)
    return count[0]


def kill_and_resume(
    recipe: Path, kill: Callable[[], None], by_run: bool, expected: dict[str, str]
) -> None:
    root = recipe.parent / "run"
    kill()
    with contextlib.suppress(Killed):
        forget(root, [ID, COPY], workers=1)
    if by_run and Forgotten.load(root).documents:
        run(recipe)
    else:
        forget(root, [ID, COPY], workers=1)
    assert holders(root, SECRET) == []
    assert not Forgotten.load(root).pending
    assert digests(root) == expected
    assert all(Store(root).view(stage) for stage in ("collect", "refine", "tokenize"))


@pytest.mark.parametrize("moment", range(8))
def test_the_next_run_or_forget_completes_a_killed_one(
    made: Path,
    recipe: Path,
    killing: Callable[[int, bool], None],
    expected: dict[str, str],
    moment: int,
) -> None:
    rng = random.Random(moment)
    number, after, by_run = rng.randrange(1, RENAMES), rng.random() < 0.5, rng.random() < 0.5
    kill_and_resume(recipe, lambda: killing(number, after), by_run, expected)


@pytest.mark.torture
def test_a_kill_at_every_rename(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killing: Callable[[int, bool], None],
    expected: dict[str, str],
) -> None:
    counted = shutil.copytree(made.parent, tmp_path / "counted") / made.name
    count = renames(counted, monkeypatch)
    assert count >= RENAMES
    for number in range(1, count + 1):
        for after in (False, True):
            copy = shutil.copytree(made.parent, tmp_path / f"{number}-{after}") / made.name
            kill_and_resume(
                copy,
                functools.partial(killing, number, after),
                number % 2 == 0,
                expected,
            )
            shutil.rmtree(copy.parent)
