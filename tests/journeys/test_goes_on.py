"""A second recipe goes on from a first run, and from a model of other programs, by one command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.helpers.hf_models import write_folder

from groundup.artifacts.metrics import Metrics
from groundup.commands.verify import verify_run
from groundup.runtime.files import file_digest


def go_on(recipe: Path, base: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Change the recipe to go on from `base`, and run it where a run of it stands: what is raw text
    to it stays fresh.
    """
    text = (
        recipe.read_text()
        .replace("vocab_size = 512\n", "")
        .replace('preset = "tiny"', f"from = {json.dumps(str(base))}")
    )
    recipe.write_text(text)
    command = [
        sys.executable,
        "-m",
        "groundup",
        "run",
        str(recipe),
        "--out",
        str(recipe.parent / "runs" / "tiny"),
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_the_second_run_begins_where_the_first_ended(tiny_run: Path, run_copy: Path) -> None:
    # Protects: the same weights on the same tokens have the same validation loss, to the last
    # digit.
    done = go_on(run_copy, tiny_run / "train" / "checkpoints" / "step-000006", "--until", "train")
    assert done.returncode == 0, done.stderr
    assert "collect   fresh" in done.stderr and "refine    fresh" in done.stderr
    second = run_copy.parent / "runs" / "tiny"
    losses = [
        [line for line in Metrics(root / "train/metrics.jsonl").read() if "validation_loss" in line]
        for root in (tiny_run, second)
    ]
    assert (losses[0][-1]["step"], losses[1][0]["step"]) == (6, 0)
    assert losses[1][0]["validation_loss"] == losses[0][-1]["validation_loss"]
    assert file_digest(second / "tokenize/tokenizer.json") == file_digest(
        tiny_run / "tokenize/tokenizer.json"
    )


def test_a_llama_goes_all_the_way(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Protects: evaluate, tune, export, report and verify with heads that are not normalized, a head
    # of its own, and no ChatML.
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    folder = write_folder(run_copy.parent / "llama", max_position_embeddings=128)
    done = go_on(run_copy, folder)
    assert done.returncode == 0, done.stderr
    root = run_copy.parent / "runs" / "tiny"
    assert verify_run(root), capsys.readouterr().out
    assert (
        type(transformers.AutoModelForCausalLM.from_pretrained(root / "export/hf")).__name__
        == "LlamaForCausalLM"
    )
    report = json.loads((root / "report/report.json").read_text())
    assert (
        report["base"] == {"name": "llama", "license": ""}
        and report["figures"]["model.layout"]["value"] == "llama"
    )
    assert "license: not stated" in (root / "report/README.md").read_text()


def test_what_is_refused_is_one_line_before_anything_is_done(run_copy: Path) -> None:
    # Protects: nothing of a finished run is touched for a model that cannot be gone on from.
    folder = write_folder(run_copy.parent / "llama")
    table = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(table | {"attention_bias": True}))
    done = go_on(run_copy, folder)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert (
        f"{folder / 'config.json'}: attention_bias is True; only False can be read" in done.stderr
    )
