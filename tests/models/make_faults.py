#!/usr/bin/env python3
"""Writes graphs that fail on some input values, and one that may never end, into the folder `faults`.

Runs on models/requirements.txt.
"""

from pathlib import Path

import numpy as np
from onnx import TensorProto, checker
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array

FOLDER = Path(__file__).resolve().parent / "faults"
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def info(name, element_type, shape):
    return make_tensor_value_info(name, element_type, shape)


def save(name, nodes, inputs, outputs, constants=()):
    graph = make_graph(nodes, name, inputs, outputs, [from_array(v, n) for n, v in constants])
    model = make_model(
        graph,
        opset_imports=[make_opsetid("", 17)],
        producer_name="spinfer tests/models/make_faults.py",
    )
    model.ir_version = 8
    checker.check_model(model, full_check=True)
    data = model.SerializeToString(deterministic=True)
    (FOLDER / f"{name}.onnx").write_bytes(data)
    print(f"{name}.onnx: {len(data)} bytes")


FOLDER.mkdir(exist_ok=True)

# Rows of a table with four rows: any other index is out of range.
save(
    "gather",
    [make_node("Gather", ["table", "index"], ["y"])],
    [info("index", INT64, ["n"])],
    [info("y", FLOAT, ["n", 2])],
    [("table", np.array([[31337.25, 1], [2, 3], [4, 5], [6, 7]], np.float32))],
)

# Fails on zero, and on the one quotient that INT64 cannot represent.
save(
    "divide",
    [make_node("Div", ["a", "b"], ["y"])],
    [info("a", INT64, ["n"]), info("b", INT64, ["n"])],
    [info("y", INT64, ["n"])],
)

# Two lengths that are not declared to be equal.
save(
    "add",
    [make_node("Add", ["a", "b"], ["y"])],
    [info("a", FLOAT, ["n"]), info("b", FLOAT, ["m"])],
    [info("y", FLOAT, ["k"])],
)

# The number of iterations is an input.
save(
    "loop",
    [
        make_node("Squeeze", ["trips"], ["count"]),
        make_node(
            "Loop",
            ["count", "true", "start"],
            ["y"],
            body=make_graph(
                [
                    make_node("Identity", ["goes_on"], ["goes_on_still"]),
                    make_node("Add", ["sum", "one"], ["next_sum"]),
                ],
                "body",
                [info("round", INT64, []), info("goes_on", BOOL, []), info("sum", INT64, [1])],
                [info("goes_on_still", BOOL, []), info("next_sum", INT64, [1])],
            ),
        ),
    ],
    [info("trips", INT64, [1])],
    [info("y", INT64, [1])],
    [
        ("true", np.array(True)),
        ("start", np.array([0], np.int64)),
        ("one", np.array([1], np.int64)),
    ],
)

# The sum over time, which is the first axis; the batch axis is the second.
save(
    "time-major",
    [make_node("ReduceSum", ["x", "time"], ["y"], keepdims=0)],
    [info("x", FLOAT, ["time", "batch", 2])],
    [info("y", FLOAT, ["batch", 2])],
    [("time", np.array([0], np.int64))],
)
