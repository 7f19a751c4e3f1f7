"""Both clients against the real host, serving the example application."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, Make

from spinfer import AsyncMLClient, BadRequest, MLClient, ModelNotFound

FIELDS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [5.9, 3.0, 4.2, 1.5]])
SPECIES = ["setosa", "virginica", "versicolor"]


def test_predict_returns_class_and_probabilities(client: Any) -> None:
    response = client.predict(model_name="iris_classifier", features=[5.1, 3.5, 1.4, 0.2])
    assert type(response) is dict
    assert response["prediction"] == "setosa" and 0.9 < response["probability"] <= 1
    assert response["model"] == "iris-classifier" and response["version"] == "1"
    assert sum(response["probabilities"].values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "row",
    [
        ROWS[0].tolist(),
        tuple(ROWS[0]),
        ROWS[0],
        ROWS[0].astype(np.float32),
        ROWS[:1],
        list(ROWS[0]),
        dict(zip(FIELDS, ROWS[0])),
        dict(reversed(list(zip(FIELDS, ROWS[0])))),
        pd.Series(ROWS[0]),
        pd.Series(ROWS[0], index=FIELDS)[FIELDS[::-1]],
        pd.DataFrame(ROWS, columns=FIELDS).iloc[0],
        pd.DataFrame(ROWS[:1], columns=FIELDS[::1]),
    ],
)
def test_row_types(client: Any, row: Any) -> None:
    assert client.predict("iris-classifier", row)["prediction"] == "setosa"


def test_iterator_as_row(client: Any) -> None:
    # The client sends the row twice, once for each spelling of the name.
    assert client.predict("iris_classifier", iter(ROWS[0]))["prediction"] == "setosa"


@pytest.mark.parametrize(
    "rows",
    [
        ROWS.tolist(),
        ROWS,
        [*ROWS],
        ROWS.astype(np.float16),
        pd.DataFrame(ROWS, columns=FIELDS)[FIELDS[::-1]],
        pd.DataFrame(ROWS),
        [dict(zip(FIELDS, row)) for row in ROWS],
    ],
)
def test_batch_types(client: Any, rows: Any) -> None:
    predictions = client.predict_batch("iris_classifier", rows)
    assert [one["prediction"] for one in predictions] == SPECIES
    assert [one["row"] for one in predictions] == [0, 1, 2]
    assert all(one["version"] == "1" for one in predictions)


def test_versions(client: Any) -> None:
    for version in (1, "2"):
        response = client.predict("iris-classifier", ROWS[0], version=version)
        assert response["version"] == str(version)
    with pytest.raises(ModelNotFound, match="version"):
        client.predict("iris-classifier", ROWS[0], version=9)


def test_regression_text_and_file_models(client: Any) -> None:
    patient = [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.86, 87]
    assert 100 < client.predict("diabetes-regressor", patient)["prediction"] < 300
    texts = ["Where is the station, please?", "Où est la gare, s'il vous plaît ?"]
    assert client.predict("language_identifier", texts[1])["prediction"] == "fr"
    predictions = client.predict_batch("language_identifier", texts)
    assert [one["prediction"] for one in predictions] == ["en", "fr"]
    picture = (REPOSITORY / "tests/images/dark-on-light-64x64.png").read_bytes()
    response = client.predict("digits-classifier", picture, content_type="image/png")
    assert response["prediction"] in "0123456789"


def test_infer_returns_the_same_as_binary_data_and_as_json(client: Any) -> None:
    rows = ROWS.astype(np.float32)
    results = [
        client.infer("iris_classifier", {"features": rows}),
        client.infer("iris_classifier", {"features": rows}, binary=False),
        client.infer("iris_classifier", {"features": ROWS}, datatypes={"features": "FP32"}),
        client.infer("iris_classifier", {"features": np.asfortranarray(rows)}),
    ]
    for result in results:
        assert list(result) == ["label", "probabilities"]
        assert result["label"].dtype == np.int64 and result["label"].tolist() == [0, 2, 1]
        assert result["probabilities"].dtype == np.float32
        assert (result["probabilities"] == results[0]["probabilities"]).all()
        assert result.model == "iris-classifier" and result.version == "1"
    results[0]["label"][0] = 7  # the arrays are writable copies


def test_infer_with_requested_outputs(client: Any) -> None:
    features = {"features": ROWS.astype(np.float32)}
    result = client.infer("iris-classifier", features, ["probabilities"], id="request 7", version=2)
    assert list(result) == ["probabilities"] and result["probabilities"].shape == (3, 3)
    assert result.id == "request 7" and result.version == "2"
    with pytest.raises(BadRequest, match="score"):
        client.infer("iris-classifier", features, outputs=["score"])
    with pytest.raises(BadRequest, match="expected datatype FP32"):
        client.infer("iris-classifier", {"features": ROWS})


@pytest.mark.parametrize("binary", [True, False])
def test_infer_of_strings(client: Any, binary: bool) -> None:
    texts = ["Where is the station, please?", "Где здесь вокзал?"]
    for given in (np.array(texts), np.array(texts, object), texts, [t.encode() for t in texts]):
        result = client.infer("language-identifier", {"text": given}, ["language"], binary)
        assert result["language"].tolist() == [b"en", b"ru"]


def test_errors_contain_the_server_message(client: Any, host: str) -> None:
    with pytest.raises(BadRequest) as caught:
        client.predict("iris_classifier", [5.1, 3.5, 1.4])
    error = caught.value
    assert error.server_message == f"features: expected 4 numbers ({', '.join(FIELDS)}), got 3"
    assert str(error) == (
        f"{error.server_message} (400 from POST {host}/v2/models/iris-classifier/predict)"
    )
    with pytest.raises(ModelNotFound, match=r"404 from POST .*/v2/models/wine/predict"):
        client.predict("wine", [1])
    with pytest.raises(BadRequest, match="at least one row"):
        client.predict_batch("iris-classifier", [])
    with pytest.raises(BadRequest, match="instances\\[0\\]"):
        client.predict("iris-classifier", {"sepal_length": 5.1})


def test_invalid_arguments_are_client_errors(client: Any) -> None:
    with pytest.raises(ValueError, match=r"features\[1\] is nan"):
        client.predict("iris-classifier", [1, float("nan"), 3, 4])
    with pytest.raises(ValueError, match=r"instances\[0\].sepal_width is nan"):
        client.predict_batch("iris-classifier", pd.DataFrame([[1.0, np.nan]], columns=FIELDS[:2]))
    with pytest.raises(ValueError, match="control character"):
        client.predict("iris-classifier", ROWS[0], unit="a\r\nb")
    with pytest.raises(TypeError, match="expected a list of rows, got one row"):
        client.predict_batch("iris-classifier", ROWS[0])
    with pytest.raises(TypeError, match="expected a row"):
        client.predict("iris-classifier", 5.1)


def test_metadata_and_readiness(client: Any) -> None:
    metadata = client.metadata("iris_classifier")
    assert metadata["name"] == "iris-classifier" and metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 4]}]
    assert client.metadata("iris_classifier", 2)["versions"] == ["2"]
    assert "binary_tensor_data" in client.server_metadata()["extensions"]
    assert client.ready() is True
    assert client.ready("iris_classifier") is True and client.ready("iris-classifier", 2) is True
    assert client.ready("wine") is False and client.ready("iris-classifier", 9) is False


def test_http_2(make: Make, host: str) -> None:
    client = make(host, http2=True)
    predictions = client.predict_batch("iris_classifier", ROWS)
    assert [one["prediction"] for one in predictions] == SPECIES


def test_base_url_is_validated(make: Make, host: str) -> None:
    assert make(host + "/").base_url == host
    for url in ("127.0.0.1:3000", "ftp://h", "http://"):
        with pytest.raises(ValueError, match="base_url"):
            MLClient(url)


def test_threads_share_a_client(host: str) -> None:
    with MLClient(host, max_connections=4) as client, ThreadPoolExecutor(16) as threads:
        calls = [threads.submit(client.predict, "iris_classifier", row) for row in ROWS] * 20
        assert [call.result()["prediction"] for call in calls] == SPECIES * 20


def test_tasks_share_a_client(host: str) -> None:
    async def all_at_once() -> list[str]:
        async with AsyncMLClient(host, max_connections=4) as client:
            calls = [client.predict("iris_classifier", row) for _ in range(20) for row in ROWS]
            return [one["prediction"] for one in await asyncio.gather(*calls)]

    assert asyncio.run(all_at_once()) == SPECIES * 20
