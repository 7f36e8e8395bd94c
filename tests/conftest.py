"""One tiny run, made once, that journeys and fault tests share, in whichever of pytest's processes
they run.
"""

import fcntl
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background deaf to it, and so would be the runs that tests
    # interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

from tests.helpers import examples  # noqa: F401

settings.load_profile("groundup")

if "PYTEST_XDIST_WORKER" in os.environ:
    # Threads of torch that wait for a core of the other process spin on their own.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_report_header() -> str:
    data = os.environ.get("GROUNDUP_TEST_DATA")
    return (
        f"real data: {data}"
        if data
        else "GROUNDUP_TEST_DATA is not set: tests on larger real data are skipped"
    )


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this session see."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def made_once(folder: Path, name: str, make: Callable[[Path], object]) -> Path:
    """Return `folder/name`, made by the first process that asks for it."""
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / f"{name}.done"
        if not done.exists():
            make(folder / name)
            done.touch()
    return folder / name


@pytest.fixture(scope="session")
def tiny_project(shared_folder: Path) -> Path:
    """The recipe of a small project with raw files of all five kinds beside it; treat it as
    read-only.
    """
    from tests.helpers.raw import write_project

    return made_once(shared_folder, "project", write_project) / "tiny.toml"


@pytest.fixture(scope="session")
def tiny_run(tiny_project: Path) -> Iterator[Path]:
    """A finished run of that project, read-only: the other process may be looking at it."""
    from tests.helpers.killing import finish

    run = made_once(tiny_project.parent / "runs", "tiny", lambda out: finish(tiny_project, out))
    before = (run / "ledger.jsonl").read_bytes()
    yield run
    assert (run / "ledger.jsonl").read_bytes() == before, (
        "a test worked in the shared run; it should take run_copy"
    )


@pytest.fixture
def run_copy(tiny_project: Path, tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the project with its finished run in `runs/tiny`, to be changed at will; returns
    its recipe.
    """
    copy = tmp_path / "copy"
    shutil.copytree(tiny_project.parent, copy)
    return copy / tiny_project.name
