"""A Ray cluster gives the same bytes as local workers, and may lose a node meanwhile."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.raw import write_project
from tests.helpers.ray_nodes import Nodes

import groundup
from groundup.collect.sources import shared_paths
from groundup.errors import GroundupError
from groundup.flow import STAGES
from groundup.recipe import load_recipe
from groundup.runtime.run import Run
from groundup.runtime.workers import ray
from groundup.runtime.workers.ray import RayPool

# A filter that keeps every document. While the file `hold` is there, its workers wait; the first
# one dies where `die` is.
FILTER = """
import os
import signal
import time
from pathlib import Path

HERE = Path(__file__).parent


def hold(batch):
    if (HERE / "hold").exists():
        try:
            (HERE / "die").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        except FileNotFoundError:
            (HERE / f"busy-{os.getpid()}").touch()
    while (HERE / "hold").exists():
        time.sleep(0.02)
    return [True] * len(batch), [0.0] * len(batch)
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    pytest.importorskip("ray", reason="Ray is not installed")
    nodes = Nodes()
    yield nodes
    nodes.end()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raw files of five kinds, and a recipe whose filter the tests can block."""
    recipe = write_project(tmp_path_factory.mktemp("shared"))
    recipe.write_text(recipe.read_text() + '\n[refine]\nfilters = ["gopher_quality", "own:hold"]\n')
    (recipe.parent / "own.py").write_text(FILTER)
    return recipe.parent


@pytest.fixture(scope="module")
def expected(project: Path) -> dict[str, str]:
    """What one worker, in this process, gives."""
    return local(project, 1)


def local(project: Path, workers: int) -> dict[str, str]:
    """Return what the data stages give with local workers."""
    out = project / f"local-{workers}"
    with Run.open(load_recipe(project / "tiny.toml"), out, workers=workers) as run:
        for stage in ("collect", "refine", "tokenize"):
            STAGES[stage](run)
    return stored(out)


def start(
    project: Path, out: str, *options: str, prefix: tuple[str, ...] = (), first: Path | None = None
) -> subprocess.Popen[str]:
    """Start a run on Ray with a relative --out."""
    path = os.pathsep.join(filter(None, [str(first or ""), *sys.path]))
    command = [
        *prefix,
        sys.executable,
        "-m",
        "groundup",
        "run",
        "tiny.toml",
        "--out",
        out,
        "--until",
        "tokenize",
        "--ray",
        *options,
    ]
    return subprocess.Popen(
        command,
        cwd=project,
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )


def stored(run: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a run's store but manifests, which hold times."""
    files = [
        path
        for path in run.glob(".store/*/*/*/**/*")
        if path.is_file() and path.name != "manifest.json"
    ]
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def error(process: subprocess.Popen[str]) -> str:
    """Return the one line that a run ended with."""
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 1 and errors.count("\n") == 1, errors
    return errors


def until(process: subprocess.Popen[str], condition: Callable[[], Any]) -> None:
    """Wait for a condition while a run is going on."""
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def busy(project: Path) -> set[int]:
    """Return the processes that wait in the filter."""
    pids = {int(path.name.removeprefix("busy-")) for path in project.glob("busy-*")}
    return {pid for pid in pids if lives(pid)}


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def held(project: Path) -> Iterator[Path]:
    """The file that blocks the filter."""
    for path in project.glob("busy-*"):
        path.unlink()
    (project / "hold").touch()
    yield project / "hold"
    (project / "hold").unlink(missing_ok=True)


@pytest.mark.parametrize("workers", [2, 4])
def test_local_workers_give_the_same_bytes_whatever_their_number(
    project: Path, expected: dict[str, str], workers: int
) -> None:
    assert len(expected) > 30
    assert local(project, workers) == expected


def test_a_signal_stops_the_driver_and_the_workers_on_the_nodes(
    nodes: Nodes, project: Path, held: Path
) -> None:
    process = start(project, "stopped", nodes.address)
    until(process, lambda: len(busy(project)) == 2)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and errors.splitlines()[-1].startswith(
        "groundup: interrupted"
    ), errors
    end = time.monotonic() + 30
    while busy(project):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_node_that_does_not_see_the_run_is_named(nodes: Nodes, project: Path) -> None:
    # The driver, in a mount namespace of its own, sees a disk that the nodes do not see.
    hide = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"')
    (project / "hidden").mkdir()
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            [*hide, project / "hidden", "true"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("a disk that others do not see needs the right to mount one (root)")
    line = error(start(project, "hidden", nodes.address, prefix=(*hide, str(project / "hidden"))))
    assert (
        line.startswith("groundup: node ")
        and f"does not see the run directory {project / 'hidden'}" in line
    ), line


def test_a_node_with_another_library_is_named(nodes: Nodes, project: Path, tmp_path: Path) -> None:
    other = tmp_path / "ftfy-0.0.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: ftfy\nVersion: 0.0.1\n")
    line = error(start(project, "other", nodes.address, first=tmp_path))
    assert (
        line.startswith("groundup: node ")
        and "(here 0.0.1); install the same versions on every node" in line
    ), line


def test_a_worker_and_a_node_that_die_cost_their_shards_only(
    nodes: Nodes, project: Path, expected: dict[str, str], held: Path
) -> None:
    (project / "die").touch()
    process = start(project, "ray", nodes.address)
    until(process, lambda: len(busy(project)) == 2 and not (project / "die").exists())
    nodes.kill_second()
    until(process, lambda: len(busy(project)) == 1)
    held.unlink()
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    assert errors.count("it is tried again") == 2, errors
    assert stored(project / "ray") == expected


def test_unfit_nodes_are_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Protects: each reason for which a machine must not take part, where no Ray is installed.
    cluster = RayPool(
        "auto", tmp_path, {"the raw files in": tmp_path}, ("python", "groundup", "ftfy")
    )
    cluster.token = tmp_path / "seen-1"
    cluster.token.touch()
    required = cluster.requirements()
    assert ray.check_node(required) == ""
    assert "has other source files" in ray.check_node(required | {"source_digest": "0"})
    assert ray.check_node(
        required | {"versions": {"ftfy": "0.1", "groundup": groundup.__version__, "no-such": "1"}}
    ).endswith("(here 0.1), no-such is missing (here 1); install the same versions on every node")
    assert ray.check_node(
        required | {"paths": {"the run": (str(tmp_path / "not-there"), 1)}}
    ).startswith("does not see the run; it must lie")
    # Another folder of the same name, on the node's own disk.
    assert ray.check_node(
        required | {"paths": {"the run": (str(tmp_path), tmp_path.stat().st_ino + 1)}}
    ).startswith("does not see the run")
    assert "cannot write to" in ray.check_node(required | {"writable": str(tmp_path / "not-there")})
    monkeypatch.setattr(ray, "installed_versions", lambda names: dict.fromkeys(names, ""))
    assert ray.check_node(required).startswith(
        "groundup is not installed there; run `pip install groundup=="
    )


def test_nodes_must_see_raw_files_cache_and_user_code(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    places = shared_paths(
        load_recipe(project / "tiny.toml", ['source.0.path="https://example.org/x.txt"'])
    )
    raw = {project / "raw" / name for name in ("wikipedia", "web", "code", "talk/talk.jsonl")}
    assert set(places.values()) == raw | {project, tmp_path / "cache"}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://head:10001", "ray:// is not supported"),
        ("local", "give .auto."),
        ("127.0.0.1:1", "nothing answers there"),
    ],
)
def test_wrong_addresses_are_one_line(address: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(GroundupError, match=said):
        RayPool(address, tmp_path, {}, ()).start()


def test_without_ray_the_line_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(GroundupError, match=r"groundup\[ray\]"):
        RayPool("auto", tmp_path, {}, ()).start()
