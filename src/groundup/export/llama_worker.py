"""A process of its own for llama.cpp, which may crash. Reads a GGUF file named on stdin; serves it
on loopback until stdin closes.

Run as `python -m groundup.export.llama_worker`. The first line of stdin is the job as JSON (path,
context, threads, key); on stdout go {"system"} once the library runs at all, then {"address"} once
the file is loaded.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    """Load the file and wait."""
    job = json.loads(sys.stdin.readline())
    # The library writes to stdout too, which is kept for answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import xllamacpp

    _say(answers, {"system": xllamacpp.get_system_info()})
    server = xllamacpp.Server(_parameters(xllamacpp, **job))
    _say(answers, {"address": server.listening_address})
    sys.stdin.read()
    # Without the destructors of the library: there is nothing to save, and a crash in them would
    # say nothing.
    os._exit(0)


def _say(answers: Any, line: dict[str, str]) -> None:
    answers.write(json.dumps(line) + "\n")
    answers.flush()


def _parameters(library: Any, path: str, context: int, threads: int, key: str) -> Any:
    """Plain arithmetic on the CPU: keys and values in float32, attention by separate products,
    nothing off to a GPU.
    """
    chosen = library.CommonParams()
    chosen.model.path = path
    chosen.n_ctx = context
    chosen.n_parallel = 1
    chosen.n_gpu_layers = 0
    chosen.cpuparams.n_threads = chosen.cpuparams_batch.n_threads = threads
    chosen.cache_type_k = chosen.cache_type_v = library.ggml_type.GGML_TYPE_F32
    chosen.flash_attn_type = library.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    chosen.check_tensors = True
    chosen.warmup = False
    chosen.cache_ram_mib = 0
    chosen.port = 0
    # Of this process's parent alone: other programs of the machine reach the port too.
    chosen.api_keys = [key]
    return chosen


if __name__ == "__main__":
    main()
