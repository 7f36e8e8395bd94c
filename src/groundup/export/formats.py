"""The export formats. To add one, write its module, and list it in FORMATS.

A format builds an artifact that holds a file or a folder, and parity.json, which says what it was
compared with. Nothing is committed unless it agrees with the model.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.artifacts.checkpoints import find_model
from groundup.artifacts.kinds import is_training
from groundup.artifacts.tokenizer import FILE
from groundup.errors import GroundupError
from groundup.export import gguf, gguf_check, hf, llamacpp, parity
from groundup.export.parity import PARITY
from groundup.export.source_model import SourceModel, read_source_model
from groundup.model.hf_io import load_model
from groundup.recipe import Export, Recipe
from groundup.runtime.files import file_digest, write_json
from groundup.runtime.run import Unkeyed
from groundup.runtime.store import Artifact, Facts

GGUF_FILE = "model.gguf"


@dataclass(frozen=True)
class Format:
    """What the stage `export` needs to know of a format.

    Attributes:
        version: raised by hand when the files change.
        file: name in the view; `{model}` is "" or "-step-N", `{type}` a type.
        types: returns the types that a recipe asks for, ("",) for a format without types.
        build: writes the artifact; its arguments are those of `export_hf` and `arguments`.
        arguments: returns further arguments of `build` for a recipe and a type.
        packages: returns versions of packages that enter the key; raises GroundupError if one that
            is needed is missing.
        differences: yields a line for each difference between an artifact and its model.
    """

    version: int
    file: str
    types: Callable[[Export], Sequence[str]]
    build: Callable[..., Facts]
    arguments: Callable[[Recipe, str], Mapping[str, Any]]
    packages: Callable[[], Mapping[str, str]]
    differences: Callable[[Path, SourceModel], Iterator[str]]


def export_hf(
    folder: Path,
    *,
    model: Path,
    model_name: str,
    tokens: Path,
    name: str,
    license: str,
    seed: int,
    base: Mapping[str, str],
) -> Facts:
    """Write `hf/` and `parity.json`.

    Raises:
        GroundupError: the exported folder gives other logits or other token ids.
    """
    target = folder / "hf"
    target.mkdir()
    source = read_source_model(model, model_name, base)
    hf.write_folder(target, source, name, license)
    texts = parity.held_out_texts(tokens)
    found = parity.check(target, source, load_model(model), texts, seed)
    size = sum(path.stat().st_size for path in target.iterdir())
    write_json(folder / PARITY, {"model": model_name, "bytes": size} | found)
    return {"parameters": source.config.parameter_count(), "transformers": found["transformers"]}


def differences_hf(artifact: Path, source: SourceModel) -> Iterator[str]:
    """Yield the differences between an exported folder and its model, weights apart."""
    exported = read_source_model(artifact / "hf", source.name)
    for name in ("config", "vocabulary", "eos", "ends", "template"):
        if getattr(exported, name) != getattr(source, name):
            yield f"{artifact / 'hf'}: its {name} is not the model's"


def export_gguf(
    folder: Path,
    *,
    model: Path,
    model_name: str,
    tokens: Path,
    name: str,
    license: str,
    seed: int,
    base: Mapping[str, str],
    gguf_type: str,
    sources: list[str],
) -> Facts:
    """Write `model.gguf` and `parity.json`.

    Raises:
        GroundupError: the file holds other weights or tokens than the model, or llama.cpp computes
            something else from them.
    """
    path, source = folder / GGUF_FILE, read_source_model(model, model_name, base)
    facts = {"name": name, "license": license, "sources": sources}
    gguf.write_file(path, source, gguf_type, facts)
    texts = parity.held_out_texts(tokens)
    rows = parity.probe_rows(source.tokenizer, texts, source.config.context, seed)
    stored, found = gguf_check.check_file(path, source, gguf_type)
    found |= gguf_check.rounding_effect(load_model(model), stored, rows)
    found |= llamacpp.check(path, source, gguf_type, stored, rows, texts)
    header = {"model": model_name, "type": gguf_type, "bytes": path.stat().st_size}
    write_json(folder / PARITY, header | found)
    return {"parameters": source.config.parameter_count(), "llama_cpp": found["llama_cpp"]}


def differences_gguf(artifact: Path, source: SourceModel) -> Iterator[str]:
    """Compare sizes and vocabulary of a GGUF file with its model.

    Raises:
        GroundupError: naming the first difference.
    """
    table = gguf.fields(artifact / GGUF_FILE)
    gguf_check.compare_sizes(table, source.config)
    gguf_check.compare_vocabulary(table, source)
    yield from ()


def _gguf_packages() -> dict[str, str]:
    gguf.package()
    return {"gguf": importlib.metadata.version("gguf"), "llama_cpp": llamacpp.version()}


def _gguf_arguments(recipe: Recipe, gguf_type: str) -> dict[str, Any]:
    sources = [source.name for source in recipe.source if is_training(source.kind)]
    # The type is part of the step's name.
    return {"gguf_type": Unkeyed(gguf_type), "sources": sources}


FORMATS = {
    "hf": Format(
        version=2,
        file="hf{model}",
        types=lambda export: ("",),
        build=export_hf,
        arguments=lambda recipe, _: {},
        packages=lambda: {"transformers": parity.transformers_version()},
        differences=differences_hf,
    ),
    "gguf": Format(
        version=3,
        file="model{model}-{type}.gguf",
        types=lambda export: export.gguf_types,
        build=export_gguf,
        arguments=_gguf_arguments,
        packages=_gguf_packages,
        differences=differences_gguf,
    ),
}


def differences(root: Path, artifact: Artifact) -> Iterator[str]:
    """Yield a line for each difference between an export and the run's model of that name.

    Weights were compared when the export was written, and `groundup verify` hashes its files.
    """
    format_name = artifact.step.removeprefix("export/").partition("-")[0]
    try:
        model = find_model(root, artifact.name)
        if artifact.manifest["inputs"]["model"] != model.content:
            yield (
                f"is of an earlier {model.name}; `groundup run` or `groundup export` makes it again"
            )
        else:
            source = read_source_model(model.path, model.name)
            yield from FORMATS[format_name].differences(artifact.path, source)
        if file_digest(model.path / FILE) != file_digest(root / "tokenize" / FILE):
            yield "the model has another tokenizer than the run"
    except GroundupError as error:
        yield str(error)
