"""The stage `export`: writes the run's model in forms that other programs load.

The run's model is the tuned one if there is one, else the best checkpoint. The view holds hf/ (a
Hugging Face folder), model-TYPE.gguf (for llama.cpp) and parity.json (what each was compared with).
Other models of the run, exported by hand, stand beside them as hf-step-000250/ or
model-step-000250-f16.gguf.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from groundup.artifacts.checkpoints import RunModel, find_model, init_from, trained_on
from groundup.artifacts.kinds import is_training
from groundup.errors import GroundupError
from groundup.export.formats import find_format
from groundup.recipe import Recipe
from groundup.runtime.lock import load_lock
from groundup.runtime.progress import say
from groundup.runtime.run import ABSENT, BuildStep, Job, Keyed, Run, Unkeyed
from groundup.runtime.store import Artifact


@dataclass(frozen=True)
class ExportTarget:
    """One export: a format, its type ("" for hf), and a model as `find_model` names it."""

    format: str
    type: str
    model: str

    @property
    def step(self) -> str:
        """Name of the step that builds it."""
        return f"export/{self.format}-{self.type}" if self.type else f"export/{self.format}"

    def file(self, root: Path) -> str:
        """Return its name in the view; exports of the run's model do not name the model."""
        model = find_model(root, self.model).name
        suffix = "" if model == find_model(root).name else f"-{model}"
        return find_format(self.format).file.format(model=suffix, type=self.type)


def run(run: Run) -> None:
    """Export what the recipe asks for, and what was asked for by hand, and publish the view.

    Raises GroundupError if there is no checkpoint, a package is missing, or an export disagrees
    with the model.
    """
    from groundup.export.parity import PARITY, join_parity

    tokens = run.store.view("tokenize")
    if tokens is None:
        missing = run.root / "tokenize"
        raise GroundupError(f"{missing}: there is no tokenizer; run with --redo tokenize")
    trained_on(run.root, tokens)
    targets = list(_targets(run))
    jobs = {target.file(run.root): _job(run, target, model, tokens) for target, model, _ in targets}
    artifacts = run.build("export", list(jobs.values()), "exporting", "model")
    exports = dict(zip(jobs, artifacts, strict=True))
    join = join_parity.job(
        "parity",
        inputs={name: artifact.content for name, artifact in exports.items()},
        key_only={"names": list(exports)},
        paths=Unkeyed({name: artifact.path / PARITY for name, artifact in exports.items()}),
    )
    (parity,) = run.build("export", [join], "comparing", "list")
    links = {PARITY: parity.path / PARITY}
    for name, artifact in exports.items():
        for file in artifact.manifest["files"]:
            # An artifact holds parity.json and either one file or a folder.
            folder, _, rest = file.partition("/")
            if folder != PARITY:
                links[f"{name}/{rest}" if rest else name] = artifact.path / file
    by_hand = [dataclasses.astuple(target) for target, _, in_recipe in targets if not in_recipe]
    run.publish("export", [*artifacts, parity], links, {"by_hand": by_hand})


def by_hand(root: Path, format: str, type: str, model: str) -> Recipe:
    """Return the recipe of a run with one more export, for `groundup export`.

    Raises GroundupError if there is no run, or no such model.
    """
    recipe = load_lock(root)
    find_model(root, model)
    export = dataclasses.replace(recipe.export, more=((format, type, model),))
    return dataclasses.replace(recipe, export=export)


def place(root: Path, format: str, type: str, model: str) -> Path:
    """Return where an export stands."""
    return root / "export" / ExportTarget(format, type, model).file(root)


def _targets(run: Run) -> Iterator[tuple[ExportTarget, RunModel, bool]]:
    """Yield each export once: the recipe's (True), and those asked for by hand, now or earlier."""
    options = run.recipe.export
    in_recipe = [
        ExportTarget(name, type, "")
        for name in dict.fromkeys(options.formats)
        for type in dict.fromkeys(find_format(name).types(options))
    ]
    view = run.store.view("export")
    # `--redo export` goes back to the recipe.
    earlier = view.facts.get("by_hand", []) if view is not None and "export" not in run.redo else []
    more = [ExportTarget(*values) for values in (*options.more, *earlier)]
    seen = set()
    for target in [*in_recipe, *more]:
        try:
            model = find_model(run.root, target.model)
        except GroundupError as error:
            if not target.model or dataclasses.astuple(target) in options.more:
                raise
            say(f"export: left out what was exported by hand: {error}")
            continue
        if (target.format, target.type, model.name) not in seen:
            seen.add((target.format, target.type, model.name))
            yield target, model, target in in_recipe


def _job(run: Run, target: ExportTarget, model: RunModel, tokens: Artifact) -> Job:
    from groundup.artifacts.tokenizer import CONFIG, FILE
    from groundup.export.parity import held_out_files

    export = find_format(target.format)
    files = tokens.manifest["files"]
    read = {"tokenizer": FILE, "tokenizer_config": CONFIG}
    read |= {name: name for name in held_out_files(tokens.path)}
    inputs = {"model": model.content} | {name: files[f]["sha256"] for name, f in read.items()}
    base = init_from(run.root)
    sources = [source.name for source in run.recipe.source if is_training(source.kind)]
    return BuildStep(target.step, export.version, export.build).job(
        model.name,
        inputs,
        key_only=export.key(sources),
        model=Keyed(model.path, model.name),
        model_name=Unkeyed(model.name),
        tokens=Unkeyed(tokens.path),
        # The type is part of the step's name; a format that writes sources has them in its key.
        type=Unkeyed(target.type),
        sources=Unkeyed(sources),
        name=run.recipe.name,
        license=run.recipe.export.license,
        seed=run.recipe.seed,
        base=Keyed(base, base or ABSENT),
    )
