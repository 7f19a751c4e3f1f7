"""Metadata and readiness of a server and its models."""

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
    """An input or output: name, datatype, and shape (-1: a free axis)."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(TypedDict):
    """Metadata of a model: a plain dict."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


def metadata_call(
    version: str | int | None, headers: Mapping[str, str]
) -> ModelCall[ModelMetadata]:
    """The call for the metadata of a model."""

    def parse(response: Response) -> ModelMetadata:
        body = json_object(response)
        if not all(isinstance(body.get(key), list) for key in ("inputs", "outputs")):
            invalid(response, 'expected "inputs" and "outputs"')
        return cast(ModelMetadata, {"name": "", "versions": [], "platform": "", **body})

    return ModelCall("", version, headers, parse, method="GET")


def server_call(headers: Mapping[str, str]) -> Call[dict[str, Any]]:
    """The call for the metadata of the server."""
    return Call(Request("GET", "/v2", headers), json_object)


def is_ready(_: Response) -> bool:
    """Always true: a response with another status is an error."""
    return True


def ready_conversation(
    names: ModelNames,
    model: str | None,
    version: str | int | None,
    headers: Mapping[str, str],
    policy: RetryPolicy,
) -> Conversation[bool]:
    """Whether a model is ready, or the server with all its models."""

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
