"""The stage `evaluate`: measures the best checkpoint.

Its view holds evaluation.json (figures with their definitions), samples.json, and speed.json, which
is a measurement and never twice the same.
"""

from __future__ import annotations

from groundup.artifacts.checkpoints import find_checkpoint, trained_on
from groundup.errors import GroundupError
from groundup.runtime.files import file_digest
from groundup.runtime.run import Run, Unkeyed


def run(run: Run) -> None:
    """Evaluate the best checkpoint and publish the view; GroundupError if an input is missing."""
    from groundup.evaluate.benchmarks import benchmark_files
    from groundup.evaluate.evaluation import evaluate, measure_speed, options

    checkpoint = find_checkpoint(run.root)
    tokens = run.store.view("tokenize")
    if tokens is None:
        missing = run.root / "tokenize"
        raise GroundupError(f"{missing}: there are no tokens; run with --redo tokenize")
    trained_on(run.root, tokens)
    files = benchmark_files(run.recipe)
    settings = options(run.recipe, files)
    inputs = {"checkpoint": checkpoint.content, "tokens": tokens.content}
    for label, benchmark in files.items():
        for origin, file in benchmark.files.items():
            name = f"{label}/{origin}" if benchmark.task else label
            inputs[f"benchmark {name}"] = file_digest(file)
    evaluation = evaluate.job(
        "best",
        inputs,
        key_only=settings,
        checkpoint=Unkeyed(checkpoint.path),
        tokens=Unkeyed(tokens.path),
        files=Unkeyed(files),
        settings=Unkeyed(settings),
        computed_from=Unkeyed(inputs),
    )
    (figures,) = run.build("evaluate", [evaluation], "evaluating text", "model")
    content, path = {"checkpoint": checkpoint.content}, Unkeyed(checkpoint.path)
    speed = measure_speed.job("best", content, checkpoint=path, seed=run.recipe.seed)
    (speeds,) = run.build("evaluate", [speed], "evaluating speed", "model")
    links = {name: figures.path / name for name in ("evaluation.json", "samples.json")}
    links["speed.json"] = speeds.path / "speed.json"
    run.publish("evaluate", [figures, speeds], links)
