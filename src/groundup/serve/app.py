"""The routes of the server: the OpenAI API, the chat page, health, info and metrics.

    HTTP request
      |  limits.Connection           time limits of the connection
      |  auth.AuthMiddleware         headers; key, or Host and Origin       -> 400, 401, 403
      |  requests.BoundedRequest     size, time and number of bodies        -> 408, 413, 415, 429
      |  protocol.*Request           fields and their ranges                -> 400
      |  requests.prepare_*          tokenize; context, choices, scores     -> 400, 404
      v
    engine: queue -> prefill -> decode one token a step                     -> 429, 503
      |  responses.OutputQueue       from the engine's thread to the event loop
      |  responses.*Builder          text and log-probabilities as OpenAI's JSON
      v
    responses.GeneratedResponse: one body, or a stream of events

Without the key a client gets only the page's files and /health.
"""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.responses import Response

from groundup._version import __version__
from groundup.artifacts.corpus import RefinedShard, refined_shards
from groundup.errors import StoreError
from groundup.runtime.progress import printable
from groundup.serve import protocol, requests, responses
from groundup.serve.auth import AuthMiddleware
from groundup.serve.protocol import ApiError, ChatRequest, CompletionRequest, PromptSuggestion
from groundup.serve.requests import ServedModel
from groundup.serve.responses import JSONResponse, error_response

PAGE = Path(__file__).parent / "page"
# Starlette adds the charset, UTF-8.
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
# Advice for the page, as `groundup sample` samples; OpenAI's defaults (1 and 1) are too random for
# a small model.
ADVISED = {"temperature": 0.8, "top_p": 0.95, "top_k": 0, "min_p": 0.0, "max_tokens": 256}
# A corpus may have thousands of shards; suggestions come from the first of each source.
SUGGESTION_SHARDS = 3
SUGGESTION_LENGTH = 90
ROUTING_ERRORS = {
    404: "There is nothing at this path.",
    405: "This path does not take this method.",
}
MODES: tuple[protocol.Mode, ...] = ("chat", "complete")


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the error responses of a route, for its OpenAPI description."""
    return {status: {"model": protocol.ErrorResponse} for status in statuses}


completion_routes = APIRouter(route_class=requests.BoundedRoute)
info_routes = APIRouter()
GENERATION_ERRORS = errors(400, 401, 403, 404, 408, 413, 415, 429, 500, 503)
EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
STREAM: dict[str, Any] = {"text/event-stream": {"schema": EVENT}}
TEXT: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}


@completion_routes.post(
    "/v1/completions",
    response_model=None,
    responses={200: {"model": protocol.Completion, "content": STREAM}, **GENERATION_ERRORS},
)
async def complete(request: Request, body: CompletionRequest) -> Response:
    """Continue a text, or a list of texts; strings are preceded by the end-of-text token."""
    return await _generate(request, body, requests.prepare_completion, responses.CompletionBuilder)


@completion_routes.post(
    "/v1/chat/completions",
    response_model=None,
    responses={200: {"model": protocol.ChatCompletion, "content": STREAM}, **GENERATION_ERRORS},
)
async def chat(request: Request, body: ChatRequest) -> Response:
    """Answer a conversation."""
    return await _generate(request, body, requests.prepare_chat, responses.ChatBuilder)


async def _generate(
    request: Request,
    body: protocol.GenerationRequest,
    prepare: Callable[[ServedModel, Any], requests.PreparedRequest],
    builder: type[responses.CompletionBuilder],
) -> Response:
    served: ServedModel = request.app.state.served
    if body.model is not None:
        _check_model(served, body.model)
    # On a worker thread: encoding a long text would block the event loop.
    prepared = await anyio.to_thread.run_sync(prepare, served, body)
    served.check_open()
    outputs = responses.OutputQueue(served, prepared.requests)
    return responses.GeneratedResponse(outputs, builder(served, prepared), body)


@info_routes.get("/v1/models", responses={200: {"model": protocol.ModelList}, **errors(401, 403)})
async def models(request: Request) -> Response:
    """List the one model that is served."""
    return JSONResponse(protocol.ModelList([_model_entry(request.app.state.served)]))


@info_routes.get(
    "/v1/models/{model}", responses={200: {"model": protocol.ModelEntry}, **errors(401, 403, 404)}
)
async def model(request: Request, model: str) -> Response:
    """Describe a model."""
    _check_model(request.app.state.served, model)
    return JSONResponse(_model_entry(request.app.state.served))


@info_routes.get("/health", responses={200: {"model": protocol.Health}, **errors(403, 503)})
async def health(request: Request) -> Response:
    """Say whether the server takes requests."""
    request.app.state.served.check_open()
    return JSONResponse(protocol.Health())


@info_routes.get("/info", responses={200: {"model": protocol.ServerInfo}, **errors(401, 403)})
async def info(request: Request) -> Response:
    """Describe the model for the page."""
    served: ServedModel = request.app.state.served
    about = protocol.ServerInfo(
        run=served.name,
        model=served.name,
        checkpoint=served.checkpoint,
        context=served.context,
        # Only tuning teaches the format of a chat.
        tuned=served.checkpoint == "tuned",
        sampling=ADVISED | {"max_tokens": min(ADVISED["max_tokens"], served.context)},
        prompts=served.prompts,
    )
    return JSONResponse(about)


@info_routes.get(
    "/metrics", responses={200: {"content": TEXT}, **errors(401, 403)}, response_class=Response
)
async def metrics(request: Request) -> Response:
    """Give counters in Prometheus' text format."""
    registry = request.app.state.served.metrics.registry
    text = await anyio.to_thread.run_sync(generate_latest, registry)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _model_entry(served: ServedModel) -> protocol.ModelEntry:
    return protocol.ModelEntry(served.name, served.created, served.context)


def _check_model(served: ServedModel, name: str) -> None:
    if name != served.name:
        message = f"There is no such model here; this server has {served.name}."
        raise ApiError(404, message, "model_not_found")


def create_app(served: ServedModel, key: str | None = None) -> FastAPI:
    """Return the ASGI application for one model, whose engine must be started.

    Clients send `key` as `Authorization: Bearer KEY`; None admits programs of this machine only.
    """
    app = ServerApp(
        title="groundup", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.served, app.state.has_key = served, key is not None
    app.include_router(completion_routes)
    app.include_router(info_routes)
    page = {f"/{file.name}": file for file in PAGE.iterdir()} | {"/": PAGE / "index.html"}
    for path, file in page.items():
        endpoint = partial(_send_file, file.read_bytes(), MEDIA_TYPES[file.suffix])
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)
    for error_type in (AnyHTTPException, RequestValidationError, Exception):
        app.add_exception_handler(error_type, _report_error)
    app.add_middleware(AuthMiddleware, served=served, key=key, public={*page, "/health"})
    return app


async def _send_file(content: bytes, media_type: str) -> Response:
    return Response(content, media_type=media_type)


async def _report_error(request: Request, error: Exception) -> Response:
    """Answer any exception of a route with an error as OpenAI writes it."""
    if isinstance(error, RequestValidationError):
        # The first invalid parameter is reported.
        errors = error.errors()
        param, code = _parameter_name(errors[0]["loc"]), "invalid_value"
        # A union has an error for each member; equal messages are reported once.
        same = [error["msg"] for error in errors if _parameter_name(error["loc"]) == param]
        messages = dict.fromkeys(message.removeprefix("Value error, ") for message in same)
        message = f"{param or 'The body'}: {'; or '.join(list(messages)[:6])}"
        if errors[0]["type"] == "extra_forbidden":
            message, code = f"Unknown parameter: {param}", "unknown_parameter"
        error = ApiError(400, message, code, param)
    elif not isinstance(error, AnyHTTPException):
        # The response holds no traceback and no path. Starlette raises the exception again for the
        # log, and uvicorn then closes the connection.
        message = "The server made a mistake; its log says more."
        error = ApiError(500, message, headers={"Connection": "close"})
    elif not isinstance(error, ApiError):
        status = error.status_code
        message = ROUTING_ERRORS.get(status, HTTPStatus(status).phrase)
        error = ApiError(status, message, headers=error.headers)
    return error_response(error)


def _parameter_name(location: Sequence[str | int]) -> str:
    # ("body", "messages", 0, "content", "str"): pydantic adds the union member after our names.
    names = [str(name) for name in location[1:]]
    nested = len(names) > 2 and names[0] == "messages" and names[1].isdigit()
    return printable(".".join(names[: 3 if nested else 1])[:100])


class ServerApp(FastAPI):
    """FastAPI without the 422 in its description, which this server never sends."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI description."""
        if self.openapi_schema is None:
            about = "The OpenAI protocol over one model."
            schema = get_openapi(
                title=self.title, version=self.version, routes=self.routes, description=about
            )
            for operations in schema["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            components = schema["components"]
            for name in ("HTTPValidationError", "ValidationError"):
                components["schemas"].pop(name, None)
            if self.state.has_key:
                components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
                schema["security"] = [{"key": []}]
                schema["paths"]["/health"]["get"]["security"] = []
            self.openapi_schema = schema
        return self.openapi_schema


def suggest_prompts(root: Path, count: int = 6) -> list[PromptSuggestion]:
    """Return up to `count` texts to start with for each mode; none if the data is gone.

    They come from held-out documents, of the sources in turn: for a chat the first user message of
    a conversation, for a completion the beginning of a sentence.
    """
    shards: dict[str, list[RefinedShard]] = {}
    with contextlib.suppress(StoreError):
        for shard in refined_shards(root):
            shards.setdefault(shard.source, []).append(shard)
    suggestions = []
    for mode in MODES:
        by_source = []
        for source, of_source in shards.items():
            texts = (
                _start_text(document, mode)
                for shard in of_source[:SUGGESTION_SHARDS]
                for batch in shard.batches(["text", "turns"], "validation")
                for document in batch.to_pylist()
            )
            by_source.append([(text, source) for text in islice(filter(None, texts), count)])
        in_turn = [pair for turn in zip_longest(*by_source) for pair in turn if pair is not None]
        for text, source in islice(dict(in_turn).items(), count):
            suggestions.append(PromptSuggestion(text, source, mode))
    return suggestions


def _start_text(document: dict[str, Any], mode: protocol.Mode) -> str:
    turns = document["turns"] or []
    if (mode == "chat") != bool(turns):
        return ""
    if turns:
        message = next((turn["content"] for turn in turns if turn["role"] == "user"), "")
        message = _printable_line(message)
        return message if 3 <= len(message) <= SUGGESTION_LENGTH else ""
    # The first line that is long enough to be a sentence and not a title, cut in its middle.
    for line in map(_printable_line, document["text"][:4000].split("\n")):
        if len(line) >= 60 and line[0].isalnum():
            return line[: SUGGESTION_LENGTH // 2].rpartition(" ")[0]
    return ""


def _printable_line(text: str) -> str:
    """Return one line without control, format and unassigned characters."""
    printable = (char if unicodedata.category(char)[0] != "C" else " " for char in text)
    return " ".join("".join(printable).split())
