"""The store: whole or absent, keyed by what decides the bytes, healing what is damaged."""

import os
import threading
from pathlib import Path

import pytest

from groundup.errors import StoreError
from groundup.runtime.files import content_digest, read_json_object
from groundup.runtime.store import (
    COMMITTING,
    MANIFEST,
    Artifact,
    Facts,
    Step,
    Store,
    changed_files,
    commit,
    load_artifact,
)


def build(folder: Path, text: str = "hello") -> dict[str, int]:
    (folder / "sub").mkdir()
    (folder / "sub" / "a.txt").write_text(text)
    (folder / "b.txt").write_text("b")
    return {"documents": 2}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "run")


STEP = Step("refine/shard", "books.0a", 1, {"filters": ["gopher"]}, {"collect": "c0"})


def test_a_built_artifact_is_found_again_with_its_facts(store: Store) -> None:
    built = store.build(STEP, build, {"text": "hello"})
    found = store.find(STEP)
    assert found is not None
    assert found.facts == {"documents": 2}
    assert (found.path / "sub" / "a.txt").read_text() == "hello"
    assert found.content == built.content == content_digest(found.manifest["files"])


@pytest.mark.parametrize(
    "other",
    [
        Step("refine/shard", "books.0a", 2, {"filters": ["gopher"]}, {"collect": "c0"}),
        Step("refine/shard", "books.0a", 1, {"filters": ["c4"]}, {"collect": "c0"}),
        Step("refine/shard", "books.0a", 1, {"filters": ["gopher"]}, {"collect": "c1"}),
        Step("refine/shard", "books.0b", 1, {"filters": ["gopher"]}, {"collect": "c0"}),
    ],
)
def test_version_settings_inputs_and_name_are_all_in_the_key(store: Store, other: Step) -> None:
    store.build(STEP, build, {})
    assert other.key != STEP.key
    assert store.find(other) is None


def test_content_does_not_depend_on_time_or_place(tmp_path: Path) -> None:
    one = Store(tmp_path / "one").build(STEP, build, {})
    os.utime(one.path / "b.txt", (0, 0))
    two = Store(tmp_path / "elsewhere" / "two").build(STEP, build, {})
    assert one.content == two.content


def test_a_failed_build_leaves_nothing(store: Store) -> None:
    def fail(folder: Path) -> dict[str, int]:
        (folder / "half").write_text("x")
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        store.build(STEP, fail, {})
    assert store.find(STEP) is None
    assert list(store.staging.iterdir()) == []


@pytest.mark.parametrize("damage", ["truncate", "remove", "manifest"])
def test_a_damaged_artifact_counts_as_absent_and_is_built_again(store: Store, damage: str) -> None:
    path = store.build(STEP, build, {}).path
    target = path / (MANIFEST if damage == "manifest" else "sub/a.txt")
    target.chmod(0o644)
    if damage == "remove":
        target.unlink()
    else:
        target.write_text("{")
    assert store.find(STEP) is None
    store.build(STEP, build, {})
    healed = store.find(STEP)
    assert healed is not None
    assert changed_files(healed) == []


def test_a_changed_byte_of_the_same_size_is_seen_by_verification(store: Store) -> None:
    artifact = store.build(STEP, build, {})
    (artifact.path / "b.txt").chmod(0o644)
    (artifact.path / "b.txt").write_text("B")
    assert len(changed_files(artifact)) == 1


def test_committed_files_cannot_be_edited_in_place(store: Store) -> None:
    artifact = store.build(STEP, build, {})
    assert (artifact.path / "b.txt").stat().st_mode & 0o222 == 0


def test_a_view_shares_bytes_and_is_replaced_whole(store: Store) -> None:
    first = store.build(STEP, build, {})
    store.publish("refine", {"documents/x.txt": first.path / "sub/a.txt"}, [first])
    second = store.build(Step("refine/shard", "other", 1), build, {"text": "new"})
    view = store.publish("refine", {"documents/y.txt": second.path / "sub/a.txt"}, [second])
    assert [p.name for p in (store.root / "refine" / "documents").iterdir()] == ["y.txt"]
    assert (store.root / "refine/documents/y.txt").samefile(second.path / "sub/a.txt")
    assert changed_files(view) == []


def test_a_kill_inside_a_commit_leaves_a_mark_and_no_artifact(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill tests count commits that were hit by this mark."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("groundup.runtime.store.write_sealed", killed)
    folder = store.staging / "x"
    folder.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        commit(folder, store.root / "target", {})
    assert [p.name for p in store.staging.iterdir()] == ["x" + COMMITTING]
    assert load_artifact(store.root / "target") is None


def test_cleaning_takes_the_staging_area_from_under_an_orphan(store: Store) -> None:
    with store.stage() as folder:
        (folder / "a").write_text("a")
        store.clean()
        with pytest.raises(FileNotFoundError):
            commit(folder, store.root / "target", {})
    assert load_artifact(store.root / "target") is None


def test_only_unreferenced_artifacts_are_listed_for_deletion(store: Store) -> None:
    kept = store.build(STEP, build, {})
    stale = store.build(Step("refine/shard", "stale", 1), build, {})
    store.publish("refine", {"x": kept.path / "b.txt"}, [kept])
    assert store.unreferenced(["refine"]) == [stale.path]
    store.discard([stale.path])
    assert not stale.path.exists()
    assert kept.path.exists()


def test_what_moves_aside_is_numbered(store: Store) -> None:
    """Beside what a person gave a name to."""
    (store.root / "aside" / "refine-before-the-fair").mkdir(parents=True)
    for _ in range(2):
        artifact = store.build(STEP, build, {})
        store.publish("refine", {"x": artifact.path / "b.txt"}, [artifact])
        store.archive("refine")
    assert sorted(p.name for p in (store.root / "aside").iterdir()) == [
        "refine-1",
        "refine-2",
        "refine-before-the-fair",
    ]


def test_a_worker_that_was_given_up_for_lost_and_commits_late_changes_nothing(store: Store) -> None:
    # Protects: on a cluster its shard was built again elsewhere meanwhile, and others are reading
    # that.
    early: list[Artifact] = []

    def slow(folder: Path) -> Facts:
        early.append(store.build(STEP, build, {}))
        with (early[0].path / "b.txt").open() as reader:
            facts = build(folder)
            assert reader.read() == (folder / "b.txt").read_text()
        return facts

    late = store.build(STEP, slow, {})
    assert late.manifest == early[0].manifest == store.find(STEP).manifest  # type: ignore[union-attr]
    assert late.content == early[0].content
    assert list(store.staging.iterdir()) == []


def test_a_damaged_artifact_does_not_stand_in_the_way_of_a_commit(store: Store) -> None:
    def build_again(folder: Path) -> Facts:
        broken = store.build(STEP, build, {})
        (broken.path / "b.txt").unlink()
        return build(folder)

    assert changed_files(store.build(STEP, build_again, {})) == []


def test_an_artifact_of_another_machine_is_waited_for(store: Store, tmp_path: Path) -> None:
    # Protects: NFS remembers for a while that a name was not there.
    artifact = store.build(STEP, build, {})
    artifact.path.rename(tmp_path / "not-yet")
    with pytest.raises(StoreError, match="does not see it"):
        store.wait_until_visible(artifact, patience=0.0)
    later = threading.Timer(0.2, (tmp_path / "not-yet").rename, [artifact.path])
    later.start()
    assert store.wait_until_visible(artifact) is artifact
    later.join()


@pytest.mark.parametrize("data, value", [('{"a": 1}', {"a": 1}), ("[1]", None), ('{"a"', None)])
def test_only_an_object_is_read_as_one(
    data: str, value: dict[str, int] | None, tmp_path: Path
) -> None:
    """A file that somebody wrote over, or that is torn, is as good as none."""
    (tmp_path / "a.json").write_text(data)
    assert read_json_object(tmp_path / "a.json") == value
    assert read_json_object(tmp_path / "b.json") is None
