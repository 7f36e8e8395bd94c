"""All figures of a checkpoint, written to evaluation.json and samples.json.

evaluation.json holds `model` (what was measured), `validation` (loss, perplexity and bits per byte
of the model and of both n-gram models, in total and by source), `benchmarks`, `passages`,
`definitions`, `computed_from` (contents of the inputs) and `settings`. samples.json is a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.artifacts.metrics import rounded
from groundup.evaluate import benchmarks, next_passage
from groundup.evaluate.ngram import NGram
from groundup.evaluate.perplexity import (
    ModelScorer,
    Scorer,
    figures_by_source,
    sample_windows,
    score_windows,
    sliding_windows,
)
from groundup.evaluate.samples import samples
from groundup.evaluate.validation_data import ValidationData, open_validation_data
from groundup.model.hf_io import load_model
from groundup.model.transformer import Transformer
from groundup.runtime.files import write_json
from groundup.runtime.progress import say
from groundup.runtime.resources import choose_device
from groundup.runtime.run import BuildStep
from groundup.runtime.store import Facts

# Tokens scored, shared among the sources; a sample of this size gave the loss of 15 MB of mixed
# text to 0.2 %.
VALIDATION_TOKENS = 1 << 18

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
    "benchmarks, last word": (
        "every token of the last word is the most probable one; perplexity: exp of the mean nats a"
        " word"
    ),
    "benchmarks, choices": (
        "the right choice has the highest log-probability per byte of the choice; raw: the highest"
        " log-probability"
    ),
    "passages": (
        "the true next passage among four gains most from the context; likelihood: is the most"
        " probable"
    ),
    "overlap": "longest run of tokens that a sample shares with the training text",
}


def evaluate(
    folder: Path,
    *,
    checkpoint: Path,
    tokens: Path,
    files: Mapping[str, Path],
    settings: Mapping[str, Any],
    computed_from: Mapping[str, str],
) -> Facts:
    """Write evaluation.json and samples.json of a checkpoint; return the headline figures.

    Args:
        tokens: the view `tokenize`.
        files: benchmark files by name.
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
            "device": choose_device(),
        },
        "validation": validation,
        "benchmarks": {
            name: benchmarks.evaluate(model, data.tokenizer, path, limit, seed)
            for name, path in files.items()
        },
        "passages": next_passage.evaluate(model, data, int(settings["passages"]), seed),
        "definitions": DEFINITIONS,
        "computed_from": dict(computed_from),
        "settings": dict(settings),
    }
    texts = samples(model, data, settings["kinds"], int(settings["sample_tokens"]), seed)
    write_json(folder / "evaluation.json", rounded(figures))
    write_json(folder / "samples.json", rounded(texts))
    total = validation["model"]["total"] if validation["model"]["sources"] else {}
    return {"loss": total.get("loss"), "bits_per_byte": total.get("bits_per_byte")}


EVALUATE = BuildStep("evaluate/model", 2, evaluate)


def validation_figures(
    model: Transformer, data: ValidationData, limit_tokens: int, seed: int
) -> dict[str, Any]:
    """Return loss, perplexity and bits per byte of the model and of both n-gram models.

    All three are scored on the same held-out windows.
    """
    vocab_size, token_bytes = data.tokenizer.vocab_size, data.tokenizer.token_bytes()
    stride = max(1, model.config.context // 2)
    windows = {
        source: sliding_windows(data.streams(source, "validation"), stride)
        for source in data.shards
    }
    windows = {source: group for source, group in windows.items() if group}
    scored = {
        source: sample_windows(group, limit_tokens // len(windows), seed)
        for source, group in windows.items()
    }
    train = data.all_streams("train")
    trigram = NGram.fit(train, vocab_size, order=3)
    scorers: dict[str, Scorer] = {
        "model": ModelScorer(model),
        "unigram": NGram.fit(train, vocab_size, order=1),
        "trigram": trigram,
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
