"""What a server and its models are, and whether they are ready."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, cast

from spinfer import errors
from spinfer._wire import (
    Call,
    Conversation,
    ModelCall,
    ModelNames,
    Request,
    Response,
    RetryPolicy,
    converse,
    invalid,
    json_object,
)


class TensorMetadata(TypedDict):
    """An input or output: its name, datatype, and shape (-1: a free axis)."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(TypedDict):
    """What a model is: a plain dict."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


def metadata_call(
    version: str | int | None, headers: Mapping[str, str]
) -> ModelCall[ModelMetadata]:
    """What a model is."""

    def parse(response: Response) -> ModelMetadata:
        body = json_object(response)
        if not all(isinstance(body.get(key), list) for key in ("inputs", "outputs")):
            invalid(response, 'expected "inputs" and "outputs"')
        return cast(ModelMetadata, {"name": "", "versions": [], "platform": "", **body})

    return ModelCall("", version, headers, parse, method="GET")


def server_call(headers: Mapping[str, str]) -> Call[dict[str, Any]]:
    """What the server is."""
    return Call(Request("GET", "/v2", headers), json_object)


def is_ready(_: Response) -> bool:
    """What is not ready has another status."""
    return True


def ready_conversation(
    names: ModelNames,
    model: str | None,
    version: str | int | None,
    headers: Mapping[str, str],
    policy: RetryPolicy,
) -> Conversation[bool]:
    """Whether a model, or the server with all of its models, is ready."""

    try:
        if model is None:
            call = Call(Request("GET", "/v2/health/ready", headers), is_ready)
            return (yield from converse(call, policy))
        of_model = ModelCall("ready", version, headers, is_ready, method="GET")
        return (yield from names.converse(of_model, model, policy))
    except errors.SpinferError as error:
        if error.status in (404, 503):
            return False
        raise
