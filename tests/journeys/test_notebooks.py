"""The notebooks run on any run, cell by cell, through the public API; what is committed holds no
output.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.killing import start
from tests.helpers.raw import write_books

import groundup

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
# Cells are read on a screen beside what they print.
CODE_LINES, TEXT_CHARACTERS = 20, 600
# A run of one source that is one group: nothing is held out, nothing was filtered, no turns, no
# code.
PLAIN = """
[[source]]
name = "one.book"
path = "raw/book.txt"
[refine]
filters = []
[tokenize]
vocab_size = 400
[model]
preset = "tiny"
context = 64
[train]
steps = 4
batch_tokens = 512
micro_batch = 8
precision = "fp32"
compile = "off"
threads = 1
[evaluate]
sample_tokens = 8
"""


def cells(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    return (
        cell
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == kind
    )


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to evaluate of one text file, without any validation text."""
    folder = tmp_path_factory.mktemp("plain")
    write_books(folder / "books", count=1)
    (folder / "raw").mkdir()
    (folder / "books" / "book00.txt").rename(folder / "raw" / "book.txt")
    recipe = folder / "plain.toml"
    recipe.write_text(PLAIN)
    process = start(recipe, folder / "run", "--until", "evaluate")
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert not any(groundup.open_run(folder / "run").documents(["id"], "validation"))
    return folder / "run"


def execute(path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a notebook after all of its cells ran, in a kernel of this Python that leaves nothing
    in a home folder.
    """
    nbclient = pytest.importorskip(
        "nbclient", reason="nbclient is not installed: notebooks are not run"
    )
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: notebooks are not run")
    import nbformat
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class OwnKernel(KernelSpecManager):
        """Knows this interpreter only, whatever kernels somebody installed."""

        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            return KernelSpec(
                argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                language="python",
            )

    notebook = nbformat.read(path, as_version=4)
    # Short, since the path of a socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        for name, value in {
            "GROUNDUP_RUN": str(run),
            "IPYTHONDIR": home,
            "JUPYTER_RUNTIME_DIR": home,
            "OMP_NUM_THREADS": "1",
        }.items():
            monkeypatch.setenv(name, value)
        kernel = AsyncKernelManager(
            kernel_spec_manager=OwnKernel(), transport="ipc", connection_file=f"{home}/kernel.json"
        )
        nbclient.NotebookClient(
            notebook, km=kernel, timeout=300, resources={"metadata": {"path": str(path.parent)}}
        ).execute()
    return notebook


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("fixture", ["tiny_run", "plain_run"])
def test_every_cell_runs(
    path: Path, fixture: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell's error fails here by itself; what is left to see is that something was drawn and
    nothing complained.
    """
    notebook = execute(path, request.getfixturevalue(fixture), monkeypatch)
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    complaints = [
        output.text
        for output in outputs(notebook)
        if output.get("name") == "stderr" and "Warning" in output.text
    ]
    assert not complaints


def test_hostile_text_is_shown_as_text(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A passage is coloured with HTML: what stands in it must not become HTML."""
    path = next(path for path in NOTEBOOKS if path.stem.endswith("evaluation"))
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"]).replace(
            "tokens = {source: run",
            'passages = {"<b>x": "<script>alert(1)</script>"}\ntokens = {source: run',
        )
    changed = tmp_path / path.name
    changed.write_text(json.dumps(notebook))
    shown = [
        output.data["text/html"]
        for output in outputs(execute(changed, tiny_run, monkeypatch))
        if "text/html" in output.get("data", {})
    ]
    assert len(shown) == 1
    assert "<script" not in shown[0] and "<b>" not in shown[0]
    assert "&lt;" in shown[0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed_is_short_and_holds_no_output(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(path, "code")
    )
    assert all(cell["metadata"] == {} for cell in notebook["cells"])
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(names) == len(set(names))
    assert notebook["cells"][0]["cell_type"] == "markdown"
    for cell in cells(path, "code"):
        assert "".join(cell["source"]).count("\n") < CODE_LINES, cell["id"]
    for cell in cells(path, "markdown"):
        assert len("".join(cell["source"])) <= TEXT_CHARACTERS, cell["id"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_only_the_public_api_is_used(path: Path) -> None:
    """A notebook is what a user may write: nothing below `groundup`, and the run's folder is asked
    for once.
    """
    code = ["".join(cell["source"]) for cell in cells(path, "code")]
    assert code[0] == 'import os\n\nRUN = os.environ.get("GROUNDUP_RUN", "../runs/starter")'
    assert not any(
        "groundup." in line.replace("groundup.open_run(", "")
        for cell in code
        for line in cell.splitlines()
    )
    assert not any("from groundup" in cell or "._" in cell for cell in code)


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "1-data",
        "2-tokenizer",
        "3-training",
        "4-evaluation",
    ]
