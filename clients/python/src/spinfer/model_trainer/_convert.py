"""Converts a fitted estimator to an ONNX graph with one input, `features`."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from spinfer.model_trainer._errors import ExportError

INPUT = "features"
OPSET = 17
IR_VERSION = 8  # the one that came with opset 17
# Versions of ai.onnx.ml. In 1, trees have no strings and doubles; some encoders need 3.
ML_OPSETS = (1, 3)


@dataclass(frozen=True)
class Converted:
    """A graph, and the meaning of its outputs.

    Attributes:
        graph: the graph.
        classes: classes of the estimator; ``None``: a regression.
        label: name of the class output.
        probabilities: name of the output with probabilities.
        positions: whether the class output has positions in ``classes`` instead of classes.
    """

    graph: onnx.ModelProto
    classes: npt.NDArray[Any] | None
    label: str | None
    probabilities: str | None
    positions: bool


def describe(estimator: Any) -> str:
    """The estimator in one line, for messages and provenance."""
    return " ".join(repr(estimator).split())


def convert(
    estimator: Any,
    width: int,
    *,
    name: str,
    target: str,
    positions: bool | None = None,
    description: str = "",
) -> Converted:
    """Converts an estimator with ``width`` features.

    Args:
        estimator: a fitted estimator.
        width: number of features in a row.
        name: name of the graph.
        target: name of a regression's output.
        positions: whether the class output has positions instead of classes; ``None``: if the
            classes are not integers.
        description: description of the graph.
    """
    check(estimator)
    classes = classes_of(estimator) if is_classifier(estimator) else None
    if classes is not None and positions is None:
        positions = classes.dtype.kind not in "iu"
    prepared = prepare(estimator, classes if positions else None)
    final_types = None
    if classes is None:
        final_types = [(target, FloatTensorType([None, targets_of(estimator, width)]))]
    graph = convert_for_first_opset(
        prepared,
        described=estimator,
        name=name,
        doc_string=description,
        initial_types=[(INPUT, FloatTensorType([None, width]))],
        final_types=final_types,
    )
    label = probabilities = None
    if classes is not None:
        label = graph.graph.output[0].name
        if hasattr(estimator, "predict_proba") and len(graph.graph.output) > 1:
            probabilities = graph.graph.output[1].name
        else:
            # Margins and votes: their number and order are the converter's choice.
            del graph.graph.output[1:]
    return Converted(finish(graph), classes, label, probabilities, bool(positions))


def check(estimator: Any) -> None:
    """Raises an error for anything but a fitted classifier or regressor."""
    if not hasattr(estimator, "predict"):
        raise ExportError(
            f"{describe(estimator)}: expected a fitted classifier or regressor, or a pipeline that "
            f"ends in one; {type(estimator).__name__} has no predict()"
        )
    try:
        check_is_fitted(estimator)
    except NotFittedError as problem:
        raise ExportError(f"{describe(estimator)}: not fitted: {problem}") from None
    except TypeError as problem:
        raise ExportError(f"{describe(estimator)}: {problem}") from None
    if not (is_classifier(estimator) or is_regressor(estimator)):
        raise ExportError(
            f"{describe(estimator)}: {type(estimator).__name__} is neither a classifier nor a "
            "regressor"
        )


def classes_of(estimator: Any) -> npt.NDArray[Any]:
    """The classes of a classifier, in the order of its probabilities."""
    classes = estimator.classes_
    if isinstance(classes, list) or np.ndim(classes) != 1:
        raise ExportError(
            f"{describe(estimator)}: predicts several targets; export one classifier per target"
        )
    return np.asarray(classes)


def targets_of(estimator: Any, width: int) -> int:
    """Number of predictions of a regressor per row."""
    with warnings.catch_warnings():
        # A warning about feature names, which this row does not have.
        warnings.simplefilter("ignore")
        shape = np.shape(estimator.predict(np.zeros((1, width), np.float32)))
    return int(shape[1]) if len(shape) == 2 else 1


def prepare(estimator: Any, classes: npt.NDArray[Any] | None) -> Any:
    """A copy of the estimator, prepared for the converter.

    Column names in a ColumnTransformer become positions, because the graph has one input.
    ``classes`` become 0, 1, 2, ... in the estimator and in every estimator inside it.
    """
    prepared = copy.deepcopy(estimator)
    for part in parts(prepared):
        if isinstance(part, ColumnTransformer):
            indices = part._transformer_to_input_indices
            part.transformers_ = [
                (name, transformer, indices.get(name, columns))
                for name, transformer, columns in part.transformers_
            ]
        if isinstance(part, VotingClassifier):
            # Affects transform() only, which graphs do not have; skl2onnx requires this value.
            part.flatten_transform = False
        own = vars(part).get("classes_")
        if classes is not None and isinstance(own, np.ndarray) and np.array_equal(own, classes):
            part.classes_ = np.arange(len(classes))
    return prepared


def parts(estimator: Any) -> Iterator[Any]:
    """The estimator, and every estimator-like object inside it."""
    seen: set[int] = set()
    left = [estimator]
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            left.extend(part.values())
        elif isinstance(part, (list, tuple, set)):
            left.extend(part)
        elif isinstance(part, np.ndarray) and part.dtype == object:
            left.extend(part.ravel().tolist())
        elif hasattr(part, "get_params") or hasattr(part, "fit"):
            yield part
            left.extend(vars(part).values())
        elif type(part).__module__.startswith("sklearn.") and hasattr(part, "__dict__"):
            # Such as the calibrated classifiers of CalibratedClassifierCV.
            yield part
            left.extend(vars(part).values())


def convert_for_first_opset(prepared: Any, *, described: Any, **how: Any) -> onnx.ModelProto:
    """Converts with the first version of ai.onnx.ml that supports the estimator."""
    problem: Exception | None = None
    # Probabilities as a tensor, not as maps. Classifiers without probabilities reject the option.
    options = [{"zipmap": False}, None] if is_classifier(prepared) else [None]
    for ml, option in itertools.product(ML_OPSETS, options):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                opsets = {"": OPSET, "ai.onnx.ml": ml}
                graph: onnx.ModelProto = convert_sklearn(
                    prepared, target_opset=opsets, options=option, **how
                )
                return graph
        except Exception as error:  # converters raise any exception
            problem = problem or error
    reason = " ".join(str(problem).split())
    raise ExportError(
        f"{describe(described)}: cannot be converted to ONNX: {type(problem).__name__}: {reason}"
    ) from problem


def finish(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Makes the graph reproducible: without date, machine, or converter version."""
    graph.producer_name = "spinfer"
    graph.producer_version = ""
    graph.domain = ""
    graph.ir_version = IR_VERSION
    # skl2onnx lists a domain twice.
    opsets = {opset.domain: opset.version for opset in graph.opset_import}
    del graph.opset_import[:]
    graph.opset_import.extend(onnx.helper.make_opsetid(*opset) for opset in opsets.items())
    return graph
