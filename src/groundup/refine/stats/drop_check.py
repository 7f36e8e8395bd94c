"""Stops a run in which a source lost nearly everything. Reads the facts of refine/quality and of
collect; writes nothing.

Such a loss is nearly always a mistake that no later stage would show: a wrong kind, filters made
for other text, the wrong languages. The share is of bytes, from text as it was collected to text
that is kept. What exact duplicates dropped does not count, because every word of it is kept
elsewhere; near duplicates do, because what they differ in is lost, and a site whose pages come from
one template looks just like that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.errors import SourceError
from groundup.recipe import Source
from groundup.refine.stats.distributions import lost_share
from groundup.runtime.progress import say
from groundup.runtime.run import Run

# Reasons, and sources of the same fate, that the line names.
MOST_NAMED = 5

Counts = Mapping[str, int]


def check_losses(run: Run, sources: Mapping[str, Any], rejected: Mapping[str, Counts]) -> None:
    """Hold every source of text against `most_dropped`, in the order of the recipe; say so where an
    empty one is allowed.

    While documents are being forgotten it is said only: whoever takes a source out, or the good
    half of it, wants its text gone, and a run that stopped here would keep it.

    Args:
        sources: facts of refine/quality.
        rejected: what the collector listed, by source and reason.

    Raises:
        SourceError: in one line: the source, its share, the reasons, and what to do; then the names
            of others.
    """
    found: dict[str, str] = {}
    for source in (one for one in run.recipe.source if one.kind != "evaluation"):
        most = (
            run.recipe.refine.most_dropped if source.most_dropped == "auto" else source.most_dropped
        )
        of = sources.get(source.name)
        problem = _problem(source, of, rejected.get(source.name, {}), most, run.root)
        if problem and most < 1 and not run.allow_discard:
            found[source.name] = (
                f"{problem}; check its kind, and the languages and filters of [refine], or set"
                " most_dropped = 1 in its [[source]]"
            )
        elif problem and of and of["collected"]["documents"]:
            # Of a source without any, the collector has said so.
            say(f"warning: {problem}")
    if found:
        names = [f'"{name}"' for name in list(found)[1 : 1 + MOST_NAMED]]
        others = (
            " (the same holds for"
            f" {', '.join(names)}{' and others' if len(found) > 1 + MOST_NAMED else ''})"
            if names
            else ""
        )
        raise SourceError(next(iter(found.values())) + others)
    if not run.allow_discard and not any(of["kept"]["documents"] for of in sources.values()):
        raise SourceError("no source has a document left; there is nothing to train on")


def _problem(
    source: Source, of: Mapping[str, Any] | None, rejected: Counts, most: float, root: Path
) -> str:
    """Say what a source lost, where it is more than `most` or all of it; else nothing."""
    reasons = of["dropped"] if of and of["collected"]["documents"] else rejected
    if not of or not of["collected"]["documents"]:
        lost = f"no document of kind {source.kind} was collected"
    elif not of["kept"]["documents"]:
        lost = "no document of it is kept"
    elif lost_share(of) > most:
        lost = f"{_share(lost_share(of))} of its text is lost, more than most_dropped = {most:g}"
    else:
        return ""
    ranked = sorted(
        ((name, count) for name, count in reasons.items() if count),
        key=lambda pair: (-pair[1], pair[0]),
    )
    named = ", ".join(f"{count:,} {name}" for name, count in ranked[:MOST_NAMED]) + (
        ", …" if len(ranked) > MOST_NAMED else ""
    )
    look = f" (`groundup inspect {root} --dropped {ranked[0][0]}`)" if ranked else ""
    return f'source "{source.name}": {lost}; listed are {named or "none"}{look}'


def _share(share: float) -> str:
    # Rounded down: what is not quite all of it must not read as all of it.
    return f"{int(share * 1000) / 10:.1f} %"
