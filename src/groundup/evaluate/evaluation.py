"""All figures of a checkpoint, written to evaluation.json, samples.json and speed.json.

evaluation.json holds `model` (what was measured), `validation` (loss, perplexity and bits per byte
of the model and of both n-gram models, in total and by source), `benchmarks`, `passages`,
`definitions`, `computed_from` (contents of the inputs) and `settings`. samples.json is a list.

Speed is measured through `generate`, as a user gets it: one sequence, key-value cache, sampling
included. One warm-up run, then the median of `REPEATS`.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundup.artifacts.kinds import is_training
from groundup.artifacts.metrics import rounded
from groundup.artifacts.questions import LAYOUTS
from groundup.evaluate.benchmarks import Benchmark, ask_benchmark, passage_figures
from groundup.evaluate.ngram import NGram
from groundup.evaluate.perplexity import (
    Scorer,
    figures_by_source,
    model_scores,
    sample_windows,
    score_windows,
    sliding_windows,
)
from groundup.evaluate.samples import PROMPT_TOKENS, SAMPLING, samples
from groundup.evaluate.validation_data import ValidationData, open_validation_data
from groundup.model.generate import generate
from groundup.model.hf_io import load_model
from groundup.model.transformer import Transformer
from groundup.recipe import Recipe
from groundup.runtime.files import write_json
from groundup.runtime.progress import say
from groundup.runtime.resources import choose_device
from groundup.runtime.run import build_step
from groundup.runtime.store import Facts
from groundup.schema import settings

# Tokens scored, shared among the sources; a sample of this size gave the loss of 15 MB of mixed
# text to 0.2 %.
VALIDATION_TOKENS = 1 << 18
# Of speed: enough tokens for a stable figure, few enough for a large model on a CPU.
REPEATS, DECODE_TOKENS = 3, 64

DEFINITIONS = {
    "loss": (
        "nats a token over held-out tokens, end-of-text tokens included; each scored once with at"
        " least half a context before it"
    ),
    "perplexity": "exp(loss)",
    "bits_per_byte": "bits for all tokens, end-of-text included, over the UTF-8 bytes of the text",
    "bits_per_byte_text": "the same without the bits for end-of-text tokens",
    "..._error": "standard error over windows, taken as a random sample of such text",
    "unigram, trigram": (
        "interpolated Kneser-Ney models counted on the same training tokens (tokens_counted),"
        " scored on the same windows"
    ),
    "accuracy": "share of right answers; interval: Wilson, 95 %; n: questions asked",
    "acc": "the right choice is the most probable; of a word or generated answer: it is equal",
    "acc_norm": "the right choice has the highest log-probability per character of the choice",
    "within_chance": "chance lies in the interval, so the score does not differ from guesses",
    "word_perplexity, byte_perplexity": (
        "exp of the nats a word or byte of the text as it is published; interval: bootstrap over"
        " documents, 95 %"
    ),
    "core": "mean of 22 accuracies, each centered: 0 for guesses, 1 for all right",
    **{f"benchmarks, {name}": layout.definition for name, layout in LAYOUTS.items()},
    "passages": (
        "the true next passage among four gains most from the context; likelihood: is the most"
        " probable"
    ),
    "overlap": "longest run of tokens that a sample shares with the training text",
}


def options(recipe: Recipe, files: Mapping[str, Benchmark]) -> dict[str, Any]:
    """Return everything but files that decides the figures."""
    table = settings(recipe.evaluate)
    # Benchmarks enter the key by their content, under names without folders.
    del table["benchmarks"]
    if tasks := {label: [b.task, b.shots] for label, b in files.items() if b.task}:
        table["tasks"] = tasks
    return table | {
        "seed": recipe.seed,
        "kinds": {source.name: source.kind for source in recipe.source if is_training(source.kind)},
        "validation_tokens": VALIDATION_TOKENS,
        "prompt_tokens": PROMPT_TOKENS,
        "sampling": SAMPLING,
    }


@build_step("evaluate/model", version=3)
def evaluate(
    folder: Path,
    *,
    checkpoint: Path,
    tokens: Path,
    files: Mapping[str, Benchmark],
    settings: Mapping[str, Any],
    computed_from: Mapping[str, str],
) -> Facts:
    """Write evaluation.json and samples.json of a checkpoint; return the headline figures.

    `tokens` is the view of that stage; `files` are benchmarks by label.
    """
    model, data = load_model(checkpoint, choose_device()), open_validation_data(tokens)
    seed, limit = int(settings["seed"]), int(settings["limit"])
    validation = validation_figures(model, data, int(settings["validation_tokens"]), seed)
    say("evaluate: benchmarks, passages and samples")
    figures = {
        "model": {
            "checkpoint": checkpoint.name,
            "parameters": model.config.parameter_count(),
            "context": model.config.context,
            "device": model.device.type,
        },
        "validation": validation,
        "benchmarks": {
            name: ask_benchmark(model, data.tokenizer, benchmark, limit, seed)
            for name, benchmark in files.items()
        },
        "passages": passage_figures(model, data, int(settings["passages"]), seed),
        "definitions": DEFINITIONS,
        "computed_from": dict(computed_from),
        "settings": dict(settings),
    }
    texts = samples(model, data, settings["kinds"], int(settings["sample_tokens"]), seed)
    write_json(folder / "evaluation.json", rounded(figures))
    write_json(folder / "samples.json", rounded(texts))
    total = validation["model"]["total"] if validation["model"]["sources"] else {}
    return {name: total.get(name) for name in ("loss", "bits_per_byte")}


def validation_figures(
    model: Transformer, data: ValidationData, limit_tokens: int, seed: int
) -> dict[str, Any]:
    """Return loss, perplexity and bits per byte of the model and of both n-gram models.

    All three are scored on the same held-out windows.
    """
    vocab_size, token_bytes = data.tokenizer.vocab_size, data.tokenizer.token_bytes()
    stride = max(1, model.config.context // 2)
    windows = {}
    for source in data.shards:
        if group := sliding_windows(data.streams(source, "validation"), stride):
            windows[source] = group
    share = limit_tokens // max(1, len(windows))
    scored = {source: sample_windows(group, share, seed) for source, group in windows.items()}
    train = data.all_streams("train")
    trigram = NGram.fit(train, vocab_size, order=3)
    scorers: dict[str, Scorer] = {
        "model": partial(model_scores, model),
        "unigram": NGram.fit(train, vocab_size, order=1).scores,
        "trigram": trigram.scores,
    }
    figures: dict[str, Any] = {}
    for name, scorer in scorers.items():
        say(f"evaluate: held-out loss of the {name}")
        strata = {
            source: score_windows(scorer, group, len(windows[source]), token_bytes)
            for source, group in scored.items()
        }
        figures[name] = figures_by_source(strata)
    return figures | {"tokens_counted": trigram.tokens}


@build_step("evaluate/speed", version=1)
def measure_speed(folder: Path, checkpoint: Path, seed: int) -> Facts:
    """Write speed.json: prefill and decode speed, and the settings that they were measured with."""
    model = load_model(checkpoint, choose_device())
    half = max(1, model.config.context // 2)
    prompt = np.random.default_rng(seed).integers(0, model.config.vocab_size, half).tolist()
    tokens = max(2, min(half, DECODE_TOKENS))
    _time(model, prompt, tokens)
    times = [_time(model, prompt, tokens) for _ in range(REPEATS)]
    device = f"{model.device.type} ({platform.machine()}, {os.cpu_count()} cores)"
    if model.device.type == "cuda":
        device = torch.cuda.get_device_name(model.device)
    figures: Facts = {
        "prefill_tokens_per_second": statistics.median(len(prompt) / first for first, _ in times),
        "decode_tokens_per_second": statistics.median((tokens - 1) / rest for _, rest in times),
        "prompt_tokens": len(prompt),
        "decoded_tokens": tokens,
        "batch": 1,
        "repeats": REPEATS,
        "device": device,
        "dtype": str(model.head_weight.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }
    figures = rounded(figures)
    write_json(folder / "speed.json", figures)
    return figures


def _time(model: Transformer, prompt: list[int], tokens: int) -> tuple[float, float]:
    """Return the seconds to the first token and for the rest.

    Every token reaches the CPU, so a GPU has finished by then.
    """
    start = time.perf_counter()
    stream = generate(model, prompt, tokens)
    next(stream)
    first = time.perf_counter()
    for _ in stream:
        pass
    return first - start, time.perf_counter() - first
