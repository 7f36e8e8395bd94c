"""The routes. Reads requests; writes answers of the OpenAI protocol, the page, health and metrics.

| without a key | with the key only |
|---|---|
| the page's files, /health | everything else, known or not |
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import orjson
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.responses import Response

from groundup._version import __version__
from groundup.serve.auth import Gate
from groundup.serve.body_limits import BoundedRoute
from groundup.serve.errors import ApiError, JSONAnswer, add_handlers
from groundup.serve.forms import ChatForm, CompletionForm, Form
from groundup.serve.generation import Generation
from groundup.serve.metrics import Counted
from groundup.serve.protocol import Asked, ChatRequest, CompletionRequest
from groundup.serve.replies import Chat, Completion, ErrorAnswer, Health, Info, Model, Models
from groundup.serve.requests import Work, chat_work, completion_work
from groundup.serve.serving import Serving, stopping

PAGE = Path(__file__).parent / "page"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}


def create_app(serving: Serving, key: str | None = None) -> FastAPI:
    """Return the ASGI application for one model, whose engine must be started.

    Args:
        key: what every request must bring as `Authorization: Bearer KEY`; None lets in this
            machine's own programs only.
    """
    app = FastAPI(
        title="groundup", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.serving = serving
    page = page_files()
    app.include_router(_completions())
    app.include_router(_facts())
    for path, (content, kind) in page.items():
        app.add_api_route(
            path, partial(_file, content, kind), methods=["GET", "HEAD"], include_in_schema=False
        )
    add_handlers(app)
    # The last one added is the first to see a request.
    app.add_middleware(Gate, key=key, public={*page, "/health"})
    app.add_middleware(Counted, meters=serving.meters)
    app.openapi = partial(_describe, app, key is not None)  # type: ignore[method-assign]
    return app


def page_files() -> dict[str, tuple[bytes, str]]:
    """Return the files of the page by their path, with their media types."""
    files = {
        f"/{path.name}": (path.read_bytes(), KINDS[path.suffix])
        for path in sorted(PAGE.glob("*"))
        if path.suffix in KINDS
    }
    return files | ({"/": files["/index.html"]} if "/index.html" in files else {})


def _failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorAnswer} for status in statuses}


def _completions() -> APIRouter:
    """The routes that generate."""
    router = APIRouter(route_class=BoundedRoute)
    failures = _failures(400, 401, 403, 404, 408, 413, 415, 429, 500, 503)
    event = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
    stream: dict[str, Any] = {"text/event-stream": {"schema": event}}

    @router.post(
        "/v1/completions",
        response_model=None,
        responses={200: {"model": Completion, "content": stream}, **failures},
    )
    async def complete(request: Request, asked: CompletionRequest) -> Response:
        """Continue a text, or a list of texts; strings are preceded by the end-of-text token."""
        return await _answer(_serving(request), asked, completion_work, CompletionForm)

    @router.post(
        "/v1/chat/completions",
        response_model=None,
        responses={200: {"model": Chat, "content": stream}, **failures},
    )
    async def chat(request: Request, asked: ChatRequest) -> Response:
        """Answer a conversation."""
        return await _answer(_serving(request), asked, chat_work, ChatForm)

    return router


def _facts() -> APIRouter:
    """The routes that tell."""
    router = APIRouter()
    refusals = _failures(401, 403)

    @router.get("/v1/models", responses={200: {"model": Models}, **refusals})
    async def models(request: Request) -> Response:
        """List the one model that is served."""
        return _json(Models([_model(_serving(request))]))

    @router.get("/v1/models/{model}", responses={200: {"model": Model}, **_failures(401, 403, 404)})
    async def model(request: Request, model: str) -> Response:
        """Describe a model."""
        _check_model(_serving(request), model)
        return _json(_model(_serving(request)))

    @router.get("/health", responses={200: {"model": Health}, **_failures(403, 503)})
    async def health(request: Request) -> Response:
        """Say whether the server takes requests."""
        if _serving(request).draining:
            raise stopping()
        return _json(Health())

    @router.get("/info", responses={200: {"model": Info}, **refusals})
    async def info(request: Request) -> Response:
        """Tell what the page wants to know of the model."""
        return _json(_serving(request).about())

    @router.get(
        "/metrics",
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals},
        response_class=Response,
    )
    async def metrics(request: Request) -> Response:
        """Give counters in Prometheus' text format."""
        text = await anyio.to_thread.run_sync(_serving(request).meters.text)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


async def _answer(
    serving: Serving,
    asked: Asked,
    prepare: Callable[[Serving, Any], Work],
    form: Callable[[Serving, Work], Form],
) -> Response:
    from groundup.serve.responses import Answer

    if asked.model is not None:
        _check_model(serving, asked.model)
    work = await anyio.to_thread.run_sync(prepare, serving, asked)
    if serving.draining:
        raise stopping()
    return Answer(
        Generation(serving, work.jobs),
        work,
        form(serving, work),
        bool(asked.stream),
        asked.wants_usage(),
    )


async def _file(content: bytes, kind: str) -> Response:
    return Response(content, media_type=kind)


def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving


def _json(content: Any) -> Response:
    return JSONAnswer(orjson.dumps(content))


def _model(serving: Serving) -> Model:
    return Model(serving.name, serving.created, serving.context)


def _check_model(serving: Serving, name: str) -> None:
    if name != serving.name:
        raise ApiError(
            404,
            f"There is no such model here; this server has {serving.name}.",
            "model_not_found",
            "model",
        )


def _describe(app: FastAPI, keyed: bool) -> dict[str, Any]:
    """Return the OpenAPI description; FastAPI adds an answer 422 that this server never gives."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            routes=app.routes,
            description="The OpenAI protocol over one model.",
        )
        for operation in (
            operation for path in schema["paths"].values() for operation in path.values()
        ):
            operation["responses"].pop("422", None)
        parts = schema["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            parts.pop(name, None)
        if keyed:
            schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"key": []}]
            schema["paths"]["/health"]["get"]["security"] = []
        app.openapi_schema = schema
    return app.openapi_schema
