"""Quality filters: published rules with the recipe's thresholds, and the user's own functions.

Reads and writes nothing on disk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from groundup.artifacts.arrays import Array, mask
from groundup.errors import GroundupError, RecipeError
from groundup.refine.filter.rules import CUTTING, RULE_SETS, Rule
from groundup.refine.filter.statistics import Statistics
from groundup.runtime.user_code import load_function
from groundup.schema import nearest

# Scores by name, each with the least and the most that it may be; None where there is no such
# bound.
Bounds = Mapping[str, tuple[float | None, float | None]]
# By rule set and reason: a bound in place of the published one, or the least and the most where the
# rule has both.
Thresholds = Mapping[str, Mapping[str, float | Sequence[float]]]
NONE: Thresholds = {}


@dataclass(frozen=True)
class Verdict:
    """What the filters say of a batch: a keep mask, and for each dropped row the reason, its score
    and the bounds.

    Attributes:
        scores: of every document, by the reason for which they would drop it.
    """

    keep: Array
    reason: Array
    score: Array
    detail: Array
    scores: dict[str, Array] = field(default_factory=dict)


def judge(
    batch: pa.RecordBatch,
    kind: str,
    filters: Sequence[str],
    root: Path,
    thresholds: Thresholds = NONE,
) -> Verdict:
    """Apply the named rule sets and the user's functions to a batch of one kind; the first
    objection to a document stands.

    Raises:
        RecipeError: a function cannot be found.
        GroundupError: a function fails or does not return a mask and scores of the batch's length.
    """
    reason, score, detail = (np.full(len(batch), value, object) for value in ("", 0.0, ""))
    verdict = Verdict(np.ones(len(batch), np.bool_), reason, score, detail)
    statistics = Statistics(batch)
    for name in filters:
        if name in RULE_SETS:
            for rule in rules(name, kind, thresholds):
                _object(verdict, *rule.passes(statistics), rule.reason, f"{name}: {rule.bounds}")
        else:
            _object(verdict, *_ask(name, root, batch), name, "")
    return verdict


def _object(verdict: Verdict, keep: Array, score: Array, reason: str, detail: str) -> None:
    dropped = verdict.keep & ~keep
    verdict.scores[reason] = score
    verdict.keep[dropped] = False
    verdict.reason[dropped], verdict.score[dropped], verdict.detail[dropped] = (
        reason,
        score[dropped],
        detail,
    )


def applicable(filters: Sequence[str], kind: str) -> list[str]:
    """Return the filters that have something to say about a kind: its rule sets, and every function
    of the user's.

    The set that takes lines out comes first, wherever it stands: the others look at what is left.

    Raises:
        RecipeError: a name is neither a rule set nor "package.module:function".
    """
    for name in filters:
        if name not in RULE_SETS and ":" not in name:
            raise RecipeError(
                f'filter "{name}" is unknown{nearest(name, list(RULE_SETS))}; your own is'
                ' "package.module:function"'
            )
    found = [name for name in filters if name not in RULE_SETS or RULE_SETS[name].rules_for(kind)]
    return sorted(found, key=lambda name: name != CUTTING)


def check_filters(filters: Sequence[str], thresholds: Thresholds) -> None:
    """Refuse names of filters that are unknown, and thresholds of rules that the recipe does not
    ask for.

    Raises:
        RecipeError: says which, and the nearest known name.
    """
    applicable(filters, "")
    sets = [name for name in filters if name in RULE_SETS]
    for name, bounds in thresholds.items():
        if name not in sets:
            raise RecipeError(
                f'[refine.thresholds] "{name}" is no rule set among the filters of the'
                f" recipe{nearest(name, sets)}"
            )
        known = {rule.reason: rule for rule in RULE_SETS[name].rules}
        for reason, bound in bounds.items():
            if reason not in known:
                raise RecipeError(
                    f"[refine.thresholds] {name} has no rule"
                    f' "{reason}"{nearest(reason, list(known))}'
                )
            _with_bound(known[reason], bound, name)


def thresholds_for(filters: Sequence[str], kind: str, thresholds: Thresholds) -> Thresholds:
    """Return those thresholds that decide about documents of a kind."""
    found: dict[str, Mapping[str, float | Sequence[float]]] = {}
    for name in thresholds.keys() & set(filters):
        asked = {rule.reason for rule in RULE_SETS[name].rules_for(kind)}
        own = {reason: bound for reason, bound in thresholds[name].items() if reason in asked}
        found |= (
            {
                name: {
                    reason: [*bound] if isinstance(bound, Sequence) else bound
                    for reason, bound in own.items()
                }
            }
            if own
            else {}
        )
    return found


def rules(name: str, kind: str, thresholds: Thresholds = NONE) -> list[Rule]:
    """Return the rules of a set that apply to a kind, with the thresholds of the recipe in place of
    the published ones.
    """
    own = thresholds.get(name, {})
    return [
        _with_bound(rule, own[rule.reason], name) if rule.reason in own else rule
        for rule in RULE_SETS[name].rules_for(kind)
    ]


def _with_bound(rule: Rule, bound: float | Sequence[float], name: str) -> Rule:
    """Return a rule with another threshold: a number, or the least and the most where the rule has
    both.
    """
    where = f"[refine.thresholds] {name}.{rule.reason}"
    if math.isfinite(rule.low) and math.isfinite(rule.high):
        if isinstance(bound, (int, float)) or len(bound) != 2 or bound[0] > bound[1]:
            raise RecipeError(
                f"{where} wants the least and the most, such as [{rule.low:g}, {rule.high:g}]"
            )
        return replace(rule, low=float(bound[0]), high=float(bound[1]))
    if not isinstance(bound, (int, float)):
        raise RecipeError(f"{where} wants one number; as published it is {rule.bounds}")
    return (
        replace(rule, low=float(bound))
        if math.isfinite(rule.low)
        else replace(rule, high=float(bound))
    )


def score_bounds(filters: Sequence[str], kind: str, thresholds: Thresholds = NONE) -> Bounds:
    """Return the scores that `judge` gives to documents of a kind, with their bounds; a user's
    function tells none.
    """
    bounds: dict[str, tuple[float | None, float | None]] = {}
    for name in filters:
        for rule in rules(name, kind, thresholds) if name in RULE_SETS else ():
            low, high = (bound if math.isfinite(bound) else None for bound in (rule.low, rule.high))
            bounds[rule.reason] = (low, high)
        if name not in RULE_SETS:
            bounds[name] = (None, None)
    return bounds


def _ask(name: str, root: Path, batch: pa.RecordBatch) -> tuple[Array, Array]:
    function = load_function(name, root, "filter")
    try:
        keep, score = function(batch)
        keep = mask(keep) if isinstance(keep, pa.Array) else np.asarray(keep, np.bool_)
        score = np.asarray(score, np.float64)
        if keep.shape != (len(batch),) or score.shape != keep.shape:
            raise ValueError(f"returned {keep.shape} and {score.shape} for {len(batch)} documents")
    except Exception as error:
        raise GroundupError(f'filter "{name}" failed: {type(error).__name__}: {error}') from None
    return keep, score
