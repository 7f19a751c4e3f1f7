"""Retries, timeouts and invalid responses."""

from __future__ import annotations

import socket
import time

import pytest
from conftest import Make
from peer import OK, serving

from spinfer import ConnectionFailed, DeadlineExceeded, InvalidResponse, Overloaded, ServerError

BUSY = (503, {"retry-after": "0"}, {"error": "all 16 instances are busy; try again"})


def test_503_with_retry_after_is_retried(make: Make) -> None:
    with serving(BUSY, BUSY, OK) as peer:
        assert make(peer.url).predict("iris", [1, 2])["prediction"] == "setosa"
    assert len(peer.requests) == 3
    assert {request[3] for request in peer.requests} == {b'{"features":[1,2]}'}


def test_client_waits_for_retry_after(make: Make) -> None:
    with serving((503, {"retry-after": "1"}, {"error": "busy"}), OK) as peer:
        start = time.monotonic()
        make(peer.url).predict("iris", [1])
        assert time.monotonic() - start >= 1.0


def test_retries_are_bounded(make: Make) -> None:
    with serving(BUSY, BUSY, BUSY) as peer:
        with pytest.raises(Overloaded) as caught:
            make(peer.url, retries=2).predict("iris", [1])
    error = caught.value
    assert (error.status, error.retry_after, error.method) == (503, 0.0, "POST")
    assert error.server_message == "all 16 instances are busy; try again"
    assert error.url == f"{peer.url}/v2/models/iris/predict"
    for part in (error.server_message, "503", error.url):
        assert part in str(error)
    assert len(peer.requests) == 3


def test_retry_after_above_the_limit_is_an_error_at_once(make: Make) -> None:
    with serving((429, {"retry-after": "3600"}, b"slow down")) as peer:
        with pytest.raises(Overloaded, match="slow down") as caught:
            make(peer.url).predict("iris", [1])
    assert caught.value.retry_after == 3600


@pytest.mark.parametrize(
    "status, error", [(500, ServerError), (503, ServerError), (504, DeadlineExceeded)]
)
def test_other_failures_are_not_retried(make: Make, status: int, error: type[Exception]) -> None:
    with serving((status, {}, {"error": "no"})) as peer:
        with pytest.raises(error) as caught:
            make(peer.url).predict("iris", [1])
    assert type(caught.value) is error and len(peer.requests) == 1


def test_broken_connection_is_retried(make: Make) -> None:
    with serving(None, OK) as peer:
        make(peer.url).predict("iris", [1])
    assert len(peer.requests) == 2


def test_unreachable_server_is_connection_failed(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionFailed, match=f"cannot connect.*127.0.0.1:{port}") as caught:
        make(f"http://127.0.0.1:{port}", retries=1).predict("iris", [1])
    assert caught.value.status is None


def test_silent_server_is_deadline_exceeded(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(DeadlineExceeded, match="no response in time"):
            make(url, timeout=0.1).predict("iris", [1])


@pytest.mark.parametrize(
    "body", [b"<html>", b"\xff", [1], {"model": "iris"}, {"predictions": [{}]}, b"[" * 100_000]
)
def test_invalid_response_is_an_error(make: Make, body: object) -> None:
    with serving((200, {}, body)) as peer:
        with pytest.raises(InvalidResponse, match="invalid response from http://127"):
            make(peer.url).predict("iris", [1])


def test_predictions_have_keys_from_headers(make: Make) -> None:
    headers = {
        "Spinfer-Prediction-Id": "0193",
        "Spinfer-Experiment": "iris",
        "Spinfer-Variant": "control",
    }
    expected = {"prediction_id": "0193", "experiment": "iris", "variant": "control"}
    many = {"model": "iris", "version": "1", "predictions": [{"prediction": 1}, {"prediction": 2}]}
    with serving((200, headers, OK[2]), (200, headers, many)) as peer:
        client = make(peer.url, unit_header="X-Unit", headers={"X-Team": "a"})
        one = client.predict("iris", [1], unit=7, headers={"X-Team": "b"}, extra={"id": "r"})
        assert one == {**OK[2], **expected}
        first, second = client.predict_batch("iris", [[1], [2]], unit="Zoë")
    common = {"model": "iris", "version": "1", **expected}
    assert first == {"prediction": 1, "row": 0, **common}
    assert second == {"prediction": 2, "row": 1, **common}
    (_, _, sent, body), (_, _, sent_many, _) = peer.requests
    assert (sent["x-unit"], sent["x-team"], body) == ("7", "b", b'{"id":"r","features":[1]}')
    assert (sent_many["x-unit"].encode("latin-1").decode(), sent_many["x-team"]) == ("Zoë", "a")


def test_model_name_that_worked_is_remembered(make: Make) -> None:
    missing = (404, {}, {"error": "no route matches"})
    with serving(missing, OK, OK, missing, (404, {}, {"error": "no version 9"})) as peer:
        client = make(peer.url)
        client.predict("iris_classifier", [1])
        client.predict("iris_classifier", [1])
        with pytest.raises(Exception, match="no route matches.*'a-b': no version 9"):
            client.predict("a_b", [1], version=9)
    assert [path for _, path, _, _ in peer.requests] == [
        "/v2/models/iris_classifier/predict",
        "/v2/models/iris-classifier/predict",
        "/v2/models/iris-classifier/predict",
        "/v2/models/a_b/versions/9/predict",
        "/v2/models/a-b/versions/9/predict",
    ]
