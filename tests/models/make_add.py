#!/usr/bin/env python3
"""Writes the graphs that the tests of `spinfer add` add into the folder `add`, and ONNX Runtime's outputs for
some rows into `add/expected.json`.

Runs on models/requirements.txt. The graphs are what teams export: scikit-learn's estimators, converted with
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
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
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
    """Writes the graph, and records its outputs for `inputs` by name."""
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


def network(name, nodes, inputs, outputs, weights, feeds, opset={"": 17}):
    graph = make_graph(nodes, name, inputs, outputs, weights)
    imports = [make_opsetid(*item) for item in opset.items()]
    model = make_model(graph, opset_imports=imports, producer_name="make_add.py")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    save(name, model, feeds)


def columns():
    """One input for each column, of two types, as skl2onnx converts a data frame."""
    table = {"length": IRIS[:, :1], "count": (IRIS[:, 2:3] * 10).astype(np.int64)}
    stacked = np.hstack([table["length"], table["count"].astype(np.float32)])
    scale = ColumnTransformer([("both", StandardScaler(), [0, 1])])
    model = make_pipeline(scale, LogisticRegression()).fit(stacked, NAMES)
    types = [("length", FloatTensorType([None, 1])), ("count", Int64TensorType([None, 1]))]
    graph = to_onnx(model, initial_types=types, target_opset=OPSET)
    save("columns", graph, {key: value[ROWS] for key, value in table.items()})


def mixed():
    """Numbers and text, one input for each column, as skl2onnx converts a data frame with several types."""
    cities = np.array([["Rome"], ["Oslo"], ["Lima"]] * 50, object)
    ages = IRIS[:, :1] * 10
    table = np.hstack([ages.astype(object), cities])
    parts = [("age", StandardScaler(), [0]), ("city", OneHotEncoder(sparse_output=False), [1])]
    model = make_pipeline(ColumnTransformer(parts), LogisticRegression()).fit(table, NAMES)
    types = [("age", FloatTensorType([None, 1])), ("city", StringTensorType([None, 1]))]
    graph = to_onnx(model, initial_types=types, target_opset=OPSET)
    save("mixed", graph, {"age": ages[ROWS], "city": cities[ROWS]})


def axes():
    """Graphs whose free axis is not the first, or is free only by declaration."""
    random = np.random.default_rng(2)
    weights = lambda name, *shape: from_array(random.normal(size=shape).astype(np.float32) / 4, name)
    integers = lambda name, *numbers: from_array(np.array(numbers, np.int64), name)
    info, FLOAT, INT64 = make_tensor_value_info, TensorProto.FLOAT, TensorProto.INT64

    network(
        "time-first",
        [make_node("LSTM", ["x", "W", "R"], ["", "h"], hidden_size=4)],
        [info("x", FLOAT, [5, "n", 3])],
        [info("h", FLOAT, [1, "n", 4])],
        [weights("W", 1, 16, 3), weights("R", 1, 16, 4)],
        {"x": random.normal(size=(5, 2, 3)).astype(np.float32).round(2)},
    )
    network(
        "tokens",
        [
            make_node("Gather", ["E", "ids"], ["e"]),
            make_node("Cast", ["mask"], ["m"], to=FLOAT),
            make_node("Unsqueeze", ["m", "last"], ["w"]),
            make_node("Mul", ["e", "w"], ["we"]),
            make_node("ReduceMean", ["we"], ["y"], axes=[1], keepdims=0),
        ],
        [info("ids", INT64, ["batch", "sequence"]), info("mask", INT64, ["batch", "sequence"])],
        [info("y", FLOAT, ["batch", 4])],
        [weights("E", 50, 4), integers("last", 2)],
        {"ids": np.array([[3, 49, 7]]), "mask": np.array([[1, 1, 0]])},
    )
    network(
        "divides",
        [make_node("Div", ["x", "d"], ["y"])],
        [info("x", INT64, ["n"]), info("d", INT64, ["n"])],
        [info("y", INT64, ["n"])],
        [],
        {"x": np.array([7, 9]), "d": np.array([2, 3])},
    )
    network(
        "detections",
        [make_node("NonMaxSuppression", ["boxes", "scores", "most", "overlap"], ["selected"])],
        [info("boxes", FLOAT, [1, "n", 4]), info("scores", FLOAT, [1, 1, "n"])],
        [info("selected", INT64, ["k", 3])],
        [integers("most", 10), from_array(np.array([0.5], np.float32), "overlap")],
        {
            "boxes": np.array([[[0, 0, 1, 1], [0, 0, 1, 0.9], [2, 2, 3, 3]]], np.float32),
            "scores": np.array([[[0.9, 0.8, 0.7]]], np.float32),
        },
    )
    network(
        "fixed-batch",
        [make_node("Reshape", ["x", "four"], ["flat"]), make_node("MatMul", ["flat", "W"], ["y"])],
        [info("x", FLOAT, ["batch", 2, 2])],
        [info("y", FLOAT, [1, 2])],
        [integers("four", 1, 4), weights("W", 4, 2)],
        {"x": np.ones((1, 2, 2), np.float32)},
    )
    network(
        "needs-an-example",
        [
            make_node("Sub", ["x", "thousand"], ["i"]),
            make_node("Gather", ["E", "i"], ["y"]),
        ],
        [info("x", INT64, ["n"])],
        [info("y", FLOAT, ["n", 2])],
        [integers("thousand", 1000), weights("E", 5, 2)],
        {"x": np.array([1003, 1000])},
    )
    network(
        "types",
        [make_node("Not", ["flags"], ["off"]), make_node("Identity", ["small"], ["same"])],
        [
            info("flags", TensorProto.BOOL, ["n", 2]),
            info("small", TensorProto.INT8, ["n"]),
        ],
        [info("off", TensorProto.BOOL, ["n", 2]), info("same", TensorProto.INT8, ["n"])],
        [],
        {"flags": np.array([[True, False]]), "small": np.array([-3], np.int8)},
    )
    network(
        "countries",
        [
            make_node(
                "LabelEncoder",
                ["city"],
                ["country"],
                domain="ai.onnx.ml",
                keys_strings=["Rome", "Oslo"],
                values_strings=["Italy", "Norway"],
                default_string="?",
            )
        ],
        [info("city", TensorProto.STRING, ["n"])],
        [info("country", TensorProto.STRING, ["n"])],
        [],
        {"city": np.array(["Oslo", "Paris"], object)},
        OPSET,
    )


def declared_otherwise():
    """A declared shape that differs from the computed one."""
    info, FLOAT = make_tensor_value_info, TensorProto.FLOAT
    graph = make_graph(
        [make_node("MatMul", ["x", "W"], ["y"])],
        "declared-otherwise",
        [info("x", FLOAT, ["n", 3])],
        [info("y", FLOAT, ["n", 7])],
        [from_array(np.eye(3, 2, dtype=np.float32), "W")],
    )
    model = make_model(graph, opset_imports=[make_opsetid("", 17)])
    model.ir_version = 8
    path = FOLDER / "declared-otherwise.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    print(f"{path.name}: {path.stat().st_size} bytes")


def arrays():
    """Arrays of each type, as NumPy saves them."""
    arrays = {name: np.array([0.5, -2], name) for name in ("float16", "float32", "float64")}
    for bits in (8, 16, 32, 64):
        arrays[f"int{bits}"] = np.array([1, -2], f"int{bits}")
        arrays[f"uint{bits}"] = np.array([1, 200], f"uint{bits}")
    text = np.array(["né", ""])
    arrays |= {
        "big": np.array([0.5, -2], ">f4"),
        "bool": np.array([True, False]),
        "bytes": np.array([b"ab", b"c"]),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "int_big": np.array([1, -2], ">i8"),
        "scalar": np.array(7),
        "text": text,
        "text_big": text.astype(">U2"),
    }
    np.savez_compressed(FOLDER / "example-types.npz", **arrays)


def main():
    FOLDER.mkdir(exist_ok=True)
    # Labels that are strings, in each of the attributes where converters put them.
    scaled = make_pipeline(StandardScaler(), LogisticRegression())
    estimator("strings-linear", scaled, IRIS, NAMES)
    estimator("strings-forest", RandomForestClassifier(5, random_state=1), IRIS, NAMES)
    estimator("strings-bayes", GaussianNB(), IRIS, NAMES)
    # Classes that are numbers other than 0, 1, ...; inputs of FP64, the default of NumPy. (A graph with a
    # ZipMap of FP64 is not valid.)
    numbers = np.array([3, 7, 7])[iris.target]
    tensors = {"zipmap": False}
    estimator("numbers-double", GaussianNB(), iris.data, numbers, tensors)
    estimator("double-sigmoid", LogisticRegression(), iris.data, numbers, tensors)
    columns()
    mixed()
    # Text.
    colours = np.array([["red"], ["green"], ["blue"]] * 50)
    encoded = make_pipeline(OneHotEncoder(), LogisticRegression())
    estimator("strings-input", encoded, colours, iris.target)
    # Scores that are not probabilities.
    estimator("margins", LinearSVC(), IRIS, NAMES)
    estimator("distances", KMeans(3, random_state=1, n_init=1), IRIS, None)
    # One number for each row, and two.
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
    axes()
    declared_otherwise()
    arrays()
    external()
    text = json.dumps(expected, indent=1, sort_keys=True)
    (FOLDER / "expected.json").write_text(text + "\n")


def external():
    """A graph with its weights in another file."""
    path = FOLDER / "external.onnx"
    model = onnx.load(FOLDER / "softmax.onnx")
    onnx.save_model(
        model, path, save_as_external_data=True, location="external.bin", size_threshold=0
    )
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
