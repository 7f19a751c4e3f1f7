"""Errors of calls, and the one map from HTTP status to error."""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = [
    "BadRequest",
    "ConnectionFailed",
    "DeadlineExceeded",
    "InvalidResponse",
    "ModelNotFound",
    "Overloaded",
    "ServerError",
    "SpinferError",
]

# Maximum length of a quoted non-JSON response in a message, in characters.
MAX_QUOTED = 300


class SpinferError(Exception):
    """Base of every error of a call.

    Attributes:
        status: HTTP status of the response; ``None`` without a response.
        method: HTTP method of the request.
        url: URL of the request.
        server_message: the server's error message; empty without a response.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        method: str = "",
        url: str = "",
        server_message: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.method = method
        self.url = url
        self.server_message = server_message


class BadRequest(SpinferError):
    """The server refused the request: a status of 400 to 499 without a class of its own."""


class ModelNotFound(SpinferError):
    """404: no such model, version or path."""

    def after(self, first: ModelNotFound, name: str) -> ModelNotFound:
        """``first``, with the server's message for the other spelling of the name."""
        return ModelNotFound(
            f"{first}; as {name!r}: {self.server_message}",
            status=first.status,
            method=first.method,
            url=first.url,
            server_message=first.server_message,
        )


class Overloaded(SpinferError):
    """503 with ``Retry-After``, or 429, after the last retry.

    Attributes:
        retry_after: delay that the server asks for, in seconds; ``None`` without one.
    """

    retry_after: float | None = None


class DeadlineExceeded(SpinferError):
    """504 or 408, or no response within the client's timeout (``status`` is then ``None``)."""


class ServerError(SpinferError):
    """500 to 599: the component, its model or the host failed.

    503 without ``Retry-After``: the model cannot be loaded.
    """


class InvalidResponse(ServerError):
    """A response with status 200 that is invalid in the protocol."""


class ConnectionFailed(SpinferError):
    """The connection failed, or broke before the response was complete; after the last retry."""


def from_response(
    method: str, url: str, status: int, headers: Mapping[str, str], body: bytes
) -> SpinferError:
    """The error for a response with a status other than 200.

    >>> from_response("GET", "http://h/v2", 404, {}, b'{"error": "no route matches /v2"}')
    ModelNotFound('no route matches /v2 (404 from GET http://h/v2)')
    """
    message = message_of(body)
    text = f"{message or 'no message'} ({status} from {method} {url})"
    error = class_of(status, headers)(
        text, status=status, method=method, url=url, server_message=message
    )
    if isinstance(error, Overloaded):
        error.retry_after = retry_after(headers)
    return error


def class_of(status: int, headers: Mapping[str, str]) -> type[SpinferError]:
    """The error class for a status.

    >>> class_of(503, {"retry-after": "1"}).__name__, class_of(503, {}).__name__
    ('Overloaded', 'ServerError')
    """
    if status == 404:
        return ModelNotFound
    if status == 429 or (status == 503 and "retry-after" in headers):
        return Overloaded
    if status in (408, 504):
        return DeadlineExceeded
    return BadRequest if 400 <= status < 500 else ServerError


def message_of(body: bytes) -> str:
    """The message of an error response: ``{"error": "..."}``, or its text.

    >>> message_of(b'{"error": "features: expected 4 numbers"}'), message_of(b"Bad Gateway")
    ('features: expected 4 numbers', 'Bad Gateway')
    """
    try:
        parsed = json.loads(body)
    except (RecursionError, ValueError):
        parsed = None
    # MLflow's paths use "message"; readiness probes have "error" and other keys.
    if isinstance(parsed, dict):
        for key in ("error", "message"):
            if isinstance(parsed.get(key), str):
                return str(parsed[key])
    text = body.decode(errors="replace").strip()
    return text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + "..."


def retry_after(headers: Mapping[str, str]) -> float | None:
    """``Retry-After`` in seconds; ``None`` if it is absent or a date.

    >>> retry_after({"retry-after": "1"}), retry_after({}), retry_after({"retry-after": "-1"})
    (1.0, None, None)
    """
    text = headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
