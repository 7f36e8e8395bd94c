"""The OpenAI protocol and a chat page over one model. Reads a model folder; writes nothing."""

from __future__ import annotations

from importlib.util import find_spec

from groundup.errors import GroundupError

LIBRARIES = ("fastapi", "prometheus_client", "uvicorn")


def check_extra() -> None:
    """Refuse to go on without the libraries that only serving needs.

    Raises:
        GroundupError: one of them is not installed.
    """
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise GroundupError(
            f"groundup serve: {', '.join(missing)} is not installed; `pip install"
            " 'groundup[serve]'` brings it"
        )
