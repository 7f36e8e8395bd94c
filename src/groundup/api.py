"""The Python API of a run: documents, tokens, models and figures, read from a run directory.

run = groundup.open_run("runs/mine")
for batch in run.documents(["id", "text"], split="train"):
    ...
run.sample("The cat", tokens=50)
run.figures()["evaluate.model.bits_per_byte"]["value"]
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from groundup.artifacts.checkpoints import (
    STATE,
    RunModel,
    best_step,
    find_model,
    list_checkpoints,
    newest_state,
    trained_on,
)
from groundup.artifacts.corpus import Split, kept_documents, tables
from groundup.artifacts.document import DROPPED, read_batches
from groundup.artifacts.metrics import Metrics
from groundup.artifacts.tokens import Tokens, open_shard
from groundup.errors import GroundupError
from groundup.runtime.files import read_json
from groundup.runtime.lock import load_lock, machine_settings
from groundup.runtime.store import Store, load_artifact
from groundup.schema import settings

if TYPE_CHECKING:
    from groundup.artifacts.tokenizer import Tokenizer
    from groundup.commands.duplicates import Cluster
    from groundup.commands.trace import Seen
    from groundup.evaluate.loglikelihood import TokenScore
    from groundup.model.transformer import Transformer

Turn = Mapping[str, str]
# Samples to locate at a time: 8 MB of numbers.
_SAMPLES = 1 << 20


def open_run(directory: str | Path) -> OpenRun:
    """Open a run directory for reading; StoreError if there is no run in it."""
    load_lock(Path(directory))
    return OpenRun(Path(directory))


@dataclass(frozen=True)
class OpenRun:
    """A run directory. Every method reads from disk when it is called, so the run may go on.

    If a stage has not written anything yet, a GroundupError names the stage. `which` names a model:
    `best` (lowest validation loss), `last`, `step-N` or `tuned`; "" is the tuned one if there is
    one, else the best.
    """

    root: Path

    def settings(self) -> dict[str, Any]:
        """Return every setting as resolved; `machine` holds what was chosen for this machine."""
        return settings(load_lock(self.root)) | {"machine": machine_settings(self.root)}

    def documents(
        self, columns: Sequence[str] | None = None, split: Split | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the kept documents: they passed every filter and are not duplicates."""
        return kept_documents(self.root, columns, split)

    def dropped(self, stage: Literal["collect", "refine"] | None = None) -> pa.RecordBatchReader:
        """Read what was dropped: id, source, origin, record, reason, score, duplicate_of, detail.

        By `stage`: only what `collect` could not read, or what `refine` filtered or deduplicated.
        """
        stages = [name for name in ("collect", "refine") if stage in (None, name)]
        paths = [path for name in stages for path in tables(self._view(name), "dropped")]
        return pa.RecordBatchReader.from_batches(DROPPED, read_batches(paths))

    def raw_texts(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the texts of documents before cleaning, by id; kept and dropped ones alike."""
        from groundup.commands.inspect import raw_texts

        return raw_texts(self.root, ids)

    def duplicates(self, document: str, most: int = 20) -> Cluster:
        """Return a cluster of duplicates: rows, cleaned texts, and similarities computed again.

        Raises GroundupError if the document has none.
        """
        from groundup.commands.duplicates import find_cluster

        return find_cluster(self._view("refine").parent, document, most)

    def seen(self, document: str, token: int | None = None) -> Seen | None:
        """Return which training steps read a document, or one of its tokens; None if none can.

        Raises GroundupError if it is not known where documents were in the tokens of the training.
        """
        from groundup.commands.trace import trace_document

        return trace_document(self.root, document, token)

    def difference(self, other: str | Path) -> dict[str, Any]:
        """Return what differs from another run: settings, counts by source, documents, examples."""
        from groundup.commands.diff import compare_runs

        return compare_runs(self.root, Path(other))

    def tokenizer(self) -> Tokenizer:
        """Load the tokenizer of the run."""
        from groundup.artifacts.tokenizer import Tokenizer

        return Tokenizer.load(self.root / "tokenize")

    def index(self) -> pa.Table:
        """Read where tokens of documents are: id, source, shard, split, offset, length, bytes."""
        return pq.read_table(self._view("tokenize") / "index.parquet")

    def tokens(self, split: Split = "train") -> Iterator[tuple[str, Tokens]]:
        """Yield the token shards of a split with their source: flat arrays, memory-mapped."""
        size, ending = self.tokenizer().vocab_size, f".{split}.npy"
        for path in sorted((self._view("tokenize") / "shards").glob(f"*{ending}")):
            source = path.name.removesuffix(ending).rpartition(".")[0]
            yield source, open_shard(path, size, check_ids=False)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of the training metrics, oldest first."""
        return Metrics(self.root / "train" / "metrics.jsonl").read()

    def tokens_seen(self) -> dict[str, int]:
        """Return the tokens of each source that training has read, repeats counted.

        Raises GroundupError if there is no training, or it reads other tokens than those on disk.
        """
        from groundup.train.setup import TrainSetup

        setup, view = TrainSetup.read(self.root), Store(self.root).view("tokenize")
        if setup is None or view is None:
            raise self._absent("train")
        trained_on(self.root, view)
        loader = setup.open_loader(self.root, "train")
        state = newest_state(self.root) or {"step": 0, "spans": []}
        # A span is (first step, first sample, sequences per step); it ends where the next begins.
        ends = [*(step for step, _, _ in state["spans"][1:]), state["step"]]
        counts = np.zeros(len(loader.sources), np.int64)
        for (step, first, sequences), end in zip(state["spans"], ends, strict=True):
            last = first + (end - step) * sequences
            for start in range(first, last, _SAMPLES):
                sources, _ = loader.locate(np.arange(start, min(start + _SAMPLES, last)))
                counts += np.bincount(sources, minlength=len(counts))
        samples = zip(loader.sources, counts.tolist(), strict=True)
        return {source.name: count * loader.context for source, count in samples}

    def checkpoints(self) -> list[dict[str, Any]]:
        """Return the checkpoints, oldest first: step, path, tokens, seconds, bytes, best or not."""
        best, rows = best_step(self.root), []
        for step, path in list_checkpoints(self.root).items():
            if (checkpoint := load_artifact(path)) is not None:
                row = {"step": step, "path": path, "tokens": read_json(path / STATE)["tokens"]}
                size = sum(entry["size"] for entry in checkpoint.manifest["files"].values())
                row |= {"seconds": checkpoint.seconds, "bytes": size, "best": step == best}
                rows.append(row)
        return rows

    def model(self, which: str = "", device: str = "cpu") -> Transformer:
        """Load a model of the run."""
        from groundup.model.hf_io import load_model

        return load_model(find_model(self.root, which).path, device)

    def sample(self, prompt: str, tokens: int = 100, seed: int = 1, which: str = "") -> str:
        """Return a continuation of `prompt`."""
        from groundup.commands.sample import continue_prompt

        return "".join(continue_prompt(self.root, prompt, tokens, seed=seed, which=which))

    def chat(
        self, messages: Sequence[Turn], tokens: int = 200, seed: int = 1, which: str = ""
    ) -> str:
        """Return the assistant's answer to `messages`, dictionaries with `role` and `content`.

        Raises GroundupError if a message has another role than system, user or assistant, or no
        content.
        """
        from groundup.artifacts.chat import ROLES, encode_prompt
        from groundup.model.generate import generate

        for number, message in enumerate(messages, 1):
            if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
                expected = f'expected a "role" ({", ".join(ROLES)}) and "content" (text)'
                raise GroundupError(f"message {number}: {expected}")
        model, tokenizer = _load_model(find_model(self.root, which))
        ids, stop = encode_prompt(tokenizer, messages), {tokenizer.end_id, tokenizer.stop_id}
        return tokenizer.decode(generate(model, ids, tokens, top_p=0.95, seed=seed, stop=stop))

    def scores(self, text: str, which: str = "", alternatives: int = 3) -> list[TokenScore]:
        """Return the probability of each token of a text, and the most probable alternatives."""
        from groundup.evaluate.loglikelihood import score_text

        return score_text(*_load_model(find_model(self.root, which)), text, alternatives)

    def next_tokens(self, prompt: str, count: int = 10, which: str = "") -> list[tuple[str, float]]:
        """Return the most probable tokens after `prompt`, with their log-probabilities."""
        from groundup.evaluate.loglikelihood import next_tokens

        return next_tokens(*_load_model(find_model(self.root, which)), prompt, count)

    def evaluation(self) -> dict[str, Any]:
        """Return evaluation.json: held-out losses by source, baselines, benchmarks, passages."""
        return dict(self._json("evaluate", "evaluation.json"))

    def samples(self) -> list[dict[str, Any]]:
        """Return the samples of the evaluation: prompt, text, kind, source, memorized text."""
        return list(self._json("evaluate", "samples.json"))

    def figures(self) -> dict[str, Any]:
        """Return the figures of the report: name → {value, unit, from}."""
        return dict(self._json("report", "report.json")["figures"])

    def _json(self, stage: str, name: str) -> Any:
        value = read_json(self.root / stage / name)
        if value is None:
            raise self._absent(stage)
        return value

    def _view(self, stage: str) -> Path:
        view = Store(self.root).view(stage)
        if view is None:
            raise self._absent(stage)
        return view.path

    def _absent(self, stage: str) -> GroundupError:
        absent = f"{self.root}: the stage {stage} has written nothing yet, or it is damaged"
        return GroundupError(f"{absent}; `groundup run` makes it")


# A notebook asks the same model again and again. A model of other bytes is another key.
@functools.lru_cache(maxsize=1)
def _load_model(model: RunModel) -> tuple[Transformer, Tokenizer]:
    from groundup.artifacts.tokenizer import Tokenizer
    from groundup.model.hf_io import load_model

    return load_model(model.path), Tokenizer.load(model.path)
