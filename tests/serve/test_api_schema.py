"""Schemathesis finds no response that the OpenAPI description does not describe."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from tests.helpers.served import KEY

from groundup.serve.app import create_app
from groundup.serve.requests import ServedModel

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

OPERATIONS = [
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("GET", "/health"),
    ("GET", "/info"),
    ("GET", "/metrics"),
]
BOUNDED = settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    database=None,
)


@pytest.fixture(scope="module")
def description(live: str) -> Any:
    return schemathesis.openapi.from_url(live + "openapi.json")


def test_description_is_complete(live: str) -> None:
    described = httpx.get(live + "openapi.json").json()
    assert {
        (method.upper(), path) for path, methods in described["paths"].items() for method in methods
    } == set(OPERATIONS)
    assert all(
        "422" not in operation["responses"]
        for methods in described["paths"].values()
        for operation in methods.values()
    )
    for path in ("docs", "redoc"):
        assert httpx.get(live + path).status_code == 404


CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda part: part)
def test_valid_requests_get_described_responses(
    description: Any, live: str, method: str, path: str
) -> None:
    seen = set()

    def ask(case: Any) -> None:
        if isinstance(case.body, dict):
            # Otherwise nearly every request would end at a model that is not there, or write 256
            # tokens.
            case.body |= {"model": "tiny", "max_tokens": min(case.body.get("max_tokens") or 3, 3)}
        seen.add(
            case.call_and_validate(base_url=live.rstrip("/"), checks=checks(*CHECKS)).status_code
        )

    run(
        description[path][method].as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE),
        ask,
    )
    assert 200 in seen or path == "/v1/models/{model}"


@pytest.mark.parametrize(("method", "path"), OPERATIONS[:2], ids=lambda part: part)
def test_invalid_requests_are_refused(description: Any, live: str, method: str, path: str) -> None:
    def ask(case: Any) -> None:
        case.call_and_validate(
            base_url=live.rstrip("/"), checks=checks(*CHECKS, "negative_data_rejection")
        )

    run(
        description[path][method].as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE),
        ask,
    )


def checks(*names: str) -> Any:
    schemathesis.checks.load_all_checks()
    return schemathesis.checks.CHECKS.get_by_names(names)


def run(strategy: Any, ask: Callable[[Any], None]) -> None:
    BOUNDED(given(case=strategy)(ask))()


def test_description_of_a_server_with_a_key(serving: ServedModel) -> None:
    """A keyed server says in its description that it wants the key."""
    described = create_app(serving, KEY).openapi()
    assert described["components"]["securitySchemes"]["key"] == {"type": "http", "scheme": "bearer"}
    assert described["paths"]["/health"]["get"]["security"] == []
