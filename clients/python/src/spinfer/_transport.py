"""httpx: settings, and the conversion of requests, responses and errors."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import httpx

from spinfer import errors
from spinfer._wire import Failure, Request, Response, check_headers

DEFAULT_URL = "http://127.0.0.1:3000"
# Above the host's default deadline of 30 seconds, so that its error message arrives. In seconds.
DEFAULT_TIMEOUT = 35.0
DEFAULT_CONNECTIONS = 64


class ClientSettings:
    """Settings of both clients."""

    def __init__(
        self,
        base_url: str,
        timeout: float | httpx.Timeout | None,
        headers: Mapping[str, str] | None,
        unit_header: str,
        http2: bool,
        verify: ssl.SSLContext | bool,
        max_connections: int,
    ) -> None:
        url = httpx.URL(base_url)
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"base_url: expected http://host:port, got {base_url!r}")
        self.base_url = str(url).rstrip("/")
        self.headers = check_headers(headers or {})
        self.unit_header = unit_header.lower()
        self.for_httpx: dict[str, Any] = {
            "timeout": timeout,
            # Reading the trusted certificates takes about 0.3 s.
            "verify": verify if url.scheme == "https" else False,
            # Without TLS there is no negotiation of HTTP/2: use it from the start.
            "http2": http2,
            "http1": not (http2 and url.scheme == "http"),
            "limits": httpx.Limits(
                max_connections=max_connections, max_keepalive_connections=max_connections
            ),
        }

    def with_headers(
        self, headers: Mapping[str, str] | None, unit: str | int | None = None
    ) -> dict[str, str]:
        """The headers of a request: those of the client, overridden by its own."""
        merged = {**self.headers, **check_headers(headers or {})}
        if unit is not None:
            merged |= check_headers({self.unit_header: str(unit)})
        return merged

    def for_request(self, request: Request) -> dict[str, Any]:
        """Arguments for httpx's `request`."""
        return {
            "method": request.method,
            "url": self.base_url + request.path,
            # As UTF-8: httpx accepts ASCII strings only.
            "headers": [(name.encode(), value.encode()) for name, value in request.headers.items()],
            "content": request.body if request.method == "POST" else None,
        }

    def failure(self, request: Request, error: httpx.RequestError) -> Failure:
        """An httpx error as an error of this package."""
        url = self.base_url + request.path
        # Some errors have no text.
        reason = str(error) or type(error).__name__
        connecting = isinstance(error, (httpx.ConnectTimeout, httpx.PoolTimeout))
        if isinstance(error, httpx.TimeoutException) and not connecting:
            text = f"no response in time: {reason} ({request.method} {url})"
            return Failure(errors.DeadlineExceeded(text, method=request.method, url=url))
        text = f"{reason} ({request.method} {url})"
        if isinstance(error, httpx.ConnectError):
            text = f"cannot connect: {text}"
        return Failure(errors.ConnectionFailed(text, method=request.method, url=url))


def received(response: httpx.Response) -> Response:
    """Converts a response of httpx."""
    return Response(
        response.status_code, response.headers, response.content, str(response.request.url)
    )
