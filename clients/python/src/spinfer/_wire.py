"""What goes over the wire, without any I/O: requests, responses, and conversations of several."""

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
    """An HTTP request; ``path`` is below the base URL."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """An HTTP response, all of it."""

    status: int
    # Names in lower case.
    headers: Mapping[str, str]
    body: bytes
    # Of the request.
    url: str = ""


@dataclass(frozen=True)
class Failure:
    """No response: the connection failed, or the timeout passed."""

    error: errors.SpinferError


@dataclass(frozen=True)
class Wait:
    """A pause before the next request, in seconds."""

    seconds: float


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and how to read its response."""

    request: Request
    parse: Callable[[Response], T]


@dataclass(frozen=True)
class ModelCall(Generic[T]):
    """A call of an operation of a model, whose name is not yet settled.

    Attributes:
        operation: the end of its path; empty: of the model itself.
        version: of the model; ``None``: the one in production.
        headers: header fields of the request.
        parse: reads the response.
        body: of the request.
        method: HTTP method.
    """

    operation: str
    version: str | int | None
    headers: Mapping[str, str]
    parse: Callable[[Response], T]
    body: bytes = b""
    method: str = "POST"

    def of(self, model: str) -> Call[T]:
        """The call for a model."""
        path = model_path(model, self.version, self.operation)
        return Call(Request(self.method, path, self.headers, self.body), self.parse)


# What a client does: it sends requests and waits, and gets an outcome for each request.
Step: TypeAlias = Request | Wait
Outcome: TypeAlias = Response | Failure | None
Conversation: TypeAlias = Generator[Step, Outcome, T]


@dataclass(frozen=True)
class RetryPolicy:
    """When a request is sent again.

    Attributes:
        retries: requests after the first.
        max_wait: a longer ``Retry-After``, in seconds, is an error at once.
        backoff: seconds before the first retry after a failed connection; doubled each time.
        draw: a random number from 0 to 1, for jitter.
    """

    retries: int = 3
    max_wait: float = 10.0
    backoff: float = 0.1
    draw: Callable[[], float] = random.random

    def delay(self, attempt: int, outcome: Outcome) -> float | None:
        """Seconds to wait after ``attempt`` (from 0); ``None``: the outcome stands.

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
            # Those refused together shall not come back together.
            return asked + self.draw() * max(asked / 4, self.backoff)
        if isinstance(outcome, Failure) and isinstance(outcome.error, errors.ConnectionFailed):
            return min(self.backoff * float(2**attempt), self.max_wait) * (0.5 + self.draw() / 2)
        return None


def exchange(request: Request, policy: RetryPolicy) -> Conversation[Response]:
    """Sends a request until there is a response that stands.

    Every request of this package may be sent twice: a prediction changes nothing on the server
    (it is recorded twice), and feedback is stored under its prediction, row and kind.
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
    """A call of one request."""
    response = yield from exchange(call.request, policy)
    return read(call, response)


def read(call: Call[T], response: Response) -> T:
    """The value of a response, or the error that it is."""
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
    """The names under which the server has the models.

    A name of Python has underscores where one of the manifest has hyphens. A name with
    underscores is tried as it is; if there is no such model, once with hyphens. Which of the two
    the server has is remembered.
    """

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def converse(self, call: ModelCall[T], name: str, policy: RetryPolicy) -> Conversation[T]:
        """The call for the model ``name``."""
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
    """Path of a model's operation.

    >>> model_path("iris-classifier", None, "predict")
    '/v2/models/iris-classifier/predict'
    >>> model_path("a b/c", 2)
    '/v2/models/a%20b%2Fc/versions/2'
    """
    if not model:
        raise ValueError("the model's name is empty")
    path = f"/v2/models/{quote(model, safe='')}"
    if version is not None:
        path += f"/versions/{quote(str(version), safe='')}"
    return f"{path}/{operation}" if operation else path


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Header fields as they can be sent.

    >>> check_headers({"X-User-Id": "Zoë"})
    {'x-user-id': 'Zoë'}
    >>> check_headers({"x-user-id": "a\\nb"})
    Traceback (most recent call last):
    ValueError: header x-user-id: 'a\\nb' has a control character
    """
    checked = {}
    for name, value in headers.items():
        if not TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a header")
        if any(ord(character) < 32 or ord(character) == 127 for character in value):
            raise ValueError(f"header {name}: {value!r} has a control character")
        checked[name.lower()] = value
    return checked


def json_body(response: Response) -> Any:
    """The JSON of a response."""
    try:
        return json.loads(response.body)
    except (RecursionError, ValueError) as problem:
        invalid(response, f"the body is not JSON: {problem}")


def json_object(response: Response) -> dict[str, Any]:
    """The JSON object of a response."""
    value = json_body(response)
    if not isinstance(value, dict):
        invalid(response, f"expected a JSON object, got {type(value).__name__}")
    return value


def invalid(response: Response, problem: str) -> NoReturn:
    """Refuses a response that does not follow the protocol."""
    raise errors.InvalidResponse(
        f"invalid response from {response.url}: {problem}",
        status=response.status,
        url=response.url,
        server_message=errors.message_of(response.body),
    )
