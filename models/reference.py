"""The reference data of a model version: baseline.json (drift) and golden.json (tests).

README.md describes both formats.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx


@dataclass(frozen=True)
class Case:
    """A golden case: the input of the graph and, with a mapping, the tensors of clients."""

    rows: np.ndarray  # float32: input of the graph
    inputs: dict | None = None  # name -> tensor, instead of the graph's input
    more_outputs: Callable | None = None  # outputs of the graph -> the outputs that a mapping adds


def infer(session, rows):
    """Runs the graph on rows of float32 features: output name -> array."""
    names = [output.name for output in session.get_outputs()]
    (graph_input,) = session.get_inputs()
    return dict(zip(names, session.run(names, {graph_input.name: rows}), strict=True))


def shortest(value):
    """The shortest decimal that reads back as the same float32."""
    return float(str(np.float32(value)))


def summarize_numbers(values):
    """Counts between deciles, and moments."""
    values = np.sort([shortest(value) for value in values])
    edges = []
    for decile in np.unique(np.quantile(values, np.arange(1, 10) / 10, method="lower")):
        greater = values[values > decile]
        if len(greater):
            # Halfway to the next value, so that rounding moves no value across an edge.
            edges.append(shortest((decile + greater.min()) / 2))
    if values[0] == values[-1]:
        # Any other value than the constant is in another bin.
        edges = [values[0], shortest(np.nextafter(np.float32(values[0]), np.float32(np.inf)))]
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    bins = np.split(values, counts.cumsum()[:-1])
    return {
        "kind": "number",
        "edges": edges,
        "counts": counts.tolist(),
        "count": len(values),
        "missing": 0,
        "mean": shortest(values.mean()),
        "std": shortest(values.std()),
        "min": values.min(),
        "max": values.max(),
        "means": [bin_mean(of_bin) for of_bin in bins],
        "deviations": [bin_deviation(of_bin) for of_bin in bins],
    }


def bin_mean(values):
    return shortest(values.mean()) if len(values) else 0.0


def bin_deviation(values):
    """The standard deviation, to which rounding adds nothing if all values are equal."""
    return shortest(values.std()) if len(np.unique(values)) > 1 else 0.0


def summarize_categories(values, categories):
    return {
        "kind": "category",
        "values": categories,
        "counts": [int((values == category).sum()) for category in categories],
        "count": len(values),
        "missing": 0,
    }


def make_baseline(session, rows, fields, labels):
    """The distribution of each feature and output over `rows`."""
    outputs = {}
    for name, values in infer(session, rows).items():
        if name == "label":
            outputs[name] = summarize_categories(values, list(range(len(labels))))
        elif values.shape[1:] == (1,):
            outputs[name] = summarize_numbers(values[:, 0])
        else:
            elements = enumerate(values.T)
            outputs |= {f"{name}[{i}]": summarize_numbers(column) for i, column in elements}
    features = {field: summarize_numbers(rows[:, i]) for i, field in enumerate(fields)}
    return {"rows": len(rows), "features": features, "outputs": outputs}


def off_thresholds(graph, rows, clearance):
    """Which rows are not on a split threshold, where the last bit of a float would decide."""
    off = np.ones(len(rows), bool)
    for node in graph.graph.node:
        if not node.op_type.startswith("TreeEnsemble"):
            continue
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        names = ("nodes_featureids", "nodes_values", "nodes_modes")
        for feature, threshold, mode in zip(*(attributes[name] for name in names), strict=True):
            if mode != b"LEAF":
                off &= np.abs(rows[:, feature] - threshold) >= clearance
    return off


def check_off_thresholds(graph, rows, clearance):
    if not off_thresholds(graph, rows, clearance).all():
        sys.exit("golden.json: a row is on a split threshold of a tree")


def to_tensor(array):
    data = array.ravel().tolist()
    if array.dtype == np.float32:
        data = [shortest(value) for value in data]
    return {"shape": list(array.shape), "data": data}


def make_golden(session, cases, tolerance):
    """The outputs of ONNX Runtime for each case."""
    (graph_input,) = session.get_inputs()
    golden_cases = []
    for case in cases:
        computed = infer(session, case.rows)
        outputs = {name: to_tensor(array) for name, array in computed.items()}
        if case.more_outputs:
            outputs |= case.more_outputs(computed)
        golden_cases.append(
            {"inputs": case.inputs or {graph_input.name: to_tensor(case.rows)}, "outputs": outputs}
        )
    return {"tolerance": tolerance, "cases": golden_cases}
