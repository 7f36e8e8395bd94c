"""Stops a run in which a source lost nearly everything. Reads the facts of refine/quality and of collect; writes nothing.

Such a loss is nearly always a mistake that no later stage would show: a wrong kind, filters made for other text, the wrong
languages. The share is of bytes, from text as it was collected to text that is kept. What exact duplicates dropped does not
count, because every word of it is kept elsewhere; near duplicates do, because what they differ in is lost, and a site whose
pages come from one template looks just like that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.errors import SourceError
from groundup.recipe import Source
from groundup.refine.distributions import lost_share
from groundup.run import Run

# Reasons, and sources of the same fate, that the line names.
MOST_NAMED = 5

Counts = Mapping[str, int]


def check_losses(run: Run, sources: Mapping[str, Any], rejected: Mapping[str, Counts]) -> None:
    """Hold every source of text against `most_dropped`, in the order of the recipe.

    Args:
        sources: facts of refine/quality.
        rejected: what the collector listed, by source and reason.

    Raises:
        SourceError: in one line: the source, its share, the reasons, and what to do; then the names of others.
    """
    trained = [source for source in run.recipe.source if source.kind != "evaluation"]
    problems = [_problem(run, source, sources.get(source.name), rejected.get(source.name, {})) for source in trained]
    found = {source.name: problem for source, problem in zip(trained, problems, strict=True) if problem}
    if found:
        names = [f'"{name}"' for name in list(found)[1 : 1 + MOST_NAMED]]
        others = f" (the same holds for {', '.join(names)}{' and others' if len(found) > 1 + MOST_NAMED else ''})" if names else ""
        raise SourceError(next(iter(found.values())) + others)
    if not any(of["kept"]["documents"] for of in sources.values()):
        raise SourceError("no source has a document left; there is nothing to train on")


def _problem(run: Run, source: Source, of: Mapping[str, Any] | None, rejected: Counts) -> str:
    most = run.recipe.refine.most_dropped if source.most_dropped == "auto" else source.most_dropped
    reasons = of["dropped"] if of and of["collected"]["documents"] else rejected
    allow = "where that is right, set most_dropped = 1 in its [[source]]"
    if most == 1 or (of and of["kept"]["documents"] and lost_share(of) <= most):
        return ""
    if not of or not of["collected"]["documents"]:
        lost, mend = f"no document of kind {source.kind} was collected", "check its kind and path"
    elif not of["kept"]["documents"]:
        lost, mend = "no document of it is kept", "check its kind, and the languages and filters of [refine]"
    else:
        lost = f"{_share(lost_share(of))} of its text is lost, more than most_dropped = {most:g}"
        mend, allow = "check its kind, and the languages and filters of [refine]", "set most_dropped in its [[source]]"
    return f'source "{source.name}": {lost}; listed are {_words(reasons)}{_inspect(run, reasons)}; {mend}, or {allow}'


def _share(share: float) -> str:
    # Rounded down: what is not quite all of it must not read as all of it.
    return f"{int(share * 1000) / 10:.1f} %"


def _ranked(reasons: Counts) -> list[tuple[str, int]]:
    return sorted(((name, count) for name, count in reasons.items() if count), key=lambda pair: (-pair[1], pair[0]))


def _words(reasons: Counts) -> str:
    found = _ranked(reasons)
    named = ", ".join(f"{count:,} {name}" for name, count in found[:MOST_NAMED])
    return (named or "none") + (", …" if len(found) > MOST_NAMED else "")


def _inspect(run: Run, reasons: Counts) -> str:
    found = _ranked(reasons)
    return f" (`groundup inspect {run.root} --dropped {found[0][0]}`)" if found else ""
