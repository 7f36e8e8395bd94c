"""The stage tune: what it publishes, that it is fresh the second time, and the same bytes
everywhere.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.talking import TUNE, add_talking_checkpoint, talking_run, talks

from groundup.artifacts.chat import encode_chat, encode_prompt, template
from groundup.artifacts.checkpoints import find_model
from groundup.artifacts.tokenizer import Tokenizer
from groundup.commands.tune import describe_tuning, tuning_recipe
from groundup.errors import ExpensiveError, GroundupError
from groundup.model.hf_io import load_model
from groundup.recipe import Tune, overridden
from groundup.runtime.files import file_digest, read_json
from groundup.runtime.lock import write_lock
from groundup.runtime.run import Run
from groundup.tune.stage import run as tune


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run tuned by its recipe; read-only."""
    run = talking_run(tmp_path_factory.mktemp("run"), tune=TUNE)
    tune(run)
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run that was not tuned."""
    return talking_run(tmp_path)


def by_hand(run: Run, **changes: Any) -> Run:
    """The same run as `groundup tune` opens it."""
    return Run(run.root, dataclasses.replace(run.recipe, tune=Tune(**(TUNE | changes))))


def figures(run: Run) -> dict[str, Any]:
    return dict(read_json(run.root / "tune" / "tuning.json"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def digests(run: Run) -> dict[str, str]:
    return folder_digests(run.root / "tune")


def folder_digests(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): file_digest(p)
        for p in folder.rglob("*")
        if p.is_file() and p.name != "manifest.json"
    }


def test_the_view_holds_a_model_that_learned(tuned: Run) -> None:
    found = figures(tuned)
    assert found["after"]["loss"] < found["before"]["loss"]
    assert found["base"] == "step-000007"
    model = find_model(tuned.root)
    assert (model.name, model.path) == ("tuned", tuned.root / "tune" / "model")
    assert (
        load_model(model.path).config
        == load_model(tuned.root / "train/checkpoints/step-000007").config
    )
    assert file_digest(model.path / "model.safetensors") != file_digest(
        tuned.root / "train/checkpoints/step-000007/model.safetensors"
    )


def test_every_conversation_is_learned_held_out_or_listed(tuned: Run) -> None:
    found, listed = figures(tuned)["rows"], lines(tuned.root / "tune" / "left-out.jsonl")
    assert found["train"] + found["held_out"] + found["left_out"] == len(talks()) + 1
    assert found["left_out"] == len(listed) >= 1
    (speech,) = [row for row in listed if row["reason"] == "no-answer"]
    assert (speech["origin"], speech["record"]) == ("talk/talk.1", len(talks()))


def test_metrics_tell_every_step(tuned: Run) -> None:
    found = lines(tuned.root / "tune" / "metrics.jsonl")
    assert [row["step"] for row in found] == list(range(1, figures(tuned)["steps"] + 1))
    assert [row["epoch"] for row in found if "held_out_loss" in row] == [1, 2]
    assert found[-1]["held_out_loss"] == pytest.approx(figures(tuned)["after"]["loss"], rel=1e-4)
    assert sum(row["learnt_tokens"] for row in found) == figures(tuned)["tokens_learnt"]


def test_nothing_of_the_clock_or_of_this_machine_is_in_its_files(tuned: Run) -> None:
    text = "".join(
        path.read_text()
        for path in (tuned.root / "tune").rglob("*.json*")
        if path.name != "manifest.json"
    )
    assert str(tuned.root) not in text and "seconds" not in text


def test_a_second_run_is_fresh(tuned: Run) -> None:
    again = Run(tuned.root, tuned.recipe)
    tune(again)
    assert (again.built, again.reused) == (0, 1)


@pytest.mark.parametrize("method", ["sft", "lora"])
def test_the_same_seed_gives_the_same_bytes(tuned: Run, tmp_path: Path, method: str) -> None:
    runs = [talking_run(tmp_path / name, tune=TUNE | {"method": method}) for name in "ab"]
    for one in runs:
        tune(one)
    assert digests(runs[0]) == digests(runs[1])
    assert ("adapter/adapter_model.safetensors" in digests(runs[0])) == (method == "lora")
    if method == "sft":
        assert digests(runs[0]) == digests(tuned)


def test_another_seed_gives_other_weights(tuned: Run, tmp_path: Path) -> None:
    other = talking_run(tmp_path, tune=TUNE, seed=2)
    tune(other)
    assert digests(other)["model/model.safetensors"] != digests(tuned)["model/model.safetensors"]


def test_transformers_chats_in_the_same_tokens(tuned: Run) -> None:
    """apply_chat_template on the tuned folder: ids of whole conversations, of prompts, and what
    ends an answer.
    """
    transformers = pytest.importorskip("transformers")
    folder = tuned.root / "tune" / "model"
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), Tokenizer.load(folder)
    assert theirs.chat_template == template(ours) and theirs.eos_token == "<|im_end|>"
    for talk in [
        *talks(),
        [{"role": "system", "content": "Be kind.\n\nÜber 中文 🙂"}, *talks()[0], *talks()[1]],
    ]:
        assert theirs.apply_chat_template(talk, return_dict=False) == encode_chat(ours, talk)[0]
        prompt = theirs.apply_chat_template(
            talk[:-1], add_generation_prompt=True, return_dict=False
        )
        assert prompt == encode_prompt(ours, talk[:-1])
        # The marks of generation enclose what our loss sees; content may come in parts.
        masks = theirs.apply_chat_template(
            talk, return_dict=True, return_assistant_tokens_mask=True
        )
        assert list(map(bool, masks["assistant_masks"])) == encode_chat(ours, talk)[1]
        parts = [
            {"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]}
            for turn in talk
        ]
        assert theirs.apply_chat_template(parts, return_dict=False) == encode_chat(ours, talk)[0]
    image = [{"role": "user", "content": [{"type": "image", "url": "x"}]}]
    with pytest.raises(Exception, match="Only parts of type text"):
        theirs.apply_chat_template(image, tokenize=False)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert model.generation_config.eos_token_id == [ours.chat_ids[1], ours.end_id]


def test_a_recipe_that_tunes_without_conversations_is_refused_before_anything_is_spent(
    run: Run,
) -> None:
    with pytest.raises(GroundupError, match="no source of conversations, mail, chat or"):
        overridden(run.recipe, ["source.0.kind=text", "tune.method=sft"])


def test_conversations_that_changed_after_training_are_refused(run: Run) -> None:
    """The split may have changed too, so held-out conversations may have been trained on."""
    from tests.helpers.refined import refine

    rows = [("Q\nA", 1, talk) for talk in talks()]
    refine(run, {"talk.1": rows})
    with pytest.raises(GroundupError, match="changed after the model was trained"):
        tune(by_hand(run))


def test_what_was_tuned_by_hand_stays_under_a_recipe_without_tuning(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    tune(by_hand(run))
    before = digests(run)
    tune(run)
    assert digests(run) == before
    assert "tuned model" not in capsys.readouterr().err
    add_talking_checkpoint(run, step=9, seed=4)
    tune(run)
    assert digests(run) == before
    said = [
        line
        for line in capsys.readouterr().err.splitlines()
        if "tuned model was made from step-000007" in line
    ]
    assert len(said) == 1 and "step-000009" in said[0]


def test_what_the_recipe_asked_for_goes_when_it_no_longer_does(tmp_path: Path) -> None:
    run = talking_run(tmp_path, tune=TUNE)
    tune(run)
    plain = Run(run.root, overridden(run.recipe, ["tune.method=none"]))
    write_lock(plain.root, plain.recipe)
    tune(plain)
    assert find_model(run.root).name == "step-000007"


def test_a_recipe_that_tunes_archives_what_was_tuned_by_hand(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole, with a line that names the folder, and also if the store has the recipe's model."""
    tune(by_hand(run, epochs=1))
    before = digests(run)
    asked = Run(run.root, dataclasses.replace(run.recipe, tune=Tune(**TUNE)))
    write_lock(asked.root, asked.recipe)
    tune(asked)
    assert figures(run)["settings"]["epochs"] == 2
    view = run.store.view("tune")
    assert view is not None and not view.facts["by_hand"]
    first = run.root / "aside" / "tune-1"
    assert folder_digests(first) == before
    assert f"tuned by hand moved to {first}, since [tune]" in capsys.readouterr().err
    tune(by_hand(run, epochs=1))
    tune(asked)
    assert (run.root / "aside" / "tune-2" / "model" / "model.safetensors").exists()
    assert "tune-2" in capsys.readouterr().err
    tune(asked)
    assert len(list((run.root / "aside").iterdir())) == 2 and not capsys.readouterr().err


def test_a_second_tuning_by_hand_names_what_it_replaces(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    tune(by_hand(run))
    tune(by_hand(run))
    assert "replaces" not in capsys.readouterr().err
    tune(by_hand(run, epochs=1))
    assert "replaces the model that was tuned by hand before (sft, " in capsys.readouterr().err


def test_expensive_tuning_is_not_thrown_away(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tune(by_hand(run))
    monkeypatch.setattr("groundup.runtime.run.EXPENSIVE_SECONDS", 0.0)
    with pytest.raises(ExpensiveError, match="epochs was 2, is 1"):
        tune(by_hand(run, epochs=1))
    assert find_model(run.root).name == "tuned"


def test_settings_by_hand_are_remembered_for_the_next_time(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert tuning_recipe(run.root).tune == Tune(method="sft")
    asked = tuning_recipe(run.root, None, "lora", ["rank=2", "tune.epochs=1"])
    assert (asked.tune.method, asked.tune.rank, asked.tune.epochs) == ("lora", 2, 1)
    tune(Run(run.root, asked))
    assert tuning_recipe(run.root) == asked
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(GroundupError, match=r"--data rows\.csv: there is no such file"):
        tuning_recipe(run.root, "rows.csv")
    Path("rows.csv").write_text("text,label\n")
    named = tuning_recipe(run.root, "rows.csv").tune
    assert (run.recipe.root / named.data).resolve() == tmp_path / "here" / "rows.csv"
    assert (named.method, named.rank) == ("lora", 2)
    assert tuning_recipe(run.root, "pypi:a==1").tune.data == "pypi:a==1"
    assert tuning_recipe(run.root, "").tune.data == ""
    assert tuning_recipe(run.root, "*.csv").tune.data.endswith("here/*.csv")
    shutil.copytree(run.root, tmp_path / "moved" / "far" / "run")
    # Its recipe's folder is not where it was: the file is still found.
    lock = tmp_path / "moved" / "far" / "run" / "recipe.lock.toml"
    lock.write_text(lock.read_text().replace('root = "."', 'root = "../../gone/recipes"'))
    assert tuning_recipe(lock.parent, "rows.csv").tune.data == str(tmp_path / "here" / "rows.csv")


def test_a_wrong_setting_by_hand_names_the_nearest(run: Run) -> None:
    with pytest.raises(GroundupError, match='did you mean "epochs"'):
        tuning_recipe(run.root, None, None, ["epoch=2"])


def test_what_tuning_did_is_told_in_few_lines(tuned: Run) -> None:
    text = describe_tuning(tuned.root)
    assert "held-out rows" in text and "before" in text and text.count("\n") < 10
    with pytest.raises(GroundupError, match="no tuned model"):
        describe_tuning(tuned.root / "nowhere")
