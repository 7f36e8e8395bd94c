"""Mutations of real files for every reader: how many crash it, hang it, or cost what stands beside
the damage.

A mutation changes bytes, cuts, moves, repeats or inserts; files are real ones up to 20 kB, where
there are some, and a small one. The file is read in an archive between two whole ones, in a process
of 4 GB of addresses; of formats with records one record is damaged, too. A mutation hangs when it
takes 30 seconds of processor time.
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from benchmarks.machine import machine, test_data

MUTATIONS = int(os.environ.get("GROUNDUP_MUTATIONS", "10000"))


def measure() -> dict[str, object] | None:
    from tests.helpers.fuzz_files import SMALL
    from tests.helpers.mutations import fuzz

    failures: dict[str, list[str]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # Each reader has a process of its own, which a thread waits for.
        for reader, found in zip(
            SMALL, pool.map(lambda reader: fuzz(reader, MUTATIONS, test_data()), SMALL), strict=True
        ):
            failures[reader] = found
            print(f"{reader}: {len(found)} failures", *found[:5], sep="\n  ", flush=True)
    kinds = Counter(line.partition(":")[0] for lines in failures.values() for line in lines)
    figures: dict[str, object] = {"readers": len(SMALL), "mutations of each": MUTATIONS}
    figures |= {kind: kinds[kind] for kind in ("crashes", "hangs", "lost neighbours")}
    figures |= {f"{reader}: failures": len(lines) for reader, lines in failures.items()}
    return {"what": " ".join((__doc__ or "").split()), "figures": figures, "machine": machine()}
