"""The short form: rows of features in, predictions out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, cast

from spinfer._rows import plain, to_json
from spinfer._wire import JSON, ModelCall, Response, invalid, json_object

PREDICTION_ID = "spinfer-prediction-id"
EXPERIMENT = "spinfer-experiment"
VARIANT = "spinfer-variant"
# Header -> key of a prediction.
FROM_HEADERS = {PREDICTION_ID: "prediction_id", EXPERIMENT: "experiment", VARIANT: "variant"}


class Prediction(TypedDict, total=False):
    """A prediction for one row: a plain dict. Which keys there are depends on the model.

    Attributes:
        model: the model's name.
        version: its version.
        id: ``id`` of the request, if it had one.
        prediction: the class, a string or an integer; or a number; or several.
        probability: of that class, if the model gives probabilities.
        probabilities: of every class, by its name.
        row: position in the batch; only of ``predict_batch``.
        prediction_id: what feedback refers to; with the prediction log on.
        experiment: the experiment the request took part in.
        variant: the experiment's variant that served it.
    """

    model: str
    version: str
    id: str
    prediction: Any
    probability: float
    probabilities: dict[str, float]
    row: int
    prediction_id: str
    experiment: str
    variant: str


def predict_call(
    features: Any,
    *,
    version: str | int | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    content_type: str | None = None,
) -> ModelCall[Prediction]:
    """A prediction for one row.

    >>> predict_call([5.1, 3.5, 1.4, 0.2]).body
    b'{"features":[5.1,3.5,1.4,0.2]}'
    >>> predict_call({"sepal_length": 5.1}).body
    b'{"instances":[{"sepal_length":5.1}]}'
    """
    sent = dict(headers or {})
    if isinstance(features, (bytes, bytearray, memoryview)):
        if content_type is None:
            raise TypeError('a file needs content_type=, such as "image/png"')
        if extra:
            raise TypeError("extra= goes into a JSON body, and this body is a file")
        sent["content-type"] = content_type
        return ModelCall("predict", version, sent, one, bytes(features))
    if content_type is not None:
        raise TypeError("content_type= is for a file: features of type bytes")
    row = one_row(plain(features))
    # The protocol has named features and strings in the form of many rows only.
    rows = {"features": row} if isinstance(row, list) else {"instances": [row]}
    body = to_json({**plain(extra or {}), **rows})
    parse = one if isinstance(row, list) else one_of_many
    return ModelCall("predict", version, {**sent, "content-type": JSON}, parse, body)


def one_row(features: Any) -> Any:
    """A table of one row is that row."""
    if isinstance(features, list) and len(features) == 1 and isinstance(features[0], (list, dict)):
        return features[0]
    if isinstance(features, (list, dict, str)):
        return features
    raise TypeError(
        f"features: expected a row of features, got {type(features).__name__}; a row is a list, an "
        "array, a dict by name, or a string"
    )


def predict_batch_call(
    instances: Any,
    *,
    version: str | int | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> ModelCall[list[Prediction]]:
    """Predictions for many rows, by one inference."""
    rows = plain(instances)
    if not isinstance(rows, list):
        raise TypeError(
            f"instances: expected rows, got {type(rows).__name__}; predict() takes one row"
        )
    if rows and not isinstance(rows[0], (list, dict, str)):
        raise TypeError("instances: expected rows, got one; predict() takes one row")
    body = to_json({**plain(extra or {}), "instances": rows})
    return ModelCall(
        "predict",
        version,
        {**(headers or {}), "content-type": JSON},
        lambda response: many(response, len(rows)),
        body,
    )


def one(response: Response) -> Prediction:
    """The response to one row."""
    body = json_object(response)
    if "prediction" not in body:
        invalid(response, 'the body has no "prediction"')
    return cast(Prediction, {**body, **of_headers(response)})


def one_of_many(response: Response) -> Prediction:
    """The response to many rows that were one."""
    (prediction,) = many(response, 1)
    del prediction["row"]
    return prediction


def many(response: Response, expected: int) -> list[Prediction]:
    """The response to many rows; each prediction also has what the response says of all."""
    body = json_object(response)
    predictions = body.pop("predictions", None)
    if not isinstance(predictions, list) or len(predictions) != expected:
        invalid(response, f'expected "predictions", an array of {expected}')
    if not all(isinstance(prediction, dict) for prediction in predictions):
        invalid(response, "predictions: expected objects")
    common = {**body, **of_headers(response)}
    return [
        cast(Prediction, {**common, **item, "row": row}) for row, item in enumerate(predictions)
    ]


def of_headers(response: Response) -> dict[str, str]:
    """What the headers say of a prediction."""
    found = ((key, response.headers.get(name)) for name, key in FROM_HEADERS.items())
    return {key: value for key, value in found if value is not None}
