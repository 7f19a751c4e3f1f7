"""Logs scikit-learn estimators to MLflow with the ONNX flavour, for `spinfer pull mlflow`.

Needs ``pip install 'spinfer[mlflow]'``.
"""

from __future__ import annotations

from typing import Any

try:
    import mlflow
    import mlflow.onnx
    from mlflow.models import ModelSignature, infer_signature
except ImportError as missing:
    raise ImportError(
        f"spinfer.mlflow needs {missing.name}: pip install 'spinfer[mlflow]'"
    ) from None

import onnx

from spinfer.model_trainer import target_of
from spinfer.model_trainer._convert import Converted, convert
from spinfer.model_trainer._errors import ExportError
from spinfer.model_trainer._session import compute, open_session
from spinfer.model_trainer._table import Table, read

__all__ = ["log_onnx"]

# Rows from which the signature is inferred.
EXAMPLE_ROWS = 5


def log_onnx(
    estimator: Any,
    X: Any,
    y: Any = None,
    *,
    name: str = "model",
    registered_model_name: str | None = None,
    tolerance: float = 1e-4,
    max_disagreement: float = 0.05,
    **log_model: Any,
) -> Any:
    """Logs an estimator to the active MLflow run with the ONNX flavour.

    The graph is compared with the estimator on ``X`` before it is logged. Column names go into the
    signature. MLflow's own scoring of tables supports only graphs with one number per row, so it
    fails for classifiers with probabilities; spinfer supports them.

        with mlflow.start_run():
            spinfer.mlflow.log_onnx("models:/iris/3", X, registered_model_name="iris")

    Args:
        estimator: a fitted scikit-learn estimator; or the URI of a logged model with the sklearn
            flavour, such as ``models:/iris/3``.
        X: reference data, with column names if the estimator was fitted with them.
        y: the target; its name becomes the name of a regression's output.
        name: name of the model in the run.
        registered_model_name: also register a version under this name.
        tolerance: as in :func:`spinfer.model_trainer.export`.
        max_disagreement: as in :func:`spinfer.model_trainer.export`.
        **log_model: additional arguments for ``mlflow.onnx.log_model``.

    Returns:
        MLflow's ``ModelInfo``.

    Raises:
        ExportError: the estimator cannot be converted, or the graph differs from it.
    """
    if isinstance(estimator, str):
        estimator = load(estimator)
    named = getattr(estimator, "feature_names_in_", None)
    table = read(X, None, None if named is None else [str(one) for one in named])
    converted = convert(
        estimator,
        table.rows.shape[1],
        name=name,
        target=target_of(y),
        # MLflow users expect class names; `spinfer pull` converts strings to positions.
        positions=False,
    )
    session = open_session(converted.graph.SerializeToString())
    computed = compute(session, converted, estimator, table, tolerance, max_disagreement)
    signature = signature_of(table, converted, computed.outputs)
    onnx.checker.check_model(converted.graph)
    return mlflow.onnx.log_model(
        converted.graph,
        name=name,
        signature=signature,
        registered_model_name=registered_model_name,
        **log_model,
    )


def load(uri: str) -> Any:
    """Loads the estimator of a model with the sklearn flavour."""
    import mlflow.sklearn

    try:
        return mlflow.sklearn.load_model(uri)
    except mlflow.exceptions.MlflowException as problem:
        raise ExportError(f"{uri}: cannot load an estimator: {problem}") from problem


def signature_of(table: Table, converted: Converted, outputs: dict[str, Any]) -> ModelSignature:
    """The signature of the model: columns in, tensors out."""
    example: Any = table.rows[:EXAMPLE_ROWS]
    if table.fields:
        import pandas as pd

        example = pd.DataFrame(example, columns=table.fields)
    return infer_signature(
        example, {name: output[:EXAMPLE_ROWS] for name, output in outputs.items()}
    )
