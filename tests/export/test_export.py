"""Export: what transformers reads is what was trained, and a folder that differs is never given
out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers.hostile import HOSTILE
from tests.helpers.trained import add_checkpoint, tiny_model, trained_run

from groundup.artifacts.tokenizer import Tokenizer
from groundup.cli import cli
from groundup.errors import GroundupError, RecipeError
from groundup.export import parity
from groundup.export.hf import write_folder
from groundup.export.source_model import read_source_model
from groundup.export.stage import run as export
from groundup.model.hf_io import load_model
from groundup.runtime.files import read_json
from groundup.runtime.run import Run

needs_transformers = pytest.mark.skipif(
    not parity.package_version("transformers"), reason="needs transformers"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    write_folder(
        tmp_path,
        read_source_model(run.root / "train/checkpoints/step-000007", "step-000007"),
        "test",
    )
    return tmp_path


def check(run: Run, folder: Path) -> dict[str, object]:
    checkpoint = run.root / "train/checkpoints/step-000007"
    return parity.check(
        folder,
        read_source_model(checkpoint, checkpoint.name),
        load_model(checkpoint),
        ["the cat sat"],
        1,
    )


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@needs_transformers
def test_the_export_is_compared_and_published(run: Run) -> None:
    """The folder is whole, compared with transformers, and not made again."""
    export(run)
    found = read_json(run.root / "export/parity.json")["hf"]
    assert found["transformers"] == parity.package_version("transformers")
    assert found["own_max_difference"] == 0
    assert found["max_difference"] < 1e-3 and found["ids"] > 1000
    names = {path.name for path in (run.root / "export/hf").iterdir()}
    assert names >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "README.md",
    }
    run.built = 0
    export(run)
    assert run.built == 0


@needs_transformers
def test_transformers_generates_what_we_generate(run: Run, folder: Path) -> None:
    """Greedy text of both, through their cache and ours, and the end-of-text id stops theirs."""
    from transformers import AutoModelForCausalLM

    from groundup.model.generate import generate

    theirs: Any = AutoModelForCausalLM.from_pretrained(folder)
    prompt = [0, 50, 60, 70]
    ours = list(generate(load_model(folder), prompt, 12, temperature=0, stop={0}))
    found = theirs.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[
        0, 4:
    ].tolist()
    assert found[: len(ours)] == ours and found[len(ours) :] in ([], [0])
    assert theirs.generation_config.eos_token_id == 0


@needs_transformers
def test_a_changed_weight_or_setting_fails(run: Run, folder: Path) -> None:
    """Each of these loads without complaint, and says something else."""
    before = (folder / "config.json").read_text()
    theirs = parity._transformers_logits(folder, rows := [torch.arange(9)])
    for changes in ({"rms_norm_eps": 0.1}, {"rope_theta": 500.0}):
        edit(folder / "config.json", **changes)
        with pytest.raises(GroundupError, match="export: logits"):
            check(run, folder)
        with pytest.raises(GroundupError, match="export: logits read by transformers"):
            parity.compare_logits(
                theirs, parity._transformers_logits(folder, rows), "read by transformers"
            )
        (folder / "config.json").write_text(before)
    from groundup.model.hf_io import save_model

    save_model(folder, tiny_model(load_model(folder).config.vocab_size, seed=2))
    with pytest.raises(GroundupError, match="export: logits"):
        check(run, folder)


@needs_transformers
def test_another_tokenizer_fails(run: Run, folder: Path) -> None:
    """The trap of transformers 5: by the name of Qwen's class it builds Qwen's splitter and
    normalizer.
    """
    table = json.loads((folder / "tokenizer.json").read_text())
    source = read_source_model(run.root / "train/checkpoints/step-000007", "step-000007")
    assert parity.compare_ids(folder, source, HOSTILE)["ids"] > 0
    table["normalizer"] = {"type": "NFC"}
    (folder / "tokenizer.json").write_text(json.dumps(table))
    with pytest.raises(GroundupError, match="tokenizes"):
        parity.compare_ids(folder, source, HOSTILE)


@needs_transformers
def test_a_mismatch_commits_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate fails the stage; there is no folder that someone could load by mistake."""
    made = trained_run(tmp_path)
    monkeypatch.setattr(
        parity,
        "_transformers_logits",
        lambda folder, rows: [torch.full((len(r), 1), float("nan")) for r in rows],
    )
    with pytest.raises(GroundupError, match="differ by nan"):
        export(made)
    assert not (tmp_path / "export").exists()
    assert not list((tmp_path / ".store/export").glob("*/*/manifest.json"))


def test_without_transformers_it_says_so(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The export still works, and does not claim a comparison that was not made."""
    monkeypatch.setattr(parity, "package_version", lambda name: "")
    found = check(run, folder)
    assert found["transformers"] is None and "not installed" in str(found["note"])
    assert found["own_max_difference"] == 0


def test_another_checkpoint_is_exported_again(tmp_path: Path) -> None:
    """The key holds the content of the checkpoint."""
    run = trained_run(tmp_path)
    export(run)
    run.built = 0
    add_checkpoint(
        run, tiny_model(Tokenizer.load(tmp_path / "tokenize").vocab_size, seed=2), step=9
    )
    export(run)
    assert run.built == 2  # the folder, and the list of what was compared
    assert "step-000009" in (tmp_path / "export/hf/README.md").read_text()


def test_logits_that_are_no_numbers_fail() -> None:
    """NaN compares as equal to nothing, and must not pass as no difference."""
    ones = [torch.ones(2, 3)]
    assert parity.compare_logits(ones, ones, "x") == 0
    for wrong in (torch.nan, 2.0):
        with pytest.raises(GroundupError, match="differ by"):
            parity.compare_logits(ones, [torch.full((2, 3), wrong)], "x")


@pytest.mark.parametrize("command", [["plan"], ["run", "--out", "run"]])
def test_an_unknown_format_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Names of formats are the registry's, so the recipe itself takes any text."""
    monkeypatch.chdir(tmp_path)
    Path("x.txt").write_text("One text.")
    Path("r.toml").write_text('[[source]]\npath = "x.txt"\n[export]\nformats = ["hf", "onnx"]\n')
    message = r'^\[export\] formats: "onnx" is not one of hf, gguf$'
    with pytest.raises(RecipeError, match=message):
        cli([command[0], "r.toml", *command[1:]], standalone_mode=False)
    assert not Path("run/collect").exists() and not Path("run/plan.json").exists()
