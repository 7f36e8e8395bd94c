"""The stage `export`. Reads the run's model (the tuned one, else the best checkpoint) and the view
`tokenize`; writes `export`:

hf/ (a Hugging Face folder), model-TYPE.gguf (for llama.cpp) and parity.json (what each was compared
with). Other models of the run, exported by hand, stand beside them as hf-step-000250/ or
model-step-000250-f16.gguf.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groundup.artifacts.checkpoints import RunModel, find_model, init_from, trained_on
from groundup.artifacts.tokenizer import CONFIG, FILE, Tokenizer
from groundup.errors import GroundupError
from groundup.export import gguf as gguf_file
from groundup.export import gguf_check as readback
from groundup.export import hf, llamacpp, parity
from groundup.export.source_model import read_origin
from groundup.model.hf_io import load_model
from groundup.recipe import Recipe
from groundup.runtime.files import read_json, write_json
from groundup.runtime.job import Job
from groundup.runtime.progress import say
from groundup.runtime.run import Run, load_lock
from groundup.runtime.store import Artifact, Facts, Step

# Raise by hand when the files change.
VERSION = 2
PARITY_VERSION = 1

# Tokens of held-out text that the gate reads, from the beginning of each shard, and of how many
# shards.
TEXT_TOKENS, TEXTS = 2_000, 8
PARITY, GGUF = "parity.json", "model.gguf"


@dataclass(frozen=True)
class Wanted:
    """One export: `hf`, or `gguf` with a type, of a model as `find_model` names it."""

    form: str
    kind: str
    which: str

    def step(self) -> str:
        """Return the name of the step that builds it."""
        return f"export/{self.form}-{self.kind}" if self.kind else f"export/{self.form}"

    def file(self, model: RunModel, own: RunModel) -> str:
        """Return its name in the view; `own` is the model of the run, whose exports carry no name
        of a model.
        """
        of = "" if model.name == own.name else f"-{model.name}"
        return f"model{of}-{self.kind}.gguf" if self.form == "gguf" else f"hf{of}"


def run(run: Run) -> None:
    """Export what the recipe asks for, and what was asked for by hand, and publish the view.

    Raises:
        GroundupError: there is no checkpoint, a package is missing, or an export does not say what
            the model says.
    """
    tokens = run.store.view("tokenize")
    if tokens is None:
        raise GroundupError(
            f"{run.root / 'tokenize'}: there is no tokenizer; run with --redo tokenize"
        )
    trained_on(run.root, tokens)
    own, chosen = find_model(run.root), dict(_chosen(run))
    jobs = {
        wanted.file(model, own): _job(run, wanted, model, tokens)
        for wanted, model in chosen.items()
    }
    artifacts = run.build("export", list(jobs.values()), "exporting", "model")
    named = dict(zip(jobs, artifacts, strict=True))
    compared = _compared(run, named)
    links = {PARITY: compared.path / PARITY}
    for name, artifact in named.items():
        links |= {
            _place(name, file): artifact.path / file
            for file in artifact.manifest["files"]
            if file != PARITY
        }
    by_hand = [dataclasses.astuple(wanted) for wanted in chosen if wanted not in _asked(run.recipe)]
    run.publish("export", [*artifacts, compared], links, {"by_hand": by_hand})


def by_hand(root: Path, form: str, kind: str, which: str) -> Recipe:
    """Return the recipe of a run with one more export, as `groundup export` asks for it.

    Raises:
        GroundupError: there is no run, or no such model.
    """
    recipe = load_lock(root)
    find_model(root, which)
    return dataclasses.replace(
        recipe, export=dataclasses.replace(recipe.export, more=((form, kind, which),))
    )


def place(root: Path, form: str, kind: str, which: str) -> Path:
    """Return where an export stands."""
    return (
        root / "export" / Wanted(form, kind, which).file(find_model(root, which), find_model(root))
    )


def _asked(recipe: Recipe) -> list[Wanted]:
    """Return the exports that the recipe asks for, of the run's own model."""
    kinds = {"hf": ("",), "gguf": recipe.export.gguf_types}
    return [
        Wanted(form, kind, "")
        for form in dict.fromkeys(recipe.export.formats)
        for kind in dict.fromkeys(kinds[form])
    ]


def _chosen(run: Run) -> Iterator[tuple[Wanted, RunModel]]:
    """Yield every export once: the recipe's, what a person asks for now, and what one asked for
    before.
    """
    view = run.store.view("export")
    # `--redo export` goes back to the recipe.
    before = view.facts.get("by_hand", []) if view is not None and "export" not in run.redo else []
    seen = set()
    for wanted in [
        *_asked(run.recipe),
        *(Wanted(*one) for one in (*run.recipe.export.more, *before)),
    ]:
        try:
            model = find_model(run.root, wanted.which)
        except GroundupError as error:
            if not wanted.which or dataclasses.astuple(wanted) in run.recipe.export.more:
                raise
            say(f"export: left out what was exported by hand: {error}")
            continue
        if (wanted.form, wanted.kind, model.name) not in seen:
            seen.add((wanted.form, wanted.kind, model.name))
            yield wanted, model


def _job(run: Run, wanted: Wanted, model: RunModel, tokens: Artifact) -> Job:
    files = tokens.manifest["files"]
    inputs = {
        "model": model.content,
        "tokenizer": files[FILE]["sha256"],
        "tokenizer_config": files[CONFIG]["sha256"],
    }
    inputs |= {
        name: entry["sha256"] for name, entry in files.items() if name in _held_out(tokens.path)
    }
    settings: dict[str, Any] = {
        "name": run.recipe.name,
        "license": run.recipe.export.license,
        "seed": run.recipe.seed,
    }
    base = init_from(run.root)
    settings |= {"base": base} if base else {}
    arguments = settings | {"model": model.path, "model_name": model.name, "tokens": tokens.path}
    if wanted.form == "hf":
        settings |= {"model": model.name, "transformers": parity.transformers_version()}
        return Job(Step(wanted.step(), model.name, VERSION, settings, inputs), export_hf, arguments)
    gguf_file.package()
    sources = [source.name for source in run.recipe.source if source.kind != "evaluation"]
    settings |= {
        "model": model.name,
        "sources": sources,
        "gguf": importlib.metadata.version("gguf"),
        "llama_cpp": llamacpp.version(),
    }
    arguments |= {"kind": wanted.kind, "sources": sources}
    return Job(Step(wanted.step(), model.name, VERSION, settings, inputs), export_gguf, arguments)


def _place(name: str, file: str) -> str:
    return name if file == GGUF else f"{name}/{file.removeprefix('hf/')}"


def export_hf(
    folder: Path,
    *,
    model: Path,
    model_name: str,
    tokens: Path,
    name: str,
    license: str,
    seed: int,
    base: Mapping[str, str] | None = None,
) -> Facts:
    """Write `hf/` and `parity.json`; nothing is committed unless both agree with the model.

    Raises:
        GroundupError: the exported folder gives other logits or other token ids.
    """
    target = folder / "hf"
    target.mkdir()
    origin = read_origin(model, model_name, base)
    hf.write_folder(target, origin, name, license)
    found = parity.check(target, origin, load_model(model), held_out_texts(tokens), seed)
    size = sum(path.stat().st_size for path in target.iterdir())
    write_json(folder / PARITY, {"model": model_name, "bytes": size} | found)
    return {"parameters": origin.config.parameter_count(), "transformers": found["transformers"]}


def export_gguf(
    folder: Path,
    *,
    model: Path,
    model_name: str,
    tokens: Path,
    name: str,
    license: str,
    seed: int,
    kind: str,
    sources: list[str],
    base: Mapping[str, str] | None = None,
) -> Facts:
    """Write `model.gguf` and `parity.json`; nothing is committed unless both agree with the model.

    Raises:
        GroundupError: the file holds other weights or words than the model, or llama.cpp makes
            something else of them.
    """
    path, origin = folder / GGUF, read_origin(model, model_name, base)
    gguf_file.write_file(path, origin, kind, {"name": name, "license": license, "sources": sources})
    texts = held_out_texts(tokens)
    rows = parity.probe_rows(origin.tokenizer, texts, origin.config.context, seed)
    stored, found = readback.check_file(path, origin, kind)
    found |= readback.moved(load_model(model), stored, rows)
    found |= llamacpp.check(path, origin, kind, stored, rows, texts)
    write_json(
        folder / PARITY, {"model": model_name, "type": kind, "bytes": path.stat().st_size} | found
    )
    return {"parameters": origin.config.parameter_count(), "llama_cpp": found["llama_cpp"]}


def _compared(run: Run, named: Mapping[str, Artifact]) -> Artifact:
    """Join what was compared, by the names in the view."""
    step = Step(
        "export/parity",
        "parity",
        PARITY_VERSION,
        {"names": list(named)},
        {name: a.content for name, a in named.items()},
    )
    job = Job(
        step,
        join_parity,
        {"paths": {name: artifact.path / PARITY for name, artifact in named.items()}},
    )
    return run.build("export", [job], "comparing", "list")[0]


def join_parity(folder: Path, *, paths: Mapping[str, Path]) -> Facts:
    """Write `parity.json` of all exports."""
    write_json(folder / PARITY, {name: read_json(path) for name, path in paths.items()})
    return {"exports": len(paths)}


def held_out_texts(tokens: Path) -> list[str]:
    """Return the beginnings of some validation shards as text."""
    tokenizer = Tokenizer.load(tokens)
    parts = [np.load(tokens / name, mmap_mode="r")[:TEXT_TOKENS] for name in _held_out(tokens)]
    return [tokenizer.decode(part) for part in parts if len(part)]


def _held_out(tokens: Path) -> list[str]:
    return [
        f"shards/{path.name}"
        for path in sorted((tokens / "shards").glob("*.validation.npy"))[:TEXTS]
    ]
