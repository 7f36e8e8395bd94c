"""What `groundup verify` asks of an export. Reads its artifact and the model of the run that it was
made from; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from groundup.artifacts.checkpoints import find_model
from groundup.artifacts.tokenizer import FILE
from groundup.errors import GroundupError
from groundup.export import gguf_check as readback
from groundup.export.gguf import fields
from groundup.export.source_model import Origin, read_origin
from groundup.export.stage import GGUF
from groundup.runtime.files import file_digest
from groundup.runtime.store import Artifact


def differences(root: Path, artifact: Artifact) -> Iterator[str]:
    """Yield a line for each thing in which an export differs from the model that the run has under
    its name today.

    Its bytes are those that were written, and were compared with the model weight by weight then;
    `verify` hashes them.
    """
    try:
        model = find_model(root, artifact.name)
        if artifact.manifest["inputs"]["model"] != model.content:
            yield (
                f"is of an earlier {model.name}; `groundup run` or `groundup export` makes it again"
            )
        elif (artifact.path / GGUF).exists():
            _compare_file(artifact.path / GGUF, read_origin(model.path, model.name))
        else:
            yield from _compare_folder(artifact.path / "hf", read_origin(model.path, model.name))
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
