"""Estimators of scikit-learn as graphs, with their provenance and metrics."""

from importlib.metadata import version as installed

import numpy as np
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType

from reference import infer
from version import OPSETS, finish


def to_onnx(estimator, version, **more):
    """The fitted estimator as a graph with one input, `features`."""
    graph = convert_sklearn(
        estimator,
        name=version.model,
        doc_string=version.description,
        initial_types=[("features", FloatTensorType([None, len(version.fields)]))],
        target_opset=OPSETS,
        **more,
    )
    return finish(graph, version)


def provenance(dataset, estimator):
    """The table [provenance] of model.toml."""
    return {
        "dataset": dataset,
        "estimator": " ".join(repr(estimator).split()),
        "framework": f"scikit-learn {installed('scikit-learn')}",
        "converter": f"skl2onnx {installed('skl2onnx')}",
    }


def accuracy(session, rows, classes):
    """The share of rows with the correct label, from 0 to 1."""
    hits = infer(session, rows.astype(np.float32))["label"] == classes
    return {"test_accuracy": round(float(hits.mean()), 4)}
