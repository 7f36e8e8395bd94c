"""Only what changed is done again: one byte of each input and one of each setting, and exactly
which stages then run.
"""

import dataclasses
import re
import shutil
import typing
from pathlib import Path

import pytest
from tests.helpers.killing import digests

from groundup.errors import GroundupError
from groundup.flow import STAGES, run_flow
from groundup.recipe import (
    Evaluate,
    Export,
    Model,
    Recipe,
    Refine,
    Source,
    Tokenize,
    Train,
    Tune,
    load_recipe,
)
from groundup.runtime.sealed import Ledger

ORDER = list(STAGES)
ALL = set(ORDER)
AFTER = {stage: set(ORDER[number:]) for number, stage in enumerate(ORDER)}


@pytest.fixture(autouse=True)
def unplanned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the plan of a changed recipe: it probes this machine for two seconds."""
    monkeypatch.setattr("groundup.flow.check_plan", lambda run, trains: None)


def stages_that_ran(recipe: Path, overrides: list[str] = [], until: str = "report") -> set[str]:  # noqa: B006 - never changed
    """Bring the run up to date and return the stages that built anything."""
    root = recipe.parent / "runs" / "tiny"
    ledger = Ledger(root / "ledger.jsonl")
    before = len(ledger.events())
    run_flow(load_recipe(recipe, overrides), root, until, workers=1)
    return {event["stage"] for event in ledger.events()[before:] if event["event"] == "finished"}


def flip(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "until"),
    [
        ("books/book03.txt", b" the ", b" thy ", "report"),
        ("web/05.html", b" the ", b" thy ", "train"),
        ("code/json/decoder.py", b"return", b"retunr", "train"),
        ("talk/talk.jsonl", b" the ", b" thy ", "train"),
    ],
)
def test_one_byte_of_text_runs_everything_again(
    run_copy: Path, name: str, old: bytes, new: bytes, until: str
) -> None:
    flip(run_copy.parent / "raw" / name, old, new)
    assert stages_that_ran(run_copy, until=until) == set(ORDER[: ORDER.index(until) + 1])


def test_one_byte_that_changes_no_document_stops_at_collect(run_copy: Path) -> None:
    """Inputs are contents: a license text after the end of a book is read again, and nothing
    follows from it.
    """
    flip(run_copy.parent / "raw" / "books" / "book03.txt", b"licence text", b"licence tixt")
    assert stages_that_ran(run_copy) == {"collect", "report"}


def test_a_touched_file_runs_nothing(run_copy: Path) -> None:
    for path in (run_copy.parent / "raw").rglob("*.txt"):
        path.touch()
    assert stages_that_ran(run_copy) == set()


def test_a_new_file_runs_only_its_own_shards_and_the_lists(run_copy: Path) -> None:
    lines = (
        (run_copy.parent / "raw" / "books" / "book03.txt").read_bytes().splitlines(keepends=True)
    )
    (run_copy.parent / "raw" / "books" / "shorter.txt").write_bytes(
        b"".join(lines[:-12] + lines[-3:])
    )
    root = run_copy.parent / "runs" / "tiny"
    before = len(Ledger(root / "ledger.jsonl").events())
    run_flow(load_recipe(run_copy), root, workers=1)
    events = {
        e["stage"]: e
        for e in Ledger(root / "ledger.jsonl").events()[before:]
        if e["event"] in ("finished", "fresh")
    }
    shards = 5
    assert (events["collect"]["built"], events["collect"]["reused"]) == (1, shards - 1)
    # Its shard, the counts of its source's lines, the three lists, and the distributions. The
    # counts of the other source are reused.
    assert (events["refine"]["built"], events["refine"]["reused"]) == (6, shards)
    # A shorter copy is a duplicate that loses: no token changed, so nothing after it ran.
    assert events["train"]["event"] == "fresh"


def test_a_file_taken_away_is_gone_from_every_stage(run_copy: Path) -> None:
    shutil.rmtree(run_copy.parent / "raw" / "web")
    text = run_copy.read_text()
    run_copy.write_text(
        re.sub(r'\[\[source\]\]\nname = "web".*?(?=\[\[source\]\])', "", text, flags=re.DOTALL)
    )
    assert stages_that_ran(run_copy) == ALL - {"collect"}
    root = run_copy.parent / "runs" / "tiny"
    assert not list(root.glob("*/documents/web.*")) + list(root.glob("tokenize/shards/web.*"))


# Every key of the recipe, and the stages that run again when it changes. What a change of weights
# brings with it:
RETRAINED = {"train", "evaluate", "tune", "export", "report"}
# What is exported is the tuned model.
TUNED = {"tune", "export", "report"}
SETTINGS: dict[str, tuple[str, set[str]]] = {
    "name": ("other", {"export"}),
    "seed": ("2", AFTER["refine"]),
    "source.0.path": ('"raw/books/book0[1-9].txt"', ALL),
    "source.0.kind": ("text", ALL),
    "source.0.name": ("tomes", ALL),
    "source.0.license": ("CC0-1.0", {"collect", "refine", "tokenize", "report"}),
    "source.0.weight": ("2.0", RETRAINED),
    "source.0.include": ('["book0[1-9].txt"]', ALL),
    "source.0.exclude": ('["book03.txt"]', ALL),
    "source.0.encoding": ("cp1252", {"collect", "report"}),
    # Of records: a book has no columns, so its documents are the same.
    "source.0.text": ('"body"', {"collect", "report"}),
    "source.0.title": ('"name"', {"collect", "report"}),
    "source.0.group": ('"thread"', {"collect", "report"}),
    "source.0.language": ('"lang"', {"collect", "report"}),
    # Read again, to the same documents: nobody speaks in a book.
    "source.0.speakers": ("names", {"collect", "report"}),
    "source.0.most_dropped": ("0.9", {"report"}),
    "source.0.priority": ("1", {"refine"}),
    # Of sources that are scraped.
    "source.0.delay": ("2.0", set()),
    "source.0.max_pages": ("9", set()),
    "source.0.user_agent": ("me/1", set()),
    "source.0.sha256": ('"' + "0" * 64 + '"', set()),
    "refine.languages": ('["en"]', AFTER["refine"]),
    "refine.filters": ('["code"]', AFTER["refine"]),
    "refine.thresholds": ("{ c4 = { curly_brackets = 1000 } }", AFTER["refine"]),
    "refine.near_threshold": ("0.81", {"refine"}),
    "refine.personal": ('{ phone = "keep" }', AFTER["refine"]),
    "refine.repeated_lines": ("11", {"refine"}),
    "refine.allowed_overlap": ('["a text that no benchmark of this recipe holds"]', set()),
    "refine.most_dropped": ("0.9", {"report"}),
    "refine.memory_megabytes": ("64", {"report"}),
    "tokenize.vocab_size": ("400", AFTER["tokenize"]),
    "tokenize.validation": ("0.2", AFTER["refine"]),
    "tokenize.sample_megabytes": ("256", {"tokenize"}),
    "model.preset": ("small", RETRAINED),
    "model.layers": ("3", RETRAINED),
    "model.width": ("128", RETRAINED),
    "model.heads": ("2", RETRAINED),
    "model.kv_heads": ("1", set()),
    "model.head_width": ("32", RETRAINED),
    "model.feed_forward": ("64", RETRAINED),
    "model.context": ("96", RETRAINED),
    "model.dropout": ("0.1", RETRAINED),
    "model.rope_theta": ("500.0", RETRAINED),
    "train.steps": ("8", RETRAINED),
    "train.optimizer": ("adamw", RETRAINED),
    "evaluate.limit": ("5", {"evaluate", "report"}),
    "evaluate.passages": ("4", {"evaluate", "report"}),
    "evaluate.sample_tokens": ("6", {"evaluate", "report"}),
    "tune.method": ("lora", TUNED),
    "tune.data": ('"raw/talk/talk.jsonl"', TUNED | {"collect"}),
    "tune.epochs": ("2", TUNED),
    "tune.learning_rate": ("0.001", TUNED),
    "tune.batch_tokens": ("512", TUNED),
    "tune.limit": ("20", TUNED),
    # The same weights; the answers that are shown beside them are shorter.
    "tune.answer_tokens": ("1", TUNED),
    # The same rows as without; of LoRA; of a file.
    "tune.sources": ('["talk"]', set()),
    "tune.rank": ("2", set()),
    "tune.alpha": ("2.0", set()),
    "tune.validation": ("0.2", set()),
    "tune.columns": ('["a", "b"]', set()),
    "export.formats": ('["hf", "gguf"]', {"export", "report"}),
    "export.license": ("MIT", {"export", "report"}),
    # Of GGUF files, which this recipe does not ask for.
    "export.gguf_types": ('["f32"]', set()),
    # Training text is held against it; where nothing is found, the wave stops there.
    "evaluate.benchmarks": ('["lambada.jsonl"]', {"collect", "refine", "evaluate", "report"}),
}
# Changes of a finished training that change nothing: they hold from the next step on, and there is
# none.
# Tested elsewhere: in test_goes_on.py, and in test_collect_own.py, _sources.py and _ocr.py.
OTHERS = {"model.base", "source.0.reader", "source.0.follow_links", "source.0.ocr"}
HARMLESS = {f"train.{f.name}" for f in dataclasses.fields(Train)} - set(SETTINGS)


def test_every_key_of_a_recipe_has_a_place_in_this_test() -> None:
    parts = {
        "source.0": Source,
        "refine": Refine,
        "tokenize": Tokenize,
        "model": Model,
        "train": Train,
        "evaluate": Evaluate,
    }
    parts |= {"tune": Tune, "export": Export}
    keys = {
        f"{prefix}.{f.name}"
        for prefix, part in parts.items()
        for f in dataclasses.fields(part)
        if not f.metadata.get("internal")
    }
    keys |= {
        f.name
        for f in dataclasses.fields(Recipe)
        if f.name not in parts and f.name != "source" and not f.metadata.get("internal")
    }
    assert keys == set(SETTINGS) | HARMLESS | OTHERS


def last_to_run(key: str) -> str:
    """Return how far a run with another value of `key` has to go to show all that it can.

    Where everything from one stage on runs again, the stages behind it follow from that one's
    output: the first such key goes to the end, and the others stop there. Without the report, which
    any change of the recipe renders again.
    """
    expected = SETTINGS[key][1]
    alike = [other for other in SETTINGS if SETTINGS[other][1] == expected]
    first = min(expected, key=ORDER.index)
    return first if len(expected) > 1 and expected == AFTER[first] and key != alike[0] else "export"


@pytest.mark.parametrize("key", [key for key in SETTINGS if SETTINGS[key][1]])
def test_one_setting_runs_exactly_what_depends_on_it(run_copy: Path, key: str) -> None:
    (run_copy.parent / "lambada.jsonl").write_text(
        '{"text": "The last word of this line is word"}\n'
    )
    value, expected = SETTINGS[key]
    until = last_to_run(key)
    reached = set(ORDER[: ORDER.index(until) + 1])
    assert stages_that_ran(run_copy, [f"{key}={value}"], until) == expected & reached


def test_settings_that_say_the_same_run_nothing(run_copy: Path) -> None:
    same = [
        f"{key}={value}"
        for key, (value, expected) in SETTINGS.items()
        if not expected and key != "source.0.sha256"
    ]
    assert stages_that_ran(run_copy, [*same, "source.0.weight=1.0"]) <= {"report"}


def test_logging_and_rates_of_a_finished_training_run_nothing(run_copy: Path) -> None:
    hints = typing.get_type_hints(Train)
    values = {
        "checkpoint_steps": "[3]",
        "sample_prompt": "A",
        "precision": "fp32",
        "compile": "off",
        "recompute": "off",
        "exact": "false",
        "guard": "8.0",
    }
    values |= {"tensorboard": "true", "wandb": "true"}
    changed = [
        f"{key}={values.get(key[6:], '1' if hints[key[6:]] is not float else '0.5')}"
        for key in sorted(HARMLESS)
    ]
    assert stages_that_ran(run_copy, changed) <= {"report"}


def test_a_run_inside_its_source_does_not_read_itself(tmp_path: Path) -> None:
    """A user sits in the folder of raw files: recipe and run directory lie between them."""
    from tests.helpers.raw import write_books

    write_books(tmp_path / "books", 3)
    (tmp_path / "recipe.toml").write_text(
        '[[source]]\npath = "."\nname = "all"\nkind = "books"\nexclude = ["recipe.toml"]\n'
    )
    for _ in range(2):
        run = run_flow(
            load_recipe(tmp_path / "recipe.toml"),
            tmp_path / "runs" / "r",
            until="collect",
            workers=1,
        )
    assert run.built == 0


def test_a_redo_that_would_do_nothing_is_an_error(run_copy: Path) -> None:
    with pytest.raises(GroundupError, match="comes after --until"):
        run_flow(
            load_recipe(run_copy),
            run_copy.parent / "runs" / "tiny",
            until="tokenize",
            redo=["train"],
        )


@pytest.mark.parametrize("stage", ["collect", "tokenize", "train", "report"])
def test_redo_builds_a_fresh_stage_again_and_ends_with_the_same_bytes(
    run_copy: Path, stage: str
) -> None:
    root = run_copy.parent / "runs" / "tiny"
    before = digests(root)
    events = len(Ledger(root / "ledger.jsonl").events())
    run_flow(load_recipe(run_copy), root, redo=[stage], workers=1)
    ran = {
        e["stage"]
        for e in Ledger(root / "ledger.jsonl").events()[events:]
        if e["event"] == "finished"
    }
    assert stage in ran
    assert digests(root) == before
