"""The two clients. Their methods run the calls that the other modules define."""

from __future__ import annotations

import asyncio
import os
import ssl
import time as clock
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar

import httpx

from spinfer._feedback import FeedbackSummary, feedback_conversation, feedback_item, item_of
from spinfer._feedback_file import FeedbackFileSummary, feedback_file_conversation
from spinfer._metadata import ModelMetadata, metadata_call, ready_conversation, server_call
from spinfer._predict import Prediction, predict_batch_call, predict_call
from spinfer._tensors import Inference, infer_call
from spinfer._transport import (
    DEFAULT_CONNECTIONS,
    DEFAULT_TIMEOUT,
    DEFAULT_URL,
    ClientSettings,
    received,
)
from spinfer._wire import Conversation, ModelNames, Outcome, RetryPolicy, Wait, converse

T = TypeVar("T")


class _Calls:
    """The calls of both clients, as conversations that a subclass runs."""

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        timeout: float | httpx.Timeout | None = DEFAULT_TIMEOUT,
        retries: int = 3,
        max_retry_wait: float = 10.0,
        headers: Mapping[str, str] | None = None,
        unit_header: str = "x-user-id",
        http2: bool = False,
        verify: ssl.SSLContext | bool = True,
        max_connections: int = DEFAULT_CONNECTIONS,
    ) -> None:
        self._settings = ClientSettings(
            base_url, timeout, headers, unit_header, http2, verify, max_connections
        )
        if retries < 0:
            raise ValueError(f"retries: expected 0 or more, got {retries}")
        self._policy = RetryPolicy(retries=retries, max_wait=max_retry_wait)
        self._names = ModelNames()
        self._open()

    def _open(self) -> None:
        raise NotImplementedError

    @property
    def base_url(self) -> str:
        """The server's URL."""
        return self._settings.base_url

    def _predict(
        self,
        model_name: str,
        features: Any,
        version: str | int | None,
        headers: Mapping[str, str] | None,
        unit: str | int | None,
        extra: Mapping[str, Any] | None,
        content_type: str | None,
    ) -> Conversation[Prediction]:
        call = predict_call(
            features,
            version=version,
            headers=self._settings.with_headers(headers, unit),
            extra=extra,
            content_type=content_type,
        )
        return self._names.converse(call, model_name, self._policy)

    def _predict_batch(
        self,
        model_name: str,
        instances: Any,
        version: str | int | None,
        headers: Mapping[str, str] | None,
        unit: str | int | None,
        extra: Mapping[str, Any] | None,
    ) -> Conversation[list[Prediction]]:
        sent = self._settings.with_headers(headers, unit)
        call = predict_batch_call(instances, version=version, headers=sent, extra=extra)
        return self._names.converse(call, model_name, self._policy)

    def _infer(
        self,
        model_name: str,
        inputs: Mapping[str, Any],
        outputs: Iterable[str] | None,
        datatypes: Mapping[str, str] | None,
        binary: bool,
        id: str | None,
        parameters: Mapping[str, Any] | None,
        version: str | int | None,
        headers: Mapping[str, str] | None,
        unit: str | int | None,
    ) -> Conversation[Inference]:
        call = infer_call(
            inputs,
            outputs=outputs,
            datatypes=datatypes,
            binary=binary,
            id=id,
            parameters=parameters,
            version=version,
            headers=self._settings.with_headers(headers, unit),
        )
        return self._names.converse(call, model_name, self._policy)

    def _feedback(
        self, items: Iterable[Mapping[str, Any]], headers: Mapping[str, str] | None
    ) -> Conversation[FeedbackSummary]:
        sent = self._settings.with_headers(headers)
        return feedback_conversation(items, sent, self._policy)

    def _feedback_file(
        self, path: str | os.PathLike[str], format: str | None, headers: Mapping[str, str] | None
    ) -> Conversation[FeedbackFileSummary]:
        sent = self._settings.with_headers(headers)
        return feedback_file_conversation(path, format, sent, self._policy)

    def _metadata(self, model_name: str, version: str | int | None) -> Conversation[ModelMetadata]:
        call = metadata_call(version, self._settings.headers)
        return self._names.converse(call, model_name, self._policy)

    def _server_metadata(self) -> Conversation[dict[str, Any]]:
        return converse(server_call(self._settings.headers), self._policy)

    def _ready(self, model_name: str | None, version: str | int | None) -> Conversation[bool]:
        return ready_conversation(
            self._names, model_name, version, self._settings.headers, self._policy
        )


class MLClient(_Calls):
    """A client for a spinfer server. It keeps connections open, and threads may share it.

    Args:
        base_url: URL of the server.
        timeout: timeout for a connection and for a response, in seconds; ``None``: no timeout.
        retries: maximum number of retries after 429 or 503 with ``Retry-After``, or after a failed
            connection. Predictions and feedback are safe to repeat. 0: no retries.
        max_retry_wait: maximum ``Retry-After`` in seconds; a longer one is an error at once.
        headers: headers of every request.
        unit_header: the header for ``unit=`` of a call: the unit of the experiment.
        http2: use HTTP/2, also without TLS. Needs ``pip install 'spinfer[http2]'``.
        verify: verification of the server's certificate.
        max_connections: maximum number of connections; further calls wait.

    A model name with underscores is sent unchanged. After a 404 it is retried once with hyphens;
    the client remembers the name that worked.

    Example:
        >>> with MLClient("http://127.0.0.1:3000") as client:  # doctest: +SKIP
        ...     client.predict(model_name="iris_classifier", features=[5.1, 3.5, 1.4, 0.2])
        {'model': 'iris-classifier', 'version': '1', 'prediction': 'setosa', ...}
    """

    def _open(self) -> None:
        self._http = httpx.Client(**self._settings.for_httpx)

    def _run(self, conversation: Conversation[T]) -> T:
        """Runs a conversation: sends its requests and waits its pauses."""
        outcome: Outcome = None
        try:
            while True:
                step = conversation.send(outcome)
                outcome = None
                if isinstance(step, Wait):
                    clock.sleep(step.seconds)
                    continue
                try:
                    response = self._http.request(**self._settings.for_request(step))
                    outcome = received(response)
                except httpx.RequestError as error:
                    outcome = self._settings.failure(step, error)
        except StopIteration as end:
            value: T = end.value
            return value

    def predict(
        self,
        model_name: str,
        features: Any,
        *,
        version: str | int | None = None,
        headers: Mapping[str, str] | None = None,
        unit: str | int | None = None,
        extra: Mapping[str, Any] | None = None,
        content_type: str | None = None,
    ) -> Prediction:
        """Predicts one row.

        Args:
            model_name: the model, or the public name of an experiment.
            features: the row: a list, NumPy array or pandas Series in the model's order; a dict by
                feature name; a string, for text models; or the bytes of a file.
            version: version of the model, instead of the one in production.
            headers: headers of this request.
            unit: unit of an experiment, such as a user id; sent in the client's ``unit_header``.
            extra: additional keys of the request's JSON: ``{"id": "request 7"}``.
            content_type: media type of a file.

        Returns:
            A dict with ``prediction``, ``model`` and ``version``; ``probability`` and
            ``probabilities`` of a classifier; ``prediction_id`` if the server logs the prediction;
            ``experiment`` and ``variant`` if an experiment served it.

        Raises:
            SpinferError: the call failed; the subclasses are in ``spinfer.errors``.
            ValueError: a feature is NaN or infinite, which JSON does not support.
            TypeError: ``features`` is not a row.
        """
        return self._run(
            self._predict(model_name, features, version, headers, unit, extra, content_type)
        )

    def predict_batch(
        self,
        model_name: str,
        instances: Any,
        *,
        version: str | int | None = None,
        headers: Mapping[str, str] | None = None,
        unit: str | int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> list[Prediction]:
        """Predicts many rows with one request and one inference.

        Args:
            model_name: as in :meth:`predict`.
            instances: a list of rows, a NumPy array with two axes, or a DataFrame, whose columns
                are matched by name.
            version: as in :meth:`predict`.
            headers: as in :meth:`predict`.
            unit: as in :meth:`predict`.
            extra: as in :meth:`predict`.

        Returns:
            A dict per row, as from :meth:`predict`, with its position as ``row``. All rows share
            one ``prediction_id``; ``row`` identifies a single prediction.
        """
        return self._run(self._predict_batch(model_name, instances, version, headers, unit, extra))

    def infer(
        self,
        model_name: str,
        inputs: Mapping[str, Any],
        outputs: Iterable[str] | None = None,
        binary: bool = True,
        *,
        datatypes: Mapping[str, str] | None = None,
        id: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        version: str | int | None = None,
        headers: Mapping[str, str] | None = None,
        unit: str | int | None = None,
    ) -> Inference:
        """Runs the graph: tensors in, tensors out (Open Inference Protocol, version 2).

        Args:
            model_name: as in :meth:`predict`.
            inputs: NumPy arrays by input name. Strings and bytes are sent as BYTES.
            outputs: names of the requested outputs; ``None``: all.
            binary: send and receive tensors as binary data after the JSON, which is exact and
                several times as fast as JSON.
            datatypes: datatypes to convert inputs to: ``{"features": "FP32"}`` for an array of
                float64. BF16 needs this, or an array of the package ``ml_dtypes``.
            id: id of the request; the result has it as ``.id``.
            parameters: ``parameters`` of the request.
            version: as in :meth:`predict`.
            headers: as in :meth:`predict`.
            unit: as in :meth:`predict`.

        Returns:
            A dict of NumPy arrays by output name. BYTES are arrays of ``bytes``, BF16 is float32.
            ``prediction_id``, ``experiment``, ``variant`` and ``version`` are attributes.
        """
        return self._run(
            self._infer(
                model_name,
                inputs,
                outputs,
                datatypes,
                binary,
                id,
                parameters,
                version,
                headers,
                unit,
            )
        )

    def feedback(
        self,
        prediction: str | Mapping[str, Any],
        *,
        label: Any = None,
        value: float | None = None,
        reward: float | None = None,
        row: int | None = None,
        time: datetime | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> FeedbackSummary:
        """Sends the ground truth of a prediction: one of ``label``, ``value`` and ``reward``.

        Args:
            prediction: the ``prediction_id``, or the dict of :meth:`predict`.
            label: the true class.
            value: the true number.
            reward: the reward of the outcome, such as 1 for a click.
            row: position in the batch; default: the dict's ``row``, or 0.
            time: when the truth was known; the latest feedback wins.
            headers: headers of this request.

        Returns:
            A dict: ``accepted``, ``unknown``, ``replaced``, ``unchanged`` and ``rejected``.
        """
        item = feedback_item(
            prediction, label=label, value=value, reward=reward, row=row, time=time
        )
        return self._run(self._feedback([item], headers))

    def feedback_many(
        self, items: Iterable[Mapping[str, Any]], *, headers: Mapping[str, str] | None = None
    ) -> FeedbackSummary:
        """Sends feedback for many predictions, with as few requests as the server's limits allow.

        If one of several requests fails, the feedback of earlier requests is stored. It is safe to
        send all items again.

        Args:
            items: dicts with ``prediction_id`` (or ``prediction``, the dict of :meth:`predict`)
                and the arguments of :meth:`feedback`.
            headers: headers of these requests.
        """
        return self._run(self._feedback((item_of(item) for item in items), headers))

    def feedback_file(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> FeedbackFileSummary:
        """Sends the feedback in a file, which is read line by line and need not fit into memory.

        If a request fails, the feedback of earlier requests is stored. It is safe to send the file
        again.

        Args:
            path: CSV with a header line, or JSON lines. Columns, or keys: ``prediction_id``,
                ``row`` (default: 0), ``time`` (default: now), and ``label``, ``value`` or
                ``reward``. An empty cell is absent.
            format: ``"csv"`` or ``"jsonl"``; default: by the extension.
            headers: headers of these requests.

        Returns:
            A dict: ``accepted``, ``unknown``, ``replaced``, ``unchanged``, and ``rejected`` with
            the number and the error of each rejected line.

        Raises:
            ValueError: the header line of a CSV file is invalid, or the format is not known.
        """
        return self._run(self._feedback_file(path, format, headers))

    def metadata(self, model_name: str, version: str | int | None = None) -> ModelMetadata:
        """Inputs and outputs of a model."""
        return self._run(self._metadata(model_name, version))

    def server_metadata(self) -> dict[str, Any]:
        """Name, version and protocol extensions of the server."""
        return self._run(self._server_metadata())

    def ready(self, model_name: str | None = None, version: str | int | None = None) -> bool:
        """Whether a model is ready; without a name, whether the server and all its models are.

        A model that the server does not have is not ready.
        """
        return self._run(self._ready(model_name, version))

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> MLClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncMLClient(_Calls):
    """The asyncio client: each method of :class:`MLClient` as a coroutine.

    Example:
        >>> async with AsyncMLClient() as client:  # doctest: +SKIP
        ...     calls = [client.predict("iris_classifier", row) for row in rows]
        ...     predictions = await asyncio.gather(*calls)
    """

    def _open(self) -> None:
        self._http = httpx.AsyncClient(**self._settings.for_httpx)

    async def _run(self, conversation: Conversation[T]) -> T:
        """Runs a conversation: sends its requests and waits its pauses."""
        outcome: Outcome = None
        try:
            while True:
                step = conversation.send(outcome)
                outcome = None
                if isinstance(step, Wait):
                    await asyncio.sleep(step.seconds)
                    continue
                try:
                    response = await self._http.request(**self._settings.for_request(step))
                    outcome = received(response)
                except httpx.RequestError as error:
                    outcome = self._settings.failure(step, error)
        except StopIteration as end:
            value: T = end.value
            return value

    async def predict(
        self,
        model_name: str,
        features: Any,
        *,
        version: str | int | None = None,
        headers: Mapping[str, str] | None = None,
        unit: str | int | None = None,
        extra: Mapping[str, Any] | None = None,
        content_type: str | None = None,
    ) -> Prediction:
        """:meth:`MLClient.predict`."""
        return await self._run(
            self._predict(model_name, features, version, headers, unit, extra, content_type)
        )

    async def predict_batch(
        self,
        model_name: str,
        instances: Any,
        *,
        version: str | int | None = None,
        headers: Mapping[str, str] | None = None,
        unit: str | int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> list[Prediction]:
        """:meth:`MLClient.predict_batch`."""
        return await self._run(
            self._predict_batch(model_name, instances, version, headers, unit, extra)
        )

    async def infer(
        self,
        model_name: str,
        inputs: Mapping[str, Any],
        outputs: Iterable[str] | None = None,
        binary: bool = True,
        *,
        datatypes: Mapping[str, str] | None = None,
        id: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        version: str | int | None = None,
        headers: Mapping[str, str] | None = None,
        unit: str | int | None = None,
    ) -> Inference:
        """:meth:`MLClient.infer`."""
        return await self._run(
            self._infer(
                model_name,
                inputs,
                outputs,
                datatypes,
                binary,
                id,
                parameters,
                version,
                headers,
                unit,
            )
        )

    async def feedback(
        self,
        prediction: str | Mapping[str, Any],
        *,
        label: Any = None,
        value: float | None = None,
        reward: float | None = None,
        row: int | None = None,
        time: datetime | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> FeedbackSummary:
        """:meth:`MLClient.feedback`."""
        item = feedback_item(
            prediction, label=label, value=value, reward=reward, row=row, time=time
        )
        return await self._run(self._feedback([item], headers))

    async def feedback_many(
        self, items: Iterable[Mapping[str, Any]], *, headers: Mapping[str, str] | None = None
    ) -> FeedbackSummary:
        """:meth:`MLClient.feedback_many`."""
        return await self._run(self._feedback((item_of(item) for item in items), headers))

    async def feedback_file(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> FeedbackFileSummary:
        """:meth:`MLClient.feedback_file`."""
        return await self._run(self._feedback_file(path, format, headers))

    async def metadata(self, model_name: str, version: str | int | None = None) -> ModelMetadata:
        """:meth:`MLClient.metadata`."""
        return await self._run(self._metadata(model_name, version))

    async def server_metadata(self) -> dict[str, Any]:
        """:meth:`MLClient.server_metadata`."""
        return await self._run(self._server_metadata())

    async def ready(self, model_name: str | None = None, version: str | int | None = None) -> bool:
        """:meth:`MLClient.ready`."""
        return await self._run(self._ready(model_name, version))

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncMLClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
