"""`groundup serve`: the OpenAI API and a chat page for one model."""

from __future__ import annotations

from importlib.util import find_spec

from groundup.errors import GroundupError


def check_extra() -> None:
    """Raise a GroundupError if a library of the extra `serve` is missing."""
    libraries = ("fastapi", "prometheus_client", "uvicorn")
    missing = [name for name in libraries if find_spec(name) is None]
    if missing:
        remedy = "`pip install 'groundup[serve]'` brings it"
        raise GroundupError(f"groundup serve: {', '.join(missing)} is not installed; {remedy}")
