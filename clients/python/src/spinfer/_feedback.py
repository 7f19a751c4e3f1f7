"""Feedback: what a prediction turned out to be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypedDict

from spinfer._rows import plain, to_json
from spinfer._wire import JSON, Call, Request, Response, invalid, json_object

PATH = "/v2/feedback"
KINDS = ("label", "value", "reward")


class RejectedFeedback(TypedDict):
    """An item that the server refused: its position, and why."""

    index: int
    error: str


class FeedbackSummary(TypedDict):
    """What became of feedback: a plain dict.

    Attributes:
        accepted: items stored.
        unknown: of those, items whose prediction is not in the log (yet).
        rejected: items refused.
    """

    accepted: int
    unknown: int
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
    """One item of feedback, to a prediction or its id.

    >>> feedback_item("0193...", label="setosa")
    {'prediction_id': '0193...', 'row': 0, 'label': 'setosa'}
    """
    given = {"label": label, "value": value, "reward": reward}
    said = {kind: plain(of) for kind, of in given.items() if of is not None}
    if len(said) != 1:
        got = "none" if not said else " and ".join(f"{kind}=" for kind in said)
        raise TypeError(f"feedback: expected one of label=, value= and reward=, got {got}")
    if isinstance(prediction, str):
        prediction_id, of_row = prediction, 0
    else:
        prediction_id, of_row = prediction.get("prediction_id", ""), prediction.get("row", 0)
        if not prediction_id:
            raise ValueError(
                "feedback: the prediction has no prediction_id: the server keeps no prediction log, "
                "or did not sample this one"
            )
    item = {"prediction_id": prediction_id, "row": of_row if row is None else row, **said}
    if time is not None:
        item["time"] = rfc_3339(time)
    return item


def rfc_3339(time: datetime | str) -> str:
    """A time as RFC 3339 writes it."""
    if isinstance(time, str):
        return time
    if time.tzinfo is None:
        raise ValueError(
            "feedback: time= has no time zone; datetime.now(timezone.utc) has one, and "
            "time.astimezone() takes a time for local"
        )
    return time.isoformat()


def item_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item that is given as a dict; the prediction may stand in it by ``prediction``."""
    known = {"prediction", "prediction_id", "row", "time", *KINDS}
    unknown = sorted(set(item) - known)
    if unknown:
        raise TypeError(f"feedback: unknown key {unknown[0]!r}; expected {sorted(known)}")
    rest = {key: of for key, of in item.items() if key not in ("prediction", "prediction_id")}
    prediction = item.get("prediction", item.get("prediction_id", ""))
    if prediction == "":
        raise TypeError("feedback: prediction_id is missing")
    return feedback_item(prediction, **rest)


def feedback_call(
    items: Iterable[Mapping[str, Any]], headers: Mapping[str, str]
) -> Call[FeedbackSummary]:
    """Many items of feedback."""
    body = to_json({"feedback": list(items)})
    request = Request("POST", PATH, {**headers, "content-type": JSON}, body)
    return Call(request, summary)


def summary(response: Response) -> FeedbackSummary:
    """The response to feedback."""
    body = json_object(response)
    counts = [body.get("accepted"), body.get("unknown", 0)]
    rejected = body.get("rejected", [])
    if not all(isinstance(count, int) for count in counts) or not isinstance(rejected, list):
        invalid(response, 'expected "accepted", "unknown" and "rejected"')
    return {"accepted": counts[0], "unknown": counts[1], "rejected": rejected}
