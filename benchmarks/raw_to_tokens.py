"""From raw files to tokens with two workers: megabytes a second by stage, and beside datatrove.

The raw files are a corpus of five kinds made from real ones (benchmarks/varied.py): books, a
Wikipedia dump in bzip2, web pages in WARC, archives of code, conversations in JSONL; their bytes
are counted unpacked. Ours is one command, with its start, and kernels compiled before. datatrove
gets a part of the texts that ours collected, evenly spread, since it would take an hour for all of
them; what it does is in benchmarks/pipeline_peers.py. MEGABYTES="400 1000 4000 10000" makes corpora
of several sizes, one after the other: speed and memory are to stay those of the first. What larger
corpora take is computed from these runs and the benchmarks scale and memory
(benchmarks/forecast.py).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks import dedup_peers, forecast, pipeline_peers
from benchmarks.machine import machine, test_data, watched_tree
from benchmarks.varied import make_corpus

MEGABYTES = tuple(map(int, os.environ.get("MEGABYTES", "400").split()))
STAGES = ("collect", "refine", "tokenize")
VOCABULARY, WORKERS = 50_000, 2
# The kernels are compiled by a run of so many megabytes.
SMALL_MEGABYTES = 4
# Disk for each byte of raw files, unpacked: they themselves, and what the run writes.
DISK_BYTES = 4
# Of text, for datatrove.
PEER_MEGABYTES = 12


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    figures: dict[str, object] = {}
    runs: list[forecast.Costs] = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("SCRATCH")) as name:
        run(Path(name), make_corpus(data, Path(name), SMALL_MEGABYTES)[0])
    for megabytes in sorted(MEGABYTES):
        with tempfile.TemporaryDirectory(dir=os.environ.get("SCRATCH")) as name:
            if shutil.disk_usage(name).free < megabytes * 1e6 * DISK_BYTES:
                figures[f"{megabytes} MB: left out"] = "the disk is too small"
                continue
            try:
                measured, of_run = one_size(data, Path(name), megabytes, first=not runs)
            except subprocess.CalledProcessError as error:
                # What smaller ones gave took an hour.
                figures[f"{megabytes} MB: left out"] = str(error.stdout or error)[-200:]
                continue
        figures |= measured
        runs.append(of_run)
    if runs:
        figures |= curve(figures, [n for n in sorted(MEGABYTES) if f"{n} MB: seconds" in figures])
        figures |= forecast.forecast(runs)
    what = " ".join((__doc__ or "").split())
    return {"what": what, "figures": figures, "machine": machine()}


def one_size(
    data: Path, folder: Path, megabytes: int, first: bool
) -> tuple[dict[str, object], forecast.Costs]:
    """Return the figures and the costs of one corpus; the first one is compared with datatrove."""
    sources, raw = make_corpus(data, folder, megabytes)
    load = os.getloadavg()[0]
    of_run = run(folder, sources)
    figures = {f"{megabytes} MB: {key}": value for key, value in speeds(of_run, raw).items()}
    figures[f"{megabytes} MB: others' load before it (processes)"] = load
    if first:
        figures |= beside_datatrove(folder, of_run["seconds"], raw)
    return figures, forecast.costs(of_run["root"], raw)


def curve(figures: Mapping[str, Any], sizes: Sequence[int]) -> dict[str, object]:
    """Return speed and memory of each size, as shares of those of the first."""
    shares: dict[str, object] = {}
    for name in ("MB/s of raw files, end to end", "peak memory (GB)"):
        for size in sizes[1:]:
            share = figures[f"{size} MB: {name}"] / figures[f"{sizes[0]} MB: {name}"]
            shares[f"{size} MB: {name}, as a share of that of {sizes[0]} MB"] = share
    return shares


def run(folder: Path, sources: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Run a recipe to its tokens in a process of its own; return its ledger, time and memory."""
    recipe = write_recipe(folder, sources)
    command = [sys.executable, "-m", "groundup", "run", str(recipe), "--out", str(folder / "run")]
    start = time.perf_counter()
    peak = watched_tree([*command, "--until", "tokenize", "--workers", str(WORKERS)])
    seconds = time.perf_counter() - start
    events = [json.loads(line) for line in (folder / "run" / "ledger.jsonl").open()]
    ended = {event["stage"]: event for event in events if event.get("event") == "finished"}
    return {"seconds": seconds, "peak": peak, "stages": ended, "root": folder / "run"}


def write_recipe(folder: Path, sources: Sequence[Mapping[str, str]]) -> Path:
    """Write a recipe of these sources and return its file."""
    lines = ['name = "speed"', "[tokenize]", f"vocab_size = {VOCABULARY}"]
    for source in sources:
        lines += ["[[source]]", *(f"{key} = {json.dumps(value)}" for key, value in source.items())]
    recipe = folder / "recipe.toml"
    recipe.write_text("\n".join(lines) + "\n")
    return recipe


def speeds(of_run: Mapping[str, Any], raw: int) -> dict[str, object]:
    """Return seconds, megabytes a second and limit of each stage and of the whole."""
    figures: dict[str, object] = {"raw (MB)": raw / 1e6, "seconds": of_run["seconds"]}
    figures["MB/s of raw files, end to end"] = raw / 1e6 / of_run["seconds"]
    figures["peak memory (GB)"] = of_run["peak"]
    for stage in STAGES:
        event = of_run["stages"][stage]
        read = raw if stage == "collect" else event["bytes_in"]
        figures[f"{stage}: MB in"] = read / 1e6
        figures[f"{stage}: seconds"] = event["seconds"]
        figures[f"{stage}: MB/s"] = read / 1e6 / event["seconds"]
        figures[f"{stage}: processor seconds a raw GB"] = event["processor_seconds"] / raw * 1e9
        figures[f"{stage}: peak memory (GB)"] = event["peak_bytes"] / 1e9
        figures[f"{stage}: limited by"] = event["limit"]
    return figures


def beside_datatrove(folder: Path, seconds: float, raw: int) -> dict[str, object]:
    """Return datatrove's speed on a part of the texts, and ours on all of them."""
    documents = sorted((folder / "run" / "collect" / "documents").glob("*.parquet"))
    texts = [text for path in documents for text in pq.read_table(path, columns=["text"])["text"]]
    size = sum(len(text.as_buffer()) for text in texts)
    step = max(1, round(size / 1e6 / PEER_MEGABYTES))
    taken = [text.as_py() for text in texts[::step]]
    with tempfile.TemporaryDirectory() as name:
        peer = Path(name)
        (peer / "texts").mkdir()
        for part in range(pipeline_peers.WORKERS):
            lines = (json.dumps({"id": str(n), "text": t}) for n, t in enumerate(taken[part::2]))
            (peer / "texts" / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
        tokenizer = (folder / "run" / "tokenize" / "tokenizer.json").read_bytes()
        (peer / "tokenizer.json").write_bytes(tokenizer)
        python = dedup_peers.interpreter(peer / "venv", ("datatrove", "spacy"))
        if python is None:
            return {}
        command = [python, "-P", pipeline_peers.__file__, str(peer)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    theirs = sum(len(text.encode()) for text in taken) / 1e6 / float(out.split()[-1])
    ours = size / 1e6 / seconds
    return {
        "text to tokens: MB/s, datatrove": theirs,
        "text to tokens: MB/s, ours with collecting it": ours,
        "text to tokens: times faster": ours / theirs,
    }
