"""One tiny run, made once, that journeys and fault tests share."""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_report_header() -> str:
    data = os.environ.get("GROUNDUP_TEST_DATA")
    return f"real data: {data}" if data else "GROUNDUP_TEST_DATA is not set: tests on larger real data are skipped"


@pytest.fixture(scope="session")
def tiny_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe of a small project with raw files of all five kinds beside it."""
    from raw import write_project

    return write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def tiny_run(tiny_project: Path) -> Path:
    """A finished run of that project; treat it as read-only."""
    from faults.killing import finish

    out = tiny_project.parent / "runs" / "tiny"
    finish(tiny_project, out)
    return out


@pytest.fixture
def run_copy(tiny_project: Path, tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the project with its finished run in `runs/tiny`, to be changed at will; returns its recipe."""
    copy = tmp_path / "copy"
    shutil.copytree(tiny_project.parent, copy)
    return copy / tiny_project.name
