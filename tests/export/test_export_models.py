"""Which model is exported, under which name, and how long an export by hand stays."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest
from tests.helpers.exporting import needs_gguf, needs_llama
from tests.helpers.trained import add_checkpoint, tiny_model, trained_run

from groundup.artifacts.checkpoints import find_model
from groundup.artifacts.tokenizer import CONFIG, Tokenizer
from groundup.cli import cli
from groundup.commands.verify import check_exports
from groundup.errors import GroundupError
from groundup.export import gguf as gguf_file
from groundup.export import parity
from groundup.export.formats import differences
from groundup.export.gguf import fields
from groundup.export.stage import ExportTarget, by_hand, place
from groundup.export.stage import run as export
from groundup.model.hf_io import load_model
from groundup.plan import exported_bytes, make_plan
from groundup.recipe import Export
from groundup.runtime.files import read_json
from groundup.runtime.lock import write_lock
from groundup.runtime.run import Run
from groundup.runtime.store import Step
from groundup.tune.finetuner import write_model

pytestmark = needs_gguf


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints, of which step 7 is the best."""
    root = tmp_path_factory.mktemp("trained") / "run"
    run = trained_run(root, name="tiny", export={"formats": ["hf", "gguf"]})
    size = Tokenizer.load(root / "tokenize").vocab_size
    add_checkpoint(run, tiny_model(size, seed=2), step=9)
    shutil.rmtree(root / "train/checkpoints/step-000007")
    add_checkpoint(run, tiny_model(size), step=7)
    write_lock(run.root, run.recipe)
    return root


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of it; llama.cpp and transformers have their own tests."""
    shutil.copytree(trained, tmp_path / "run")
    monkeypatch.setattr(parity, "package_version", lambda name: "")
    return opened(tmp_path / "run")


def opened(root: Path, *more: tuple[str, str, str], redo: str = "") -> Run:
    recipe = by_hand(root, *more[0]) if more else by_hand(root, "hf", "", "")
    return Run(
        root,
        (
            recipe
            if more
            else dataclasses.replace(recipe, export=dataclasses.replace(recipe.export, more=()))
        ),
        redo=frozenset({redo}),
    )


def add_tuned(run: Run, seed: int = 3) -> None:
    """Publish the view `tune` as the stage leaves it: another model, which chats."""
    base = run.root / "train/checkpoints/step-000007"
    model = tiny_model(load_model(base).config.vocab_size, seed)

    def build(folder: Path) -> dict[str, object]:
        write_model(folder / "model", model, base)
        return {}

    artifact = run.store.build(Step("tune/model", "tuned", 1, {"seed": seed}), build, {})
    run.store.publish(
        "tune", {name: artifact.path / name for name in artifact.manifest["files"]}, [artifact]
    )


def names(run: Run) -> set[str]:
    return {path.name for path in (run.root / "export").iterdir()} - {"manifest.json"}


def models(run: Run) -> dict[str, str]:
    return {
        name: entry["model"] for name, entry in read_json(run.root / "export/parity.json").items()
    }


def test_the_recipe_gives_plain_names(run: Run) -> None:
    """Folder, file and one list of what each was compared with; nothing is done twice."""
    export(run)
    assert names(run) == {"hf", "model-f16.gguf", "parity.json"}
    assert models(run) == {"hf": "step-000007", "model-f16.gguf": "step-000007"}
    assert fields(run.root / "export/model-f16.gguf")["general.name"] == "tiny"
    again = opened(run.root)
    export(again)
    assert again.built == 0


@pytest.mark.parametrize(
    ("form", "kind", "which", "name", "model"),
    [
        ("hf", "", "best", "hf", "step-000007"),
        ("hf", "", "last", "hf-step-000009", "step-000009"),
        ("gguf", "f32", "step-9", "model-step-000009-f32.gguf", "step-000009"),
        ("gguf", "bf16", "best", "model-bf16.gguf", "step-000007"),
    ],
)
def test_each_model_by_hand(
    run: Run, form: str, kind: str, which: str, name: str, model: str
) -> None:
    """Another model than the run's carries its name; the recipe's exports stand beside it."""
    export(opened(run.root, (form, kind, which)))
    assert place(run.root, form, kind, which) == run.root / "export" / name
    assert names(run) == {"hf", "model-f16.gguf", "parity.json", name}
    assert models(run)[name] == model


def test_what_was_asked_for_stays(run: Run) -> None:
    """A later run keeps it, follows the model that it names, and `--redo export` takes it back."""
    export(opened(run.root, ("gguf", "q8_0", "last")))
    export(opened(run.root, ("hf", "", "step-9")))
    by_hand = {"hf-step-000009", "model-step-000009-q8_0.gguf"}
    later = opened(run.root)
    export(later)
    assert later.built == 0 and names(run) >= by_hand
    add_checkpoint(
        run, tiny_model(Tokenizer.load(run.root / "tokenize").vocab_size, seed=4), step=12
    )
    export(opened(run.root))
    # The best is the new one, and so is the last; step 9 is still asked for.
    assert names(run) == {
        "hf",
        "model-f16.gguf",
        "model-q8_0.gguf",
        "hf-step-000009",
        "parity.json",
    }
    assert models(run)["model-q8_0.gguf"] == "step-000012"
    export(opened(run.root, redo="export"))
    assert names(run) == {"hf", "model-f16.gguf", "parity.json"}


def test_a_model_that_is_gone_leaves_the_others(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    export(opened(run.root, ("hf", "", "step-9")))
    shutil.rmtree(run.root / "train/checkpoints/step-000009")
    export(opened(run.root))
    assert "hf-step-000009" not in names(run) and "no checkpoint step-9" in capsys.readouterr().err


def test_a_model_that_never_was_is_an_error(run: Run) -> None:
    for which in ("step-8", "tuned", "newest", "../hf"):
        with pytest.raises(GroundupError, match="there is no"):
            by_hand(run.root, "hf", "", which)


def test_a_tuned_model_is_the_runs_model(run: Run) -> None:
    """It takes the plain names; its template and its ends survive into both forms; the checkpoint
    is there by name.
    """
    add_tuned(run)
    export(opened(run.root, ("gguf", "f32", "best")))
    assert models(run) == {
        "hf": "tuned",
        "model-f16.gguf": "tuned",
        "model-step-000007-f32.gguf": "step-000007",
    }
    tuned, hf = find_model(run.root).path, run.root / "export/hf"
    assert (
        json.loads((hf / CONFIG).read_text())["chat_template"]
        == json.loads((tuned / CONFIG).read_text())["chat_template"]
    )
    assert json.loads((hf / CONFIG).read_text())["eos_token"] == "<|im_end|>"
    assert json.loads((hf / "generation_config.json").read_text())["eos_token_id"] == [2, 0]
    table = fields(run.root / "export/model-f16.gguf")
    assert "<|im_start|>assistant" in table["tokenizer.chat_template"]
    assert (table["tokenizer.ggml.eos_token_id"], table["tokenizer.ggml.eot_token_id"]) == (2, 2)
    assert "tokenizer.chat_template" not in fields(run.root / "export/model-step-000007-f32.gguf")
    before = (hf / "model.safetensors").read_bytes()
    add_tuned(run, seed=5)
    export(opened(run.root))
    assert (hf / "model.safetensors").read_bytes() != before


@pytest.mark.skipif(not parity.package_version("transformers"), reason="needs transformers")
@needs_llama
def test_a_tuned_model_chats_everywhere(trained: Path, tmp_path: Path) -> None:
    """Both programs write a conversation as we do and stop where an answer ends; without a template
    neither would.
    """
    shutil.copytree(trained, tmp_path / "run")
    run = opened(tmp_path / "run")
    add_tuned(run)
    export(run)
    found = read_json(run.root / "export/parity.json")
    assert found["hf"]["chats"] == found["model-f16.gguf"]["chats"] == len(parity.CHATS)
    assert found["model-f16.gguf"]["ends"] == 2
    from groundup.export.source_model import read_source_model

    source, config = read_source_model(find_model(run.root).path, "tuned"), tmp_path / "wrong"
    shutil.copytree(run.root / "export/hf", config)
    (config / CONFIG).write_text((config / CONFIG).read_text().replace("assistant", "helper"))
    with pytest.raises(GroundupError, match="transformers writes the conversation"):
        parity.compare_ids(config, source, [])


def test_a_failed_gate_publishes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stood there before still stands, and a file that says something else is never in the
    store.
    """
    export(run)

    def differ(name: str, *rest: object) -> None:
        raise GroundupError(f"export: {name} differs")

    monkeypatch.setattr(gguf_file, "compare_weight", differ)
    with pytest.raises(GroundupError, match=r"token_embd\.weight differs"):
        export(opened(run.root, ("gguf", "f32", "")))
    assert names(run) == {"hf", "model-f16.gguf", "parity.json"}
    assert not list((run.root / ".store/export/gguf-f32").glob("*/*"))


def test_a_run_without_the_package_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(GroundupError, match="needs the package gguf"):
        export(run)
    export(opened_for(run.root, "hf"))
    assert names(run) == {"hf", "parity.json"}


def test_a_plan_finds_the_missing_package_before_the_training(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in run.recipe.source:
        (run.recipe.root / source.path).mkdir(parents=True)
        (run.recipe.root / source.path / "book.txt").write_text("A book.")
    assert make_plan(run.recipe, root=run.root).problems == ()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (problem,) = make_plan(run.recipe, root=run.root).problems
    assert "pip install 'groundup[export]'" in problem
    assert make_plan(opened_for(run.root, "hf").recipe, root=run.root).problems == ()


def opened_for(root: Path, *formats: str) -> Run:
    run = opened(root)
    return Run(root, dataclasses.replace(run.recipe, export=Export(formats=formats)))


def test_verify_finds_an_export_of_another_model(run: Run) -> None:
    """Its bytes are whole, but the model of that name has changed since."""
    export(opened(run.root, ("hf", "", "last")))
    assert list(check_exports(run.root)) == []
    shutil.rmtree(run.root / "train/checkpoints/step-000009")
    add_checkpoint(
        run, tiny_model(Tokenizer.load(run.root / "tokenize").vocab_size, seed=6), step=9
    )
    found = list(check_exports(run.root))
    assert len(found) >= 1 and all(
        "export/hf of step-000009: is of an earlier" in line
        for line in found
        if "step-000009" in line
    )


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [("config.json", '"head_dim": 32', '"head_dim": 16'), (CONFIG, "endoftext", "im_end")],
)
def test_verify_looks_into_a_folder(run: Run, file: str, old: str, new: str) -> None:
    export(run)
    view = run.store.view("export")
    assert view is not None
    (artifact,) = [
        a
        for e in view.manifest["artefacts"]
        if e["step"] == "export/hf" and (a := run.store.artifact(e))
    ]
    path = artifact.path / "hf" / file
    text = path.read_text()
    assert list(differences(run.root, artifact)) == [] and old in text
    path.chmod(0o644)
    path.write_text(text.replace(old, new))
    assert any("is not the model's" in line for line in differences(run.root, artifact))


def test_another_type_leaves_the_others(run: Run) -> None:
    """A type that is named twice is one file; what stands is not compared again."""
    export(run)
    recipe = opened(run.root).recipe
    more = Run(
        run.root,
        dataclasses.replace(
            recipe, export=dataclasses.replace(recipe.export, gguf_types=("f16", "f16", "q8_0"))
        ),
    )
    export(more)
    # The new file and the list.
    assert (more.built, more.reused) == (2, 2)
    assert names(run) == {"hf", "model-f16.gguf", "model-q8_0.gguf", "parity.json"}


def test_disk_of_exports_is_planned() -> None:
    assert exported_bytes(Export()) == 4
    assert exported_bytes(
        Export(formats=("hf", "gguf"), gguf_types=("f32", "q8_0"))
    ) == pytest.approx(9.0625)
    assert exported_bytes(Export(formats=("gguf",), gguf_types=("bf16",))) == 2


def test_a_type_of_the_wrong_form_is_one_line() -> None:
    with pytest.raises(GroundupError, match="add --format gguf"):
        cli(["export", "nowhere", "--type", "f32"], standalone_mode=False)


def test_names_of_steps_are_apart() -> None:
    """Two forms of one model are built side by side, and the guard counts each for itself."""
    steps = {
        ExportTarget("hf", "", "").step,
        ExportTarget("gguf", "f16", "").step,
        ExportTarget("gguf", "f32", "last").step,
    }
    assert steps == {"export/hf", "export/gguf-f16", "export/gguf-f32"}
