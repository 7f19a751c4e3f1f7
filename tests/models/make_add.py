#!/usr/bin/env python3
"""Writes the files that the tests of `spinfer add` add, to the folder `add` beside this one, with what
ONNX Runtime says of some rows: expected.json.

Runs on models/requirements.txt. They are as people have them: scikit-learn's estimators, converted with
skl2onnx's defaults, and small networks.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

FOLDER = Path(__file__).resolve().parent / "add"
OPSET = {"": 17, "ai.onnx.ml": 3}
ROWS = slice(10, 150, 50)

iris = load_iris()
IRIS = iris.data.astype(np.float32)
NAMES = np.array(["setosa", "versicolor", "virginica"])[iris.target]

expected = {}


def save(name, model, inputs):
    """Writes the graph, and its outputs for `inputs`, by name."""
    model.graph.name = name
    path = FOLDER / f"{name}.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, inputs)
    expected[name] = {
        "inputs": {key: value.tolist() for key, value in inputs.items()},
        "outputs": {
            output.name: [
                list(row.values()) if isinstance(row, dict) else np.asarray(row).tolist()
                for row in value
            ]
            for output, value in zip(session.get_outputs(), outputs)
        },
    }
    print(f"{path.name}: {path.stat().st_size} bytes")


def estimator(name, model, features, target, options=None):
    model.fit(features, target)
    graph = to_onnx(model, features[:1], options=options, target_opset=OPSET)
    save(name, graph, {graph.graph.input[0].name: features[ROWS]})


def network(name, nodes, inputs, outputs, weights, feeds):
    graph = make_graph(nodes, name, inputs, outputs, weights)
    model = make_model(graph, opset_imports=[make_opsetid("", 17)], producer_name="make_add.py")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    save(name, model, feeds)


def columns():
    """One input for each column, of two types, as a table is converted."""
    table = {"length": IRIS[:, :1], "count": (IRIS[:, 2:3] * 10).astype(np.int64)}
    stacked = np.hstack([table["length"], table["count"].astype(np.float32)])
    scale = ColumnTransformer([("both", StandardScaler(), [0, 1])])
    model = make_pipeline(scale, LogisticRegression()).fit(stacked, NAMES)
    types = [("length", FloatTensorType([None, 1])), ("count", Int64TensorType([None, 1]))]
    graph = to_onnx(model, initial_types=types, target_opset=OPSET)
    save("columns", graph, {key: value[ROWS] for key, value in table.items()})


def main():
    FOLDER.mkdir(exist_ok=True)
    # Labels that are strings, in each of the places where converters put them.
    scaled = make_pipeline(StandardScaler(), LogisticRegression())
    estimator("strings-linear", scaled, IRIS, NAMES)
    estimator("strings-forest", RandomForestClassifier(5, random_state=1), IRIS, NAMES)
    estimator("strings-bayes", GaussianNB(), IRIS, NAMES)
    # Classes that are numbers, but not 0, 1, ...; inputs of FP64, as arrays of NumPy are. (A ZipMap of
    # FP64 is no valid graph.)
    numbers = np.array([3, 7, 7])[iris.target]
    tensors = {"zipmap": False}
    estimator("numbers-double", GaussianNB(), iris.data, numbers, tensors)
    # tract has no Sigmoid of FP64, which is known only when it runs.
    estimator("double-sigmoid", LogisticRegression(), iris.data, numbers, tensors)
    columns()
    # Text, which wasi:nn does not carry.
    colours = np.array([["red"], ["green"], ["blue"]] * 50)
    encoded = make_pipeline(OneHotEncoder(), LogisticRegression())
    estimator("strings-input", encoded, colours, iris.target)
    # Scores that are no probabilities.
    estimator("margins", LinearSVC(), IRIS, NAMES)
    estimator("distances", KMeans(3, random_state=1, n_init=1), IRIS, None)
    # Numbers: one for each row, and two.
    data, target = load_diabetes(return_X_y=True)
    data = data.astype(np.float32)
    trees = GradientBoostingRegressor(n_estimators=10, random_state=1)
    estimator("regressor", trees, data, target)
    estimator("two-targets", LinearRegression(), data, np.stack([target, -target], axis=1))

    random = np.random.default_rng(1)
    info = make_tensor_value_info
    x = info("x", TensorProto.FLOAT, ["rows", 3])
    wide = from_array(random.normal(size=(3, 2)).astype(np.float32), "wide")
    narrow = from_array(random.normal(size=(3, 1)).astype(np.float32), "narrow")
    rows = np.array([[1, 2, 3], [-1, 0.5, 2]], np.float32)
    network(
        "two-outputs",
        [make_node("MatMul", ["x", "wide"], ["a"]), make_node("MatMul", ["x", "narrow"], ["b"])],
        [x],
        [info("a", TensorProto.FLOAT, ["rows", 2]), info("b", TensorProto.FLOAT, ["rows", 1])],
        [wide, narrow],
        {"x": rows},
    )
    network(
        "softmax",
        [make_node("MatMul", ["x", "wide"], ["z"]), make_node("Softmax", ["z"], ["y"], axis=1)],
        [x],
        [info("y", TensorProto.FLOAT, ["rows", 2])],
        [wide],
        {"x": rows},
    )
    pixels = from_array(random.normal(size=(784, 10)).astype(np.float32) / 28, "pixels")
    network(
        "picture",
        [
            make_node("Flatten", ["image"], ["flat"]),
            make_node("MatMul", ["flat", "pixels"], ["logits"]),
        ],
        [info("image", TensorProto.FLOAT, ["rows", 1, 28, 28])],
        [info("logits", TensorProto.FLOAT, ["rows", 10])],
        [pixels],
        {"image": random.uniform(size=(2, 1, 28, 28)).astype(np.float32).round(3)},
    )
    external()
    text = json.dumps(expected, indent=1, sort_keys=True)
    (FOLDER / "expected.json").write_text(text + "\n")


def external():
    """Weights in another file."""
    path = FOLDER / "external.onnx"
    model = onnx.load(FOLDER / "softmax.onnx")
    onnx.save_model(
        model, path, save_as_external_data=True, location="external.bin", size_threshold=0
    )
    (FOLDER / "external.bin").unlink()
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
