"""A training's life, lived: `python -m benchmarks.life` makes a small run, changes it, kills it and
poisons it, and writes docs/training-life.md with what it printed. About two minutes on two cores;
nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from pydoc_data.topics import topics  # type: ignore[import-not-found]

PAGE = Path(__file__).parent.parent / "docs" / "training-life.md"
TEMPLATE = Path(__file__).parent / "life.md"
RECIPE = """name = "life"
seed = {seed}

[[source]]
path = "raw"

[refine]
filters = []

[tokenize]
vocab_size = 1_024

[model]
preset = "tiny"
context = 128

[train]
steps = 240
batch_tokens = 256
learning_rate = 0.01
warmup_steps = 20
checkpoint_every = 20
validate_every = 80
validation_tokens = 4_096
threads = 1
sample_seconds = 1_000
# Batches of two sequences are noisy, and a spike in them is small; the default is 16.
guard = 8.0
"""
POISON = "\N{SNOWMAN} " * 1_200


def project(folder: Path, seed: int) -> Path:
    """Python's own language reference as raw text, and one file that repeats a character."""
    (folder / "raw").mkdir()
    for number, (name, text) in enumerate(sorted(topics.items())):
        (folder / "raw" / f"{number:03}-{re.sub(r'[^a-z]', '', name.lower())}.txt").write_text(
            text, encoding="utf-8"
        )
    (folder / "raw" / "poison.txt").write_text(POISON, encoding="utf-8")
    (folder / "recipe.toml").write_text(RECIPE.format(seed=seed), encoding="utf-8")
    return folder / "runs" / "life"


def groundup(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "groundup", *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        text=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    metrics = run / "train" / "metrics.jsonl"
    while process.poll() is None:
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        if any(json.loads(line)["step"] >= step for line in lines[:-1]):
            return
        time.sleep(0.02)
    raise SystemExit(
        f"the run ended before step {step}: {process.stderr.read() if process.stderr else ''}"
    )


def said(process: subprocess.Popen[str]) -> str:
    """What a finished process printed about training, bars left out."""
    _, errors = process.communicate()
    lines = [line.rstrip() for line in errors.replace("\r", "\n").split("\n")]
    return "\n".join(
        line
        for line in lines
        if line
        and "step/s" not in line
        and not line.startswith(("collect", "refine", "tokeniz", "index"))
    )


def live(folder: Path, seed: int) -> dict[str, str]:
    """Live through it all and return what was printed at each turn."""
    run, found = project(folder, seed), {"recipe": RECIPE.format(seed=seed).strip()}
    arguments = ("run", "recipe.toml", "--until", "train")
    process = groundup(folder, *arguments)
    wait_for_step(run, 30, process)
    status = groundup(folder, "status", "runs/life").communicate()[0]
    found["status"] = "\n".join(line for line in status.splitlines() if line.startswith("training"))
    text = (
        (folder / "recipe.toml")
        .read_text()
        .replace("learning_rate = 0.01", "learning_rate = 0.005")
        .replace("steps = 240", "steps = 260")
    )
    (folder / "recipe.toml").write_text(text)
    process.send_signal(signal.SIGHUP)
    wait_for_step(run, 60, process)
    os.killpg(process.pid, signal.SIGKILL)
    found["start"] = said(process)
    found["crash"] = "\n".join(
        sorted(path.name for path in (run / "train" / "checkpoints").iterdir())
    )
    process = groundup(folder, *arguments)
    found["resume"] = said(process)
    found["again"] = said(groundup(folder, *arguments))
    incidents = sorted((run / "train" / "incidents").glob("*.json"))
    if process.returncode or not incidents:
        raise SystemExit(f"seed {seed}: no incident, or the run failed: {found['resume']}")
    incident = json.loads(incidents[0].read_text())
    incident["norms"] = dict(
        sorted(incident["norms"].items(), key=lambda item: -float(item[1]["gradient"]))[:2]
    )
    incident["sequences"] = incident["sequences"][:1]
    found["incident"] = f"{incidents[0].relative_to(run)}\n{json.dumps(incident, indent=1)}"
    events = [
        json.loads(line) for line in (run / "train" / "ledger.jsonl").read_text().splitlines()
    ]
    shown = [
        {name: value for name, value in event.items() if name not in ("settings", "machine")}
        for event in events
    ]
    found["ledger"] = "\n".join(json.dumps(event) for event in shown)
    best = json.loads((run / "train" / "best.json").read_text())
    state = json.loads((run / "train" / "checkpoints" / "step-000260" / "state.json").read_text())
    short = {name: state[name] for name in ("step", "tokens", "spans", "skipped", "best_step")} | {
        "refused": state["guard"]["refused"]
    }
    found["end"] = f"best.json   {json.dumps(best)}\nstate.json  {json.dumps(short)}"
    return found


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    with tempfile.TemporaryDirectory() as folder:
        found = live(Path(folder), seed)
    page = TEMPLATE.read_text(encoding="utf-8")
    for name, text in found.items():
        page = page.replace("{" + name + "}", text.replace(folder, "."))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
