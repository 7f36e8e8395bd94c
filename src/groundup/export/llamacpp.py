"""The second gate of a GGUF file: llama.cpp says what the model says. Reads a GGUF file; returns
what was compared.

llama.cpp runs in a process of its own (`llama_child.py`, the wheel `xllamacpp`) and is asked over
HTTP on loopback. The wheel gives no raw logits; it gives the log-probabilities of all ids of the
vocabulary, which are the logits up to one number a position.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from groundup.artifacts.chat import encode_prompt
from groundup.artifacts.tokenizer import PROBES
from groundup.errors import GroundupError
from groundup.export.parity import CHATS, compared_text, with_specials
from groundup.export.rounding import allowed, log_probabilities
from groundup.export.source_model import Origin
from groundup.model.transformer import Transformer
from groundup.runtime.workers.map import default_workers

# Beginnings of each row whose next token is compared, and tokens of a greedy continuation.
BEGINNINGS, CONTINUED = 8, 32
# Of the context that llama.cpp is given; no row is longer.
CONTEXT = 512
SECONDS, LOADING_SECONDS = 300, 900
SMALL_BYTES = 64_000_000
PACKAGE = "xllamacpp"
# -P: modules in the current folder are none of ours.
CHILD = (sys.executable, "-P", "-m", "groundup.export.llama_worker")


class UnavailableError(Exception):
    """llama.cpp cannot run on this machine, whatever the file."""


def version() -> str:
    """Return the version of the wheel that holds llama.cpp, or "" where it is not installed."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return ""


def check(
    path: Path,
    origin: Origin,
    kind: str,
    model: Transformer,
    rows: Sequence[Tensor],
    texts: Sequence[str],
) -> dict[str, Any]:
    """Compare what llama.cpp makes of a file with the model that the file holds, and say what was
    compared.

    Args:
        model: what `readback.check_file` read from the file.
        rows: ids, at most `CONTEXT` a row.
        texts: real text, to be compared beside the probes.

    Raises:
        GroundupError: something differs, or llama.cpp cannot load the file.
    """
    if not version():
        return {
            "llama_cpp": None,
            "note": (
                f"{PACKAGE} is not installed: the file was read back, and not loaded in llama.cpp"
            ),
        }
    try:
        with opened(path, min(CONTEXT, origin.config.context)) as llama:
            found = compare_ids(llama, origin, [*PROBES, *texts])
            found |= compare_probabilities(llama, origin, model, rows, allowed(model, kind, rows))
            found |= compare_continuations(llama, origin, model, rows, found["allowed"])
            found["ends"] = compare_ends(llama, origin)
    except UnavailableError as error:
        return {
            "llama_cpp": None,
            "note": (
                f"{PACKAGE} {version()} does not run on this machine ({error}); the file was read"
                " back only"
            ),
        }
    return {"llama_cpp": f"{PACKAGE} {version()}"} | found


class Llama:
    """A running llama.cpp, asked over HTTP."""

    def __init__(self, address: str, key: str) -> None:
        self._address, self._key = address, key
        # Loopback is never behind a proxy, whatever the environment says.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(self, route: str, **body: Any) -> dict[str, Any]:
        """Return the answer of a route.

        Raises:
            GroundupError: there is none, or it is an error.
        """
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        request = urllib.request.Request(self._address + route, json.dumps(body).encode(), headers)
        try:
            with self._opener.open(request, timeout=SECONDS) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            raise GroundupError(
                f"export: llama.cpp answers {route} with an error: {error.read(300)!r}"
            ) from None
        except (OSError, ValueError) as error:
            raise GroundupError(f"export: llama.cpp went away at {route}: {error}") from None
        return found

    def ids(self, text: str, special: bool = False) -> list[int]:
        """Return the ids of a text; with `special`, special tokens written in it count as such."""
        return [
            int(i)
            for i in self.ask("/tokenize", content=text, add_special=True, parse_special=special)[
                "tokens"
            ]
        ]

    def complete(self, ids: Sequence[int], count: int, **options: Any) -> dict[str, Any]:
        """Continue ids greedily."""
        settings = {
            "n_predict": count,
            "temperature": 0.0,
            "samplers": ["temperature"],
            "cache_prompt": True,
            "return_tokens": True,
        }
        return self.ask("/completion", prompt=list(ids), **(settings | options))


@contextlib.contextmanager
def opened(path: Path, context: int) -> Iterator[Llama]:
    """Load a file in a process of its own, and end that process afterwards.

    Raises:
        UnavailableError: the library cannot run here.
        GroundupError: it cannot load this file.
    """
    key = secrets.token_hex(16)
    # Threads that wait for each other cost more than they bring where a step takes a millisecond.
    threads = default_workers() if path.stat().st_size > SMALL_BYTES else 1
    job = json.dumps({"path": str(path), "context": context, "threads": threads, "key": key})
    # Unbuffered: what a dead child did not read would come up again when its stdin is closed. In a
    # session of its own: Ctrl-C is for this process, which then ends the child.
    options: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "bufsize": 0,
        "start_new_session": True,
    }
    with tempfile.TemporaryFile() as log, subprocess.Popen(CHILD, stderr=log, **options) as child:
        try:
            yield Llama(_load(child, job, log), key)
        except GroundupError:
            # The wheel uses instructions that old processors lack, perhaps not before it computes.
            if _ended(child) == -signal.SIGILL:
                raise UnavailableError(f"ended by {signal.SIGILL.name}") from None
            raise
        finally:
            child.kill()


def _load(child: subprocess.Popen[bytes], job: str, log: IO[bytes]) -> str:
    """Let the child load the file of `job`; return the address that it listens on."""
    # One that hangs is ended, and then explained like one that crashed.
    late = threading.Timer(LOADING_SECONDS, child.kill)
    late.start()
    try:
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(job.encode() + b"\n")
        system, loaded = child.stdout.readline(), child.stdout.readline()
    finally:
        late.cancel()
    if loaded:
        return str(json.loads(loaded)["address"])
    log.seek(0)
    lines = [
        line.strip() for line in log.read().decode("utf-8", "replace").split("\n") if line.strip()
    ]
    code = _ended(child)
    why = (
        f"ended by {signal.Signals(-code).name}" if code < 0 else (lines or ["no reason"])[-1][:200]
    )
    if not system:
        raise UnavailableError(why)
    told = [line.split(" E ", 1)[1].strip() for line in lines if " E " in line][:2]
    raise GroundupError(
        f"export: llama.cpp cannot load the GGUF file: {'; '.join([why, *told])[:500]}"
    )


def _ended(child: subprocess.Popen[bytes]) -> int:
    """Return the exit code of a child whose end was noticed, 0 for one that goes on."""
    try:
        return child.wait(2)
    except subprocess.TimeoutExpired:
        return 0


def compare_ids(llama: Llama, origin: Origin, texts: Sequence[str]) -> dict[str, Any]:
    """Compare token ids, with special tokens as text and as specials; text goes there and back
    exactly.

    Characters in which the splitters are known to differ are left out and counted, see
    `parity.compared_text`.

    Raises:
        GroundupError: naming the first text that differs.
    """
    tokenizer, count, left_out = origin.tokenizer, 0, 0
    # llama.cpp knows no normal form; what is trained on is in it already.
    for whole in map(tokenizer.normalized, texts):
        text = compared_text(whole)
        left_out += len(whole) - len(text)
        ids = tokenizer.encode(text)
        if llama.ids(text) != ids or llama.ids(text, special=True) != with_specials(
            tokenizer, text
        ):
            raise GroundupError(f"export: llama.cpp tokenizes {text[:40]!r} differently")
        if llama.ask("/detokenize", tokens=ids)["content"] != text:
            raise GroundupError(
                f"export: llama.cpp writes the ids of {text[:40]!r} as another text"
            )
        count += len(ids)
    chats = CHATS if origin.template else ()
    for turns in chats:
        written = llama.ask("/apply-template", messages=turns)["prompt"]
        if llama.ids(written, special=True) != encode_prompt(tokenizer, turns):
            raise GroundupError(
                f"export: llama.cpp writes the conversation {str(turns)[:80]} differently"
            )
    return {"texts": len(texts), "ids": count, "characters_left_out": left_out, "chats": len(chats)}


def compare_probabilities(
    llama: Llama, origin: Origin, model: Transformer, rows: Sequence[Tensor], limit: float
) -> dict[str, Any]:
    """Compare the log-probabilities of all ids after some beginnings of each row.

    Raises:
        GroundupError: one differs by more than `limit`, or is missing.
    """
    difference, positions = 0.0, 0
    for row in rows:
        every = log_probabilities(model, row)
        # llama.cpp keeps the last place of its context for the token that it writes.
        last = min(len(row), CONTEXT - 1, model.config.context - 1)
        for length in np.unique(np.geomspace(1, last, BEGINNINGS).round().astype(int)).tolist():
            theirs = next_token(llama, origin, row[:length].tolist())
            difference = max(
                difference, float((every[length - 1] - theirs).abs().nan_to_num(math.inf).max())
            )
            positions += 1
    if not difference <= limit:
        raise GroundupError(
            f"export: log-probabilities in llama.cpp differ by {difference:.2g}, more than"
            f" {limit:.2g}"
        )
    return {"positions": positions, "allowed": limit, "max_difference": difference}


def next_token(llama: Llama, origin: Origin, ids: Sequence[int]) -> Tensor:
    """Return llama.cpp's log-probabilities [V] of the token after `ids`; NaN where it names none.

    It is made to write an "a", since it keeps back the figures of a token that ends inside a
    character. What it reports is from before that.
    """
    vocab_size, plain = origin.config.vocab_size, origin.tokenizer.encode("a")
    answer = llama.complete(ids, 1, n_probs=vocab_size, logit_bias=[[plain[0], 1_000.0]])[
        "completion_probabilities"
    ][0]["top_logprobs"]
    found = torch.full((vocab_size,), math.nan)
    found[[entry["id"] for entry in answer]] = torch.tensor([entry["logprob"] for entry in answer])
    return found


def compare_continuations(
    llama: Llama, origin: Origin, model: Transformer, rows: Sequence[Tensor], limit: float
) -> dict[str, Any]:
    """Compare greedy continuations: each token that llama.cpp writes must be our best one, or as
    good within both errors.

    Raises:
        GroundupError: it writes a token that is clearly worse.
    """
    same = written = 0
    for row in rows:
        prompt = row[: max(1, min(len(row) // 2, origin.config.context - CONTINUED - 1))].tolist()
        tokens = llama.complete(prompt, min(CONTINUED, origin.config.context - len(prompt) - 1))[
            "tokens"
        ]
        own = log_probabilities(model, torch.tensor([*prompt, *tokens]))[len(prompt) - 1 : -1]
        best, chosen = own.max(-1).values, own[range(len(tokens)), tokens]
        if bool((best - chosen > 2 * limit).any()):
            raise GroundupError(
                f"export: llama.cpp continues {prompt[-3:]} with {tokens[:8]}, which our model"
                " would not write"
            )
        written, same = written + len(tokens), same + int((best == chosen).sum())
    return {"written": written, "written_same": same}


def compare_ends(llama: Llama, origin: Origin) -> int:
    """Make llama.cpp write each id that ends a text, and see that it stops there; return how many
    there are.

    Raises:
        GroundupError: it goes on.
    """
    for end in origin.ends:
        answer = llama.complete([origin.tokenizer.end_id], 2, logit_bias=[[end, 1_000.0]])
        if answer["stop_type"] != "eos" or answer["tokens_predicted"] > 1:
            raise GroundupError(f"export: llama.cpp goes on after id {end}, which ends a text")
    return len(origin.ends)
