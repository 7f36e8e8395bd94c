"""Puts what the demo printed into the README, from the file that `make bench` kept of it. `make
docs` runs this.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.starter import SUMMARY

README = Path("README.md")
BLOCK = re.compile(r"(<!-- demo -->\n).*?(<!-- /demo -->)", re.DOTALL)


def main() -> None:
    # The table and the first sample; the others follow in the summary that the demo prints.
    summary = "--- ".join(SUMMARY.read_text(encoding="utf-8").split("--- ")[:2]).rstrip()
    text = README.read_text(encoding="utf-8")
    block = "\n".join(line.rstrip() for line in summary.split("\n"))
    README.write_text(
        BLOCK.sub(lambda match: f"{match[1]}```\n{block}\n```\n{match[2]}", text), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
