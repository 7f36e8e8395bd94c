"""Errors as the official `openai` client turns them into its exception classes. Reads exceptions;
writes JSON answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.responses import Response

from groundup.runtime.progress import printable

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class ApiError(HTTPException):
    """An error that a request caused, or one that it must be told of.

    Attributes:
        code: a word for programs, such as `context_length_exceeded`.
        param: the part of the request that it is about.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str = "",
        param: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.code, self.param = code, param

    def body(self) -> bytes:
        """Return the JSON that the client reads."""
        return error_body(self.status_code, str(self.detail), self.code, self.param)


def error_body(status: int, message: str, code: str = "", param: str = "") -> bytes:
    """Return {"error": {message, type, param, code}}."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return orjson.dumps(
        {"error": {"message": message, "type": kind, "param": param or None, "code": code or None}}
    )


class JSONAnswer(Response):
    """A JSON answer whose content is bytes already."""

    media_type = "application/json"


def answer_error(error: ApiError) -> Response:
    """Return the answer that tells of an error."""
    return JSONAnswer(error.body(), error.status_code, error.headers)


def add_handlers(app: FastAPI) -> None:
    """Let every error of `app` be answered in this form, without a traceback or a path."""
    app.add_exception_handler(AnyHTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(Exception, _on_fault)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    if isinstance(error, ApiError):
        return answer_error(error)
    words = {404: "There is nothing at this path.", 405: "This path does not take this method."}
    message = words.get(error.status_code, HTTPStatus(error.status_code).phrase)
    return answer_error(ApiError(error.status_code, message, headers=error.headers))


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return answer_error(invalid(error.errors()))


async def _on_fault(request: Request, error: Exception) -> Response:
    # Starlette raises the exception again, for the log, whereupon uvicorn hangs up.
    return answer_error(
        ApiError(
            500, "The server made a mistake; its log says more.", headers={"Connection": "close"}
        )
    )


def invalid(errors: Sequence[Any]) -> ApiError:
    """Return the error for what validation found, told by the first field that is wrong."""
    where = _place(errors[0]["loc"])
    if errors[0]["type"] == "extra_forbidden":
        return ApiError(400, f"Unknown parameter: {where}", "unknown_parameter", where)
    # A field of several types has an error for each of them; the same one is said once.
    said = dict.fromkeys(
        str(one["msg"]).removeprefix("Value error, ")
        for one in errors
        if _place(one["loc"]) == where
    )
    return ApiError(
        400, f"{where or 'The body'}: {'; or '.join(list(said)[:6])}", "invalid_value", where
    )


def _place(loc: Sequence[str | int]) -> str:
    # ("body", "messages", 0, "content", "str"): what stands after the last number or name of ours
    # is pydantic's.
    names = [str(part) for part in loc[1:]]
    keep = 3 if len(names) > 2 and names[1].isdigit() and names[0] == "messages" else 1
    return printable(".".join(names[:keep])[:100])
