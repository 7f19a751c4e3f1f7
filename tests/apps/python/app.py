"""Test app: Python, as Spin's http-py template has it."""

from spin_sdk import http, key_value
from spin_sdk.http import Request, Response

# The requests of this instance.
requests = 0


class HttpHandler(http.Handler):
    async def handle_request(self, request: Request) -> Response:
        global requests
        requests += 1
        text = {"content-type": "text/plain"}
        if request.uri.startswith("/keys/"):
            key = request.uri.removeprefix("/keys/")
            with await key_value.open_default() as store:
                if request.method == "PUT":
                    await store.set(key, request.body or b"")
                    return Response(204, {}, None)
                value = await store.get(key)
            if value is None:
                return Response(404, text, b"no such key")
            return Response(200, text, value)
        if request.uri == "/self":
            # Relative: to this application.
            response = await http.send(Request("GET", "/hello", {}, None))
            return Response(200, text, b"%d %s" % (response.status, response.body))
        if request.uri == "/echo":
            return Response(200, text, request.body)
        return Response(200, text, b"Hello from Python! %d" % requests)
