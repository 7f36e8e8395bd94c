"""A finished (or growing) run, opened for reading from Python. Reads the views of a run; writes
nothing.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundup.errors import GroundupError
from groundup.runtime.files import read_json
from groundup.runtime.store import Store, load_artifact

if TYPE_CHECKING:
    import pyarrow as pa

    from groundup.artifacts.checkpoints import RunModel
    from groundup.artifacts.tokenizer import Tokenizer
    from groundup.artifacts.tokens import Tokens
    from groundup.commands.duplicates import Cluster
    from groundup.commands.trace import Seen
    from groundup.evaluate.token_scores import TokenScore
    from groundup.model.transformer import Transformer

# Samples whose sources are looked up at a time: 8 MB of numbers.
_SAMPLES = 1 << 20


@dataclass(frozen=True)
class OpenRun:
    """A run directory. Every method reads from disk at its call, so a run may go on meanwhile.

    What a stage has not written yet is a GroundupError that names the stage. `which` names a model:
    `best` (lowest validation loss), `last`, `step-N`, `tuned`; "" is the tuned one if there is one,
    else the best.
    """

    root: Path

    def settings(self) -> dict[str, Any]:
        """Return every setting of the recipe as resolved; `machine` holds what was chosen for this
        machine.
        """
        from groundup.runtime.run import load_lock, machine_settings
        from groundup.schema import settings

        return settings(load_lock(self.root)) | {"machine": machine_settings(self.root)}

    def documents(
        self,
        columns: Sequence[str] | None = None,
        split: Literal["train", "validation"] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the kept documents as Arrow batches: those that passed every filter and are no
        duplicates.
        """
        from groundup.artifacts.corpus import kept_documents

        return kept_documents(self.root, columns, split)

    def dropped(self, stage: Literal["collect", "refine"] | None = None) -> pa.RecordBatchReader:
        """Read what was not kept, in Arrow batches: id, source, origin, record, reason, score,
        duplicate_of, detail.

        Args:
            stage: only what `collect` could not read, or what `refine` filtered or found twice.
        """
        import pyarrow as pa

        from groundup.artifacts.document import DROPPED, read_batches

        folders = [
            self._view(name) / "dropped" for name in ("collect", "refine") if stage in (None, name)
        ]
        paths = [path for folder in folders for path in sorted(folder.glob("*.parquet"))]
        return pa.RecordBatchReader.from_batches(DROPPED, read_batches(paths))

    def raw_texts(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the text of documents as they were collected, before any cleaning, by id; kept and
        dropped ones alike.
        """
        from groundup.commands.inspect import raw_texts

        return raw_texts(self.root, ids)

    def duplicates(self, document: str, most: int = 20) -> Cluster:
        """Return the kept document of a cluster and what it suppressed: rows, cleaned texts,
        similarities computed anew.

        Raises:
            GroundupError: the document has no duplicates.
        """
        from groundup.commands.duplicates import find_cluster

        return find_cluster(self._view("refine").parent, document, most)

    def seen(self, document: str, token: int | None = None) -> Seen | None:
        """Return which training steps read a document (or one of its tokens); None where it is no
        training text.

        Raises:
            GroundupError: where documents stood in the tokens of this training is not known any
                more.
        """
        from groundup.commands.trace import seen

        return seen(self.root, document, token)

    def difference(self, other: str | Path) -> dict[str, Any]:
        """Return what differs between this run and another: settings, counts by source, documents
        with examples.
        """
        from groundup.commands.diff import compare

        return compare(self.root, Path(other))

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer of the run."""
        from groundup.artifacts.tokenizer import Tokenizer

        return Tokenizer.load(self.root / "tokenize")

    def index(self) -> pa.Table:
        """Return where the tokens of each kept document are: id, source, shard, split, offset,
        length, bytes.
        """
        import pyarrow.parquet as pq

        return pq.read_table(self._view("tokenize") / "index.parquet")

    def tokens(
        self, split: Literal["train", "validation"] = "train"
    ) -> Iterator[tuple[str, Tokens]]:
        """Yield the token shards of a split with their source: flat arrays of ids, memory-mapped."""
        from groundup.artifacts.tokens import open_shard

        size, ending = self.tokenizer().vocab_size, f".{split}.npy"
        for path in sorted((self._view("tokenize") / "shards").glob(f"*{ending}")):
            yield (
                path.name.removesuffix(ending).rpartition(".")[0],
                open_shard(path, size, check_ids=False),
            )

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of training's metrics, oldest first."""
        from groundup.artifacts.metrics import Metrics

        return Metrics(self.root / "train" / "metrics.jsonl").read()

    def tokens_seen(self) -> dict[str, int]:
        """Return the tokens that training has read of each source up to its newest checkpoint,
        repeats counted.

        Raises:
            GroundupError: there is no training, or the tokens on disk are not those that it reads.
        """
        from groundup.artifacts.checkpoints import trained_on
        from groundup.train.data import Loader
        from groundup.train.setup import Plan

        plan, view = Plan.read(self.root / "train"), Store(self.root).view("tokenize")
        if plan is None or view is None:
            raise self._absent("train")
        trained_on(self.root, view)
        shape = {"context": plan.config.context, "vocab_size": plan.vocabulary, "seed": plan.seed}
        loader = Loader(view.path / "shards", "train", **shape, weights=plan.weights)
        counts = sum(
            (_samples_of(loader, first, last) for first, last in self._samples_read()),
            Counter[str](),
        )
        return {source.name: counts[source.name] * plan.config.context for source in loader.sources}

    def _samples_read(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges [first, last) of samples that the newest checkpoint has read, whatever
        was skipped between them.
        """
        from groundup.artifacts.checkpoints import newest_state

        state = newest_state(self.root) or {"step": 0, "spans": []}
        ends = [*(step for step, _, _ in state["spans"][1:]), state["step"]]
        for (step, first, sequences), end in zip(state["spans"], ends, strict=True):
            yield first, first + (end - step) * sequences

    def checkpoints(self) -> list[dict[str, Any]]:
        """Return the checkpoints, oldest first: step, path, tokens and seconds of training so far,
        bytes, best or not.
        """
        from groundup.artifacts.checkpoints import STATE, best_step, list_checkpoints

        best = best_step(self.root)
        found = [load_artifact(path) for path in list_checkpoints(self.root).values()]
        return [
            {
                "step": (state := read_json(checkpoint.path / STATE))["step"],
                "path": checkpoint.path,
                "tokens": state["tokens"],
                "seconds": checkpoint.seconds,
                "bytes": sum(entry["size"] for entry in checkpoint.manifest["files"].values()),
                "best": state["step"] == best,
            }
            for checkpoint in found
            if checkpoint is not None
        ]

    def model(self, which: str = "", device: str = "cpu") -> Transformer:
        """Load a model of the run."""
        from groundup.artifacts.checkpoints import find_model
        from groundup.model.hf_io import load_model

        return load_model(find_model(self.root, which).path, device)

    def sample(self, prompt: str, tokens: int = 100, seed: int = 1, which: str = "") -> str:
        """Return a continuation of `prompt`."""
        from groundup.commands.sample import continue_prompt

        return "".join(continue_prompt(self.root, prompt, tokens, seed=seed, which=which))

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        tokens: int = 200,
        seed: int = 1,
        which: str = "",
    ) -> str:
        """Return the assistant's answer to `messages` ({"role", "content"} each); a tuned model
        stops by itself.

        Raises:
            GroundupError: a message has another role than system, user or assistant, or no content.
        """
        from groundup.artifacts.chat import ROLES, encode_prompt
        from groundup.artifacts.checkpoints import find_model
        from groundup.model.generate import generate

        for number, message in enumerate(messages, 1):
            if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
                raise GroundupError(
                    f'message {number}: expected a "role" ({", ".join(ROLES)}) and "content" (text)'
                )
        model, tokenizer = _loaded(find_model(self.root, which))
        stop = {tokenizer.end_id, tokenizer.stop_id}
        return tokenizer.decode(
            generate(
                model, encode_prompt(tokenizer, messages), tokens, top_p=0.95, seed=seed, stop=stop
            )
        )

    def scores(self, text: str, which: str = "", alternatives: int = 3) -> list[TokenScore]:
        """Return how probable the model finds each token of a text, in order, and what it had
        expected instead.
        """
        from groundup.artifacts.checkpoints import find_model
        from groundup.evaluate.token_scores import score_text

        return score_text(*_loaded(find_model(self.root, which)), text, alternatives)

    def next_tokens(self, prompt: str, count: int = 10, which: str = "") -> list[tuple[str, float]]:
        """Return the tokens that the model finds most probable after `prompt`, best first, with
        their log-probabilities.
        """
        from groundup.artifacts.checkpoints import find_model
        from groundup.evaluate.token_scores import next_tokens

        return next_tokens(*_loaded(find_model(self.root, which)), prompt, count)

    def evaluation(self) -> dict[str, Any]:
        """Return the tables of evaluation.json: held-out loss by source beside the baselines,
        benchmarks, passages.
        """
        return dict(self._json("evaluate", "evaluation.json"))

    def samples(self) -> list[dict[str, Any]]:
        """Return the continuations that evaluation wrote: prompt, text, kind, source, overlap with
        the training text.
        """
        return list(self._json("evaluate", "samples.json"))

    def figures(self) -> dict[str, Any]:
        """Return the figures of the report: name → {value, unit, from}."""
        return dict(self._json("report", "report.json")["figures"])

    def _json(self, stage: str, name: str) -> Any:
        found = read_json(self.root / stage / name)
        if found is None:
            raise self._absent(stage)
        return found

    def _view(self, stage: str) -> Path:
        view = Store(self.root).view(stage)
        if view is None:
            raise self._absent(stage)
        return view.path

    def _absent(self, stage: str) -> GroundupError:
        return GroundupError(
            f"{self.root}: the stage {stage} has written nothing yet, or it is damaged; `groundup"
            " run` makes it"
        )


def open_run(directory: str | Path) -> OpenRun:
    """Open a run directory for reading.

    Raises:
        StoreError: there is no run in it.
    """
    from groundup.runtime.run import load_lock

    load_lock(Path(directory))
    return OpenRun(Path(directory))


def _samples_of(loader: Any, first: int, last: int) -> Counter[str]:
    """Return how many of the samples `first` to `last` - 1 each source gives."""
    import numpy as np

    found = np.zeros(len(loader.sources), np.int64)
    for start in range(first, last, _SAMPLES):
        sources, _ = loader.locate(np.arange(start, min(start + _SAMPLES, last)))
        found += np.bincount(sources, minlength=len(found))
    return Counter(
        {source.name: int(number) for source, number in zip(loader.sources, found, strict=True)}
    )


def _loaded(found: RunModel) -> tuple[Transformer, Tokenizer]:
    return _load(found.path, found.content)


# One is kept, since a notebook asks the same model again and again; other bytes are another model.
@functools.lru_cache(maxsize=1)
def _load(path: Path, content: str) -> tuple[Transformer, Tokenizer]:
    from groundup.artifacts.tokenizer import Tokenizer
    from groundup.model.hf_io import load_model

    return load_model(path), Tokenizer.load(path)
