"""Runs every benchmark whose data is there, writes results/NAME.json, and RESULTS.md from all of
them.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from benchmarks import (
    bpe_encode,
    bpe_train,
    bzip2,
    checkpoint,
    contamination,
    continued,
    detection,
    duplicates,
    encodings,
    filters,
    fuzz,
    house,
    languages,
    lines,
    maintext,
    memory,
    pieces,
    pii,
    plagiarism,
    plan_memory,
    quality,
    ranks,
    raw_to_tokens,
    ray_nodes,
    refine,
    repair,
    scale,
    serve,
    starter,
    startup,
    train_peers,
    wikitext,
    wild,
    wild_packages,
)
from benchmarks.tables import document

HERE = Path(__file__).parent
BENCHMARKS = {
    "starter": starter.measure,
    "startup": startup.measure,
    "raw_to_tokens": raw_to_tokens.measure,
    "ray_nodes": ray_nodes.measure,
    "refine": refine.measure,
    "quality": quality.measure,
    "filters": filters.measure,
    "repair": repair.measure,
    "detection": detection.measure,
    "encodings": encodings.measure,
    "fuzz": fuzz.measure,
    "house": house.measure,
    "languages": languages.measure,
    "maintext": maintext.measure,
    "duplicates": duplicates.measure,
    "plagiarism": plagiarism.measure,
    "pii": pii.measure,
    "memory": memory.measure,
    "scale": scale.measure,
    "contamination": contamination.measure,
    "lines": lines.measure,
    "checkpoint": checkpoint.measure,
    "ranks": ranks.measure,
    "train_peers": train_peers.measure,
    "train_peers_124m": partial(train_peers.measure, "124m"),
    "plan_memory": plan_memory.measure,
    "bpe_train": bpe_train.measure,
    "continued": continued.measure,
    "bpe_encode": bpe_encode.measure,
    "bzip2": bzip2.measure,
    "pieces": pieces.measure,
    "wikitext": wikitext.measure,
    "wild": wild.measure,
    "wild_packages": wild_packages.measure,
    "serve": serve.measure,
}


def main() -> None:
    (HERE / "results").mkdir(exist_ok=True)
    chosen = sys.argv[1:] or list(BENCHMARKS)
    for name in chosen:
        print(f"{name} ...", flush=True)
        result = BENCHMARKS[name]()
        if result is None:
            print(f"{name}: skipped, its data is not there")
            continue
        (HERE / "results" / f"{name}.json").write_text(
            json.dumps(result, indent=1) + "\n", encoding="utf-8"
        )
    results = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((HERE / "results").glob("*.json"))
    }
    (HERE / "RESULTS.md").write_text(document(results), encoding="utf-8")


if __name__ == "__main__":
    main()
