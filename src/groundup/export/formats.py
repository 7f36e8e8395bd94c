"""The export formats. To add one, write its class in a module of its own, and list it in FORMATS.

A format writes a file or a folder into an artifact. parity.json beside it says what it was compared
with. An export that does not agree with the model is never committed.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from groundup.errors import GroundupError, RecipeError
from groundup.recipe import Export
from groundup.runtime.files import file_digest, write_json
from groundup.runtime.store import Artifact, Facts

if TYPE_CHECKING:
    from groundup.artifacts.pretrained import PretrainedModel
    from groundup.export.source_model import SourceModel

# Class of each format, as text: the modules import torch, and the command line only lists names.
FORMATS = {
    "hf": "groundup.export.hf:HuggingFaceFolder",
    "gguf": "groundup.export.gguf:GgufFile",
}

# Entries of parity.json.
Written = dict[str, Any]


@dataclass(frozen=True)
class ExportOptions:
    """How a model is written, and what it is compared with."""

    type: str  # "" for a format without types
    facts: Mapping[str, Any]  # `name`, `license` and `sources` of the run
    texts: Sequence[str]  # held-out text to compare with
    seed: int  # of random ids to compare with


class Format(ABC):
    """What a plan, the stage `export` and `groundup verify` ask of a format."""

    version: ClassVar[int]  # raised by hand when the files change
    file: ClassVar[str]  # name in the view; `{model}` is "" or "-step-N", `{type}` a type
    # Entry of parity.json that names the program which read the export, "" for none.
    program: ClassVar[str] = ""

    def types(self, export: Export) -> Sequence[str]:
        """Return the types that a recipe asks for, ("",) for a format without types."""
        return ("",)

    def bytes_per_parameter(self, type: str) -> float:
        """Return the size of an export, as a plan estimates it."""
        return 4

    def obstacle(self, base: PretrainedModel | None) -> str:
        """Return why a run, which starts from `base`, cannot be exported; "" if it can."""
        return ""

    def key(self, sources: Sequence[str]) -> dict[str, Any]:
        """Return what else decides the bytes: versions of packages, or names of sources.

        Raises GroundupError if a package is missing.
        """
        return {}

    @abstractmethod
    def write(self, folder: Path, source: SourceModel, options: ExportOptions) -> Written:
        """Write an export, compare it with the model, and return the entries of parity.json.

        Raises GroundupError if the export differs from the model.
        """

    def differences(self, artifact: Path, source: SourceModel) -> Iterator[str]:
        """Yield a line for each difference between an artifact and its model, weights apart."""
        return iter(())

    def build(
        self,
        folder: Path,
        *,
        model: Path,
        model_name: str,
        tokens: Path,
        type: str,
        name: str,
        license: str,
        sources: Sequence[str],
        seed: int,
        base: Mapping[str, str],
    ) -> Facts:
        """Write the artifact: an export and its parity.json."""
        from groundup.export.parity import PARITY, held_out_texts
        from groundup.export.source_model import read_source_model

        source = read_source_model(model, model_name, base)
        facts = {"name": name, "license": license, "sources": sources}
        options = ExportOptions(type, facts, held_out_texts(tokens), seed)
        found = self.write(folder, source, options)
        write_json(folder / PARITY, {"model": model_name} | found)
        programs = {self.program: found[self.program]} if self.program else {}
        return {"parameters": source.config.parameter_count()} | programs


def check_formats(names: Iterable[str]) -> None:
    """Raise RecipeError, with the known formats, if a name is none of them."""
    for name in names:
        if name not in FORMATS:
            raise RecipeError(f'[export] formats: "{name}" is not one of {", ".join(FORMATS)}')


def find_format(name: str) -> Format:
    """Return the format of a name; RecipeError if it is unknown."""
    check_formats([name])
    module, _, class_name = FORMATS[name].partition(":")
    made: Format = getattr(importlib.import_module(module), class_name)()
    return made


def differences(root: Path, artifact: Artifact) -> Iterator[str]:
    """Yield a line for each difference between an export and the run's model of that name.

    Weights were compared when the export was written, and `groundup verify` hashes its files.
    """
    from groundup.artifacts.checkpoints import find_model
    from groundup.artifacts.tokenizer import FILE
    from groundup.export.source_model import read_source_model

    format_name = artifact.step.removeprefix("export/").partition("-")[0]
    try:
        model = find_model(root, artifact.name)
        if artifact.manifest["inputs"]["model"] != model.content:
            remedy = "`groundup run` or `groundup export` makes it again"
            yield f"is of an earlier {model.name}; {remedy}"
        else:
            source = read_source_model(model.path, model.name)
            yield from find_format(format_name).differences(artifact.path, source)
        if file_digest(model.path / FILE) != file_digest(root / "tokenize" / FILE):
            yield "the model has another tokenizer than the run"
    except GroundupError as error:
        yield str(error)
