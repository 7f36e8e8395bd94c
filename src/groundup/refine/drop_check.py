"""Stop a run in which a source lost nearly all of its text.

That is nearly always a mistake that no later stage shows: a wrong kind, filters for other text,
wrong languages. The share is of bytes, from collected to kept text. Exact duplicates do not count
as lost, because another document keeps every word. Near duplicates do: their differences are lost,
and a site whose pages come from one template looks just like that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from groundup.artifacts.kinds import is_training
from groundup.errors import SourceError
from groundup.recipe import Source
from groundup.refine.stats import lost_share
from groundup.runtime.run import Run
from groundup.runtime.store import Facts

# Reasons, and other sources, that the message names.
MAX_NAMED = 5


def check_drops(
    run: Run, sources: Mapping[str, Facts], rejected: Mapping[str, Mapping[str, int]]
) -> None:
    """Raise a SourceError if a source lost nearly all of its text; warn where the recipe allows it.

    No run is stopped while documents are being forgotten: the user wants the text gone, and it
    would keep it. `sources` are the facts of refine/quality; `rejected` counts what the collector
    rejected, by source and reason.
    """
    failed: dict[str, str] = {}
    for source in run.recipe.source:
        if not is_training(source.kind):
            continue
        of_source, default = source.most_dropped, run.recipe.refine.most_dropped
        limit = default if of_source == "auto" else of_source
        facts = sources.get(source.name)
        collected = facts is not None and facts["collected"]["documents"] > 0
        reasons = facts["dropped"] if facts and collected else rejected.get(source.name, {})
        problem = _problem(source, facts if collected else None, reasons, limit, run.root)
        if problem and limit < 1 and not run.allow_discard:
            failed[source.name] = problem
        elif problem and collected:
            # For a source without documents, the collector has warned.
            run.note(f"warning: {problem}")
    if failed:
        first, *others = failed
        named = ", ".join(f'"{name}"' for name in others[:MAX_NAMED])
        more = " and others" if len(others) > MAX_NAMED else ""
        also = f" (the same holds for {named}{more})" if others else ""
        raise SourceError(
            f"{failed[first]}; check its kind, and the languages and filters of [refine], or set"
            f" most_dropped = 1 in its [[source]]{also}"
        )
    if not run.allow_discard and not any(facts["kept"]["documents"] for facts in sources.values()):
        raise SourceError("no source has a document left; there is nothing to train on")


def _problem(
    source: Source, facts: Facts | None, reasons: Mapping[str, int], limit: float, root: Path
) -> str:
    """Describe the loss of a source that exceeds the limit or is complete; "" for no problem."""
    if facts is None:
        lost = f"no document of kind {source.kind} was collected"
    elif not facts["kept"]["documents"]:
        lost = "no document of it is kept"
    elif (share := lost_share(facts)) > limit:
        # Rounded down, so a loss of nearly everything does not read as 100 %.
        percent = f"{int(share * 1000) / 10:.1f} %"
        lost = f"{percent} of its text is lost, more than most_dropped = {limit:g}"
    else:
        return ""
    ranked = sorted((-count, name) for name, count in reasons.items() if count)
    named = ", ".join(f"{-count:,} {name}" for count, name in ranked[:MAX_NAMED])
    if len(ranked) > MAX_NAMED:
        named += ", …"
    look = f" (`groundup inspect {root} --dropped {ranked[0][1]}`)" if ranked else ""
    return f'source "{source.name}": {lost}; listed are {named or "none"}{look}'
