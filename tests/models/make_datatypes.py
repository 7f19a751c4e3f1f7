#!/usr/bin/env python3
"""Writes the models of the tests of datatypes and axes into the folder `datatypes`: small graphs with their
model.toml, as in a model repository.

Runs on models/requirements.txt.
"""

from hashlib import sha256
from pathlib import Path

from onnx import TensorProto, checker
from onnx.helper import (
    make_graph,
    make_model,
    make_node,
    make_opsetid,
    make_tensor,
    make_tensor_value_info,
)

FOLDER = Path(__file__).resolve().parent / "datatypes"
OPSETS = [make_opsetid("", 17), make_opsetid("ai.onnx.ml", 3)]
ML = {"domain": "ai.onnx.ml"}
DATATYPES = {
    TensorProto.BOOL: "BOOL",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.STRING: "BYTES",
    TensorProto.FLOAT: "FP32",
    TensorProto.INT64: "INT64",
}
PACKED = list(DATATYPES)[:7]


def save(name, nodes, inputs, outputs, constants=(), keys=""):
    """`keys`: the keys of each input and output in model.toml."""
    of_graph = [[make_tensor_value_info(*tensor) for tensor in some] for some in (inputs, outputs)]
    graph = make_graph(nodes, name, *of_graph, list(constants))
    model = make_model(graph, opset_imports=OPSETS, ir_version=8, producer_name="spinfer")
    checker.check_model(model)
    content = model.SerializeToString(deterministic=True)
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    text = f'name = "{name}"\nversion = "1"\nsha256 = "{sha256(content).hexdigest()}"\n'
    for table, tensors in ("inputs", inputs), ("outputs", outputs):
        for tensor, datatype, shape in tensors:
            axes = [-1 if isinstance(axis, str) else axis for axis in shape]
            text += f'\n[[{table}]]\nname = "{tensor}"\ndatatype = "{DATATYPES[datatype]}"\n'
            text += f"shape = {axes}\n{keys}"
    (folder / "model.toml").write_text(text)


def tensors(name):
    return [(f"{name}{index}", datatype, ["n", 1]) for index, datatype in enumerate(PACKED)]


save(
    "echo",
    [make_node("Identity", [f"x{index}"], [f"y{index}"]) for index in range(len(PACKED))],
    tensors("x"),
    tensors("y"),
)
save(
    "mixed",
    [
        make_node(
            "LabelEncoder", ["city"], ["code"], keys_strings=["Rome", "Oslo"],
            values_floats=[10.0, 20.0], default_float=-1.0, **ML,
        ),
        make_node("Cast", ["n"], ["number"], to=TensorProto.FLOAT),
        make_node("Sum", ["age", "code", "number"], ["y"]),
    ],
    [
        ("age", TensorProto.FLOAT, ["n", 1]),
        ("city", TensorProto.STRING, ["n", 1]),
        ("n", TensorProto.INT16, ["n", 1]),
    ],
    [("y", TensorProto.FLOAT, ["n", 1])],
)
save(
    "words",
    [
        make_node(
            "LabelEncoder", ["word"], ["label"], keys_strings=["a", "b"],
            values_strings=["first", "second"], default_string="other", **ML,
        )
    ],
    [("word", TensorProto.STRING, ["n"])],
    [("label", TensorProto.STRING, ["n"])],
)
save(
    "columns-of-rows",
    [make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)],
    [("x", TensorProto.FLOAT, [2, "n"])],
    [("y", TensorProto.FLOAT, [1, "n"])],
    [make_tensor("axes", TensorProto.INT64, [1], [0])],
    keys="batch_axis = 1\n",
)
save(
    "fixed",
    [make_node("Relu", ["x"], ["y"])],
    [("x", TensorProto.FLOAT, [10000])],
    [("y", TensorProto.FLOAT, [10000])],
)
save(
    "non-zero",
    [make_node("NonZero", ["x"], ["y"])],
    [("x", TensorProto.FLOAT, ["n", 2])],
    [("y", TensorProto.INT64, [2, "k"])],
)
save(
    "gather",
    [make_node("Gather", ["table", "x"], ["y"], axis=0)],
    [("x", TensorProto.INT64, ["n"])],
    [("y", TensorProto.FLOAT, ["n", 3])],
    [make_tensor("table", TensorProto.FLOAT, [5, 3], [0.5] * 15)],
)
save(
    "scalar",
    [make_node("Not", ["x"], ["y"])],
    [("x", TensorProto.BOOL, [])],
    [("y", TensorProto.BOOL, [])],
)
