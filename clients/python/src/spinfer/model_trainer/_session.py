"""Runs graphs in ONNX Runtime, and compares their outputs with the estimator's."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from spinfer.model_trainer._convert import Converted, describe
from spinfer.model_trainer._errors import DisagreementWarning, ExportError
from spinfer.model_trainer._table import Table

# Rows of one inference: the memory of some graphs grows with rows times trees.
ROWS_AT_A_TIME = 10_000


@dataclass(frozen=True)
class Computed:
    """Outputs of a graph for the reference data.

    Attributes:
        outputs: the outputs by name.
        agree: rows for which graph and estimator agree.
    """

    outputs: dict[str, npt.NDArray[Any]]
    agree: npt.NDArray[np.bool_]


def open_session(graph: bytes) -> Any:
    """A session with one thread, so that sums have the same order on every machine."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors only: it warns about valid graphs
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def infer(session: Any, rows: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
    """The outputs by name, for any number of rows."""
    names = [output.name for output in session.get_outputs()]
    (given,) = session.get_inputs()
    parts = [
        session.run(names, {given.name: rows[start : start + ROWS_AT_A_TIME]})
        for start in range(0, len(rows), ROWS_AT_A_TIME)
    ]
    outputs = {name: np.concatenate(of) for name, of in zip(names, zip(*parts))}
    for name, output in outputs.items():
        if len(output) != len(rows):
            raise ValueError(
                f"output {name!r}: expected {len(rows)} rows, got the shape {list(output.shape)}"
            )
    return outputs


def compute(
    session: Any,
    converted: Converted,
    estimator: Any,
    table: Table,
    tolerance: float,
    max_disagreement: float,
) -> Computed:
    """Runs the graph and the estimator on the reference data, and compares them.

    Args:
        session: session of the graph.
        converted: the graph, and the meaning of its outputs.
        estimator: the estimator that it was converted from.
        table: the reference data.
        tolerance: maximum difference of a probability; for a regression relative to the largest
            prediction.
        max_disagreement: maximum share of rows that may differ more.
    """
    try:
        outputs = infer(session, table.rows)
    except Exception as error:  # ONNX Runtime does not export its exception classes
        reason = " ".join(str(error).split())
        raise ExportError(f"{describe(estimator)}: the graph fails: {reason}") from None
    with warnings.catch_warnings():
        # Warnings about feature names: the estimator may have been fitted without them.
        warnings.simplefilter("ignore")
        differences = list(compare(converted, outputs, estimator, table, tolerance))
    agree = np.ones(len(table.rows), bool)
    examples = []
    for what, rows, example in differences:
        agree &= ~rows
        if rows.any():
            row = int(np.argmax(rows))
            examples.append(f"{what} of row {row}: {example(row)}")
    share = 1 - agree.mean()
    if share > 0:
        problem = (
            f"{describe(estimator)}: the graph differs for {(~agree).sum()} of {len(agree)} rows; "
            f"{'; '.join(examples)}"
        )
        if share > max_disagreement or not agree.any():
            raise ExportError(
                f"{problem}. Graphs compute in float32: scale the features, or fit on "
                "X.astype('float32'). If most rows differ, the conversion is wrong. tolerance= and "
                "max_disagreement= set the limits"
            )
        warnings.warn(problem, DisagreementWarning, stacklevel=3)
    return Computed(outputs, agree)


def compare(
    converted: Converted,
    outputs: dict[str, npt.NDArray[Any]],
    estimator: Any,
    table: Table,
    tolerance: float,
) -> Any:
    """Yields what is compared, the rows that differ, and a function that describes a row."""
    expected = np.asarray(estimator.predict(table.own))
    if converted.classes is None:
        (given,) = outputs.values()
        given = given.reshape(expected.shape)
        limit = tolerance * max(1.0, float(np.nanmax(np.abs(expected))))
        yield numbers("the prediction", given, expected, limit)
        return
    assert converted.label is not None
    given = outputs[converted.label].ravel()
    if converted.positions:
        given = converted.classes[given]
    labels = expected, given
    yield (
        "the class",
        given != expected,
        lambda row: f"{labels[1][row]!s}, not {labels[0][row]!s}",
    )
    if converted.probabilities is not None:
        probabilities = estimator.predict_proba(table.own)
        given = outputs[converted.probabilities].reshape(probabilities.shape)
        yield numbers("the probabilities", given, probabilities, tolerance)


def numbers(
    what: str, given: npt.NDArray[Any], expected: npt.NDArray[Any], limit: float
) -> tuple[str, npt.NDArray[np.bool_], Any]:
    """Compares numbers. NaN differs from everything."""
    differ = ~(np.abs(given - expected) <= limit)
    rows = differ.reshape(len(differ), -1).any(axis=1)
    return what, rows, lambda row: f"{given[row]!s}, not {expected[row]!s}"
