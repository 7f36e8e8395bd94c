"""A process that runs llama.cpp, which may crash: it loads a GGUF file and serves it on loopback.

Run as `python -m groundup.export.llama_worker`. The first line on stdin is the job as JSON: path,
context, threads, key. On stdout the worker writes {"system"} once the library runs at all, and
{"address"} once the file is loaded. It serves until stdin closes.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    """Load the file and wait."""
    job = json.loads(sys.stdin.readline())
    # The library also writes to stdout, so answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import xllamacpp

    print(json.dumps({"system": xllamacpp.get_system_info()}), file=answers, flush=True)
    # Plain arithmetic on the CPU: float32 cache, no fused attention.
    parameters = xllamacpp.CommonParams()
    parameters.model.path = job["path"]
    parameters.n_ctx = job["context"]
    parameters.n_parallel = 1
    parameters.n_gpu_layers = 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = job["threads"]
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    attention = xllamacpp.llama_flash_attn_type
    parameters.flash_attn_type = attention.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.check_tensors = True
    parameters.warmup = False
    parameters.cache_ram_mib = 0
    parameters.port = 0
    # Other programs on this machine can reach the port; only the parent knows the key.
    parameters.api_keys = [job["key"]]
    server = xllamacpp.Server(parameters)
    print(json.dumps({"address": server.listening_address}), file=answers, flush=True)
    sys.stdin.read()
    # Skip the destructors of the library: there is nothing to save, and they may crash.
    os._exit(0)


if __name__ == "__main__":
    main()
