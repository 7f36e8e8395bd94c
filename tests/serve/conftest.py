"""One small model, served on a thread for the whole session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

# The fixtures of a browser, for the tests of the page.
from tests.helpers.page_kit import browser, visit  # noqa: F401


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a small model of context 2,048; treat it as read-only."""
    from tests.helpers.served import served_run

    return served_run(tmp_path_factory.mktemp("served") / "run")


@pytest.fixture(scope="session")
def serving(served: Path):  # type: ignore[no-untyped-def]
    """The model that `live` serves."""
    from tests.helpers.served import serving_of

    return serving_of(served)


@pytest.fixture(scope="session")
def live(serving) -> Iterator[str]:  # type: ignore[no-untyped-def]
    """The URL of a server on this model, without a key."""
    from groundup.serve.server import running

    with running(serving) as url:
        yield url
