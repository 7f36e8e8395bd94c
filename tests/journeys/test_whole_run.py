"""From raw text to an exported model by one command, and what a person then does with it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from groundup.commands.verify import CHECKS, check_bytes, check_raw, verify_run
from groundup.runtime.store import Store


def groundup(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "groundup", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_run_directory_is_as_promised(tiny_run: Path) -> None:
    for name in (
        "recipe.lock.toml",
        "collect/manifest.json",
        "refine/dropped/duplicates.parquet",
        "tokenize/tokenizer.json",
        "tokenize/index.parquet",
        "train/metrics.jsonl",
        "train/checkpoints/step-000006/model.safetensors",
        "evaluate/evaluation.json",
        "export/hf/model.safetensors",
        "report/report.json",
        "report/index.html",
        "report/README.md",
        "report/summary.txt",
    ):
        assert (tiny_run / name).is_file(), name
    columns = set(pq.read_schema(next((tiny_run / "refine/documents").glob("*.parquet"))).names)
    assert {"id", "text", "kind", "source", "origin", "group", "license", "language"} <= columns
    columns = set(pq.read_schema(tiny_run / "refine/dropped/duplicates.parquet").names)
    assert {"id", "origin", "reason", "score", "duplicate_of"} <= columns


def test_every_promise_is_verified(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_run(tiny_run), capsys.readouterr().out


def test_every_kind_has_documents_and_held_out_text(tiny_run: Path) -> None:
    facts = Store(tiny_run).view("tokenize").facts  # type: ignore[union-attr]
    for source in ("books", "wikipedia", "web", "code", "talk"):
        assert facts["sources"][source]["train"]["tokens"] > 0
        assert facts["sources"][source]["validation"]["tokens"] > 0


def test_every_figure_of_the_report_names_a_file_that_is_there(tiny_run: Path) -> None:
    figures = json.loads((tiny_run / "report/report.json").read_text())["figures"]
    assert len(figures) > 100
    for name, figure in figures.items():
        assert (tiny_run / figure["from"]).exists(), name
    assert figures["train.steps"]["value"] == 6
    assert figures["model.parameters"]["value"] > 0
    assert figures["tokens.train.tokens"]["value"] == sum(
        len(np.load(path, mmap_mode="r"))
        for path in (tiny_run / "tokenize/shards").glob("*.train.npy")
    )


def test_the_export_gives_the_same_ids_and_logits_in_transformers(tiny_run: Path) -> None:
    transformers = pytest.importorskip(
        "transformers",
        reason="transformers is not installed: exports are compared with our own loader only",
    )
    torch = pytest.importorskip("torch")
    from groundup.artifacts.tokenizer import Tokenizer
    from groundup.model.hf_io import load_model

    folder = tiny_run / "export" / "hf"
    text = "The quick brown fox’s naïve 日本語 \N{ZERO WIDTH JOINER}<|im_end|>\r\n\t12345"
    ids = transformers.AutoTokenizer.from_pretrained(folder)(text, split_special_tokens=True)[
        "input_ids"
    ]
    assert ids == Tokenizer.load(tiny_run / "tokenize").encode(text)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        wanted = theirs(torch.tensor([ids])).logits
        ours = load_model(folder)(torch.tensor([ids]))
    assert torch.allclose(ours, wanted, atol=1e-4)


def test_a_second_run_builds_nothing(run_copy: Path) -> None:
    done = groundup("run", run_copy, "--out", run_copy.parent / "runs" / "tiny")
    assert done.returncode == 0, done.stderr
    assert [
        line.split()[1]
        for line in done.stderr.splitlines()
        if line.split()[0] in ("collect", "refine", "train")
    ] == ["fresh"] * 3


def test_a_prompt_is_continued_and_the_same_seed_says_the_same(tiny_run: Path) -> None:
    one, two = (groundup("sample", tiny_run, "The", "--tokens", "20") for _ in range(2))
    assert one.returncode == 0, one.stderr
    assert len(one.stdout) > 1
    assert one.stdout == two.stdout


def test_inspect_goes_from_a_token_to_its_document_and_back(tiny_run: Path) -> None:
    told = groundup("inspect", tiny_run, "--token", "1000").stdout
    document = told.split(" of ")[1].split()[0]
    assert told.split(" of ", 1)[1] == groundup("inspect", tiny_run, "--document", document).stdout
    assert (
        "near_duplicate" in groundup("inspect", tiny_run).stdout
        or "malformed" in groundup("inspect", tiny_run).stdout
    )
    assert "not JSON" in groundup("inspect", tiny_run, "--dropped", "malformed").stdout
    unknown = groundup("inspect", tiny_run, "--document", "f" * 32)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)


def test_status_tells_every_stage(tiny_run: Path) -> None:
    state = json.loads(groundup("status", tiny_run, "--json").stdout)
    assert {stage["state"] for stage in state["stages"].values()} == {"done"}
    assert state["training"]["step"] == 6


@pytest.mark.parametrize("workers", ["1", "2"])
def test_documents_and_tokens_do_not_depend_on_the_number_of_workers(
    tiny_project: Path, tiny_run: Path, tmp_path: Path, workers: str
) -> None:
    done = groundup(
        "run", tiny_project, "--out", tmp_path / "run", "--until", "tokenize", "--workers", workers
    )
    assert done.returncode == 0, done.stderr
    for stage in ("collect", "refine", "tokenize"):
        one, two = Store(tmp_path / "run").view(stage), Store(tiny_run).view(stage)
        assert one is not None
        assert two is not None
        assert one.content == two.content


def test_verify_finds_what_a_hand_has_changed(
    run_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_copy.parent / "runs" / "tiny"
    raw = run_copy.parent / "raw" / "talk" / "talk.jsonl"
    raw.write_bytes(raw.read_bytes().replace(b"should", b"SHOULD", 1))
    shard = next((run / ".store" / "tokenize" / "shard").glob("*/train.npy"))
    shard.chmod(0o644)
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert not verify_run(run)
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    titles = [title for title, check in CHECKS.items() if check in (check_bytes, check_raw)]
    assert {line.removeprefix("FAIL ") for line in failed} >= set(titles)
