"""A small HTTP server with scripted responses, as proxies and busy hosts send them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Peer:
    """The URL, the remaining responses, and the received requests.

    A response is a status, headers and a body; `None` breaks the connection.
    """

    url: str = ""
    responses: list[tuple[int, dict[str, str], Any] | None] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


OK = (200, {}, {"prediction": "setosa", "probability": 1.0})


@contextmanager
def serving(*responses: tuple[int, dict[str, str], Any] | None) -> Iterator[Peer]:
    """A peer with these responses, in this order."""
    peer = Peer(responses=list(responses))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            peer.requests.append((self.command, self.path, headers, self.rfile.read(length)))
            response = peer.responses.pop(0)
            if response is None:
                self.close_connection = True
                return
            status, more, body = response
            encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(encoded)), **more}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(encoded)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        # A handler blocks on its connection until the client closes it.
        server.daemon_threads = True
        peer.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield peer
        finally:
            server.shutdown()
            thread.join()
