"""Tokens a second and time to the first token of the engine, beside transformers' `generate` on the
same weights.

`python -m benchmarks.serve` writes results/serve.json. The starter run is measured where it is
there; a 125M model with random weights always. Both programs take turns, so that what disturbs one
disturbs the other; the ratio is the point.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.machine import machine
from groundup.artifacts.tokenizer import Tokenizer
from groundup.engines.own import Engine
from groundup.engines.request import EngineRequest, RequestOutput, SamplingParams
from groundup.model.config import resolve
from groundup.model.hf_io import load_model, save_model
from groundup.model.transformer import Transformer
from groundup.recipe import Model

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "serve.json"
STARTER = ROOT / "runs" / "starter" / "export" / "hf"
STREAMS = (1, 8, 32)
REPEATS = 3
LARGE_VOCABULARY = 50_000

# Seconds until each request had its first token, and until all were through; and the tokens that
# were asked for.
Timing = tuple[list[float], float, int]


def measure() -> dict[str, object]:
    figures: dict[str, object] = {}
    if STARTER.exists():
        tokenizer = Tokenizer.load(STARTER)
        figures |= compare(
            "starter, fp32", STARTER, tokenizer, torch.float32, [64] * max(STREAMS), STREAMS
        )
        unequal = [8 + 4 * n for n in range(32)]
        figures |= compare(
            "starter, fp32, 8 to 132 tokens", STARTER, tokenizer, torch.float32, unequal, (32,)
        )
    with tempfile.TemporaryDirectory() as folder:
        large_model(Path(folder))
        for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
            figures |= compare(
                f"125m, {name}", Path(folder), Letters(), dtype, [12] * max(STREAMS), STREAMS
            )
    what = (
        f"Greedy answers to prompts of 8 to 39 tokens, all sent at once; {torch.get_num_threads()}"
        f" threads, torch {torch.__version__}."
    )
    return {"what": what, "figures": figures, "machine": machine()}


def large_model(folder: Path) -> None:
    """Write a model of the preset 125m with random weights; its text means nothing, its speed is
    that of a trained one.
    """
    model = Transformer(resolve(Model(preset="125m"), LARGE_VOCABULARY, 10**9))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.normal_(0, 0.02, generator=torch.Generator().manual_seed(1))
    save_model(folder, model)


class Letters(Tokenizer):
    """A tokenizer without a vocabulary: every id is a letter, so that every token makes a piece of
    text.
    """

    def __init__(self) -> None:
        self.vocab_size = LARGE_VOCABULARY

    def byte_strings(self) -> list[bytes]:
        return [b"x"] * self.vocab_size

    def encode(self, text: str) -> list[int]:
        return [ord(character) * 37 % self.vocab_size for character in text]


def compare(
    name: str,
    folder: Path,
    tokenizer: Tokenizer,
    dtype: torch.dtype,
    lengths: list[int],
    streams: tuple[int, ...],
) -> dict[str, object]:
    """Return the figures of one model at each number of streams, ours and theirs by turns."""
    figures: dict[str, object] = {}
    engine = Engine(load_model(folder, dtype=dtype), tokenizer, slots=max(streams), queue=0)
    engine.start()
    theirs = transformers_model(folder, dtype)
    ids = tokenizer.encode((ROOT / "LICENSE").read_text(encoding="utf-8"))
    ours(engine, [((1,), 2)])
    transformers_run(theirs, [((1,), 2)])
    prompts = [tuple(ids[n * 50 : n * 50 + 8 + n]) for n in range(max(streams))]
    for count in streams:
        work = list(zip(prompts[:count], lengths[:count], strict=True))
        mine, other = by_turns(
            lambda w=work: ours(engine, w), lambda w=work: transformers_run(theirs, w)
        )
        head = f"{name}, {count} stream{'s' * (count > 1)}"
        figures |= {
            f"{head}: tokens/s": mine[0],
            f"{head}: tokens/s, transformers": other[0],
            f"{head}: ratio": mine[0] / other[0],
            f"{head}: ms to the first token, median": mine[1] * 1e3,
            f"{head}: ms to the first token, last stream": mine[2] * 1e3,
            f"{head}: ms to the first token, transformers": other[2] * 1e3,
        }
    engine.close()
    return figures


def by_turns(*runs: Callable[[], Timing]) -> list[tuple[float, float, float]]:
    """Return for each program the medians of tokens a second, and of the middle and the last time
    to a first token.
    """
    timings: list[list[Timing]] = [[] for _ in runs]
    for _ in range(REPEATS):
        for run, found in zip(runs, timings, strict=True):
            found.append(run())
    return [
        (
            statistics.median(tokens / seconds for _, seconds, tokens in found),
            statistics.median(statistics.median(firsts) for firsts, _, _ in found),
            statistics.median(max(firsts) for firsts, _, _ in found),
        )
        for found in timings
    ]


def ours(engine: Engine, work: list[tuple[tuple[int, ...], int]]) -> Timing:
    firsts, done, start = [0.0] * len(work), threading.Semaphore(0), time.perf_counter()

    def listener(row: int) -> Callable[[RequestOutput], None]:
        def on_output(output: RequestOutput) -> None:
            firsts[row] = firsts[row] or time.perf_counter() - start
            if output.finish_reason:
                done.release()

        return on_output

    for row, (prompt, length) in enumerate(work):
        params = SamplingParams(temperature=0.0, max_tokens=length)
        engine.submit(EngineRequest(prompt, params), listener(row))
    for _ in work:
        done.acquire()
    return firsts, time.perf_counter() - start, sum(length for _, length in work)


def transformers_model(folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    model.generation_config.eos_token_id = None  # type: ignore[union-attr]
    return model


def transformers_run(model: torch.nn.Module, work: list[tuple[tuple[int, ...], int]]) -> Timing:
    """One batch, padded on the left, as its documentation shows; it streams nothing, so the first
    token is timed alone.
    """
    widest = max(len(prompt) for prompt, _ in work)
    rows = torch.tensor([[0] * (widest - len(prompt)) + list(prompt) for prompt, _ in work])
    mask = torch.tensor([[0] * (widest - len(prompt)) + [1] * len(prompt) for prompt, _ in work])

    def generate(tokens: int) -> float:
        start = time.perf_counter()
        model.generate(
            rows, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=0
        )  # type: ignore[operator]
        return time.perf_counter() - start

    with torch.inference_mode():
        first = generate(1)
        whole = generate(max(length for _, length in work))
    return [first] * len(work), whole, sum(length for _, length in work)


def main() -> None:
    RESULT.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
