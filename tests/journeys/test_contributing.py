"""The recipes of CONTRIBUTING.md, followed on a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAX_LINES = 30

# What must work once the recipe was followed.
CHECKS = {
    "Add a filter": """
import pyarrow as pa
from groundup.refine.filter.rules import RULE_SETS
from groundup.refine.filter.statistics import Statistics
texts = ["a b c d e", "Donaudampfschiffahrtsgesellschaft Rechtsschutzversicherungsgesellschaften"]
batch = pa.RecordBatch.from_pydict({"text": texts, "language": ["", ""]})
(rule,) = RULE_SETS["long_words"].rules_for("books")
keep, _ = rule.passes(Statistics(batch))
assert keep.tolist() == [True, False], keep
""",
    "Add a reader": """
import io
from groundup.artifacts.document import Document, Reject
from groundup.collect.files.streams import Item
from groundup.collect.readers.registry import read_item
from groundup.recipe import Source
data = b"One.\\n%%\\n \\n%%\\nThree."
item = Item("x.txt", "x.txt", io.BytesIO(data), data)
one, two, three = read_item(item, Source("x.txt", "documents"))
assert isinstance(one, Document) and isinstance(two, Reject), (one, two)
assert (one.text, two.reason, three.text) == ("One.", "empty", "Three.")
""",
    "Add a benchmark": """
from groundup.artifacts.questions import LAYOUTS, find_question
from groundup.collect.readers.text import item_text
from groundup.evaluate.evaluation import DEFINITIONS
row = {"question": "is it", "answer": False}
question = find_question(row)
assert (question.choices[question.gold], question.layout) == (" no", "yes or no")
assert "is it" in item_text(row) and "benchmarks, yes or no" in DEFINITIONS
assert LAYOUTS["yes or no"].parse({"text": "other"}) is None
""",
    "Add an export format": """
import tempfile
import numpy as np
from pathlib import Path
from safetensors.numpy import save_file
from groundup.cli import cli
from groundup.export.formats import ExportOptions, check_formats, find_format
from groundup.export.source_model import SourceModel
from groundup.recipe import recipe_from
recipe = recipe_from({"source": [{"path": "x"}], "export": {"formats": ["npz"]}}, "t", Path("."))
check_formats(recipe.export.formats)
assert "npz" in cli.commands["export"].params[1].type.choices
folder = Path(tempfile.mkdtemp())
save_file({"w": np.ones(3, np.float32)}, folder / "model.safetensors")
made, source = find_format("npz"), SourceModel(folder, "step-000001", {}, {}, {})
assert list(made.types(recipe.export)) == [""]
assert made.write(folder, source, ExportOptions("", {}, [], 1)) == {"tensors": 1}
assert np.load(folder / "model.npz")["w"].tolist() == [1, 1, 1]
""",
    "Add an optimizer": """
import torch
from groundup.recipe import Train
from groundup.train.optimizer import FlatParameters, Optimizer, check_optimizer
check_optimizer(Train(optimizer="sign").optimizer)
model = torch.nn.Linear(2, 2, bias=False)
before = model.weight.detach().clone()
parameters = FlatParameters(model)
parameters.gradients.fill_(3.0)
Optimizer(parameters, "sign", 0.0).step(0.5)
assert torch.allclose(model.weight, before - 0.5)
""",
}


def recipes() -> dict[str, list[tuple[str, str, str, str]]]:
    """Return the blocks of each recipe: file, how it is placed, the line it is placed by, code."""
    found = {}
    for section in re.split(r"^## ", PAGE, flags=re.M)[1:]:
        blocks = []
        for head, code in re.findall(
            r"```python\n# (src/\S+?(?:, [^\n]+)?)\n(.*?)```", section, re.S
        ):
            file, _, how = head.partition(", ")
            place, _, line = how.partition(": ")
            blocks.append((file, place, line, code))
        found[section.partition("\n")[0]] = blocks
    return found


def follow(root: Path, file: str, place: str, line: str, code: str) -> None:
    """Write a new file, or put code before, after or instead of a line that stands there once."""
    path = root / file
    if not place:
        assert not path.exists(), path
        path.write_text(code, encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    assert text.count(f"\n{line}\n") == 1, f"{file}: not once: {line}"
    new = {"before": f"{code}{line}\n", "after": f"{line}\n{code}", "instead of": code}[place]
    path.write_text(text.replace(f"\n{line}\n", f"\n{new}"), encoding="utf-8")


def test_every_recipe_has_a_check() -> None:
    assert recipes().keys() == CHECKS.keys()


@pytest.mark.parametrize("name", list(CHECKS))
def test_a_recipe_works_as_written(name: str, tmp_path: Path) -> None:
    """Its blocks apply as they stand, are short, pass the linter, and do what they say."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "src" / "groundup", tmp_path / "src" / "groundup", ignore=ignored)
    blocks = recipes()[name]
    assert blocks and sum(code.count("\n") for *_, code in blocks) < MAX_LINES
    for block in blocks:
        follow(tmp_path, *block)
    files = sorted({str(tmp_path / file) for file, *_ in blocks})
    config = ["--config", str(PROJECT / "pyproject.toml")]
    # Blank lines between blocks are the formatter's.
    for linter in ("format", "check"):
        command = [sys.executable, "-m", "ruff", linter, *config, *files]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    done = subprocess.run(
        [sys.executable, "-c", CHECKS[name]],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
