"""A finished (or growing) run, opened for reading from Python. Reads the views of a run; writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundup.errors import GroundupError
from groundup.store import read_json

if TYPE_CHECKING:
    import pyarrow as pa

    from groundup.model.transformer import Transformer
    from groundup.tokenizer import Tokenizer


@dataclass(frozen=True)
class OpenRun:
    """A run directory. Every method reads from disk at its call, so a run may go on meanwhile."""

    root: Path

    def documents(
        self, columns: Sequence[str] | None = None, split: Literal["train", "validation"] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the kept documents as Arrow batches: those that passed every filter and are no duplicates."""
        from groundup.refine.kept import kept_documents

        return kept_documents(self.root, columns, split)

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer of the run."""
        from groundup.tokenizer import Tokenizer

        return Tokenizer.load(self.root / "tokenize")

    def model(self, which: str = "best", device: str = "cpu") -> Transformer:
        """Load a checkpoint: `best`, `last` or `step-N`."""
        from groundup.checkpoints import find_checkpoint
        from groundup.model.files import load_model

        return load_model(find_checkpoint(self.root, which).path, device)

    def sample(self, prompt: str, tokens: int = 100, seed: int = 1, which: str = "best") -> str:
        """Return a continuation of `prompt`."""
        from groundup.sample import continue_prompt

        return "".join(continue_prompt(self.root, prompt, tokens, seed=seed, which=which))

    def figures(self) -> dict[str, Any]:
        """Return the figures of the report: name → {value, unit, from}.

        Raises:
            GroundupError: the run has no report yet.
        """
        report = read_json(self.root / "report" / "report.json")
        if not isinstance(report, dict):
            raise GroundupError(f"{self.root}: there is no report yet; `groundup run` makes one")
        return dict(report["figures"])

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of training's metrics, oldest first."""
        from groundup.metrics import Metrics

        return Metrics(self.root / "train" / "metrics.jsonl").read()


def open_run(directory: str | Path) -> OpenRun:
    """Open a run directory for reading.

    Raises:
        StoreError: there is no run in it.
    """
    from groundup.run import load_lock

    load_lock(Path(directory))
    return OpenRun(Path(directory))
