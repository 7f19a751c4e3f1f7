"""What a model version is compared against later: baseline.json (drift) and golden.json (tests).

README.md describes both formats.
"""

import sys

import numpy as np
import onnx

TOLERANCE = 1e-5
# Iris is measured to 0.1 cm, so each split threshold of a tree lies on a 0.05 cm grid. Golden rows
# are moved off that grid: on a threshold, the last bit of a float would decide the branch.
GOLDEN_SHIFT_CM = 0.02
THRESHOLD_CLEARANCE_CM = 0.01
EDGE_CASES = [
    [0.0, 0.0, 0.0, 0.0],
    [-5.12, -3.52, -1.42, -0.22],
    [1e6, 1e6, 1e6, 1e6],
    [-1e6, -1e6, -1e6, -1e6],
    [1e6, -1e6, 1e6, -1e6],
]


def infer(session, rows):
    """Output name -> array, for rows of float32 features."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"features": rows}), strict=True))


def shortest(value):
    """The shortest decimal that reads back as the same float32."""
    return float(str(np.float32(value)))


def summarize_numbers(values):
    """Counts between decile edges, and moments."""
    values = np.array([shortest(value) for value in values])
    edges = []
    for decile in np.unique(np.quantile(values, np.arange(1, 10) / 10, method="lower")):
        greater = values[values > decile]
        if len(greater):
            # Halfway to the next value, so that rounding moves no value across an edge.
            edges.append(shortest((decile + greater.min()) / 2))
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
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
    }


def summarize_categories(values, categories):
    return {
        "kind": "category",
        "values": categories,
        "counts": [int((values == category).sum()) for category in categories],
        "count": len(values),
        "missing": 0,
    }


def make_baseline(session, rows, fields, classes):
    """The distribution of each feature and output over `rows`."""
    answers = infer(session, rows)
    probabilities = enumerate(answers["probabilities"].T)
    outputs = {f"probabilities[{i}]": summarize_numbers(values) for i, values in probabilities}
    outputs["label"] = summarize_categories(answers["label"], list(range(classes)))
    features = {field: summarize_numbers(rows[:, i]) for i, field in enumerate(fields)}
    return {"rows": len(rows), "features": features, "outputs": outputs}


def check_off_thresholds(graph, rows):
    for node in graph.graph.node:
        if node.op_type != "TreeEnsembleClassifier":
            continue
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        names = ("nodes_featureids", "nodes_values", "nodes_modes")
        for feature, threshold, mode in zip(*(attributes[name] for name in names), strict=True):
            gap = np.abs(rows[:, feature] - threshold).min()
            if mode != b"LEAF" and gap < THRESHOLD_CLEARANCE_CM:
                sys.exit(f"golden.json: a row's feature {feature} is on the split at {threshold}")


def to_tensor(array):
    data = array.ravel().tolist()
    if array.dtype == np.float32:
        data = [shortest(value) for value in data]
    return {"shape": list(array.shape), "data": data}


def make_golden(session, graph, test_rows):
    """ONNX Runtime's answers to each row alone, to the edge cases, and to all rows as one batch."""
    test_rows = (test_rows + GOLDEN_SHIFT_CM).astype(np.float32)
    single_rows = np.concatenate([test_rows, np.array(EDGE_CASES, np.float32)])
    check_off_thresholds(graph, single_rows)
    cases = []
    for batch in [*single_rows.reshape(len(single_rows), 1, -1), test_rows]:
        outputs = {name: to_tensor(array) for name, array in infer(session, batch).items()}
        cases.append({"inputs": {"features": to_tensor(batch)}, "outputs": outputs})
    return {"tolerance": TOLERANCE, "cases": cases}
