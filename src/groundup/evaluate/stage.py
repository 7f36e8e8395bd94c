"""The stage `evaluate`. Reads the best checkpoint, the view `tokenize` and benchmark files; writes
the view `evaluate`:

evaluation.json (figures with their definitions), samples.json, and speed.json, which is measured
and so never twice the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from groundup.artifacts.checkpoints import find_checkpoint, trained_on
from groundup.artifacts.metrics import rounded
from groundup.errors import GroundupError
from groundup.evaluate import benchmarks, speed
from groundup.evaluate import next_passage as passages
from groundup.evaluate.ngram import NGram
from groundup.evaluate.perplexity import ModelScorer, Scorer, choose, cover, measure, table
from groundup.evaluate.samples import PROMPT_TOKENS, SAMPLING, samples
from groundup.evaluate.validation_data import HeldOut, open_held_out
from groundup.model.hf_io import load_model
from groundup.model.transformer import Transformer
from groundup.runtime.files import file_digest, write_json
from groundup.runtime.job import Job
from groundup.runtime.progress import say
from groundup.runtime.run import Run
from groundup.runtime.store import Artifact, Facts, Step
from groundup.schema import settings

# Raise by hand when a figure is computed differently.
MODEL_VERSION = 2
SPEED_VERSION = 1

# Tokens scored at most, shared among the sources; a sample of this size gave the loss of 15 MB of
# mixed text to 0.2 %.
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


def run(run: Run) -> None:
    """Evaluate the best checkpoint and publish the view.

    Raises:
        GroundupError: there is no checkpoint, or a benchmark cannot be read.
    """
    checkpoint = find_checkpoint(run.root)
    tokens = run.store.view("tokenize")
    if tokens is None:
        raise GroundupError(
            f"{run.root / 'tokenize'}: there are no tokens; run with --redo tokenize"
        )
    trained_on(run.root, tokens)
    files = benchmarks.benchmark_files(run.recipe)
    jobs = [_model_job(run, checkpoint, tokens, files), _speed_job(run, checkpoint)]
    model, speeds = (
        run.build("evaluate", [job], f"evaluating {what}", "model")[0]
        for job, what in zip(jobs, ("text", "speed"), strict=True)
    )
    links = {name: model.path / name for name in ("evaluation.json", "samples.json")} | {
        "speed.json": speeds.path / "speed.json"
    }
    run.publish("evaluate", [model, speeds], links)


def _model_job(run: Run, checkpoint: Artifact, tokens: Artifact, files: Mapping[str, Path]) -> Job:
    kinds = {
        source.name: source.kind for source in run.recipe.source if source.kind != "evaluation"
    }
    # Benchmarks enter by their bytes, under names without folders.
    wanted = {
        name: value for name, value in settings(run.recipe.evaluate).items() if name != "benchmarks"
    }
    wanted |= {"seed": run.recipe.seed, "kinds": kinds, "validation_tokens": VALIDATION_TOKENS}
    wanted |= {"prompt_tokens": PROMPT_TOKENS, "sampling": SAMPLING}
    inputs = {"checkpoint": checkpoint.content, "tokens": tokens.content}
    inputs |= {f"benchmark {name}": file_digest(path) for name, path in files.items()}
    step = Step("evaluate/model", "best", MODEL_VERSION, wanted, inputs)
    return Job(
        step,
        evaluate,
        {
            "checkpoint": checkpoint.path,
            "tokens": tokens.path,
            "files": files,
            "wanted": wanted,
            "inputs": inputs,
        },
    )


def _speed_job(run: Run, checkpoint: Artifact) -> Job:
    step = Step(
        "evaluate/speed",
        "best",
        SPEED_VERSION,
        {"seed": run.recipe.seed},
        {"checkpoint": checkpoint.content},
    )
    return Job(step, evaluate_speed, {"checkpoint": checkpoint.path, "seed": run.recipe.seed})


def device() -> str:
    """Return where models are evaluated."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def evaluate(
    folder: Path,
    *,
    checkpoint: Path,
    tokens: Path,
    files: Mapping[str, Path],
    wanted: Mapping[str, Any],
    inputs: Mapping[str, str],
) -> Facts:
    """Write evaluation.json and samples.json of a checkpoint; return the headline figures."""
    model, held_out = load_model(checkpoint, device()), open_held_out(tokens)
    seed = int(wanted["seed"])
    loss = validation(model, held_out, int(wanted["validation_tokens"]), seed)
    say("evaluate: benchmarks, passages and samples")
    found = {
        "model": {
            "checkpoint": checkpoint.name,
            "parameters": model.config.parameter_count(),
            "context": model.config.context,
            "device": device(),
        },
        "validation": loss,
        "benchmarks": {
            n: benchmarks.evaluate(model, held_out.tokenizer, p, int(wanted["limit"]), seed)
            for n, p in files.items()
        },
        "passages": passages.evaluate(model, held_out, int(wanted["passages"]), seed),
        "definitions": DEFINITIONS,
        "computed_from": dict(inputs),
        "settings": dict(wanted),
    }
    texts = samples(model, held_out, wanted["kinds"], int(wanted["sample_tokens"]), seed)
    write_json(folder / "evaluation.json", rounded(found))
    write_json(folder / "samples.json", rounded(texts))
    headline = loss["model"]["total"] if loss["model"]["sources"] else {}
    return {"loss": headline.get("loss"), "bits_per_byte": headline.get("bits_per_byte")}


def validation(
    model: Transformer, held_out: HeldOut, limit_tokens: int, seed: int
) -> dict[str, Any]:
    """Return loss, perplexity and bits per byte of the model and of both counting models on the
    same held-out windows.
    """
    vocabulary, sizes = held_out.tokenizer.vocab_size, held_out.tokenizer.token_bytes()
    covers = {
        source: cover(held_out.streams(source, "validation"), max(1, model.config.context // 2))
        for source in held_out.shards
    }
    covers = {source: windows for source, windows in covers.items() if windows}
    chosen = {
        source: choose(windows, limit_tokens // len(covers), seed)
        for source, windows in covers.items()
    }
    train = held_out.all_streams("train")
    counting = {
        name: NGram.fit(train, vocabulary, order)
        for name, order in (("unigram", 1), ("trigram", 3))
    }
    scorers: dict[str, Scorer] = {"model": ModelScorer(model), **counting}
    found: dict[str, Any] = {}
    for name, scorer in scorers.items():
        say(f"evaluate: held-out loss of the {name}")
        found[name] = table(
            {
                source: measure(scorer, windows, len(covers[source]), sizes)
                for source, windows in chosen.items()
            }
        )
    return found | {"tokens_counted": counting["trigram"].tokens}


def evaluate_speed(folder: Path, checkpoint: Path, seed: int) -> Facts:
    """Write speed.json of a checkpoint."""
    figures: Facts = rounded(speed.measure(load_model(checkpoint, device()), seed))
    write_json(folder / "speed.json", figures)
    return figures
