"""Conversations → rows of tokens to train on, and held-out rows to measure on.

A row fits into the model's context. A longer conversation becomes several rows of whole exchanges,
so every answer is learned once. Whatever is left out is listed with its reason.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle, groupby, product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from groundup.artifacts.chat import ROLES, encode_chat
from groundup.artifacts.checkpoints import trained_on
from groundup.artifacts.corpus import VERDICTS, RefinedShard, refined_shards
from groundup.artifacts.document import LABEL, UNLEARNED, Turn, read_batches
from groundup.artifacts.kinds import KINDS
from groundup.artifacts.tokenizer import Tokenizer
from groundup.errors import GroundupError
from groundup.runtime.run import Run
from groundup.runtime.store import Artifact

_COLUMNS = ("origin", "record", "group", "turns")

# Function calls and their results: text that no person wrote or should read.
TOOL_ROLES = frozenset(
    (
        *("function", "function_call", "function-call", "function_response", "observation"),
        *("tool", "tool_call", "tool_calls", "tool_response"),
    )
)
_SAME_SPEAKER = (UNLEARNED, "assistant")
# Consecutive turns without a speaker's name may be of different speakers.
UNNAMED = "speaker"


@dataclass(frozen=True, slots=True)
class Conversation:
    """One document as it was collected."""

    origin: str
    record: int
    group: str  # the thread, which must not be split between training and held-out rows
    turns: Sequence[Mapping[str, str]] | None
    held_out: bool | None = None  # None if the hash of its group decides


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A conversation or row that is not used, and why."""

    origin: str
    record: int
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class TuningData:
    """Where conversations are read from."""

    title: str  # for people, without any folder
    shards: Sequence[RefinedShard] = ()  # the run's own documents, with their split
    collected: Sequence[Path] = ()  # folders of collected tuning data, which have no split yet
    # Name → content of each, for the key of the step.
    inputs: dict[str, str] = field(default_factory=dict)

    def conversations(self) -> Iterator[Conversation]:
        """Yield the documents in order."""
        for shard, split in product(self.shards, VERDICTS):
            for batch in shard.batches(("source", *_COLUMNS), split):
                for row in batch.to_pylist():
                    origin = f"{row.pop('source')}/{row.pop('origin')}"
                    yield Conversation(origin, **row, held_out=split == "validation")
        for batch in read_batches([f / "documents.parquet" for f in self.collected], _COLUMNS):
            yield from (Conversation(**row) for row in batch.to_pylist())

    def unread(self) -> Iterator[LeftOut]:
        """Yield the records that the stage `collect` could not read."""
        for folder in self.collected:
            for row in pq.read_table(folder / "dropped.parquet").to_pylist():
                yield LeftOut(row["origin"], row["record"], row["reason"], row["detail"] or "")


def collected_data(run: Run) -> tuple[TuningData, list[Artifact]]:
    """Return the collected data that `[tune] data` names, and their artifacts.

    The view `tune` names the artifacts too: they must outlive a collect that no longer names them.
    Raises GroundupError if the data are not collected.
    """
    collected = run.store.artifacts("collect", "collect/shard")
    shards = [shard for shard in collected if KINDS[shard.facts["kind"]].role == "tuning"]
    if not shards:
        missing = f"{run.root / 'collect'}: the tuning data are missing"
        raise GroundupError(f"{missing}; run with --redo collect")
    inputs = {f"data {shard.name}": shard.content for shard in shards}
    folders = [shard.path for shard in shards]
    return TuningData(Path(run.recipe.tune.data).name, collected=folders, inputs=inputs), shards


def run_conversations(run: Run) -> TuningData:
    """Return the run's own conversations.

    Raises GroundupError if there are none, or the model was not trained on their present split:
    what it holds out may have been learned.
    """
    tokens = run.store.view("tokenize")
    if tokens is None:
        missing = f"{run.root / 'tokenize'}: there are no tokens"
        raise GroundupError(f"{missing}; run with --redo tokenize")
    trained_on(run.root, tokens)
    chosen = run.recipe.tune.sources
    names = [source.name for source in run.recipe.source if KINDS[source.kind].has_turns]
    names = [name for name in names if not chosen or name in chosen]
    if not names:
        remedy = f"name a file: `groundup tune {run.root} --data FILE`"
        raise GroundupError(f"{run.root}: the run has no conversations; {remedy}")
    artifacts = run.store.artifacts("tokenize", "tokenize/shard")
    tokenized = {shard.name: shard.manifest["inputs"] for shard in artifacts}
    shards = [shard for shard in refined_shards(run.root) if shard.source in names]
    shards.sort(key=lambda shard: (shard.source, shard.name))
    kinds = ("documents", "split")
    for shard in shards:
        trained = tokenized.get(shard.name, {})
        if any(trained.get(kind) != shard.digests[kind] for kind in kinds):
            changed = f"{run.root}: the conversations changed after the model was trained"
            raise GroundupError(f"{changed}; `groundup run` brings both together")
    inputs = {f"{kind} {shard.name}": shard.digests[kind] for kind in kinds for shard in shards}
    return TuningData(f"conversations of the run: {', '.join(names)}", shards, inputs=inputs)


class Unusable(Exception):  # noqa: N818 - a verdict on data, not a failure
    """Nothing can be learned from a conversation; `reason` is a code, `detail` is for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def to_chat(turns: Sequence[Mapping[str, str]] | None) -> list[Turn]:
    """Return a conversation as a chat: maybe a system turn, then user and assistant in alternation.

    Contents are stripped, consecutive turns of one speaker are joined, and turns after the last
    answer are left out. In a dialogue between people the last speaker is the assistant:

        ann: A1, bob: B1, ann: A2, carl: C1, carl: C2
        → user: A1, assistant: B1, user: A2, assistant: C1\\nC2

    Raises Unusable: empty, not-to-learn, no-answer, tool-calls or roles-out-of-order.
    """
    contents = [(turn["role"], (turn["content"] or "").strip()) for turn in turns or ()]
    spoken = [{"role": role, "content": content} for role, content in contents if content]
    if not spoken:
        raise Unusable("empty", "no turn has any text")
    tools = sorted({turn["role"] for turn in spoken} & TOOL_ROLES)
    if tools:
        raise Unusable("tool-calls", f"it holds turns of {', '.join(tools)}")
    system = spoken[:1] if spoken[0]["role"] == "system" else []
    rest = [
        turn | {"role": "assistant"} if turn["role"] == LABEL else turn
        for turn in spoken[len(system) :]
    ]
    chat = _with_roles(rest)
    while chat and chat[-1]["role"] != "assistant":
        chat.pop()
    if not chat and any(turn["role"] == UNLEARNED for turn in rest):
        raise Unusable("not-to-learn", "every answer in it is marked as not to be learned")
    if not chat:
        raise Unusable("no-answer", "nobody answers in it")
    return system + chat


def _with_roles(turns: Sequence[Turn]) -> list[Turn]:
    """Return the turns of user and assistant, consecutive ones of one speaker joined.

    An answer of which a part is not to be learned is not learned. Turns of other speakers alternate
    between the two roles.
    """
    joined: list[Turn] = []
    roles = [turn["role"] for turn in turns]
    for speaker, turns_of in groupby(turns, key=lambda turn: turn["role"].replace(*_SAME_SPEAKER)):
        group = list(turns_of)
        role = UNLEARNED if any(turn["role"] == UNLEARNED for turn in group) else speaker
        contents = [turn["content"] for turn in group]
        if role != UNNAMED:
            contents = ["\n".join(contents)]
        joined += [{"role": role, "content": text} for text in contents]
    if not set(roles) <= {*ROLES, UNLEARNED}:
        # Roles alternate backward from the end; an odd first turn answers nobody.
        joined = joined[len(joined) % 2 :]
        sides = cycle(("user", "assistant"))
        return [turn | {"role": side} for turn, side in zip(joined, sides, strict=False)]
    if "system" in roles:
        detail = f"turn {roles.index('system') + 1} is the system's, which may only come first"
        raise Unusable("roles-out-of-order", detail)
    if roles and roles[0] in ("assistant", UNLEARNED):
        raise Unusable("roles-out-of-order", "it begins with the assistant")
    return joined


@dataclass(frozen=True, slots=True)
class Row:
    """One training or held-out sequence."""

    origin: str
    record: int
    turns: tuple[Turn, ...]  # the chat that the ids encode; the last turn is an answer
    ids: npt.NDArray[np.int64]
    # True for the ids that are learned, which are those of answers.
    loss_mask: npt.NDArray[np.bool_]
    task: bool  # whether the answer is the label of a task

    @property
    def prompt(self) -> tuple[Turn, ...]:
        """All turns before the last answer."""
        return self.turns[:-1]

    @property
    def answer(self) -> str:
        """The last answer."""
        return self.turns[-1]["content"]


@dataclass
class Rows:
    """Rows to train on and to measure on, and what was left out."""

    train: list[Row] = field(default_factory=list)
    held_out: list[Row] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """Labels of the task, sorted; empty if there is no task."""
        return sorted({row.answer for row in self.train if row.task})

    @property
    def reasons(self) -> dict[str, int]:
        """Reason → number left out for it."""
        return dict(sorted(Counter(entry.reason for entry in self.left_out).items()))

    def leave_out(self, source: Conversation | Row, reason: str, detail: str) -> None:
        """List a conversation or row instead of using it."""
        self.left_out.append(LeftOut(source.origin, source.record, reason, detail))

    def listed(self) -> Iterator[dict[str, object]]:
        """Yield what is left out, sorted by origin and record."""
        yield from sorted(map(asdict, self.left_out), key=lambda entry: tuple(entry.values()))


def make_rows(
    conversations: Iterable[Conversation],
    tokenizer: Tokenizer,
    context: int,
    validation: float = 0.1,
    limit: int = 0,
    seed: int = 1,
) -> Rows:
    """Return rows that fit into `context` tokens, split by thread into training and held out.

    A thread stays on one side, and a prompt that is answered in training is never held out.
    `validation` is the share of the threads that is held out; `limit` is the number of training
    rows, a random sample; 0 takes all.
    """
    rows = Rows()
    threads: dict[str, list[Row]] = defaultdict(list)
    for conversation in conversations:
        try:
            chat = to_chat(conversation.turns)
        except Unusable as error:
            rows.leave_out(conversation, error.reason, error.detail)
            continue
        fitting = list(_fitting_rows(conversation, chat, tokenizer, context, rows))
        if conversation.held_out is not None:
            (rows.held_out if conversation.held_out else rows.train).extend(fitting)
            continue
        thread = f"group {conversation.group}"
        if conversation.group.endswith(f"#{conversation.record}"):
            # A record number is no thread: the split must not depend on the order of records.
            # The first question decides instead.
            first = next(turn for turn in chat if turn["role"] == "user")
            thread = f"text {folded(first['content'])}"
        threads[thread] += fitting
    _split(rows, threads, validation, limit, seed)
    # Some figures are measured on the first held-out rows only: these are a random sample.
    rows.held_out.sort(key=lambda row: _hash("order", str(seed), str(_hash_turns(row.turns))))
    return rows


def _fitting_rows(
    conversation: Conversation, chat: Sequence[Turn], tokenizer: Tokenizer, context: int, rows: Rows
) -> Iterator[Row]:
    """Yield as few rows of whole exchanges as possible; each starts with the system turn."""
    system = list(chat[:1]) if chat[0]["role"] == "system" else []
    room = context - len(encode_chat(tokenizer, system)[0])
    task = any(turn["role"] == LABEL for turn in conversation.turns or ())
    groups: list[list[Turn]] = [[]]
    size = 0
    # A question and its answer each; the system turn belongs to none.
    for start in range(len(system), len(chat), 2):
        exchange = chat[start : start + 2]
        length = len(encode_chat(tokenizer, exchange)[0])
        if size + length > room:
            groups.append([])
            size = 0
        if length > room:
            tokens = f"an exchange of {length + context - room} tokens"
            detail = f"{tokens} does not fit into a context of {context}"
            rows.leave_out(conversation, "too-long", detail)
            continue
        groups[-1] += exchange
        size += length
    for group in groups:
        while group and group[-1]["role"] == UNLEARNED:
            del group[-2:]
        if group:
            turns = (*system, *group)
            ids, mask = map(np.array, encode_chat(tokenizer, turns))
            yield Row(conversation.origin, conversation.record, turns, ids, mask, task)


def folded(text: str) -> str:
    """Return a text without case and with single spaces, for comparison."""
    return " ".join(text.casefold().split())


def _hash(*parts: str) -> int:
    data = "\x00".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _hash_turns(turns: Sequence[Mapping[str, str]]) -> int:
    return _hash(*(f"{turn['role']} {folded(turn['content'])}" for turn in turns))


def _split(
    rows: Rows, threads: Mapping[str, Sequence[Row]], validation: float, limit: int, seed: int
) -> None:
    """Hold out whole threads; then keep each training conversation once, no held-out prompt that
    training answers, and `limit` training rows at random, in their order.
    """
    hashes = {name: _hash("held out", str(seed), name) for name, group in threads.items() if group}
    # The threads whose hashes lie in the first `validation` of all hashes.
    held_out = {name for name, value in hashes.items() if value < validation * 2**64}
    if validation and len(held_out) in (0, len(hashes)):
        # So few threads that none or all were chosen: hold out one, if another is left to train on.
        ordered = sorted(hashes, key=lambda name: (hashes[name], name))
        held_out = set(ordered[:1]) if len(ordered) > 1 else set()
    for name, group in threads.items():
        (rows.held_out if name in held_out else rows.train).extend(group)
    train: dict[int, Row] = {}
    for row in rows.train:
        if train.setdefault(_hash_turns(row.turns), row) is not row:
            rows.leave_out(row, "duplicate", "the same conversation stands in another row")
    answered = {
        _hash_turns(row.turns[:end])
        for row in train.values()
        for end in range(1, len(row.turns))
        if row.turns[end]["role"] == "assistant"
    }
    prompts: dict[int, Row] = {}
    for row in rows.held_out:
        prompt = _hash_turns(row.prompt)
        if prompt in answered:
            detail = "its prompt stands in the rows that are learnt"
            rows.leave_out(row, "answered-in-training", detail)
        elif prompts.setdefault(prompt, row) is not row:
            rows.leave_out(row, "duplicate", "another held-out row has the same prompt")
    ranked = sorted(train, key=lambda hashed: _hash("limit", str(seed), str(hashed)))
    for hashed in ranked[limit or len(ranked) :]:
        detail = f"beyond the {limit} rows that are asked for"
        rows.leave_out(train.pop(hashed), "limit", detail)
    rows.train, rows.held_out = list(train.values()), list(prompts.values())
