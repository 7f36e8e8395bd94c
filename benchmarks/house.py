"""How readable the package is, in figures.

Counts files, lines and functions, functions named once, comments, imports that run upward, frames
from the command to the first matrix product, and the files that one training step runs through.

`python -m benchmarks house` writes results/house.json and the table in docs/architecture.md.
"""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import tempfile
import tokenize
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import machine

PROJECT = Path(__file__).parent.parent
PACKAGE = PROJECT / "src" / "groundup"
PAGE = PROJECT / "docs" / "architecture.md"
COLUMNS = 100
# Each layer may import those before it; layers in one tuple do not import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "_version"),
    ("schema",),
    ("recipe",),
    ("model",),
    ("runtime",),
    ("artifacts",),
    ("engines",),
    ("collect", "refine", "tokenize", "train", "evaluate", "tune", "export", "report", "serve"),
    ("plan", "flow"),
    ("commands",),
    ("cli", "api", "__main__"),
)
# Tuning trains.
SIDEWAYS = {("tune", "train"), ("flow", "plan"), ("cli", "api"), ("__main__", "cli")}
# Measured in November 2026 by the same definitions on checkouts of karpathy/nanochat,
# huggingface/datatrove, pytorch/torchtitan (without its experiments) and encode/httpx.
PEERS = {
    "Python files / lines": ("29 / 6,587", "126 / 23,533", "175 / 55,761", "23 / 8,827"),
    "function length, median / 90 %": ("12.5 / 47", "11 / 41", "17 / 64", "9 / 34"),
    "functions that are private and used once": ("9 %", "10 %", "21 %", "5 %"),
    "lines over 100 columns": ("4 %", "3.9 %", "0.4 %", "0.05 %"),
    "comments a 100 code lines": ("22", "5.8", "9.1", "7.6"),
    "own frames from the command to the matrix product": ("5 in 2", "–", "8", "–"),
}


@dataclass
class Tree:
    """Counts over the source files of a package."""

    files: int = 0
    lines: int = 0
    wide: int = 0
    comments: int = 0
    code: int = 0
    lengths: list[int] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    names: Counter[str] = field(default_factory=Counter)

    def add(self, path: Path) -> None:
        """Count one file."""
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        self.files += 1
        self.lines += len(lines)
        self.wide += sum(len(line) > COLUMNS for line in lines)
        self.code += sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines)
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                self.comments += 1
            elif token.type == tokenize.NAME:
                self.names[token.string] += 1
            elif token.type == tokenize.STRING and re.fullmatch(
                r"[\"'][A-Za-z_]\w*[\"']", token.string
            ):
                # A name in a table, such as the public API that is imported late.
                self.names[token.string[1:-1]] += 1
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FormattedValue):
                # Before Python 3.12 an f-string is one token; names inside it count too.
                for inner in ast.walk(node.value):
                    if isinstance(inner, ast.Name | ast.Attribute):
                        self.names[getattr(inner, "id", getattr(inner, "attr", ""))] += 1
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self.lengths.append((node.end_lineno or node.lineno) - node.lineno + 1)
                self.functions.append(node.name)

    def named_once(self, private: bool = False) -> float:
        """Return the share of functions whose name stands in one other place."""
        once = [
            name
            for name in self.functions
            if self.names[name] == 2
            and not name.startswith("__")
            and (name.startswith("_") or not private)
        ]
        return len(once) / max(1, len(self.functions))


def room(module: str) -> str:
    """Return the room of a module: `collect` of `groundup.collect.readers.text`."""
    return [*module.split("."), ""][1]


def imports(package: Path = PACKAGE) -> list[tuple[str, str, str]]:
    """Return where, importing module and imported module, for each import within the package."""
    paths = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path
        for path in sorted(package.rglob("*.py"))
    }
    found = []
    for module, path in paths.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets: list[str] = []
            if (
                isinstance(node, ast.ImportFrom)
                and (node.module or "").split(".")[0] == package.name
            ):
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [name if name in paths else str(node.module) for name in whole]
            elif isinstance(node, ast.Import):
                targets = [
                    alias.name for alias in node.names if alias.name.split(".")[0] == package.name
                ]
            where = f"{path.relative_to(package.parent)}:{getattr(node, 'lineno', 0)}"
            found += [(where, module, target) for target in targets]
    return found


def upward(edges: list[tuple[str, str, str]]) -> list[str]:
    """Return a line for each import that does not go down the layers."""
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    wrong = []
    for where, module, target in edges:
        here, there = room(module), room(target)
        # The package itself holds the version and the public API, which is imported late.
        if here == there or not here or not there:
            continue
        if here not in level or there not in level:
            wrong.append(f"{where}: {here} or {there} is no room")
        elif level[there] >= level[here] and (here, there) not in SIDEWAYS:
            wrong.append(f"{where}: {here} imports {target}")
    return wrong


def circles(edges: list[tuple[str, str, str]]) -> list[list[str]]:
    """Return groups of modules that import each other in a circle (Tarjan 1972)."""
    graph: dict[str, set[str]] = {}
    for _, module, target in edges:
        if room(module) and room(target):
            graph.setdefault(module, set()).add(target)
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    result: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for target in graph.get(module, ()):
            if target not in order:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], order[target])
        if low[module] == order[module]:
            begin = stack.index(module)
            group, stack[begin:] = stack[begin:], []
            if len(group) > 1:
                result.append(sorted(group))

    for module in list(graph):
        if module not in order:
            visit(module)
    return result


# Runs `groundup run` in this process. The first call of F.linear in the training loop is its first
# matrix product; the probe of the hardware comes before it and is counted apart. Between two calls
# of F.embedding lies one step: one micro-batch is the whole batch.
_TRACER = """
import json, sys, threading
import torch.nn.functional as F
from groundup.cli import main
package, out, recipe = sys.argv[1:4]
frames, probe, windows = [], [], [set()]

def here(frame):
    return frame.f_code.co_filename.startswith(package)

def trace(frame, event, _):
    if not here(frame):
        return None
    if event == "line":
        windows[-1].add(frame.f_code.co_filename)
    return trace

linear, embedding = F.linear, F.embedding

def first_linear(*arguments, **options):
    frame = sys._getframe(1)
    stack = []
    while frame:
        if here(frame):
            stack.append(f"{frame.f_code.co_filename}:{frame.f_code.co_name}")
        frame = frame.f_back
    if not frames and any("/train/trainer.py" in line for line in stack):
        frames.extend(stack)
    if not frames and not probe and any("/train/hardware.py" in line for line in stack):
        probe.extend(stack)
    return linear(*arguments, **options)

def count_embedding(*arguments, **options):
    windows.append(set())
    return embedding(*arguments, **options)

F.linear, F.embedding = first_linear, count_embedding
threading.settrace(trace)
sys.settrace(trace)
sys.argv = ["groundup", "run", recipe, "--until", "train"]
try:
    main()
except SystemExit as end:
    if end.code:
        raise
sys.settrace(None)
with open(out, "w") as file:
    windows = [sorted(window) for window in windows]
    json.dump({"frames": frames, "probe": probe, "windows": windows}, file)
"""

_RECIPE = """
name = "house"

[[source]]
kind = "text"
path = "raw"

[refine]
filters = []
near_threshold = 1.0

[tokenize]
vocab_size = 320

[model]
preset = "tiny"
context = 32

[train]
steps = 20
batch_tokens = 512
micro_batch = 16
warmup_steps = 2
checkpoint_every = 20
validate_every = 20
validation_tokens = 512
threads = 1
processes = 1
precision = "fp32"
compile = "off"
"""


def trace() -> dict[str, list[str]]:
    """Train a tiny model; return the frames at its first matrix product and the files of a step."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "raw").mkdir()
        words = (PROJECT / "LICENSE").read_text(encoding="utf-8").split()
        for number in range(40):
            text = " ".join(words[number * 20 : number * 20 + 400])
            (work / "raw" / f"{number}.txt").write_text(text, encoding="utf-8")
        (work / "recipe.toml").write_text(_RECIPE, encoding="utf-8")
        command = [sys.executable, "-c", _TRACER, f"{PACKAGE}/", "out.json", "recipe.toml"]
        subprocess.run(command, cwd=work, check=True, stdout=subprocess.DEVNULL)
        traced = json.loads((work / "out.json").read_text())
    # The most common window with an update is a step without a log line, validation or checkpoint.
    updates = [tuple(w) for w in traced["windows"] if any("train/optimizer" in name for name in w)]
    windows = Counter(updates)
    files = list(windows.most_common(1)[0][0])
    return {"frames": traced["frames"], "probe": traced["probe"], "files": files}


def measure() -> dict[str, object] | None:
    """Measure the package and write the table into docs/architecture.md."""
    tree, edges = Tree(), imports()
    for path in sorted(PACKAGE.rglob("*.py")):
        tree.add(path)
    lengths = sorted(tree.lengths)
    traced = trace()
    frames, step = traced["frames"], traced["files"]
    figures: dict[str, object] = {
        "files": tree.files,
        "lines": tree.lines,
        "function length, median": lengths[len(lengths) // 2],
        "function length, 90 %": lengths[int(len(lengths) * 0.9)],
        "functions named once beside their definition": round(tree.named_once(), 3),
        "functions that are private and used once": round(tree.named_once(private=True), 3),
        "lines over 100 columns": tree.wide,
        "comments a 100 code lines": round(100 * tree.comments / tree.code, 1),
        "own frames from the command to the matrix product": len(frames),
        "frames in the probe of the hardware, before training": len(traced["probe"]),
        "files on that stack": len({line.partition(":")[0] for line in frames}),
        "files of a training step": len(step),
        "imports that run upward": len(upward(edges)),
        "circles of imports": len(circles(edges)),
    }
    _write_table(figures)
    what = " ".join((__doc__ or "").partition("\n\n")[0].split())
    return {"what": what, "figures": figures, "machine": machine()}


def _write_table(figures: dict[str, object]) -> None:
    """Replace the table between the two marks in docs/architecture.md."""
    ours = {
        "Python files / lines": f"{figures['files']:,} / {figures['lines']:,}",
        "function length, median / 90 %": (
            f"{figures['function length, median']} / {figures['function length, 90 %']}"
        ),
        "functions that are private and used once": (
            f"{figures['functions that are private and used once']:.0%}".replace("%", " %")
        ),
        "lines over 100 columns": str(figures["lines over 100 columns"]),
        "comments a 100 code lines": str(figures["comments a 100 code lines"]),
        "own frames from the command to the matrix product": (
            f"{figures['own frames from the command to the matrix product']} in"
            f" {figures['files on that stack']}"
        ),
    }
    lines = [
        "| | groundup | nanochat | datatrove | torchtitan core | httpx |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [f"| {name} | {ours[name]} | {' | '.join(peers)} |" for name, peers in PEERS.items()]
    page = PAGE.read_text(encoding="utf-8")
    head, mark, rest = page.partition("<!-- house -->\n")
    _, end, tail = rest.partition("<!-- /house -->")
    if not mark or not end:
        raise SystemExit(
            f"{PAGE}: no place for the table; it stands between <!-- house --> and <!-- /house -->"
        )
    PAGE.write_text(f"{head}{mark}{chr(10).join(lines)}\n{end}{tail}", encoding="utf-8")
