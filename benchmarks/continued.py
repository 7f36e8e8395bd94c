"""Going on from existing weights: how much do lower learning rates keep of the old text, and learn
of the new?

A small model learns Python's own library as code, then goes on with the prose of Python's manual,
at shares of the default rates. Nothing is downloaded.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from pydoc_data.topics import topics  # type: ignore[import-not-found]

from benchmarks.machine import machine

SHARES = (1.0, 0.3, 0.1, 0.03)
RATE, MUON_RATE = 0.01, 0.02
RECIPE = """
seed = 1
[[source]]
name = "code"
kind = "code"
path = "code"
weight = {code}
[[source]]
name = "manual"
path = "manual"
weight = {manual}
[refine]
filters = []
[tokenize]
validation = 0.1
{tokenize}
[model]
{model}
[train]
steps = {steps}
batch_tokens = 2_048
warmup_steps = 20
checkpoint_every = 1_000
validate_every = {steps}
validation_tokens = 32_768
micro_batch = 16
precision = "fp32"
compile = "off"
threads = 1
sample_seconds = 1_000
"""


def measure() -> dict[str, object]:
    """Return the validation losses of both texts, before going on and after it at each share of the
    rates.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _raw(folder)
        first = {
            "code": 1.0,
            "manual": 0.0,
            "tokenize": "vocab_size = 2_048",
            "model": 'preset = "tiny"',
            "steps": 400,
        }
        _train(folder, "first", RECIPE.format(**first))
        figures: dict[str, float] = {}
        for share in SHARES:
            second = {
                "code": 0.0,
                "manual": 1.0,
                "tokenize": "",
                "model": 'from = "runs/first"',
                "steps": 100,
            }
            # Raw text is the same, so the first run's documents stay fresh.
            shutil.copytree(folder / "runs" / "first", folder / "runs" / f"share-{share}")
            rates = [
                f"train.learning_rate={share * RATE}",
                f"train.muon_learning_rate={share * MUON_RATE}",
            ]
            lines = _train(folder, f"share-{share}", RECIPE.format(**second), *rates)
            figures |= _losses("before", lines[0]) if not figures else {}
            figures |= _losses(f"after, {share:g} of the default rates", lines[-1])
    what = (
        "A 0.2M model of code goes on with prose for 100 steps of 2,048 tokens: nats a token of"
        " held-out text, old (code) and new (prose)."
    )
    return {"what": what, "figures": figures, "machine": machine()}


def _losses(when: str, line: dict[str, float]) -> dict[str, float]:
    return {
        f"{when}: old": round(line["validation_loss.code"], 3),
        f"{when}: new": round(line["validation_loss.manual"], 3),
    }


def _raw(folder: Path) -> None:
    library = Path(sysconfig.get_paths()["stdlib"])
    for package in ("asyncio", "email", "json", "logging", "unittest", "http"):
        shutil.copytree(
            library / package,
            folder / "code" / package,
            ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
        )
    (folder / "manual").mkdir()
    for number, (_, text) in enumerate(sorted(topics.items())):
        (folder / "manual" / f"{number:03}.txt").write_text(text, encoding="utf-8")


def _train(folder: Path, name: str, recipe: str, *overrides: str) -> list[dict[str, float]]:
    """Run a recipe as far as training; return the lines of its metrics that hold a validation
    loss.
    """
    path, root = folder / f"{name}.toml", folder / "runs" / name
    path.write_text(recipe, encoding="utf-8")
    settings = [part for override in overrides for part in ("--set", override)]
    command = [
        sys.executable,
        "-m",
        "groundup",
        "run",
        str(path),
        "--out",
        str(root),
        "--until",
        "train",
        *settings,
    ]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    lines = [
        json.loads(line)
        for line in (root / "train" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return [line for line in lines if "validation_loss" in line]
