"""The stage `evaluate`: measures the best checkpoint.

Its view holds evaluation.json (figures with their definitions), samples.json, and speed.json, which
is a measurement and never twice the same.
"""

from __future__ import annotations

from groundup.artifacts.checkpoints import find_checkpoint, trained_on
from groundup.artifacts.kinds import is_training
from groundup.errors import GroundupError
from groundup.runtime.files import file_digest
from groundup.runtime.run import Run, Unkeyed
from groundup.schema import settings


def run(run: Run) -> None:
    """Evaluate the best checkpoint and publish the view.

    Raises:
        GroundupError: there is no checkpoint, or a benchmark cannot be read.
    """
    from groundup.evaluate.benchmarks import benchmark_files
    from groundup.evaluate.evaluation import EVALUATE, VALIDATION_TOKENS
    from groundup.evaluate.samples import PROMPT_TOKENS, SAMPLING
    from groundup.evaluate.speed import MEASURE_SPEED

    checkpoint = find_checkpoint(run.root)
    tokens = run.store.view("tokenize")
    if tokens is None:
        raise GroundupError(
            f"{run.root / 'tokenize'}: there are no tokens; run with --redo tokenize"
        )
    trained_on(run.root, tokens)
    files = benchmark_files(run.recipe)
    wanted = settings(run.recipe.evaluate)
    # Benchmarks enter the key by their content, under names without folders.
    del wanted["benchmarks"]
    sources = (source for source in run.recipe.source if is_training(source.kind))
    wanted |= {
        "seed": run.recipe.seed,
        "kinds": {source.name: source.kind for source in sources},
        "validation_tokens": VALIDATION_TOKENS,
        "prompt_tokens": PROMPT_TOKENS,
        "sampling": SAMPLING,
    }
    inputs = {"checkpoint": checkpoint.content, "tokens": tokens.content}
    inputs |= {f"benchmark {name}": file_digest(path) for name, path in files.items()}
    evaluation = EVALUATE.job(
        "best",
        inputs,
        key_only=wanted,
        checkpoint=Unkeyed(checkpoint.path),
        tokens=Unkeyed(tokens.path),
        files=Unkeyed(files),
        settings=Unkeyed(wanted),
        computed_from=Unkeyed(inputs),
    )
    speed = MEASURE_SPEED.job(
        "best",
        {"checkpoint": checkpoint.content},
        checkpoint=Unkeyed(checkpoint.path),
        seed=run.recipe.seed,
    )
    (figures,) = run.build("evaluate", [evaluation], "evaluating text", "model")
    (speeds,) = run.build("evaluate", [speed], "evaluating speed", "model")
    links = {name: figures.path / name for name in ("evaluation.json", "samples.json")}
    links["speed.json"] = speeds.path / "speed.json"
    run.publish("evaluate", [figures, speeds], links)
