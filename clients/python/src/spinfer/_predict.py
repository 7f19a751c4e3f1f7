"""The short form: rows of features in, predictions out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, cast

from spinfer._rows import plain, to_json
from spinfer._wire import JSON, ModelCall, Response, invalid, json_object

PREDICTION_ID = "spinfer-prediction-id"
EXPERIMENT = "spinfer-experiment"
VARIANT = "spinfer-variant"
# Response header -> key of a prediction.
FROM_HEADERS = {PREDICTION_ID: "prediction_id", EXPERIMENT: "experiment", VARIANT: "variant"}


class Prediction(TypedDict, total=False):
    """The prediction for one row: a plain dict. The keys depend on the model.

    Attributes:
        model: name of the model.
        version: version of the model.
        id: ``id`` of the request, if it has one.
        prediction: the class (a string or an integer), a number, or several numbers.
        probability: probability of that class, if the model has probabilities.
        probabilities: probability of every class, by class name.
        row: position in the batch; ``predict_batch`` only.
        prediction_id: id for feedback; only if the prediction is logged.
        experiment: experiment of the request.
        variant: variant that served the request.
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
    """The call that predicts one row.

    >>> predict_call([5.1, 3.5, 1.4, 0.2]).body
    b'{"features":[5.1,3.5,1.4,0.2]}'
    >>> predict_call({"sepal_length": 5.1}).body
    b'{"instances":[{"sepal_length":5.1}]}'
    """
    sent = dict(headers or {})
    if isinstance(features, (bytes, bytearray, memoryview)):
        if content_type is None:
            raise TypeError('features: a file needs content_type=, such as "image/png"')
        if extra:
            raise TypeError("extra: needs a JSON body, but this body is a file")
        sent["content-type"] = content_type
        return ModelCall("predict", version, sent, one, bytes(features))
    if content_type is not None:
        raise TypeError("content_type: needs a file; pass features as bytes")
    row = one_row(plain(features))
    # An array is sent as `features`; named features and strings as `instances` with one row.
    rows = {"features": row} if isinstance(row, list) else {"instances": [row]}
    body = to_json({**plain(extra or {}), **rows})
    parse = one if isinstance(row, list) else one_of_many
    return ModelCall("predict", version, {**sent, "content-type": JSON}, parse, body)


def one_row(features: Any) -> Any:
    """The row; of a table with one row, that row."""
    if isinstance(features, list) and len(features) == 1 and isinstance(features[0], (list, dict)):
        return features[0]
    if isinstance(features, (list, dict, str)):
        return features
    raise TypeError(
        f"features: expected a row, got {type(features).__name__}; pass a list, an array, a dict "
        "by feature name, or a string"
    )


def predict_batch_call(
    instances: Any,
    *,
    version: str | int | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> ModelCall[list[Prediction]]:
    """The call that predicts many rows with one inference."""
    rows = plain(instances)
    if not isinstance(rows, list):
        raise TypeError(
            f"instances: expected a list of rows, got {type(rows).__name__}; use predict() for one"
        )
    if rows and not isinstance(rows[0], (list, dict, str)):
        raise TypeError("instances: expected a list of rows, got one row; use predict()")
    body = to_json({**plain(extra or {}), "instances": rows})
    return ModelCall(
        "predict",
        version,
        {**(headers or {}), "content-type": JSON},
        lambda response: many(response, len(rows)),
        body,
    )


def one(response: Response) -> Prediction:
    """Reads the response to one row."""
    body = json_object(response)
    if "prediction" not in body:
        invalid(response, 'the body has no "prediction"')
    return cast(Prediction, {**body, **of_headers(response)})


def one_of_many(response: Response) -> Prediction:
    """Reads the response to a batch of one row."""
    (prediction,) = many(response, 1)
    del prediction["row"]
    return prediction


def many(response: Response, expected: int) -> list[Prediction]:
    """Reads the response to a batch. Each prediction also has the keys common to all rows."""
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
    """Keys of a prediction that are in response headers."""
    found = ((key, response.headers.get(name)) for name, key in FROM_HEADERS.items())
    return {key: value for key, value in found if value is not None}
