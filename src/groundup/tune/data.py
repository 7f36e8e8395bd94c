"""Conversations → rows of tokens to learn from, and rows held out. Reads turns; what cannot be used
is listed with its reason.

A row fits into the model's context. A longer conversation becomes several rows of whole exchanges,
so that every answer is learned once; an exchange that does not fit alone is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt

from groundup.artifacts.chat import encode_chat
from groundup.artifacts.document import Turn
from groundup.artifacts.tokenizer import Tokenizer
from groundup.tune.turns import Unusable, exchanges, is_task, to_chat


@dataclass(frozen=True, slots=True)
class Talk:
    """One document as it was collected: where it came from, the unit that may not be split, and who
    said what.

    `held_out` is None where the hash of its unit is to decide.
    """

    origin: str
    record: int
    group: str
    turns: Sequence[Mapping[str, str]] | None
    held_out: bool | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What is not learned from, and why."""

    origin: str
    record: int
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its tokens, which of them are to be learned, and the turns behind them."""

    origin: str
    record: int
    turns: tuple[Turn, ...]
    ids: npt.NDArray[np.int64]
    learned: npt.NDArray[np.bool_]
    task: bool

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
    """What there is to learn from and to measure on."""

    train: list[Row] = field(default_factory=list)
    held_out: list[Row] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """The labels of the task, sorted; empty where nothing is one."""
        return sorted({row.answer for row in self.train if row.task})

    def leave_out(self, row: Row, reason: str, detail: str) -> None:
        """List a row instead of using it."""
        self.left_out.append(LeftOut(row.origin, row.record, reason, detail))

    def listed(self) -> Iterator[dict[str, object]]:
        """Yield what is left out as plain values, by origin and record."""
        yield from (
            asdict(one)
            for one in sorted(
                self.left_out, key=lambda one: (one.origin, one.record, one.reason, one.detail)
            )
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """How rows are chosen: the share that is held out, how many are learned from at most, and the
    seed of both.
    """

    validation: float = 0.1
    limit: int = 0
    seed: int = 1


def make_rows(talks: Iterable[Talk], tokenizer: Tokenizer, context: int, choice: Choice) -> Rows:
    """Return rows of at most `context` tokens, split by unit; a prompt that is answered in training
    is never held out.
    """
    rows = Rows()
    units: dict[str, list[Row]] = {}
    for talk in talks:
        try:
            chat = to_chat(talk.turns)
        except Unusable as verdict:
            rows.left_out.append(LeftOut(talk.origin, talk.record, verdict.reason, verdict.detail))
            continue
        found = list(_fitting(talk, chat, tokenizer, context, rows))
        if talk.held_out is None:
            units.setdefault(unit_of(talk, chat), []).extend(found)
        else:
            (rows.held_out if talk.held_out else rows.train).extend(found)
    held = _held_units(units, choice)
    for unit, found in units.items():
        (rows.held_out if unit in held else rows.train).extend(found)
    _without_repetition(rows)
    _limit(rows, choice)
    # What is measured on the first of them holds for all.
    rows.held_out.sort(key=lambda row: digest("order", str(choice.seed), str(_said(row.turns))))
    return rows


def _fitting(
    talk: Talk, chat: Sequence[Turn], tokenizer: Tokenizer, context: int, rows: Rows
) -> Iterator[Row]:
    """Yield as few rows of whole exchanges as hold the conversation; each begins with the system's
    turn, if there is one.
    """
    head = list(chat[:1]) if chat[0]["role"] == "system" else []
    room = context - len(encode_chat(tokenizer, head)[0])
    held: list[Turn] = []
    size = 0
    for exchange in exchanges(chat):
        length = len(encode_chat(tokenizer, exchange)[0])
        if held and (size + length > room or length > room):
            yield _row(talk, [*head, *held], tokenizer)
            held, size = [], 0
        if length > room:
            detail = (
                f"an exchange of {length + context - room} tokens does not fit into a context of"
                f" {context}"
            )
            rows.left_out.append(LeftOut(talk.origin, talk.record, "too-long", detail))
            continue
        held += exchange
        size += length
    if held:
        yield _row(talk, [*head, *held], tokenizer)


def _row(talk: Talk, turns: Sequence[Turn], tokenizer: Tokenizer) -> Row:
    ids, learned = encode_chat(tokenizer, turns)
    return Row(
        talk.origin,
        talk.record,
        tuple(turns),
        np.array(ids),
        np.array(learned),
        is_task(talk.turns or ()),
    )


def unit_of(talk: Talk, chat: Sequence[Turn]) -> str:
    """Return what keeps a conversation on one side: its thread, or its first question where it has
    none of its own.

    A number in a file is no thread: the split must not depend on the order of rows.
    """
    numbered = talk.group.endswith(f"#{talk.record}")
    first = next(turn for turn in chat if turn["role"] == "user")
    return f"text {folded(first['content'])}" if numbered else f"group {talk.group}"


def folded(text: str) -> str:
    """Return a text without case and with single spaces: what two texts are compared by."""
    return " ".join(text.casefold().split())


def digest(*parts: str) -> int:
    """Return a 64-bit hash of texts."""
    return int.from_bytes(
        hashlib.blake2b(
            "\x00".join(parts).encode("utf-8", "surrogatepass"), digest_size=8
        ).digest(),
        "big",
    )


def _held_units(units: Mapping[str, Sequence[Row]], choice: Choice) -> set[str]:
    hashes = {
        unit: digest("held out", str(choice.seed), unit) for unit, found in units.items() if found
    }
    held = {unit for unit, value in hashes.items() if value < choice.validation * 2**64}
    if choice.validation and not 0 < len(held) < len(hashes):
        # So few rows that none or all would be: one unit to measure on, if another is left to learn
        # from.
        return {min(hashes, key=lambda unit: (hashes[unit], unit))} if len(hashes) > 1 else set()
    return held


def _said(turns: Sequence[Mapping[str, str]]) -> int:
    return digest(*(f"{turn['role']} {folded(turn['content'])}" for turn in turns))


def _without_repetition(rows: Rows) -> None:
    """Learn a conversation once; measure on none that was learned, and on no prompt that was
    answered in training.
    """
    train, seen = [], set()
    for row in rows.train:
        if (whole := _said(row.turns)) in seen:
            rows.leave_out(row, "duplicate", "the same conversation stands in another row")
            continue
        seen.add(whole)
        train.append(row)
    answered = {
        _said(row.turns[:end])
        for row in train
        for end in range(1, len(row.turns))
        if row.turns[end]["role"] == "assistant"
    }
    held, measured = [], set()
    for row in rows.held_out:
        prompt = _said(row.prompt)
        if prompt in answered:
            rows.leave_out(
                row, "answered-in-training", "its prompt stands in the rows that are learnt"
            )
        elif prompt in measured:
            rows.leave_out(row, "duplicate", "another held-out row has the same prompt")
        else:
            measured.add(prompt)
            held.append(row)
    rows.train, rows.held_out = train, held


def _limit(rows: Rows, choice: Choice) -> None:
    if not choice.limit or len(rows.train) <= choice.limit:
        return
    order = sorted(
        range(len(rows.train)),
        key=lambda n: digest("limit", str(choice.seed), str(_said(rows.train[n].turns))),
    )
    chosen = set(order[: choice.limit])
    for number, row in enumerate(rows.train):
        if number not in chosen:
            rows.leave_out(row, "limit", f"beyond the {choice.limit} rows that are asked for")
    rows.train = [rows.train[number] for number in sorted(chosen)]
