"""Feedback: requests, and the responses of the host."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from conftest import Make
from peer import serving

from spinfer import BadRequest, InvalidResponse, ModelNotFound

NOON = datetime(2026, 11, 30, 12, tzinfo=timezone.utc)
SUMMARY = {"accepted": 1, "unknown": 0, "replaced": 0, "unchanged": 0, "rejected": []}


def test_feedback_request_body(make: Make) -> None:
    with serving((200, {}, SUMMARY), (200, {}, {**SUMMARY, "accepted": 4})) as peer:
        client = make(peer.url)
        assert client.feedback("id", label="setosa") == SUMMARY
        prediction = {"prediction_id": "id", "row": 2, "prediction": "setosa"}
        items = [
            {"prediction": prediction, "value": 1.5},
            {"prediction": prediction, "label": 3, "row": 1},
            {"prediction_id": "id", "reward": 0, "time": NOON},
            {"prediction_id": "id", "label": False, "time": "2026-11-30T12:00:00Z"},
        ]
        assert client.feedback_many(items)["accepted"] == 4
    (_, path, headers, body), (*_, many) = peer.requests
    assert path == "/v2/feedback" and headers["content-type"] == "application/json"
    assert json.loads(body) == {"feedback": [{"prediction_id": "id", "row": 0, "label": "setosa"}]}
    assert json.loads(many)["feedback"] == [
        {"prediction_id": "id", "row": 2, "value": 1.5},
        {"prediction_id": "id", "row": 1, "label": 3},
        {"prediction_id": "id", "row": 0, "reward": 0, "time": "2026-11-30T12:00:00+00:00"},
        {"prediction_id": "id", "row": 0, "label": "False", "time": "2026-11-30T12:00:00Z"},
    ]


def test_many_items_are_split_into_requests(make: Make) -> None:
    counts = [10_000, 5_000, 3_000]
    rejected = [{"index": 7, "error": "no"}]
    rest = {"unknown": 1, "replaced": 2, "unchanged": 3, "rejected": rejected}
    responses: list[Any] = [(200, {}, {"accepted": count - 1, **rest}) for count in counts]
    with serving(*responses) as peer:
        items = ({"prediction_id": "id", "reward": 1} for _ in range(15_000))
        total = make(peer.url).feedback_many(items)
        assert total["accepted"] == 14_998 and total["unknown"] == 2
        assert total["replaced"] == 4 and total["unchanged"] == 6
        assert [one["index"] for one in total["rejected"]] == [7, 10_007]
    sent = [json.loads(body)["feedback"] for *_, body in peer.requests]
    assert [len(one) for one in sent] == counts[:2]
    long = [{"prediction_id": "id", "label": "é" * 500}] * 2_000
    with serving(*responses) as peer:
        make(peer.url).feedback_many(long)
    assert [len(body) < 1 << 20 for *_, body in peer.requests] == [True, True, True]
    assert sum(len(json.loads(body)["feedback"]) for *_, body in peer.requests) == 2_000


def test_invalid_feedback_is_an_error(make: Make) -> None:
    client = make("http://127.0.0.1:1")
    for arguments, error, message in [
        ({}, TypeError, "one of label=, value= and reward=, got none"),
        ({"label": "a", "reward": 1.0}, TypeError, "got label= and reward="),
        ({"label": "a", "time": NOON.replace(tzinfo=None)}, ValueError, "no time zone"),
    ]:
        with pytest.raises(error, match=message):
            client.feedback("id", **arguments)
    with pytest.raises(ValueError, match="has no prediction_id"):
        client.feedback({"prediction": "setosa"}, label="setosa")
    with pytest.raises(TypeError, match="unknown key 'lable'"):
        client.feedback_many([{"prediction_id": "id", "lable": "a"}])
    with pytest.raises(TypeError, match="prediction_id is missing"):
        client.feedback_many([{"label": "a"}])


def test_invalid_response_is_an_error(make: Make) -> None:
    for invalid in ({"ok": True}, {**SUMMARY, "replaced": "1"}):
        with serving((200, {}, invalid)) as peer:
            with pytest.raises(InvalidResponse, match="accepted"):
                make(peer.url).feedback("id", label="a")


def test_response_of_an_earlier_host_is_complete(make: Make) -> None:
    with serving((200, {}, {"accepted": 1, "unknown": 0, "rejected": []})) as peer:
        assert make(peer.url).feedback("id", label="a") == SUMMARY


def logged(client: Any) -> dict[str, Any]:
    """A logged prediction."""
    prediction: dict[str, Any] = client.predict("iris_classifier", [5.1, 3.5, 1.4, 0.2])
    try:
        client.feedback_many([])
    except ModelNotFound:
        pytest.skip("this host does not accept feedback")
    except BadRequest:
        pass
    assert "prediction_id" in prediction, prediction
    return prediction


def test_feedback_for_a_prediction(client: Any) -> None:
    prediction = logged(client)
    once = client.feedback(prediction, label="setosa")
    assert once == SUMMARY
    again = client.feedback(prediction["prediction_id"], label="setosa", time=NOON)
    assert again == {**SUMMARY, "unchanged": 1}
    corrected = client.feedback(prediction, label="virginica")
    assert corrected == {**SUMMARY, "replaced": 1}


def test_feedback_for_a_batch(client: Any) -> None:
    logged(client)
    rows = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
    predictions = client.predict_batch("iris_classifier", rows)
    assert len({one["prediction_id"] for one in predictions}) == 1
    items = [{"prediction": one, "label": one["prediction"]} for one in predictions]
    assert client.feedback_many(items)["accepted"] == 2
    assert client.infer(
        "iris_classifier", {"features": rows}, datatypes={"features": "FP32"}
    ).prediction_id


def test_feedback_for_an_unknown_prediction(client: Any) -> None:
    logged(client)
    unknown = "01936d00-0000-7000-8000-000000000000"
    assert client.feedback(unknown, reward=0.5)["unknown"] == 1
    with pytest.raises(BadRequest):
        client.feedback("no uuid", reward=0.5)


def test_variants_of_the_example_experiment(client: Any) -> None:
    if not client.ready("iris"):
        pytest.skip("this host has no experiment")
    seen = {}
    for unit in range(40):
        first = client.predict("iris", [5.1, 3.5, 1.4, 0.2], unit=unit)
        again = client.predict("iris", [6.7, 3.0, 5.2, 2.3], unit=unit)
        assert first["experiment"] == "iris" and first["variant"] == again["variant"]
        seen[first["variant"]] = first["version"]
    assert seen == {"control": "1", "treatment": "2"}
