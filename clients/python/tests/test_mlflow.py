"""Models with the ONNX flavour in MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import StandardScaler

import spinfer.mlflow
from spinfer.model_trainer import ExportError

IRIS = load_iris(as_frame=True)
SPECIES = IRIS.target_names[IRIS.target]


@pytest.fixture(autouse=True)
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())


def outputs(uri: str, rows: pd.DataFrame) -> dict[str, Any]:
    """Outputs of the graph of a logged model."""
    graph = mlflow.onnx.load_model(uri)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    given = session.run(names, {"features": rows.to_numpy(np.float32)})
    return dict(zip(names, given))


def test_logged_estimator_has_column_names_and_classes() -> None:
    model = LogisticRegression(max_iter=500).fit(IRIS.data, SPECIES)
    with mlflow.start_run():
        info = spinfer.mlflow.log_onnx(
            model, IRIS.data, name="iris", registered_model_name="iris", pip_requirements=["onnx"]
        )
    assert "onnx" in info.flavors
    assert info.signature.inputs.input_names() == list(IRIS.data.columns)
    assert info.signature.outputs.input_names() == ["label", "probabilities"]
    given = outputs("models:/iris/1", IRIS.data)
    assert list(given["label"]) == list(model.predict(IRIS.data))
    expected = model.predict_proba(IRIS.data)
    np.testing.assert_allclose(given["probabilities"], expected, atol=1e-4)


def test_sklearn_flavour_is_converted() -> None:
    data = load_diabetes(as_frame=True)
    model = LinearRegression().fit(data.data, data.target)
    with mlflow.start_run():
        logged = mlflow.sklearn.log_model(
            model, name="line", serialization_format="cloudpickle", pip_requirements=[]
        )
        info = spinfer.mlflow.log_onnx(
            logged.model_uri, data.data, data.target, pip_requirements=["onnx"]
        )
    # A table, as MLflow's own server sends it.
    scorer = mlflow.pyfunc.load_model(info.model_uri)
    given = scorer.predict(data.data.astype(np.float32))["target"]
    np.testing.assert_allclose(np.ravel(given), model.predict(data.data), rtol=1e-4)


def test_errors_name_the_estimator_or_uri() -> None:
    with mlflow.start_run():
        with pytest.raises(ExportError, match=r"StandardScaler\(\).*has no predict"):
            spinfer.mlflow.log_onnx(StandardScaler().fit(IRIS.data), IRIS.data)
        with pytest.raises(ExportError, match="models:/nothing/1"):
            spinfer.mlflow.log_onnx("models:/nothing/1", IRIS.data)
