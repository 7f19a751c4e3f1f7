"""Requests, responses and sequences of them, without I/O."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar
from urllib.parse import quote

from spinfer import errors

T = TypeVar("T")

JSON = "application/json"
# RFC 9110, 5.6.2.
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True)
class Request:
    """An HTTP request; ``path`` is relative to the base URL."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """A complete HTTP response."""

    status: int
    # Names are in lower case.
    headers: Mapping[str, str]
    body: bytes
    # URL of the request.
    url: str = ""


@dataclass(frozen=True)
class Failure:
    """No response: the connection failed, or the request timed out."""

    error: errors.SpinferError


@dataclass(frozen=True)
class Wait:
    """A pause before the next request, in seconds."""

    seconds: float


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and the parser of its response."""

    request: Request
    parse: Callable[[Response], T]


@dataclass(frozen=True)
class ModelCall(Generic[T]):
    """A call of a model's operation, before the model's name is resolved.

    Attributes:
        operation: last segment of the path; empty: the model itself.
        version: version of the model; ``None``: the one in production.
        headers: headers of the request.
        parse: parser of the response.
        body: body of the request.
        method: HTTP method.
    """

    operation: str
    version: str | int | None
    headers: Mapping[str, str]
    parse: Callable[[Response], T]
    body: bytes = b""
    method: str = "POST"

    def of(self, model: str) -> Call[T]:
        """The call for the model with this name."""
        path = model_path(model, self.version, self.operation)
        return Call(Request(self.method, path, self.headers, self.body), self.parse)


# A client runs a conversation: it sends requests, waits pauses, and passes each outcome back.
Step: TypeAlias = Request | Wait
Outcome: TypeAlias = Response | Failure | None
Conversation: TypeAlias = Generator[Step, Outcome, T]


@dataclass(frozen=True)
class RetryPolicy:
    """When a request is retried.

    Attributes:
        retries: maximum number of retries.
        max_wait: maximum ``Retry-After``, in seconds; a longer one is an error at once.
        backoff: delay before the first retry after a failed connection, in seconds; doubles with
            each retry.
        draw: random number from 0 to 1, for jitter.
    """

    retries: int = 3
    max_wait: float = 10.0
    backoff: float = 0.1
    draw: Callable[[], float] = random.random

    def delay(self, attempt: int, outcome: Outcome) -> float | None:
        """Delay after ``attempt`` (from 0) in seconds; ``None``: the outcome is final.

        >>> policy = RetryPolicy(draw=lambda: 0.5)
        >>> policy.delay(0, Response(503, {"retry-after": "1"}, b""))
        1.125
        >>> policy.delay(0, Response(503, {"retry-after": "3600"}, b"")) is None
        True
        >>> policy.delay(3, Response(503, {"retry-after": "1"}, b"")) is None
        True
        """
        if attempt >= self.retries:
            return None
        if isinstance(outcome, Response):
            asked = errors.retry_after(outcome.headers)
            if outcome.status not in (429, 503) or asked is None or asked > self.max_wait:
                return None
            # Jitter: clients that were refused together do not retry together.
            return asked + self.draw() * max(asked / 4, self.backoff)
        if isinstance(outcome, Failure) and isinstance(outcome.error, errors.ConnectionFailed):
            return min(self.backoff * float(2**attempt), self.max_wait) * (0.5 + self.draw() / 2)
        return None


def exchange(request: Request, policy: RetryPolicy) -> Conversation[Response]:
    """Sends a request, with retries, until the outcome is final.

    Every request of this package is safe to repeat: a repeated prediction only adds a record to the
    log, and feedback is stored under its prediction, row and kind.
    """
    attempt = 0
    while True:
        outcome = yield request
        delay = policy.delay(attempt, outcome)
        if delay is None:
            if isinstance(outcome, Response):
                return outcome
            assert isinstance(outcome, Failure), outcome
            raise outcome.error
        yield Wait(delay)
        attempt += 1


def converse(call: Call[T], policy: RetryPolicy) -> Conversation[T]:
    """Runs a call."""
    response = yield from exchange(call.request, policy)
    return read(call, response)


def read(call: Call[T], response: Response) -> T:
    """The parsed response; raises the error of a status other than 200."""
    if response.status != 200:
        raise errors.from_response(
            call.request.method,
            response.url or call.request.path,
            response.status,
            response.headers,
            response.body,
        )
    return call.parse(response)


class ModelNames:
    """Model names on the server.

    Names in Python often have underscores where the manifest has hyphens. A name with underscores
    is sent unchanged; if there is no such model, it is retried once with hyphens. The name that
    worked is remembered.
    """

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def converse(self, call: ModelCall[T], name: str, policy: RetryPolicy) -> Conversation[T]:
        """Runs the call for the model ``name``."""
        known = self._known.get(name)
        try:
            return (yield from converse(call.of(known or name), policy))
        except errors.ModelNotFound as not_found:
            other = name.replace("_", "-")
            if known is not None or other == name:
                raise
            try:
                value = yield from converse(call.of(other), policy)
            except errors.ModelNotFound as second:
                raise second.after(not_found, other) from None
            self._known[name] = other
            return value


def model_path(model: str, version: str | int | None, operation: str = "") -> str:
    """The path of a model's operation.

    >>> model_path("iris-classifier", None, "predict")
    '/v2/models/iris-classifier/predict'
    >>> model_path("a b/c", 2)
    '/v2/models/a%20b%2Fc/versions/2'
    """
    if not model:
        raise ValueError("model_name: expected a name, got an empty string")
    path = f"/v2/models/{quote(model, safe='')}"
    if version is not None:
        path += f"/versions/{quote(str(version), safe='')}"
    return f"{path}/{operation}" if operation else path


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Checks headers, and converts their names to lower case.

    >>> check_headers({"X-User-Id": "Zoë"})
    {'x-user-id': 'Zoë'}
    >>> check_headers({"x-user-id": "a\\nb"})
    Traceback (most recent call last):
    ValueError: header x-user-id: 'a\\nb' has a control character
    """
    checked = {}
    for name, value in headers.items():
        if not TOKEN.fullmatch(name):
            raise ValueError(f"header {name!r}: the name is invalid")
        if any(ord(character) < 32 or ord(character) == 127 for character in value):
            raise ValueError(f"header {name}: {value!r} has a control character")
        checked[name.lower()] = value
    return checked


def json_body(response: Response) -> Any:
    """The JSON body of a response."""
    try:
        return json.loads(response.body)
    except (RecursionError, ValueError) as problem:
        invalid(response, f"the body is not JSON: {problem}")


def json_object(response: Response) -> dict[str, Any]:
    """The JSON object in a response."""
    value = json_body(response)
    if not isinstance(value, dict):
        invalid(response, f"expected a JSON object, got {type(value).__name__}")
    return value


def invalid(response: Response, problem: str) -> NoReturn:
    """Raises an error for a response that is invalid in the protocol."""
    raise errors.InvalidResponse(
        f"invalid response from {response.url}: {problem}",
        status=response.status,
        url=response.url,
        server_message=errors.message_of(response.body),
    )
