"""Write the two texts of a report: README.md, the model card, and summary.txt, for the terminal.

The card has the front matter of the Hugging Face hub. Every number in both is a figure of the
report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from groundup.artifacts.model_card import CONTINUE_CODE, model_card
from groundup.report.formatting import MISSING, FigureHtml, formatted, plain_markdown
from groundup.report.gather import Report
from groundup.report.page import (
    NGRAM_MODELS,
    NOTHING_HELD_OUT,
    STAGES,
    drop_reasons,
    empty_sources,
    page_template,
    source_table,
    unmeasured,
)

# Licenses of the hub by the names that sources give; anything else is "other" there.
_HUB_LICENSE = re.compile(
    r"mit|apache-2\.0|cc0-1\.0|unlicense|bsd-[23]-clause|[al]?gpl-[23]\.0"
    r"|cc-by(-nc)?(-sa|-nd)?-[234]\.0|pddl|odbl"
)
# Figures of the card: name, form and words. Those that the run does not have are left out.
CARD_FIGURES = (
    ("model.parameters", "count", "parameters"),
    ("model.context", "count", "context, tokens"),
    ("tokens.vocabulary", "count", "vocabulary, entries"),
    ("tokens.kept.tokens", "count", "tokens in the data"),
    ("train.tokens", "count", "tokens trained on"),
    ("train.steps", "count", "steps"),
    ("train.validation_loss.best", "three", "lowest validation loss, nats a token"),
    ("evaluate.model.bits_per_byte", "three", "bits per byte of held-out text"),
    ("evaluate.model.bits_per_byte_error", "three", "its standard error"),
    ("evaluate.model.perplexity", "one", "perplexity a token"),
    ("evaluate.passages.accuracy", "share", "next passage among several, right"),
    ("evaluate.passages.chance", "share", "the same by chance"),
    ("run.seconds", "seconds", "time of all stages"),
)
# Reasons in the summary; report.json has all.
MAX_REASONS = 12


def card(report: Report) -> str:
    """Return the model card of a report."""
    figures = FigureHtml(report["figures"])

    def fig(name: str, form: str = "") -> str:
        figure = figures.figures.get(name)
        return plain_markdown(formatted(figure["value"], form)) if figure else MISSING

    table = source_table(report, figures) or {"sources": [], "entries": {}, "licenses": {}}
    models = [name for name in NGRAM_MODELS if figures.has(f"evaluate.{name}.bits_per_byte")]
    # This is Markdown, so Jinja escapes nothing: foreign text goes through `plain_markdown`.
    body = page_template("card.md").render(
        report=report,
        here=table,
        models=models,
        usage=CONTINUE_CODE,
        rows=[row for row in CARD_FIGURES if figures.has(row[0])],
        fig=fig,
        has=figures.has,
        value=figures.value,
        origin=lambda name: report["figures"][name]["from"],
    )
    license = hub_license(table, report["base"])
    text = model_card(plain_markdown(report["name"]), body, license)
    return re.sub(r"\n{3,}", "\n\n", text)


def hub_license(table: Mapping[str, Any], base: Mapping[str, str]) -> str:
    """Return the license of the model as the hub names it, "" if none is stated.

    It is that of all sources and of the base model; "other" if they differ or the hub has no name.
    """
    names = {base.get("license", "")}
    for source in table["sources"]:
        stated = [table["entries"].get(source, {}).get("license", "")]
        names.update(table["licenses"].get(source) or stated)
    return hub_name(names)


def hub_name(licenses: Iterable[str]) -> str:
    """Return the hub's name of what has all of some licenses, where "" is one that is not stated.

    It is "" if none is stated, and "other" if they differ or the hub has no name.
    """
    names = set(licenses) - {""}
    if not names:
        return ""
    license = min(names).lower()
    return license if len(names) == 1 and _HUB_LICENSE.fullmatch(license) else "other"


def summary(report: Report) -> str:
    """Return the report as plain text of about 100 columns."""
    figures = FigureHtml(report["figures"])
    # Seconds of each stage when it last did any work.
    costs = [(stage, f"stage.{stage}.seconds") for stage in STAGES]
    seconds = [f"{stage} {figures.plain(n, '.0f')}" for stage, n in costs if n in figures.figures]
    samples = [
        f"--- {sample.get('kind', 'text')} (longest run of tokens also in the training text:"
        f" {(sample.get('overlap') or {}).get('tokens', '?')} of {sample.get('tokens', '?')})\n"
        f"{sample['prompt']}⟶{sample['text']}"
        for sample in report["samples"]
    ]
    drops = [(row["reason"], int(figures.value(row["name"]))) for row in drop_reasons(figures)]
    dropped = [f"{reason} {count:,}" for reason, count in drops[:MAX_REASONS]]
    reasons = [f"dropped: {', '.join(dropped)}"] if dropped else []
    if rest := drops[MAX_REASONS:]:
        reasons.append(f"         and {sum(n for _, n in rest):,} for {len(rest)} other reasons")
    parts = (
        _source_rows(figures, [source["name"] for source in report["sources"]]),
        [f"{name}: {words}" for name, words in empty_sources(figures).items()] + reasons,
        _model_lines(figures) if "model.parameters" in figures.figures else (),
        [f"seconds: {', '.join(seconds)}"] if seconds else [],
        samples,
    )
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part))) + "\n"


def _source_rows(figures: FigureHtml, order: Sequence[str]) -> Iterator[str]:
    """Yield a row for each source: documents in and out, megabytes, tokens."""
    yield (
        f"{'source':20}{'collected':>10}{'MB':>8}{'after filters':>15}{'train':>10}"
        f"{'validation':>11}{'tokens':>12}"
    )
    names = figures.names_after("collect.documents.")
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    columns = ["collect.documents", "collect.bytes_out", "refine.documents"]
    columns += ["tokens.train.documents", "tokens.validation.documents"]
    columns += ["tokens.train.tokens", "tokens.validation.tokens"]
    for source in [*names, ""]:
        suffix = f".{source}" if source else ""
        collected, size, refined, train, validation, *tokens = (
            figures.value(name + suffix) for name in columns
        )
        yield (
            f"{source or 'all':20}{collected:>10,.0f}{size / 1e6:>8.1f}{refined:>15,.0f}"
            f"{train:>10,.0f}{validation:>11,.0f}{sum(tokens):>12,.0f}"
        )


def _evaluation_lines(figures: FigureHtml) -> Iterator[str]:
    """Yield loss, bits per byte next to the n-gram models, right next passages, and benchmarks."""
    show = figures.plain
    if not figures.has("evaluate.model.loss"):
        why = f": {NOTHING_HELD_OUT}" if unmeasured(figures) else " yet"
        yield f"loss:    not measured{why}"
        return
    yield (
        f"loss:    {show('evaluate.model.loss', '.3f')} nats a token on held-out text"
        f" (perplexity {show('evaluate.model.perplexity', '.1f')})"
    )
    bits = "evaluate.model.bits_per_byte"
    yield (
        f"bits per byte: {show(bits, '.3f')} ± {show(f'{bits}_error', '.3f')}; trigram model"
        f" {show('evaluate.trigram.bits_per_byte', '.3f')}, unigram model"
        f" {show('evaluate.unigram.bits_per_byte', '.3f')}"
    )
    names = figures.names_after(f"{bits}.")
    yield "         by source: " + ", ".join(f"{n} {show(f'{bits}.{n}', '.2f')}" for n in names)
    if figures.value("evaluate.passages.n") > 0:
        yield (
            f"         next passage of four: {show('evaluate.passages.accuracy', '.0%')} of"
            f" {show('evaluate.passages.n', '.0f')} right (chance 25%)"
        )
    yield from _benchmark_lines(figures)


def _benchmark_lines(figures: FigureHtml) -> Iterator[str]:
    """Yield a line for each benchmark; a score that guesses would reach as well says so."""
    show = figures.plain
    for task in figures.tasks():
        if task == "passages":
            continue
        name = f"evaluate.{task}"
        right, n = show(f"{name}.accuracy", ".0%"), show(f"{name}.n", ",.0f")
        line = f"         {task}: {right} of {n} right"
        if figures.has(f"{name}.chance"):
            chance = figures.value(f"{name}.chance")
            is_within = figures.value(f"{name}.low") <= chance <= figures.value(f"{name}.high")
            line += f" (chance {chance:.0%}{', not told apart from it' if is_within else ''})"
        # A benchmark is collected under its name, without the number of examples.
        held = f"refine.contaminated_items.{task.partition(':')[0]}"
        if figures.has(held):
            line += f"; at least {show(held, ',.0f')} were in training text, which was dropped"
        yield line
    for name in figures.names_after("evaluate."):
        task, _, figure = name.rpartition(".")
        if figure == "word_perplexity":
            yield f"         {task}: word perplexity {show(f'evaluate.{name}', ',.1f')}"
        elif figure == "core":
            yield f"         {task}: {show(f'evaluate.{name}', '.3f')}, the mean of 22 tasks"
        elif figure == "missing_tasks" and figures.value(f"evaluate.{name}"):
            missing = show(f"evaluate.{name}", ".0f")
            yield f"         {task}: no average, since {missing} of its 22 tasks lack data"


def _model_lines(figures: FigureHtml) -> Iterator[str]:
    """Yield sizes, the evaluation, tuning and speed."""
    show = figures.plain
    yield (
        f"model:   {show('model.parameters', ',.0f')} parameters,"
        f" {show('train.steps', ',.0f')} steps, {show('train.tokens', ',.0f')} tokens seen"
    )
    yield from _evaluation_lines(figures)
    if figures.has("tune.after.loss"):
        yield (
            f"tuned:   loss of held-out answers {show('tune.before.loss', '.3f')} →"
            f" {show('tune.after.loss', '.3f')} nats a token"
        )
        yield (
            f"         answers that end by themselves {show('tune.before.ended', '.0%')} →"
            f" {show('tune.after.ended', '.0%')}"
        )
    yield (
        f"speed:   training {show('train.tokens_per_second', ',.0f')} tokens/s, prefill"
        f" {show('speed.prefill_tokens_per_second', ',.0f')}, decode"
        f" {show('speed.decode_tokens_per_second', ',.0f')}"
    )
