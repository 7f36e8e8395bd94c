"""The field's standard pipeline over texts, in a process of its own: datatrove with two workers, as
its example of FineWeb uses it, and its tokenization. Reads FOLDER/texts/*.jsonl and
FOLDER/tokenizer.json; prints its seconds.

    python pipeline_peers.py FOLDER

Nothing but the standard library and datatrove is imported, so that it runs in the virtual
environment that the benchmark makes for the peers. Main text of pages, and language, are left out:
the texts are ours, and its detector fetches a model.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

WORKERS = 2
BUCKETS = 14


def main(folder: Path) -> None:
    """Clean, filter, deduplicate and tokenize."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
    )
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.pipeline.writers.jsonl import JsonlWriter

    work = {
        name: str(folder / "datatrove" / name)
        for name in ("filtered", "signatures", "buckets", "clusters", "kept", "tokens")
    }

    def step(name: str, pipeline: list[Any], tasks: int = WORKERS) -> None:
        logs = str(folder / "datatrove" / "logs" / name)
        workers = min(tasks, WORKERS)
        LocalPipelineExecutor(
            pipeline=pipeline, tasks=tasks, workers=workers, logging_dir=logs
        ).run()

    start = time.perf_counter()
    filters = [
        JsonlReader(str(folder / "texts")),
        FTFYFormatter(),
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
        PIIFormatter(),
        JsonlWriter(work["filtered"]),
    ]
    step("filter", filters)
    reader = JsonlReader(work["filtered"])
    step("signatures", [reader, MinhashDedupSignature(output_folder=work["signatures"])])
    buckets = MinhashDedupBuckets(input_folder=work["signatures"], output_folder=work["buckets"])
    step("buckets", [buckets], tasks=BUCKETS)
    clusters = MinhashDedupCluster(input_folder=work["buckets"], output_folder=work["clusters"])
    step("clusters", [clusters], tasks=1)
    kept = [reader, MinhashDedupFilter(input_folder=work["clusters"]), JsonlWriter(work["kept"])]
    step("kept", kept)
    tokens = DocumentTokenizer(
        output_folder=work["tokens"],
        tokenizer_name_or_path=str(folder / "tokenizer.json"),
        eos_token="<|endoftext|>",
        save_final_metadata=False,
    )
    step("tokens", [JsonlReader(work["kept"]), tokens])
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
