"""Shapes and types: indices, free and empty axes, data-dependent shapes, branches."""

import numpy as np
from onnx import TensorProto, helper
from onnx.helper import make_node as node

from kind import F32, f32, kind, one, output_info, waves


def declare():
    for group in [indices, shapes, data_dependent_shapes, logic]:
        group()


def indices():
    table = {"E": waves(5, 3)}
    far = np.array([2, 5])
    gather = [node("Gather", ["E", "x"], ["y"], axis=0)]
    kind(
        "gather",
        "an embedding; negative indices count from the end",
        gather,
        {"x": (["n"], np.array([0, 4, -1, -5]))},
        {"y": ["n", 3]},
        table,
    )
    kind(
        "gather-beyond",
        "an index beyond the table",
        gather,
        {"x": (["n"], far)},
        {"y": ["n", 3]},
        table,
        want="400",
    )
    kind(
        "gather-before",
        "an index before the table",
        gather,
        {"x": (["n"], np.array([-6]))},
        {"y": ["n", 3]},
        table,
        want="400",
    )
    kind(
        "gather-elements-beyond",
        "GatherElements with an index beyond the table",
        [node("GatherElements", ["E", "x"], ["y"], axis=1)],
        {"x": ([5, "k"], np.full((5, 2), 3))},
        {"y": [5, "k"]},
        table,
        want="400",
    )
    kind(
        "gather-nd-beyond",
        "GatherND with an index beyond the table",
        [node("GatherND", ["E", "x"], ["y"])],
        {"x": (["n", 2], np.array([[0, 1], [1, 3]]))},
        {"y": ["n"]},
        table,
        want="400",
    )
    kind(
        "scatter-nd-beyond",
        "ScatterND with an index beyond the table",
        [node("ScatterND", ["E", "x", "u"], ["y"])],
        {"x": (["n", 1], np.array([[9]])), "u": (["n", 3], f32([[1, 2, 3]]))},
        {"y": [5, 3]},
        table,
        want="400",
    )
    kind(
        "scatter-elements-beyond",
        "ScatterElements with an index beyond the table",
        [node("ScatterElements", ["E", "x", "u"], ["y"], axis=0)],
        {"x": ([1, 3], np.array([[0, 7, 1]])), "u": ([1, 3], f32([[1, 2, 3]]))},
        {"y": [5, 3]},
        table,
        want="400",
    )
    kind(
        "scatter-nd-add",
        "a reduction for equal indices",
        [node("ScatterND", ["E", "x", "u"], ["y"], reduction="add")],
        {"x": (["n", 1], np.array([[1], [1]])), "u": (["n", 3], f32([[1, 2, 3], [10, 20, 30]]))},
        {"y": [5, 3]},
        table,
        opset=16,
    )
    kind(
        "gather-nd-batches",
        "batch_dims",
        [node("GatherND", ["x", "i"], ["y"], batch_dims=1)],
        {"x": (["n", 3, 2], waves(2, 3, 2)), "i": (["n", 1], np.array([[2], [0]]))},
        {"y": ["n", 2]},
    )
    kind(
        "one-hot",
        "an index beyond the depth is a row of zeros",
        [node("OneHot", ["x", "depth", "values"], ["y"])],
        {"x": (["n"], np.array([0, 2, -1, 9]))},
        {"y": ["n", 3]},
        {"depth": np.array(3), "values": f32(0, 1)},
    )
    kind(
        "top-k-beyond",
        "more elements than the axis has",
        [node("TopK", ["x", "k"], ["y", "i"])],
        {"x": (["n", 3], waves(2, 3)), "k": ([1], np.array([4]))},
        {"y": ["n", None], "i": (["n", None], TensorProto.INT64)},
        want="400",
    )


def shapes():
    weights = {"P": f32([[0.5, 0.25, 0.125, 0.0625]])}
    wide = {"x": (["n", "l"], waves(1, 6))}
    kind(
        "add-does-not-fit",
        "a width that does not match for Add",
        [node("Add", ["x", "P"], ["y"])],
        wide,
        {"y": ["n", "l"]},
        weights,
        want="400",
    )
    kind(
        "matmul-does-not-fit",
        "a width that does not match for MatMul",
        [node("MatMul", ["x", "W"], ["y"])],
        wide,
        {"y": ["n", 2]},
        {"W": waves(4, 2)},
        want="400",
    )
    kind(
        "reshape-does-not-fit",
        "a size that Reshape cannot use",
        [node("Reshape", ["x", "s"], ["y"])],
        wide,
        {"y": [None, 4]},
        {"s": np.array([-1, 4])},
        want="400",
    )
    kind(
        "concat-does-not-fit",
        "inputs that do not match each other",
        [node("Concat", ["x", "z"], ["y"], axis=1)],
        {"x": (["n", 2], waves(3, 2)), "z": (["m", 2], waves(4, 2))},
        {"y": ["n", 4]},
        want="400",
    )
    kind(
        "positions-too-long",
        "a row longer than the table of positions",
        [
            node("Shape", ["x"], ["s"], start=1, end=2),
            node("Slice", ["P", "o", "s", "a"], ["p"]),
            node("Add", ["x", "p"], ["y"]),
        ],
        wide,
        {"y": ["n", "l"]},
        weights | {"o": np.array([0]), "a": np.array([1])},
        want="400",
    )
    kind(
        "conv-smaller-than-kernel",
        "an image smaller than the kernel",
        [node("Conv", ["x", "w"], ["y"])],
        {"x": (["n", 1, "h", "w"], waves(1, 1, 2, 2))},
        {"y": ["n", 1, None, None]},
        {"w": waves(1, 1, 3, 3)},
        want="400",
    )
    kind(
        "two-free-axes",
        "any number of rows and columns",
        [
            node("Transpose", ["x"], ["t"], perm=[1, 0]),
            node("MatMul", ["x", "t"], ["y"]),
            node("Shape", ["x"], ["size"]),
        ],
        {"x": (["n", "l"], waves(3, 5))},
        {"y": ["n", None], "size": ([2], TensorProto.INT64)},
    )
    kind(
        "shape-arithmetic",
        "a reshape by the input's own shape",
        [
            node("Shape", ["x"], ["s"], start=0, end=1),
            node("Concat", ["s", "rest"], ["target"], axis=0),
            node("Reshape", ["x", "target"], ["r"]),
            node("ReduceMean", ["r"], ["y"], axes=[1], keepdims=0),
        ],
        {"x": (["n", "l", 2], waves(3, 4, 2))},
        {"y": ["n", 2]},
        {"rest": np.array([-1, 2])},
    )
    kind(
        "batch-is-second",
        "a batch axis that is not the first",
        [node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=0)],
        {"x": ([4, "n", 2], waves(4, 3, 2))},
        {"y": ["n", 2]},
    )
    for name, data in [("ten-thousand", np.ones(10_000, F32)), ("twelve", waves(3, 4))]:
        one(
            "Relu",
            "a fixed first axis is not a batch axis",
            data,
            shape=list(data.shape),
            name=f"fixed-first-axis-{name}",
        )
    kind(
        "scalar",
        "a tensor without axes",
        [node("Mul", ["x", "two"], ["y"])],
        {"x": ([], F32(21))},
        {"y": []},
        {"two": F32(2)},
    )
    empty = np.zeros((0, 4), F32)
    for name, nodes, out, constants in [
        ("relu", [node("Relu", ["x"], ["y"])], ["n", 4], {}),
        ("matmul", [node("MatMul", ["x", "w"], ["y"])], ["n", 2], {"w": waves(4, 2)}),
        ("softmax", [node("Softmax", ["x"], ["y"])], ["n", 4], {}),
        (
            "sum",
            [node("ReduceSum", ["x", "zero"], ["y"], keepdims=0)],
            [4],
            {"zero": np.array([0])},
        ),
        ("concat", [node("Concat", ["x", "w"], ["y"], axis=0)], [None, 4], {"w": waves(2, 4)}),
        (
            "gather",
            [node("Shape", ["x"], ["s"]), node("Cast", ["s"], ["y"], to=TensorProto.FLOAT)],
            [2],
            {},
        ),
    ]:
        kind(
            f"empty-{name}",
            "no rows",
            nodes,
            {"x": (["n", 4], empty)},
            {"y": out},
            constants,
            batches=False,
        )


def data_dependent_shapes():
    boxes = f32([[[0, 0, 1, 1], [0, 0, 1, 0.9], [2, 2, 3, 3], [2, 2, 3, 3.1]]])
    limits = {"m": np.array([10]), "i": f32([0.5]), "s": f32([0.25])}
    suppression = [node("NonMaxSuppression", ["boxes", "scores", "m", "i", "s"], ["selected"])]
    for name, scores in [
        ("nms", [[[0.9, 0.8, 0.7, 0.1]]]),
        ("nms-nothing", [[[0.1, 0.1, 0.1, 0.1]]]),
    ]:
        kind(
            name,
            "as many rows as are found, or none",
            suppression,
            {"boxes": ([1, 4, 4], boxes), "scores": ([1, 1, 4], f32(scores))},
            {"selected": (["k", 3], TensorProto.INT64)},
            limits,
        )
    x = f32([[0, 3, 0], [4, 0, 3]])
    one(
        "NonZero",
        "one column for each nonzero element",
        x,
        out=[2, "k"],
        out_type=TensorProto.INT64,
        name="non-zero",
    )
    kind(
        "unique",
        "sorted, with indices",
        [node("Unique", ["x"], ["y", "i", "j", "c"], sorted=1)],
        {"x": (["n", 3], x)},
        {
            "y": ["k"],
            "i": (["k"], TensorProto.INT64),
            "j": (["m"], TensorProto.INT64),
            "c": (["k"], TensorProto.INT64),
        },
    )
    kind(
        "compress",
        "rows by a condition",
        [node("Compress", ["x", "c"], ["y"], axis=0)],
        {"x": (["n", 3], x), "c": (["n"], np.array([False, True]))},
        {"y": ["k", 3]},
    )
    kind(
        "top-k",
        "the smallest elements of unsorted inputs",
        [node("TopK", ["x", "k"], ["y", "i"], largest=0, axis=1)],
        {"x": (["n", 5], waves(2, 5))},
        {"y": ["n", 2], "i": (["n", 2], TensorProto.INT64)},
        {"k": np.array([2])},
    )
    kind(
        "range",
        "the length is an input",
        [node("Range", ["zero", "x", "step"], ["y"])],
        {"x": ([], np.array(9))},
        {"y": (["k"], TensorProto.INT64)},
        {"zero": np.array(0), "step": np.array(2)},
    )


def logic():
    a, b = np.array([[True, False, True]]), np.array([[True, True, False]])
    truth = TensorProto.BOOL
    for op in ["And", "Or", "Xor"]:
        kind(
            f"{op.lower()}",
            "BOOL in and out",
            [node(op, ["a", "b"], ["y"])],
            {"a": (["n", 3], a), "b": (["n", 3], b)},
            {"y": (["n", 3], truth)},
        )
    kind(
        "mask",
        "a BOOL input next to a number",
        [node("Where", ["m", "x", "zero"], ["y"])],
        {"x": (["n", 3], waves(1, 3)), "m": (["n", 3], a)},
        {"y": ["n", 3]},
        {"zero": F32(0)},
    )
    kind(
        "sequence-inside",
        "a sequence within the graph",
        [node("SequenceConstruct", ["x", "x"], ["s"]), node("SequenceAt", ["s", "one"], ["y"])],
        {"x": (["n", 3], waves(2, 3))},
        {"y": ["n", 3]},
        {"one": np.array(1)},
    )
    kind(
        "sequence-of-outputs",
        "a sequence of two tensors is two outputs",
        [node("Neg", ["x"], ["m"]), node("SequenceConstruct", ["x", "m"], ["y"])],
        {"x": (["n", 3], waves(2, 3))},
        {"y": (["n", 3], TensorProto.FLOAT, True)},
    )
    then = helper.make_graph([node("Neg", ["x"], ["t"])], "then", [], [output_info("t", ["n", 3])])
    other = helper.make_graph([node("Abs", ["x"], ["e"])], "else", [], [output_info("e", ["n", 3])])
    kind(
        "if",
        "a branch that depends on the data",
        [
            node("ReduceSum", ["x"], ["s"], keepdims=0),
            node("Greater", ["s", "zero"], ["c"]),
            node("If", ["c"], ["y"], then_branch=then, else_branch=other),
        ],
        {"x": (["n", 3], waves(2, 3))},
        {"y": ["n", 3]},
        {"zero": F32(0)},
    )
    truth_info = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Mul", ["v", "two"], ["w"])],
        "body",
        [
            truth_info("i", TensorProto.INT64, []),
            truth_info("go", truth, []),
            output_info("v", ["n", 3]),
        ],
        [truth_info("on", truth, []), output_info("w", ["n", 3])],
    )
    kind(
        "loop",
        "the number of iterations is an input",
        [node("Loop", ["k", "", "x"], ["y"], body=body)],
        {"x": (["n", 3], waves(2, 3)), "k": ([], np.array(4))},
        {"y": ["n", 3]},
        {"two": F32(2)},
    )
    step = helper.make_graph(
        [node("Add", ["total", "row"], ["sum"]), node("Identity", ["sum"], ["seen"])],
        "step",
        [output_info("total", [3]), output_info("row", [3])],
        [output_info("sum", [3]), output_info("seen", [3])],
    )
    kind(
        "scan",
        "row by row",
        [node("Scan", ["start", "x"], ["last", "y"], body=step, num_scan_inputs=1)],
        {"x": (["n", 3], waves(2, 3))},
        {"last": [3], "y": ["n", 3]},
        {"start": np.zeros(3, F32)},
    )
