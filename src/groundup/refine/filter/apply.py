"""Apply the filters of a recipe: rule sets with its thresholds, and functions of users."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from groundup.artifacts.arrays import Array, mask
from groundup.errors import GroundupError, RecipeError
from groundup.refine.dedup.minhash import Words
from groundup.refine.filter.rules import RULE_SETS, Rule
from groundup.refine.filter.statistics import Statistics
from groundup.runtime.user_code import load_function
from groundup.schema import nearest

# Lower and upper bound of each score; None where there is none.
Bounds = Mapping[str, tuple[float | None, float | None]]
# Rule set → reason → the bound that replaces the published one, or both bounds if the rule has two.
Thresholds = Mapping[str, Mapping[str, float | Sequence[float]]]
NO_THRESHOLDS: Thresholds = {}


@dataclass(frozen=True)
class FilterResult:
    """The result of the filters for a batch; reason, score and detail are of the dropped rows."""

    keep: Array  # mask
    reason: Array
    score: Array
    detail: Array  # names the rule set and the bounds
    scores: dict[str, Array] = field(default_factory=dict)  # of every document, by reason
    words: Words | None = None  # of the kept documents, if a rule has counted them

    def reject(self, keep: Array, scores: Array, reason: str) -> Array:
        """Drop the rows of the inverse of `keep` that no filter has dropped yet; return them."""
        dropped = self.keep & ~keep
        self.scores[reason] = scores
        self.keep[dropped] = False
        self.reason[dropped], self.score[dropped] = reason, scores[dropped]
        return np.flatnonzero(dropped)


def apply_filters(
    batch: pa.RecordBatch,
    kind: str,
    filters: Sequence[str],
    root: Path,
    thresholds: Thresholds = NO_THRESHOLDS,
) -> FilterResult:
    """Apply rule sets and functions of users to a batch of one kind; the first rejection counts.

    Raises a RecipeError if a function cannot be found, a GroundupError if it fails, or returns
    something else than a mask and scores.
    """
    reason, score, detail = (np.full(len(batch), value, object) for value in ("", 0.0, ""))
    result = FilterResult(np.ones(len(batch), np.bool_), reason, score, detail)
    statistics = Statistics(batch)
    for name in filters:
        if name in RULE_SETS:
            for rule in rules_for(name, kind, thresholds):
                for row in result.reject(*rule.passes(statistics), rule.reason):
                    language = batch.column("language")[row].as_py() or ""
                    result.detail[row] = f"{name}: {rule.bounds(language)}"
        else:
            result.reject(*_call(name, root, batch), name)
    return replace(result, words=statistics.kept_words(result.keep))


def _call(name: str, root: Path, batch: pa.RecordBatch) -> tuple[Array, Array]:
    """Return the keep mask and the scores that a function of a user gives to a batch."""
    function = load_function(name, root, "filter")
    try:
        keep, score = function(batch)
        keep = mask(keep) if isinstance(keep, pa.Array) else np.asarray(keep, np.bool_)
        score = np.asarray(score, np.float64)
        if keep.shape != (len(batch),) or score.shape != keep.shape:
            raise ValueError(f"returned {keep.shape} and {score.shape} for {len(batch)} documents")
    # sys.exit() in a filter would end the run without a word.
    except (Exception, SystemExit) as error:
        raise GroundupError(f'filter "{name}" failed: {type(error).__name__}: {error}') from None
    return keep, score


def rules_digest(name: str, kind: str, thresholds: Thresholds = NO_THRESHOLDS) -> str:
    """Return a digest of the rules of a set and their bounds for a kind, for keys."""
    rules = [
        (
            *(rule.reason, rule.low, rule.high, rule.short_high, rule.languages),
            *(rule.not_languages, sorted(rule.by_language.items())),
        )
        for rule in rules_for(name, kind, thresholds)
    ]
    return hashlib.sha256(repr(rules).encode()).hexdigest()[:12]


def applicable_filters(filters: Sequence[str], kind: str) -> list[str]:
    """Return the filters that apply to a kind; those that cut lines come first.

    Raises RecipeError if a name is neither a rule set nor "package.module:function".
    """
    for name in filters:
        if name not in RULE_SETS and ":" not in name:
            own = 'your own is "package.module:function"'
            raise RecipeError(f'filter "{name}" is unknown{nearest(name, list(RULE_SETS))}; {own}')
    chosen = [name for name in filters if name not in RULE_SETS or RULE_SETS[name].rules_for(kind)]
    return sorted(chosen, key=lambda name: not (name in RULE_SETS and RULE_SETS[name].cut_lines))


def check_filters(filters: Sequence[str], thresholds: Thresholds) -> None:
    """Raise a RecipeError for an unknown filter, or a threshold of a rule that is not used."""
    applicable_filters(filters, "")
    sets = [name for name in filters if name in RULE_SETS]
    for name, bounds in thresholds.items():
        if name not in sets:
            problem = f'"{name}" is not a rule set among the filters of the recipe'
            raise RecipeError(f"[refine.thresholds] {problem}{nearest(name, sets)}")
        known = {rule.reason: rule for rule in RULE_SETS[name].rules}
        for reason, bound in bounds.items():
            if reason not in known:
                near = nearest(reason, list(known))
                raise RecipeError(f'[refine.thresholds] {name} has no rule "{reason}"{near}')
            _with_bound(known[reason], bound, name)


def thresholds_for(filters: Sequence[str], kind: str, thresholds: Thresholds) -> Thresholds:
    """Return the thresholds that apply to documents of a kind; those alone enter a step's key."""
    selected: dict[str, dict[str, float | Sequence[float]]] = {}
    for name in thresholds.keys() & set(filters):
        reasons = {rule.reason for rule in RULE_SETS[name].rules_for(kind)}
        for reason, bound in thresholds[name].items():
            if reason in reasons:
                whole = [*bound] if isinstance(bound, Sequence) else bound
                selected.setdefault(name, {})[reason] = whole
    return selected


def rules_for(name: str, kind: str, thresholds: Thresholds = NO_THRESHOLDS) -> list[Rule]:
    """Return the rules of a set that apply to a kind, with the thresholds of the recipe."""
    bounds = thresholds.get(name, {})
    return [
        _with_bound(rule, bounds[rule.reason], name) if rule.reason in bounds else rule
        for rule in RULE_SETS[name].rules_for(kind)
    ]


def _with_bound(rule: Rule, bound: float | Sequence[float], name: str) -> Rule:
    """Return a rule with another bound, or with two where it has two, for every text."""
    where = f"[refine.thresholds] {name}.{rule.reason} needs"
    if math.isfinite(rule.low) and math.isfinite(rule.high):
        if isinstance(bound, (int, float)) or len(bound) != 2 or bound[0] > bound[1]:
            such = f"[{rule.low:g}, {rule.high:g}]"
            raise RecipeError(f"{where} a minimum and a maximum, such as {such}")
        low, high = bound
    elif not isinstance(bound, (int, float)):
        raise RecipeError(f"{where} one number; the published bound is {rule.bounds()}")
    else:
        low, high = (bound, rule.high) if math.isfinite(rule.low) else (rule.low, bound)
    return replace(rule, low=float(low), high=float(high), by_language={}, short_high=None)


def score_bounds(filters: Sequence[str], kind: str, thresholds: Thresholds) -> Bounds:
    """Return the bounds of the scores that `apply_filters` gives to documents of a kind, in order.

    Functions of users have no bounds.
    """
    bounds: dict[str, tuple[float | None, float | None]] = {}
    for name in filters:
        if name not in RULE_SETS:
            bounds[name] = (None, None)
            continue
        for rule in rules_for(name, kind, thresholds):
            low, high = (bound if math.isfinite(bound) else None for bound in (rule.low, rule.high))
            bounds[rule.reason] = low, high
    return bounds
