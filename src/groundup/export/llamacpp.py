"""Compares what llama.cpp makes of a GGUF file with the model that the file holds.

llama.cpp (the wheel `xllamacpp`) runs in a process of its own, llama_worker.py, and is asked over
HTTP on loopback. It returns no raw logits, but the log-probabilities of the whole vocabulary, which
are the logits up to a constant per position. The first difference is a GroundupError.
"""

from __future__ import annotations

import contextlib
import json
import math
import secrets
import signal
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from groundup.artifacts.chat import encode_prompt
from groundup.artifacts.tokenizer import PROBES
from groundup.errors import GroundupError
from groundup.export import parity
from groundup.export.parity import CHATS, compared_text, encode_with_specials, log_probabilities
from groundup.export.source_model import SourceModel
from groundup.model.transformer import Transformer
from groundup.runtime.workers.map import default_workers

# How far a log-probability in llama.cpp may lie from ours, as a share of the largest one. Both have
# the same rounded weights, but llama.cpp also rounds the vectors that meet them. Measured with
# xllamacpp 2026.10.11549 on 11 models (trained and random; 1 to 12 layers; heads of 32 to 128), the
# largest differences were 1.5e-6 in f32, 7.5e-4 in f16, 7.7e-3 in bf16 and 2.2e-2 in q8_0.
# Exchanged heads, rows in the wrong order, or another rotary base or epsilon give 0.3.
TOLERANCE = {"f32": 1e-4, "f16": 5e-3, "bf16": 5e-2, "q8_0": 0.15}

# Prefixes of each row whose next token is compared, and tokens of a greedy continuation.
PREFIXES, CONTINUED = 8, 32
# Context that llama.cpp gets; no row is longer.
CONTEXT = 512
SECONDS, LOADING_SECONDS = 300, 900
SMALL_BYTES = 64_000_000
PACKAGE = "xllamacpp"
# -P: do not import modules from the current folder.
WORKER = (sys.executable, "-P", "-m", "groundup.export.llama_worker")


class UnavailableError(Exception):
    """llama.cpp cannot run on this machine, whatever the file."""


def check(
    path: Path,
    source: SourceModel,
    gguf_type: str,
    model: Transformer,
    rows: Sequence[Tensor],
    texts: Sequence[str],
) -> dict[str, Any]:
    """Compare what llama.cpp computes from a file with the model in it; return what was compared.

    `model` and `rows` are from `gguf.check_file` and `parity.probe_rows`; `texts` are real text.
    Raises GroundupError if something differs, or llama.cpp cannot load the file.
    """
    note = f"{PACKAGE} is not installed: the file was read back, and not loaded in llama.cpp"
    version = parity.package_version(PACKAGE)
    if version:
        try:
            with opened(path, min(CONTEXT, source.config.context)) as llama:
                found = compare_ids(llama, source, [*PROBES, *texts])
                found |= _compare_probabilities(llama, source, model, rows, TOLERANCE[gguf_type])
                found |= compare_continuations(llama, source, model, rows, found["allowed"])
            return {"llama_cpp": f"{PACKAGE} {version}"} | found
        except UnavailableError as error:
            failed = f"{PACKAGE} {version} does not run on this machine ({error})"
            note = f"{failed}; the file was read back only"
    return {"llama_cpp": None, "note": note}


class Llama:
    """Client of a running llama.cpp."""

    def __init__(self, address: str, key: str) -> None:
        self._address, self._key = address, key
        # Loopback is never behind a proxy, whatever the environment says.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(self, route: str, **body: Any) -> dict[str, Any]:
        """Return the answer of a route; GroundupError if there is none, or it is an error."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        request = urllib.request.Request(self._address + route, json.dumps(body).encode(), headers)
        try:
            with self._opener.open(request, timeout=SECONDS) as response:
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            said = f"answers {route} with an error: {error.read(300)!r}"
            raise GroundupError(f"export: llama.cpp {said}") from None
        except (OSError, ValueError) as error:
            raise GroundupError(f"export: llama.cpp went away at {route}: {error}") from None
        return answer

    def ids(self, text: str, special: bool = False) -> list[int]:
        """Return the ids of a text; with `special`, special tokens in the text count as such."""
        answer = self.ask("/tokenize", content=text, add_special=True, parse_special=special)
        return [int(i) for i in answer["tokens"]]

    def complete(self, ids: Sequence[int], count: int, **options: Any) -> dict[str, Any]:
        """Continue ids greedily."""
        options |= {"n_predict": count, "temperature": 0.0, "samplers": ["temperature"]}
        options |= {"cache_prompt": True, "return_tokens": True}
        return self.ask("/completion", prompt=list(ids), **options)


@contextlib.contextmanager
def opened(path: Path, context: int) -> Iterator[Llama]:
    """Load a file in a worker, and end the worker afterwards.

    Raises UnavailableError if the library cannot run here, GroundupError if it cannot load this.
    """
    key = secrets.token_hex(16)
    # For a step of a millisecond, waiting for other threads costs more than they bring.
    threads = default_workers() if path.stat().st_size > SMALL_BYTES else 1
    job = json.dumps({"path": str(path), "context": context, "threads": threads, "key": key})
    # Unbuffered: closing stdin would write again what a dead worker did not read. New session:
    # Ctrl-C is for this process, which then ends the worker.
    pipes: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "bufsize": 0, "start_new_session": True}
    with tempfile.TemporaryFile() as log, Popen(WORKER, stderr=log, **pipes) as worker:
        try:
            yield Llama(_load(worker, job, log), key)
        except GroundupError:
            # The wheel may use instructions that old processors lack, maybe only when it computes.
            if _exit_code(worker) == -signal.SIGILL:
                raise UnavailableError(f"ended by {signal.SIGILL.name}") from None
            raise
        finally:
            worker.kill()


def _load(worker: Popen[bytes], job: str, log: IO[bytes]) -> str:
    """Let the worker load the file of `job`; return the address that it listens on."""
    # A worker that hangs is killed, and then reported like one that crashed.
    timer = threading.Timer(LOADING_SECONDS, worker.kill)
    timer.start()
    try:
        assert worker.stdin is not None and worker.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.write(job.encode() + b"\n")
        system, loaded = worker.stdout.readline(), worker.stdout.readline()
    finally:
        timer.cancel()
    if loaded:
        return str(json.loads(loaded)["address"])
    log.seek(0)
    text = log.read().decode("utf-8", "replace")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    why = (lines or ["no reason"])[-1][:200]
    code = _exit_code(worker)
    if code < 0:
        why = f"ended by {signal.Signals(-code).name}"
    if not system:
        raise UnavailableError(why)
    errors = [line.split(" E ", 1)[1].strip() for line in lines if " E " in line][:2]
    reasons = "; ".join([why, *errors])[:500]
    raise GroundupError(f"export: llama.cpp cannot load the GGUF file: {reasons}")


def _exit_code(worker: Popen[bytes]) -> int:
    """Return the exit code of a worker that has ended or is about to, 0 for one that runs."""
    try:
        return worker.wait(2)
    except TimeoutExpired:
        return 0


def compare_ids(llama: Llama, source: SourceModel, texts: Sequence[str]) -> dict[str, Any]:
    """Compare token ids, with special tokens as text and as specials, round trips, and chats.

    Characters that the pre-tokenizers are known to split differently are left out and counted, see
    `parity.compared_text`.
    """
    tokenizer, count, left_out = source.tokenizer, 0, 0
    # llama.cpp has no normal form; the training text is in it already.
    for whole in map(tokenizer.normalized, texts):
        text = compared_text(whole)
        left_out += len(whole) - len(text)
        ids, with_specials = tokenizer.encode(text), encode_with_specials(tokenizer, text)
        start = text[:40]
        if llama.ids(text) != ids or llama.ids(text, special=True) != with_specials:
            raise GroundupError(f"export: llama.cpp tokenizes {start!r} differently")
        if llama.ask("/detokenize", tokens=ids)["content"] != text:
            raise GroundupError(f"export: llama.cpp writes the ids of {start!r} as another text")
        count += len(ids)
    chats = CHATS if source.template else ()
    for turns in chats:
        written = llama.ask("/apply-template", messages=turns)["prompt"]
        if llama.ids(written, special=True) != encode_prompt(tokenizer, turns):
            said = str(turns)[:80]
            raise GroundupError(f"export: llama.cpp writes the conversation {said} differently")
    return {"texts": len(texts), "ids": count, "characters_left_out": left_out, "chats": len(chats)}


def _compare_probabilities(
    llama: Llama, source: SourceModel, model: Transformer, rows: Sequence[Tensor], tolerance: float
) -> dict[str, Any]:
    """Compare the log-probabilities of all ids after some prefixes of each row."""
    difference, largest, positions = 0.0, 1.0, 0
    vocab_size, letter = source.config.vocab_size, source.tokenizer.encode("a")[0]
    for row in rows:
        ours_TV = log_probabilities(model, row)
        largest = max(largest, float(ours_TV.abs().max()))
        # llama.cpp keeps the last place of its context for the token that it writes.
        longest = min(len(row), CONTEXT - 1, model.config.context - 1)
        for length in np.unique(np.geomspace(1, longest, PREFIXES).round().astype(int)).tolist():
            # A bias makes llama.cpp write an "a": it does not report a token that ends inside a
            # character. What it reports is from before the bias.
            options = {"n_probs": vocab_size, "logit_bias": [[letter, 1_000.0]]}
            answer = llama.complete(row[:length].tolist(), 1, **options)
            entries = answer["completion_probabilities"][0]["top_logprobs"]
            theirs_V = torch.full((vocab_size,), math.nan)
            logprobs = torch.tensor([entry["logprob"] for entry in entries])
            theirs_V[[entry["id"] for entry in entries]] = logprobs
            distance_V = (ours_TV[length - 1] - theirs_V).abs().nan_to_num(math.inf)
            difference = max(difference, float(distance_V.max()))
            positions += 1
    limit = tolerance * largest
    if not difference <= limit:
        differ = f"differ by {difference:.2g}, more than {limit:.2g}"
        raise GroundupError(f"export: log-probabilities in llama.cpp {differ}")
    return {"positions": positions, "allowed": limit, "max_difference": difference}


def compare_continuations(
    llama: Llama, source: SourceModel, model: Transformer, rows: Sequence[Tensor], limit: float
) -> dict[str, Any]:
    """Compare greedy continuations, and check that llama.cpp stops after each id that ends a text.

    Each token must be our best one, or as good within both errors.
    """
    same = written = 0
    context = source.config.context
    for row in rows:
        prompt = row[: max(1, min(len(row) // 2, context - CONTINUED - 1))].tolist()
        tokens = llama.complete(prompt, min(CONTINUED, context - len(prompt) - 1))["tokens"]
        ours_TV = log_probabilities(model, torch.tensor([*prompt, *tokens]))[len(prompt) - 1 : -1]
        best, chosen = ours_TV.max(-1).values, ours_TV[range(len(tokens)), tokens]
        if bool((best - chosen > 2 * limit).any()):
            continues = f"continues {prompt[-3:]} with {tokens[:8]}"
            raise GroundupError(f"export: llama.cpp {continues}, which our model would not write")
        written += len(tokens)
        same += int((best == chosen).sum())
    for end in source.ends:
        answer = llama.complete([source.tokenizer.end_id], 2, logit_bias=[[end, 1_000.0]])
        if answer["stop_type"] != "eos" or answer["tokens_predicted"] > 1:
            raise GroundupError(f"export: llama.cpp goes on after id {end}, which ends a text")
    return {"written": written, "written_same": same, "ends": len(source.ends)}
