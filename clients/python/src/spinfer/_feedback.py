"""Feedback: the ground truth of predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, TypedDict

from spinfer._rows import plain, to_json
from spinfer._wire import (
    JSON,
    Call,
    Conversation,
    Request,
    Response,
    RetryPolicy,
    converse,
    invalid,
    json_object,
)

# Maximum items and bytes of one request; the server's limits are 10,000 and 1 MiB.
MAX_ITEMS = 10_000
MAX_BYTES = 1_000_000

PATH = "/v2/feedback"
KINDS = ("label", "value", "reward")


class RejectedFeedback(TypedDict):
    """An item that the server rejected: its position, and the reason."""

    index: int
    error: str


class FeedbackSummary(TypedDict):
    """The result of sending feedback: a plain dict.

    Attributes:
        accepted: number of stored items.
        unknown: stored items whose prediction is not in the log, or not yet.
        replaced: stored items that replaced other feedback, which they contradict.
        unchanged: stored items that changed nothing: the log has the same feedback, or a later one.
        rejected: the rejected items.
    """

    accepted: int
    unknown: int
    replaced: int
    unchanged: int
    rejected: list[RejectedFeedback]


def feedback_item(
    prediction: str | Mapping[str, Any],
    *,
    label: Any = None,
    value: float | None = None,
    reward: float | None = None,
    row: int | None = None,
    time: datetime | str | None = None,
) -> dict[str, Any]:
    """A feedback item for a prediction or its id.

    >>> feedback_item("0193...", label="setosa")
    {'prediction_id': '0193...', 'row': 0, 'label': 'setosa'}
    """
    given = {"label": label, "value": value, "reward": reward}
    truth = {kind: plain(of) for kind, of in given.items() if of is not None}
    if "label" in truth:
        truth["label"] = class_of(truth["label"])
    if len(truth) != 1:
        got = "none" if not truth else " and ".join(f"{kind}=" for kind in truth)
        raise TypeError(f"feedback: expected one of label=, value= and reward=, got {got}")
    if isinstance(prediction, str):
        prediction_id, of_row = prediction, 0
    else:
        prediction_id, of_row = prediction.get("prediction_id", ""), prediction.get("row", 0)
        if not prediction_id:
            raise ValueError(
                "feedback: the prediction has no prediction_id: the server's prediction log is "
                "off, or did not sample this request"
            )
    item = {"prediction_id": prediction_id, "row": of_row if row is None else row, **truth}
    if time is not None:
        item["time"] = rfc_3339(time)
    return item


def class_of(label: Any) -> Any:
    """A class as in predictions: a string or an integer.

    >>> class_of("setosa"), class_of(True), class_of(1.0)
    ('setosa', 'True', 1)
    """
    if isinstance(label, float) and label.is_integer():
        return int(label)
    return str(label) if isinstance(label, bool) else label


def rfc_3339(time: datetime | str) -> str:
    """A time in RFC 3339."""
    if isinstance(time, str):
        return time
    if time.tzinfo is None:
        raise ValueError(
            "feedback: time= has no time zone; use datetime.now(timezone.utc), or "
            "time.astimezone() for local time"
        )
    return time.isoformat()


def item_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item from a dict, which may have ``prediction`` instead of ``prediction_id``."""
    known = {"prediction", "prediction_id", "row", "time", *KINDS}
    unknown = sorted(set(item) - known)
    if unknown:
        raise TypeError(f"feedback: unknown key {unknown[0]!r}; expected {sorted(known)}")
    rest = {key: of for key, of in item.items() if key not in ("prediction", "prediction_id")}
    prediction = item.get("prediction", item.get("prediction_id", ""))
    if prediction == "":
        raise TypeError("feedback: prediction_id is missing")
    return feedback_item(prediction, **rest)


def bodies(items: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Bodies of items in JSON, each with its number of items; at least one body.

    A body is within the server's limits.
    """
    batch: list[bytes] = []
    size = 0
    sent = False
    for encoded in items:
        if batch and (len(batch) == MAX_ITEMS or size + len(encoded) > MAX_BYTES):
            yield len(batch), body_of(batch)
            batch, size, sent = [], 0, True
        batch.append(encoded)
        size += len(encoded) + 1
    if batch or not sent:
        yield len(batch), body_of(batch)


def body_of(batch: list[bytes]) -> bytes:
    """The body with these items."""
    return b'{"feedback":[' + b",".join(batch) + b"]}"


def feedback_conversation(
    items: Iterable[Mapping[str, Any]], headers: Mapping[str, str], policy: RetryPolicy
) -> Conversation[FeedbackSummary]:
    """Sends any number of items, in several requests if needed."""
    total = no_feedback()
    before = 0
    for count, body in bodies(map(to_json, items)):
        request = Request("POST", PATH, {**headers, "content-type": JSON}, body)
        of_batch = yield from converse(Call(request, summary), policy)
        total["accepted"] += of_batch["accepted"]
        total["unknown"] += of_batch["unknown"]
        total["replaced"] += of_batch["replaced"]
        total["unchanged"] += of_batch["unchanged"]
        for rejected in of_batch["rejected"]:
            total["rejected"].append({**rejected, "index": before + rejected["index"]})
        before += count
    return total


def no_feedback() -> FeedbackSummary:
    """The result before anything is sent."""
    return {"accepted": 0, "unknown": 0, "replaced": 0, "unchanged": 0, "rejected": []}


def summary(response: Response) -> FeedbackSummary:
    """Reads the response to feedback."""
    body = json_object(response)
    # Earlier hosts have neither "replaced" nor "unchanged".
    optional = ("unknown", "replaced", "unchanged")
    counts = [body.get("accepted"), *(body.get(name, 0) for name in optional)]
    if not all(isinstance(count, int) for count in counts):
        invalid(response, 'expected "accepted", "unknown" and "rejected"')
    return {
        "accepted": counts[0],
        "unknown": counts[1],
        "replaced": counts[2],
        "unchanged": counts[3],
        "rejected": rejected_items(response, body),
    }


def rejected_items(response: Response, body: Mapping[str, Any]) -> list[RejectedFeedback]:
    """The rejected items in the body of a response."""
    rejected = body.get("rejected", [])
    if not isinstance(rejected, list) or not all(
        isinstance(item, dict) and isinstance(item.get("index"), int) for item in rejected
    ):
        invalid(response, 'expected "accepted", "unknown" and "rejected"')
    return rejected
