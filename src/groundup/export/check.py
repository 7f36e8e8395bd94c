"""What `groundup verify` asks of an export. Reads its artefact and the model of the run that it was made from; writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from groundup.checkpoints import find_model
from groundup.errors import GroundupError
from groundup.export import readback
from groundup.export.gguf_file import fields
from groundup.export.origin import Origin, read_origin
from groundup.export.stage import GGUF
from groundup.files import file_digest
from groundup.store import Artefact
from groundup.tokenizer import FILE


def differences(root: Path, artefact: Artefact) -> Iterator[str]:
    """Yield a line for each thing in which an export differs from the model that the run has under its name today.

    Its bytes are those that were written, and were compared with the model weight by weight then; `verify` hashes them.
    """
    try:
        model = find_model(root, artefact.name)
        if artefact.manifest["inputs"]["model"] != model.content:
            yield f"is of an earlier {model.name}; `groundup run` or `groundup export` makes it again"
        elif (artefact.path / GGUF).exists():
            _compare_file(artefact.path / GGUF, read_origin(model.path, model.name))
        else:
            yield from _compare_folder(artefact.path / "hf", read_origin(model.path, model.name))
        if file_digest(model.path / FILE) != file_digest(root / "tokenize" / FILE):
            yield "the model has another tokenizer than the run"
    except GroundupError as error:
        yield str(error)


def _compare_file(path: Path, origin: Origin) -> None:
    table = fields(path)
    readback.compare_sizes(table, origin.config)
    readback.compare_vocabulary(table, origin)


def _compare_folder(folder: Path, origin: Origin) -> Iterator[str]:
    exported = read_origin(folder, origin.name)
    for name in ("config", "vocabulary", "eos", "ends", "template"):
        if getattr(exported, name) != getattr(origin, name):
            yield f"{folder}: its {name} is not the model's"
