"""One sample of each kind of text, never chosen by hand.

The prompt begins with a line of a held-out document of that kind; document and line are drawn with
the seed of the run, and sampling uses seed 1. With each sample stands the longest run of tokens
that it shares with the training text, which tells memorized text from new text.

That run is exact, and found in one pass. A suffix automaton of the sample (Blumer et al. 1985)
recognizes every run of its tokens. Fed with the training tokens one by one, it knows at each token
the longest run that ends there. That costs one table look-up per token on average, whatever the
length of the match, and needs no index of the training text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from groundup.evaluate.validation_data import Ids, Stream, ValidationData
from groundup.model.generate import generate
from groundup.model.transformer import Transformer

PROMPT_TOKENS = 24
SAMPLING = {"temperature": 0.8, "top_k": 0, "top_p": 0.95, "seed": 1}

_Table = npt.NDArray[np.int32]


def samples(
    model: Transformer, data: ValidationData, kinds: Mapping[str, str], tokens: int, seed: int
) -> list[dict[str, Any]]:
    """Return one sample of `tokens` tokens for each kind of text; `kinds` maps source → kind."""
    by_kind: dict[str, list[str]] = {}
    for source in data.shards:
        by_kind.setdefault(kinds.get(source, "text"), []).append(source)
    train = data.all_streams("train")
    drawn = []
    for kind in sorted(by_kind):
        if chosen := choose_prompt(data, by_kind[kind], seed):
            source, document, prompt = chosen
            where = {"kind": kind, "source": source, "document": document}
            drawn.append(where | _sample(model, data, prompt, tokens, train))
    return drawn


def choose_prompt(
    data: ValidationData, sources: list[str], seed: int
) -> tuple[str, str, Ids] | None:
    """Draw a held-out document of these sources and one of its lines; None if all are too short.

    Returns the source, the id of the document, and the tokens from the beginning of the line.
    """
    filters = ("source", "in", sources), ("length", ">", PROMPT_TOKENS)
    columns = ["shard", "id", "source", "offset", "length"]
    rows = data.documents("validation", columns, *filters)
    if not len(rows):
        return None
    random = np.random.default_rng(seed)
    # Sorted by id, so that the choice does not depend on the order of shards.
    row = rows.sort_by("id").slice(int(random.integers(len(rows))), 1).to_pylist()[0]
    start = row["offset"] + 1
    tokens = data.stream(row["shard"], "validation").slice(start, start + row["length"] - 1)
    # Lines begin at 0, and after tokens that end with a line break.
    distinct, inverse = np.unique(tokens[: 1 - PROMPT_TOKENS], return_inverse=True)
    texts = [data.tokenizer.decode([token]) for token in distinct.tolist()]
    breaks = np.array([text.endswith("\n") for text in texts], np.bool_)[inverse]
    starts = np.append(0, np.flatnonzero(breaks[:-1]) + 1)
    line = int(starts[random.integers(len(starts))])
    return row["source"], row["id"], tokens[line : line + PROMPT_TOKENS]


def _sample(
    model: Transformer, data: ValidationData, prompt: Ids, tokens: int, train: Sequence[Stream]
) -> dict[str, Any]:
    """Generate a sample; describe it and the longest run that it shares with the training text."""
    tokenizer = data.tokenizer
    start = [tokenizer.end_id, *prompt.tolist()]
    options: dict[str, Any] = {"stop": {tokenizer.end_id}, **SAMPLING}
    ids = list(generate(model, start, tokens, **options))
    length, shard, begin = longest_shared_run(ids, train, model.config.vocab_size)
    overlap = {"tokens": length, "text": "", "document": "", "shard": shard}
    if length:
        shared = data.stream(shard, "train").tokens[begin : begin + length]
        overlap["text"] = tokenizer.decode(shared)
        overlap["document"] = document_at(data, shard, begin)
    return {
        "prompt": tokenizer.decode(prompt),
        "text": tokenizer.decode(ids),
        "tokens": len(ids),
        "ended": len(ids) < tokens,
        "sampling": SAMPLING,
        "overlap": overlap,
    }


def document_at(data: ValidationData, shard: str, position: int) -> str:
    """Return the id of the training document that holds the token at `position` of a shard."""
    filters = ("shard", "=", shard), ("offset", "<=", position)
    rows = data.documents("train", ["id", "offset"], *filters)
    return str(rows.sort_by("offset")["id"][-1].as_py())


def suffix_automaton(sample: Sequence[int]) -> tuple[_Table, _Table, _Table]:
    """Return the suffix automaton of a run of symbols 0, 1, ...; two states or fewer per symbol.

    It is: the state after a symbol [states, symbols], -1 for none; the state of the longest proper
    suffix with other transitions [states], -1 at the start; and the length of the longest run that
    leads to a state [states].
    """
    edges: list[dict[int, int]] = [{}]
    link, length, last = [-1], [0], 0
    for symbol in sample:
        new, state, last = len(edges), last, len(edges)
        edges.append({})
        link.append(0)
        length.append(length[state] + 1)
        while state >= 0 and symbol not in edges[state]:
            edges[state][symbol] = new
            state = link[state]
        if state < 0:
            continue
        target = edges[state][symbol]
        if length[state] + 1 != length[target]:
            # The target also stands for longer runs, which do not end here: split it.
            clone = len(edges)
            edges.append(dict(edges[target]))
            link.append(link[target])
            length.append(length[state] + 1)
            while state >= 0 and edges[state].get(symbol) == target:
                edges[state][symbol] = clone
                state = link[state]
            link[target] = target = clone
        link[new] = target
    table = np.full((len(edges), max(sample, default=0) + 1), -1, np.int32)
    for state, following in enumerate(edges):
        table[state, list(following)] = list(following.values())
    return table, np.array(link, np.int32), np.array(length, np.int32)


@numba.njit(nogil=True, cache=True)
def _longest(
    tokens: Any, symbols: _Table, nexts: _Table, link: _Table, length: _Table
) -> tuple[int, int]:
    """Return the length of the longest run and the position after its first occurrence."""
    state, run, best, end = 0, 0, 0, 0
    for i in range(len(tokens)):
        symbol = symbols[tokens[i]]
        if symbol < 0:
            state, run = 0, 0
            continue
        while state > 0 and nexts[state, symbol] < 0:
            state = link[state]
            run = length[state]
        if nexts[state, symbol] >= 0:
            state = nexts[state, symbol]
            run += 1
        if run > best:
            best, end = run, i + 1
    return best, end


def longest_shared_run(
    sample: Sequence[int], streams: Sequence[Stream], vocab_size: int
) -> tuple[int, str, int]:
    """Return the longest run that a sample shares with the streams, the first of equals.

    It has (length, shard, position of its first token in the shard); length 0 if there is none.
    """
    distinct, run = np.unique(np.array(sample, np.int64), return_inverse=True)
    nexts, link, length = suffix_automaton(run.tolist())
    # [vocab_size] the symbol of a token, -1 for a token that the sample does not hold.
    symbols = np.full(vocab_size, -1, np.int32)
    symbols[distinct] = np.arange(len(distinct))
    longest = (0, "", 0)
    for stream in streams:
        # numba does not accept memory maps, but a memory map reads as a plain array.
        size, end = _longest(np.asarray(stream.tokens), symbols, nexts, link, length)
        if size > longest[0]:
            longest = (size, stream.name, end - size)
    return longest
