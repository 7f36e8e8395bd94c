"""Puts into the README what the demo printed, from the file that `make bench` kept of it, and what
a plan says of the reference job on GPUs. `make docs` runs this.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.starter import SUMMARY
from groundup.plan import Plan, make_plan
from groundup.recipe import load_recipe

README = Path("README.md")
RECIPE = Path("recipes/base-300m.toml")
DEVICES = ("4xa100-80gb", "8xh100")


def main() -> None:
    text = README.read_text(encoding="utf-8")
    for name, block in (("demo", demo()), ("plan", plans())):
        between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = between.sub(lambda match: f"{match[1]}{block}{match[2]}", text)  # noqa: B023
    README.write_text(text, encoding="utf-8")


def demo() -> str:
    """Return the table and the first sample of what the demo printed, as a block of code."""
    summary = "--- ".join(SUMMARY.read_text(encoding="utf-8").split("--- ")[:2]).rstrip()
    block = "\n".join(line.rstrip() for line in summary.split("\n"))
    return f"```\n{block}\n```\n"


def plans() -> str:
    """Return a table of the plans of the reference job, one column per group of devices."""
    found = [make_plan(load_recipe(RECIPE), device=device) for device in DEVICES]
    columns = [dict(rows(plan)) for plan in found]
    lines = [f"| | {' | '.join(f'`{device}`' for device in DEVICES)} |", "|---|---:|---:|"]
    lines += [f"| {name} | {' | '.join(c[name] for c in columns)} |" for name in columns[0]]
    notes = [plan.notes[-1].removeprefix("assumes ") for plan in found]
    assumed = [f"`{device}` assumes {note}" for device, note in zip(DEVICES, notes, strict=True)]
    return "\n".join(lines) + "\n\n" + ";\n".join(assumed) + ".\n"


def rows(plan: Plan) -> list[tuple[str, str]]:
    """Return what a column says, by the name of its row."""
    terms = [(f"{name} (ms)", f"{term.value * 1000:,.1f}") for name, term in plan.terms.items()]
    figures = ("tokens a second", "MFU", "micro-batch", "training memory", "training")
    return terms + [(name, str(plan.figures[name])) for name in figures]


if __name__ == "__main__":
    main()
