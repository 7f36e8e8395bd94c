"""A dump packed as Wikipedia packs it, 100 pages a bzip2 stream: ours, which unpacks streams ahead,
beside the standard library.

By the clock, since the point is several cores, and by processor time, of which it should take no
more; the best of seven turns.
"""

from __future__ import annotations

import bz2
import io
import re
import time
from collections.abc import Callable

from benchmarks.machine import test_data
from benchmarks.peers import result
from groundup.collect.files.compression import Bzip2Stream

STREAMS, PAGES, ROUNDS = 12, 100, 7
OPENERS: dict[str, Callable[[io.BytesIO], Bzip2Stream | bz2.BZ2File]] = {
    "ours": Bzip2Stream,
    "bz2.BZ2File": bz2.BZ2File,
}


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    dump = bz2.decompress(next(data.glob("wikipedia/enwiki-latest*.bz2")).read_bytes())
    pages = re.findall(rb"<page>.*?</page>", dump, re.DOTALL)
    streams = [b"".join(pages[start : start + PAGES]) for start in range(0, len(pages), PAGES)]
    packed = b"".join(map(bz2.compress, streams)) * (STREAMS // len(streams))
    size = sum(map(len, streams)) * (STREAMS // len(streams)) / 1e6
    figures: dict[str, object] = {"MB": size, "MB packed": len(packed) / 1e6}
    # In turns, since others work on the machine.
    turns = [
        {name: unpacked(opener, packed) for name, opener in OPENERS.items()} for _ in range(ROUNDS)
    ]
    for name in OPENERS:
        rounds = [turn[name] for turn in turns]
        figures[f"MB/s by the clock, {name}"] = size / min(seconds for seconds, _ in rounds)
        figures[f"MB/s of processor time, {name}"] = size / min(
            processor for _, processor in rounds
        )
    found = result(None, figures)
    return found | {"what": " ".join((__doc__ or "").split())}


def unpacked(
    opener: Callable[[io.BytesIO], Bzip2Stream | bz2.BZ2File], packed: bytes
) -> tuple[float, float]:
    start, processor = time.perf_counter(), time.process_time()
    stream = opener(io.BytesIO(packed))
    while stream.read(1 << 16):
        pass
    return time.perf_counter() - start, time.process_time() - processor
