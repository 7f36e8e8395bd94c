"""The model that `[model] from` goes on from. Reads a Hugging Face folder or a run directory;
writes nothing.

Only JSON and safetensors are opened. What cannot be carried exactly is refused here, before
anything is computed.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from groundup.artifacts.checkpoints import find_model
from groundup.artifacts.foreign import Foreign, read_tokenizer
from groundup.artifacts.tokenizer import FILE
from groundup.errors import GroundupError, RecipeError
from groundup.model.config import ModelConfig
from groundup.model.hf_io import CONFIG, check_weights, read_config, weight_files
from groundup.recipe import Recipe
from groundup.runtime.files import content_digest, file_digest
from groundup.runtime.run import LOCK, load_lock

README = "README.md"
# A model card begins with a few lines of settings.
_HEAD_CHARACTERS = 20_000


@dataclass(frozen=True)
class Base:
    """A model to go on from.

    Attributes:
        path: its folder.
        name: as reports have it, without folders of this machine.
        license: as its model card or its run says it; "" where neither does.
        config: its sizes, with the context and dropout of the recipe.
    """

    path: Path
    name: str
    license: str
    config: ModelConfig

    @cached_property
    def foreign(self) -> Foreign:
        """Its tokenizer.

        Raises:
            GroundupError: it cannot be carried exactly.
        """
        return read_tokenizer(self.path)

    def check(self, root: Path) -> None:
        """See that weights, tokenizer and sizes belong together; of the weights only the headers
        are read.

        Args:
            root: of the run that goes on, which must not be where the model stands.

        Raises:
            GroundupError: naming the file and what is wrong with it.
        """
        if self.path.resolve().is_relative_to(root.resolve()):
            raise GroundupError(
                f"{self.path}: a run cannot go on from itself, since it would replace what it goes"
                " on from; name another --out"
            )
        check_weights(self.path, self.config)
        size = self.foreign.tokenizer.vocab_size
        if size > self.config.vocab_size:
            raise GroundupError(
                f"{self.path / FILE}: has {size} ids, and the model's vocab_size is"
                f" {self.config.vocab_size}"
            )

    def content(self) -> str:
        """Return the SHA-256 over the files that hold the weights, whatever the folder is called."""
        files = {
            path.name: {"size": path.stat().st_size, "sha256": file_digest(path)}
            for path in weight_files(self.path)
        }
        return content_digest(files)


def find_base(recipe: Recipe) -> Base | None:
    """Return the model that a recipe goes on from, None where it begins anew.

    Raises:
        GroundupError: there is none, it cannot be read, or the recipe wants a longer context than
            it has.
    """
    if not recipe.model.base:
        return None
    where = f'[model] from = "{recipe.model.base}"'
    folder = recipe.root / Path(recipe.model.base).expanduser()
    if not folder.is_dir():
        raise RecipeError(f"{where}: there is no such folder")
    path = find_model(folder).path if (folder / LOCK).exists() else folder
    if not (path / CONFIG).exists():
        raise RecipeError(
            f"{where}: holds neither a {CONFIG} nor a run; name a model folder or a run directory"
        )
    config, context = read_config(path), recipe.model.context
    if context > config.context:
        raise RecipeError(
            f"[model] context {context} is more than the {config.context} positions of"
            f" {path / CONFIG}"
        )
    config = dataclasses.replace(
        config, context=context or config.context, dropout=recipe.model.dropout
    )
    run = next(
        (parent for parent in (path, *path.resolve().parents[:4]) if (parent / LOCK).exists()), None
    )
    return Base(path, _name(path, run), license_of(path) or _license_of_run(run), config)


def _name(path: Path, run: Path | None) -> str:
    """Return a name without folders of this machine: run/step, organisation/model out of a hub's
    cache, or the folder's.
    """
    if run is not None:
        return f"{load_lock(run).name}/{path.name if path.name != 'model' else 'tuned'}"
    whole = path.resolve()
    cached = (
        re.fullmatch(r"models--(.+)", whole.parent.parent.name)
        if whole.parent.name == "snapshots"
        else None
    )
    return cached[1].replace("--", "/") if cached else whole.name


def license_of(folder: Path) -> str:
    """Return the license that the front matter of a model card names, "" where there is none."""
    try:
        with (folder / README).open(encoding="utf-8", errors="replace") as file:
            head = re.match(r"---\n(.*?)\n---", file.read(_HEAD_CHARACTERS), re.DOTALL)
    except OSError:
        return ""
    found = re.search(r"^license:[ \t]*(.+)$", head[1], re.MULTILINE) if head else None
    return "".join(c for c in found[1] if c.isprintable()).strip("\"' ")[:200] if found else ""


def _license_of_run(run: Path | None) -> str:
    return load_lock(run).export.license if run is not None else ""
