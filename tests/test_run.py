"""A run: nothing expensive is thrown away, only what changed is built, one run at a time."""

import json
from pathlib import Path

import pytest

from groundup.errors import ExpensiveError, SourceError, StoreError
from groundup.recipe import recipe_from
from groundup.runtime.lock import (
    check_directory,
    load_lock,
    locked,
    machine_settings,
    write_lock,
)
from groundup.runtime.run import ABSENT, BuildStep, Job, Keyed, Run, Unkeyed
from groundup.runtime.store import MANIFEST, Step


def build(folder: Path) -> dict[str, int]:
    (folder / "x").write_text("x")
    return {}


def job(name: str = "a", setting: int = 1, inputs: dict[str, str] | None = None) -> Job:
    return Job(Step("refine/shard", name, 1, {"s": setting}, inputs or {}), build, {})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run", recipe_from({"source": [{"path": "x"}]}, "test", tmp_path))


def make(run: Run, *jobs: Job, seconds: float = 1) -> None:
    artifacts = run.build("refine", jobs, "test")
    for artifact in artifacts:
        path = artifact.path / MANIFEST
        path.write_text(json.dumps(dict(artifact.manifest) | {"seconds": seconds}))
    run.publish("refine", artifacts, {f"{a.name}": a.path / "x" for a in artifacts})


def test_what_is_there_is_not_built_again(run: Run) -> None:
    make(run, job("a"), job("b"))
    run.built = run.reused = 0
    make(run, job("a"), job("b"), job("c"))
    assert (run.built, run.reused) == (1, 2)


def test_cheap_work_is_replaced_without_a_question(run: Run) -> None:
    make(run, job(setting=1))
    make(run, job(setting=2))
    assert run.built == 2


def test_expensive_work_is_not_replaced_and_the_line_says_what_changed(run: Run) -> None:
    make(run, job(setting=1), seconds=700)
    with pytest.raises(ExpensiveError, match=r"s was 1, is 2.*12 minutes.*--redo refine"):
        run.build("refine", [job(setting=2)], "test")
    assert run.store.find(job(setting=1).step) is not None


def test_a_setting_that_a_new_version_added_is_no_change_of_the_user(run: Run) -> None:
    make(run, job(setting=1), seconds=700)
    step = Step("refine/shard", "a", 2, {"s": 1, "rules": "0f"}, {})
    with pytest.raises(ExpensiveError, match="refine: this version of groundup builds it diff"):
        run.build("refine", [Job(step, build, {})], "test")


def test_costs_of_many_cheap_artifacts_add_up(run: Run) -> None:
    make(run, *(job(f"n{n}") for n in range(10)), seconds=70)
    with pytest.raises(ExpensiveError):
        run.build("refine", [job(f"n{n}", setting=2) for n in range(10)], "test")


def test_cost_is_known_although_the_view_is_missing(run: Run) -> None:
    """A kill between building and publishing must not hide what was spent."""
    artifact = run.build("refine", [job(setting=1)], "test")[0]
    (artifact.path / MANIFEST).write_text(json.dumps(dict(artifact.manifest) | {"seconds": 700}))
    with pytest.raises(ExpensiveError):
        run.build("refine", [job(setting=2)], "test")


def test_redo_is_consent_and_the_old_view_moves_aside(run: Run) -> None:
    make(run, job(setting=1), seconds=700)
    run.redo = frozenset({"refine"})
    make(run, job(setting=2))
    assert (run.root / "aside" / "refine-1" / "a").read_text() == "x"
    assert [e["stage"] for e in run.ledger.events("aside")] == ["refine"]


def test_a_stage_without_artifacts_is_not_called_fresh(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tuning that nobody asked for."""
    run.root.mkdir()
    with run.stage("tune"):
        pass
    assert capsys.readouterr().err == "tune      nothing to do\n"


def test_a_redo_notes_only_what_the_new_artifacts_say(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects: after a reader was mended, the error and notes of the old shard read as failure."""
    readers = iter(["old", "old", "new", "new"])

    def stage(run: Run) -> None:
        reader = next(readers)
        make(run, job())
        run.note(f"warning: of the {reader} reader")
        if reader == "old":
            raise SourceError("no document")

    with pytest.raises(SourceError):
        run.perform_again("refine", stage)
    capsys.readouterr()
    run.redo, run.built, run.reused = frozenset({"refine"}), 0, 0
    run.perform_again("refine", stage)
    assert capsys.readouterr().err == "warning: of the new reader\n"
    assert run.built == 1


def test_a_redo_does_not_hide_an_error_of_a_stage_without_artifacts(run: Run) -> None:
    """A source that is missing now costs no artifact, and is named."""
    make(run, job())
    run.redo, run.built, run.reused = frozenset({"refine"}), 0, 0

    def stage(run: Run) -> None:
        raise SourceError("x: there is no such file")

    with pytest.raises(SourceError):
        run.perform_again("refine", stage)
    assert run.store.find(job().step) is not None


def test_after_consent_the_next_run_does_not_ask_again(run: Run) -> None:
    make(run, job(setting=1), seconds=700)
    run.redo = frozenset({"refine"})
    make(run, job(setting=2))
    make(Run(run.root, run.recipe), job(setting=2))


def test_a_list_whose_inputs_only_grew_is_superseded_without_a_question(run: Run) -> None:
    make(run, job(inputs={"one": "1"}), seconds=700)
    make(run, job(inputs={"one": "1", "two": "2"}))
    with pytest.raises(ExpensiveError):
        make(run, job(inputs={"one": "1", "two": "2"}), seconds=700)
        run.build("refine", [job(inputs={"one": "changed", "two": "2"})], "test")


def test_a_second_run_in_one_directory_is_told_who_holds_it(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(StoreError, match=r"process \d+ on .* is working in this run"),
        locked(tmp_path),
    ):
        pass


def test_the_lock_is_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path):
            pass


def test_a_file_in_the_place_of_the_run_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match="cannot be used as a run directory"),
        locked(tmp_path / "file"),
    ):
        pass


def test_the_lock_file_gives_the_recipe_back_and_keeps_what_was_resolved(run: Run) -> None:
    run.root.mkdir()
    write_lock(run.root, run.recipe, machine={"threads": 2, "precision": "bf16"})
    write_lock(run.root, run.recipe)
    assert machine_settings(run.root) == {"threads": 2, "precision": "bf16"}
    assert load_lock(run.root) == run.recipe


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    """Views replace the folders collect/, report/ … of a run: they must not be somebody's own."""
    (tmp_path / "report").mkdir()
    with pytest.raises(StoreError, match="not empty and holds no run"):
        check_directory(tmp_path)
    (tmp_path / "ledger.jsonl").write_text("")
    check_directory(tmp_path)
    check_directory(tmp_path / "missing")


def test_the_cost_of_what_lost_its_place_is_remembered_across_processes(run: Run) -> None:
    """Two steps of seven minutes each are fourteen, also when a run stopped in between."""

    def a_list(setting: int) -> Job:
        return Job(Step("refine/list", "list", 1, {"s": setting}), build, {})

    make(run, job("a"), a_list(1), seconds=400)
    run.build("refine", [job("a", setting=2)], "test")
    with pytest.raises(ExpensiveError):
        Run(run.root, run.recipe).build("refine", [a_list(2)], "test")


def test_setting_back_is_free(run: Run) -> None:
    make(run, job("a"), job("b"), seconds=400)
    with pytest.raises(ExpensiveError):
        run.build("refine", [job("a", setting=2), job("b", setting=2)], "test")
    again = Run(run.root, run.recipe)
    make(again, job("a"), job("b"), seconds=400)
    assert again.built == 0


def write(folder: Path, text: str, limit: int, memory: int, level: int = 0) -> dict[str, int]:
    (folder / "x").write_text(text)
    return {"limit": limit}


WRITE = BuildStep("refine/shard", 3, write)


def test_every_argument_enters_the_key_unless_it_is_marked() -> None:
    def key(text: str = "a", limit: int = 1, memory: int = 1, level: int = 0) -> str:
        keyed = Keyed(level, level or ABSENT)
        job = WRITE.job(
            "a",
            {"raw": "0"},
            text=text,
            limit=Keyed(limit, limit % 2),
            memory=Unkeyed(memory),
            level=keyed,
        )
        return job.step.key

    assert key() == Step("refine/shard", "a", 3, {"text": "a", "limit": 1}, {"raw": "0"}).key
    assert key(memory=2) == key(limit=3) == key(level=0) == key()
    assert len({key(), key(text="b"), key(limit=2), key(level=1)}) == 4


def test_an_argument_that_the_function_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError):
        WRITE.job("a", {}, text="a", limit=1, memory=1, unknown=1)
    with pytest.raises(TypeError):
        WRITE.job("a", {}, text="a", memory=1)


def test_a_job_passes_the_arguments_and_not_their_marks(run: Run) -> None:
    job = WRITE.job(
        "a", {}, key_only={"library": "2"}, text="a", limit=Keyed(5, 1), memory=Unkeyed(2)
    )
    (artifact,) = run.build("refine", [job], "test")
    assert artifact.facts == {"limit": 5}
    assert artifact.manifest["settings"] == {"text": "a", "limit": 1, "library": "2"}


def test_a_method_can_be_a_step() -> None:
    """Exports are methods of their format, so a step may not write to its function."""

    class Format:
        def build(self, folder: Path) -> dict[str, int]:
            return {}

    job = BuildStep("export/f16", 1, Format().build).job("best", inputs={})
    assert job.step.step == "export/f16"
