"""The stage `evaluate`: measures the best checkpoint.

Its view holds evaluation.json (figures with their definitions), samples.json, and speed.json, which
is a measurement and never twice the same.
"""

from __future__ import annotations

from typing import Any

from groundup.artifacts.checkpoints import find_checkpoint, trained_on
from groundup.artifacts.kinds import is_training
from groundup.errors import GroundupError
from groundup.recipe import Recipe
from groundup.runtime.files import file_digest
from groundup.runtime.run import Run, Unkeyed
from groundup.schema import settings


def run(run: Run) -> None:
    """Evaluate the best checkpoint and publish the view.

    Raises:
        GroundupError: there is no checkpoint, or a benchmark cannot be read.
    """
    from groundup.evaluate.benchmarks import benchmark_files
    from groundup.evaluate.evaluation import EVALUATE, MEASURE_SPEED

    checkpoint = find_checkpoint(run.root)
    tokens = run.store.view("tokenize")
    if tokens is None:
        raise GroundupError(
            f"{run.root / 'tokenize'}: there are no tokens; run with --redo tokenize"
        )
    trained_on(run.root, tokens)
    files = benchmark_files(run.recipe)
    options = _options(run.recipe)
    inputs = {"checkpoint": checkpoint.content, "tokens": tokens.content}
    inputs |= {f"benchmark {name}": file_digest(path) for name, path in files.items()}
    evaluation = EVALUATE.job(
        "best",
        inputs,
        key_only=options,
        checkpoint=Unkeyed(checkpoint.path),
        tokens=Unkeyed(tokens.path),
        files=Unkeyed(files),
        settings=Unkeyed(options),
        computed_from=Unkeyed(inputs),
    )
    (figures,) = run.build("evaluate", [evaluation], "evaluating text", "model")
    content, path = {"checkpoint": checkpoint.content}, Unkeyed(checkpoint.path)
    speed = MEASURE_SPEED.job("best", content, checkpoint=path, seed=run.recipe.seed)
    (speeds,) = run.build("evaluate", [speed], "evaluating speed", "model")
    links = {name: figures.path / name for name in ("evaluation.json", "samples.json")}
    links["speed.json"] = speeds.path / "speed.json"
    run.publish("evaluate", [figures, speeds], links)


def _options(recipe: Recipe) -> dict[str, Any]:
    """Return everything but files that decides the figures."""
    from groundup.evaluate.evaluation import VALIDATION_TOKENS
    from groundup.evaluate.samples import PROMPT_TOKENS, SAMPLING

    options = settings(recipe.evaluate)
    # Benchmarks enter the key by their content, under names without folders.
    del options["benchmarks"]
    sources = (source for source in recipe.source if is_training(source.kind))
    return options | {
        "seed": recipe.seed,
        "kinds": {source.name: source.kind for source in sources},
        "validation_tokens": VALIDATION_TOKENS,
        "prompt_tokens": PROMPT_TOKENS,
        "sampling": SAMPLING,
    }
