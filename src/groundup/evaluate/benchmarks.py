"""Questions with a right answer: benchmarks, and which passage of the corpus comes next.

Benchmarks of the field are asked as tasks.py says. Other files of questions are JSONL in one of the
layouts of artifacts/questions.py.

Next passage is a test that every corpus provides. The model reads the beginning of a held-out
document and scores four passages with the same number of tokens: the one that follows, and three
from other held-out documents of the same source, taken at the same distance from their beginning.
Chance is a quarter.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from groundup.artifacts.kinds import KINDS
from groundup.artifacts.questions import LAYOUTS, Question, accuracy, find_question, known_keys
from groundup.artifacts.tokenizer import Tokenizer
from groundup.errors import GroundupError
from groundup.evaluate.core import core_figures
from groundup.evaluate.loglikelihood import Continuation, score
from groundup.evaluate.task_files import label_name
from groundup.evaluate.task_scores import task_figures
from groundup.evaluate.validation_data import Ids, ValidationData
from groundup.model.transformer import Transformer
from groundup.recipe import BenchmarkEntry, Recipe, parse_benchmark
from groundup.recipe.benchmarks import PUBLIC
from groundup.runtime.fetch.download import fetch
from groundup.runtime.fetch.remote import REMOTE_SCHEMES, fetch_all, open_remote

_OPEN: Mapping[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".bz2": bz2.open}

# The files of a benchmark in a folder: read_questions reads JSON lines, also compressed.
_PATTERN = "*.jsonl*"
# A longer line is not a question.
_MAX_LINE = 1 << 20
# Passages to choose from.
PASSAGES = 4
# Shares of the model's context that are read and chosen from. The names in a long passage would
# give it away.
CONTEXT_SHARE, PASSAGE_SHARE = 1 / 2, 1 / 8

Answers = npt.NDArray[np.bool_]


def parse_question(line: str) -> Question:
    """Return the question of one JSON line, or raise ValueError with what it lacks."""
    try:
        row = json.loads(line)
    except ValueError:
        raise ValueError("not JSON") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    question = find_question(row)
    if question is None:
        raise ValueError(f"no {known_keys()}")
    return question


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Files of a benchmark by origin; `task` is "" for a file of questions."""

    files: Mapping[str, Path]
    task: str = ""
    shots: int | None = None  # None for the usual number of examples


def benchmark_files(recipe: Recipe) -> dict[str, Benchmark]:
    """Return the benchmarks of a recipe, by label; GroundupError if a file is missing.

    A recipe names a benchmark of the field, a source of kind evaluation, or a path.
    """
    entries = [source for source in recipe.source if KINDS[source.kind].role == "evaluation"]
    sources = {source.name: source.path for source in entries}
    benchmarks: dict[str, Benchmark] = {}
    for name in recipe.evaluate.benchmarks:
        entry = parse_benchmark(
            f"{name}={sources[name]}" if name in PUBLIC.keys() & sources.keys() else name
        )
        if entry.task:
            files = _task_files(entry, recipe.root)
            benchmarks[entry.label] = Benchmark(files, entry.task, entry.shots)
            continue
        path = recipe.root / sources.get(name, name)
        matches = _local_files(path, _PATTERN)
        if not matches:
            known = f"; sources of kind evaluation: {', '.join(sources)}" if sources else ""
            raise GroundupError(f'[evaluate] benchmarks: "{name}": there is no file {path}{known}')
        for file in matches:
            # Labels must not depend on where files lie, since they are written beside figures.
            label = file.name
            if name in sources:
                label = name if len(matches) == 1 else f"{name}/{file.name}"
            benchmarks[name if label in benchmarks else label] = Benchmark({file.name: file})
    return benchmarks


def _local_files(path: Path, pattern: str) -> list[Path]:
    # Path.glob takes no absolute pattern.
    names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
    paths = sorted(path.rglob(pattern)) if path.is_dir() else map(Path, names)
    return [file for file in paths if file.is_file() and not file.name.startswith(".")]


def _task_files(entry: BenchmarkEntry, root: Path) -> dict[str, Path]:
    """Return the files of a benchmark by origin, after fetching those that are elsewhere."""
    if entry.path.startswith(REMOTE_SCHEMES):
        store, inside = open_remote(entry.path)
        folder = inside.split("*")[0].split("[")[0].rpartition("/")[0] if "*" in inside else inside
        pattern = inside.removeprefix("**/") if "*" in inside else "*"
        listed = [f for f in store.list_files(folder) if fnmatch(f.path, f"{pattern}")]
        if not listed:
            raise GroundupError(f"benchmark {entry.label}: {entry.path}: no file matches")
        paths = fetch_all(store, listed, entry.label)
        return {file.path: path for file, path in zip(listed, paths, strict=True)}
    if entry.path.startswith(("https://", "pypi:")):
        file = fetch(entry.path)
        return {file.name: file}
    path = root / Path(entry.path).expanduser()
    files = _local_files(path, "*")
    if not files:
        raise GroundupError(f"benchmark {entry.label}: there is no file {path}")
    top = path if path.is_dir() else Path(os.path.commonpath([file.parent for file in files]))
    named = {file.relative_to(top).as_posix(): file for file in files}
    # The labels of PIQA and SIQA are in a file beside the questions.
    for name, file in list(named.items()):
        labels = label_name(name)
        if labels and (beside := file.with_name(label_name(file.name))).is_file():
            named[labels] = beside
    return named


def ask_benchmark(
    model: Transformer, tokenizer: Tokenizer, benchmark: Benchmark, limit: int, seed: int
) -> dict[str, Any]:
    """Return the figures of a benchmark, or of `limit` of its questions (0 for all).

    Raises GroundupError if its files hold none.
    """
    if benchmark.task == "core":
        return core_figures(model, tokenizer, benchmark.files, limit)
    if benchmark.task:
        asked = benchmark.task, benchmark.files, benchmark.shots
        return task_figures(model, tokenizer, *asked, limit, seed)
    (path,) = benchmark.files.values()
    return benchmark_figures(model, tokenizer, path, limit, seed)


def read_questions(path: Path) -> tuple[list[Question], Counter[str]]:
    """Return the questions of a file, and the number of lines left out by reason.

    Raises GroundupError if the file cannot be read, or no line of it is a question.
    """
    questions: list[Question] = []
    left_out: Counter[str] = Counter()
    try:
        with _OPEN.get(path.suffix, open)(path, "rt", encoding="utf-8") as file:
            while line := file.readline(_MAX_LINE):
                try:
                    if line.strip():
                        questions.append(parse_question(line))
                except ValueError as error:
                    left_out[str(error)] += 1
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise GroundupError(f"{path}: cannot be read: {error}") from None
    if not questions:
        reason = f" ({left_out.most_common(1)[0][0]})" if left_out else ""
        expected = f"expected JSON lines with {known_keys()}"
        raise GroundupError(f"{path}: no line holds a question{reason}; {expected}")
    same = [question for question in questions if question.layout == questions[0].layout]
    if len(same) < len(questions):
        left_out["another layout than the first question"] += len(questions) - len(same)
    return same, left_out


def continuations(question: Question, tokenizer: Tokenizer) -> list[Continuation]:
    """Return one continuation per choice.

    An end-of-text id precedes the context, as it precedes every document in training. The space
    between context and choice belongs to the choice, as the pre-tokenizer splits it.
    """
    context = [tokenizer.end_id, *tokenizer.encode(question.context.rstrip())]
    spaced = [choice if choice[0].isspace() else " " + choice for choice in question.choices]
    return [Continuation(context, tokenizer.encode(choice)) for choice in spaced]


def benchmark_figures(
    model: Transformer, tokenizer: Tokenizer, path: Path, limit: int, seed: int
) -> dict[str, Any]:
    """Return the figures of a file, or of a random sample of `limit` questions (0 for all).

    Raises GroundupError if the file is not a benchmark.
    """
    questions, left_out = read_questions(path)
    available = len(questions)
    if limit and available > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(available, limit, replace=False))
        questions = [questions[i] for i in chosen]
    items = [continuations(question, tokenizer) for question in questions]
    flat = iter(score(model, [item for group in items for item in group]))
    scores = [[next(flat) for _ in group] for group in items]
    layout = questions[0].layout
    return {
        "layout": layout,
        **LAYOUTS[layout].figures(questions, scores),
        "available": available,
        "left_out": dict(sorted(left_out.items())),
        "file": path.name,
    }


def beginnings(data: ValidationData, source: str, length: int) -> list[Ids]:
    """Return the first `length` tokens of each held-out document of a source that has them."""
    documents: list[Ids] = []
    for stream in data.streams(source, "validation"):
        filters = ("shard", "=", stream.name), ("length", ">", length)
        index = data.documents("validation", ["offset"], *filters)
        # Position 0 of a stream is the end-of-text id before its first document.
        starts = np.sort(index["offset"].to_numpy()) + 1
        documents += [stream.slice(start, start + length) for start in starts.tolist()]
    return documents


def make_questions(
    documents: Sequence[Ids], context: int, count: int, seed: int
) -> list[list[Ids]]:
    """Return for each of `count` documents its context, its own passage, and three others.

    Documents and passages are drawn from `seed`; a passage equal to the true one is not used.
    """
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(len(documents), min(count, len(documents)), replace=False))
    questions = []
    for n in chosen:
        passage = documents[n][context:]
        others = [documents[i][context:] for i in random.permutation(len(documents)) if i != n]
        different = [o for o in others[: 4 * PASSAGES] if not np.array_equal(o, passage)]
        if len(different) >= PASSAGES - 1:
            questions.append([documents[n][:context], passage, *different[: PASSAGES - 1]])
    return questions


def passage_figures(
    model: Transformer, data: ValidationData, count: int, seed: int
) -> dict[str, Any]:
    """Ask `count` questions, spread over the sources; return accuracies in total and by source.

    `accuracy` takes the passage that gains most from the context: log p(passage | context) - log
    p(passage), the latter after the end-of-text id alone. `likelihood` takes the most probable
    passage, which favors plain ones.
    """
    context = max(1, int(model.config.context * CONTEXT_SHARE))
    passage = max(1, int(model.config.context * PASSAGE_SHARE))
    documents = {source: beginnings(data, source, context + passage) for source in data.shards}
    asked = [source for source, group in documents.items() if len(group) >= PASSAGES]
    share = -(-count // len(asked)) if asked else 0
    end = data.tokenizer.end_id
    answers: dict[str, Answers] = {}
    for source in asked:
        questions, items = make_questions(documents[source], context, share, seed), []
        for beginning, *passages in questions:
            targets = [choice.tolist() for choice in passages]
            items += [Continuation([end, *beginning.tolist()], target) for target in targets]
            items += [Continuation([end], target) for target in targets]
        scores = np.array([item.log_probability for item in score(model, items)])
        with_context, without_context = scores.reshape(len(questions), 2, PASSAGES).swapaxes(0, 1)
        choices = [(with_context - without_context).argmax(1), with_context.argmax(1)]
        # The true passage is choice 0.
        answers[source] = np.stack(choices, axis=1) == 0
    in_all = np.concatenate([np.empty((0, 2), np.bool_), *answers.values()])
    return {
        "chance": 1 / PASSAGES,
        "context_tokens": context,
        "passage_tokens": passage,
        **_accuracies(in_all),
        "sources": {source: _accuracies(group) for source, group in answers.items()},
        "sources_with_too_few_documents": [source for source in documents if source not in asked],
    }


def _accuracies(answers: Answers) -> dict[str, Any]:
    gain, likelihood = answers.sum(axis=0).tolist()
    return {**accuracy(gain, len(answers)), "likelihood": accuracy(likelihood, len(answers))}
